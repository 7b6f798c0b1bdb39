"""CIFAR-10 and CIFAR-100, 32x32 pixels, colour, in their binary form: torchvision's is a pickle.

The format: www.cs.toronto.edu/~kriz/cifar.html. An image is a row: its label (CIFAR-100: the coarse one, then the fine
one), then 1,024 bytes each of red, green and blue.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainable.datasets.container import Dataset
from trainable.datasets.downloads import dataset, fetch

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Cifar:
    name: str
    url: str
    md5: str
    train: tuple[str, ...]  # files in the archive
    test: tuple[str, ...]
    names: str
    labels: int  # bytes of labels before an image; the last is the class

    def load(self, data: Path) -> Dataset:
        """Raises BadInput if the file is damaged or cannot be downloaded."""
        return dataset(data, self.name, [self.md5], self._read)

    def _read(self, folder: Path) -> dict[str, np.ndarray]:
        wanted = {*self.train, *self.test, self.names}
        with tarfile.open(fetch(folder, [self.url], self.md5)) as archive:
            files = {m.name: archive.extractfile(m).read() for m in archive if m.name in wanted}  # in their order: gzip
        arrays = {"classes": np.array(files[self.names].decode().split())}
        for split, names in (("train", self.train), ("test", self.test)):
            rows = np.frombuffer(b"".join(files[name] for name in names), np.uint8).reshape(-1, self.labels + np.prod(SHAPE))
            arrays[f"{split}_labels"] = rows[:, self.labels - 1]
            arrays[f"{split}_images"] = rows[:, self.labels :].reshape(-1, *SHAPE)
        return arrays


CIFAR10 = Cifar(
    "cifar10",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
    ("cifar-10-batches-bin/test_batch.bin",),
    "cifar-10-batches-bin/batches.meta.txt",
    labels=1,
)
CIFAR100 = Cifar(
    "cifar100",
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
    ("cifar-100-binary/train.bin",),
    ("cifar-100-binary/test.bin",),
    "cifar-100-binary/fine_label_names.txt",
    labels=2,
)
