"""DATASETS: every dataset by name.

An entry, a module, has load(data): the Dataset, from the folder `data`.
"""

from pathlib import Path

from trainable.datasets import digit_recognizer, digits_sample
from trainable.datasets.container import Dataset, Split
from trainable.errors import lookup

DATASETS = {
    "digit-recognizer": digit_recognizer,
    "digits-sample": digits_sample,
}

DATA = Path(__file__).resolve().parents[2] / "data"

__all__ = ["DATA", "DATASETS", "Dataset", "Split", "default_dataset", "load"]


def load(name: str, data: Path | None = None) -> Dataset:
    """Read a dataset from the folder `data`, by default the project's.

    Raises:
        BadInput: no such dataset, or its files are missing or wrong.
    """
    return lookup(DATASETS, name, "dataset").load(data or DATA)


def default_dataset(data: Path | None = None) -> tuple[str, str]:
    """The dataset to take when none was named, and why."""
    data = data or DATA
    found = digit_recognizer.find(data)
    if found:
        return "digit-recognizer", f"{data.name}/{found} is there"
    return "digits-sample", f"neither {' nor '.join(f'{data.name}/{f}' for f in digit_recognizer.FILES)} is there"
