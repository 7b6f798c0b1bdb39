"""DATASETS: every dataset by name; READERS: every kind that is read from a path, as in folder:PATH.

An entry of DATASETS has load(data): the Dataset, from the folder `data`, downloaded into it if need be. One of READERS
has load(path, data, image_size, channels).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torchvision import datasets as torchvision_datasets

from trainable.datasets import cifar, csv_file, digit_recognizer, digits_sample, folder, svhn
from trainable.datasets.container import Dataset, Split
from trainable.datasets.leak import refuse_leak
from trainable.datasets.mnist import Emnist, Mnist
from trainable.datasets.shape import reshape
from trainable.errors import BadInput, meant, short

DATASETS = {
    "digit-recognizer": digit_recognizer,
    "digits-sample": digits_sample,
    "mnist": Mnist("mnist", torchvision_datasets.MNIST, tuple("0123456789")),
    "fashion-mnist": Mnist("fashion-mnist", torchvision_datasets.FashionMNIST, tuple(torchvision_datasets.FashionMNIST.classes)),
    "kmnist": Mnist("kmnist", torchvision_datasets.KMNIST, tuple(torchvision_datasets.KMNIST.classes)),
    "emnist": Emnist(),
    "cifar10": cifar.CIFAR10,
    "cifar100": cifar.CIFAR100,
    "svhn": svhn,
}
READERS = {
    "folder": folder,
    "csv": csv_file,
}

DATA = Path(__file__).resolve().parents[2] / "data"

__all__ = ["DATA", "DATASETS", "READERS", "Dataset", "Split", "default_dataset", "find", "known", "load", "refuse_leak"]


def known() -> str:
    """What `load` takes, for people."""
    return ", ".join([*DATASETS, *(f"{kind}:PATH" for kind in READERS)])


def find(name: str) -> Callable[[Path, int | tuple[int, int] | None, int | None], Dataset]:
    """What reads the dataset `name`. Raises BadInput if there is no such name; the files are not looked at."""
    try:
        str(name).encode()
    except UnicodeEncodeError as wrong:
        named = short(repr(name))
        raise BadInput(f"dataset {named} is not UTF-8; rename its folder or file") from wrong
    kind, colon, path = str(name).partition(":")
    if colon and path and kind in READERS:
        return partial(READERS[kind].load, path)
    if name not in DATASETS:
        raise BadInput(f"unknown dataset {short(repr(name))}; known: {known()}{meant(name, DATASETS)}")
    return lambda data, image_size, channels: reshape(DATASETS[name].load(data), image_size, channels)


def load(
    name: str, data: Path | None = None, image_size: int | tuple[int, int] | None = None, channels: int | None = None
) -> Dataset:
    """Read a dataset; `data`, by default the project's, is the folder for its files and the cache.

    Args:
        image_size: a side, or (height, width), in pixels, 4 to 1024; None takes the dataset's own.
        channels: 1 (grey), 3 (colour) or None for the dataset's own.

    Raises:
        BadInput: no such dataset, its files are missing or wrong, or a shape that cannot be.
    """
    return find(name)(data or DATA, image_size, channels)


def default_dataset(data: Path | None = None) -> tuple[str, str]:
    """The dataset to take when none was named, and why."""
    data = data or DATA
    found = digit_recognizer.find(data)
    if found:
        return "digit-recognizer", f"{data.name}/{found} is there"
    return "digits-sample", f"neither {' nor '.join(f'{data.name}/{f}' for f in digit_recognizer.FILES)} is there"
