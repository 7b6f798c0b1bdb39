"""MNIST and the datasets in its format: 28x28 pixels, grey, in idx files. MNIST and EMNIST: see leak.py.

torchvision's classes give the addresses and md5 sums. They do not read the files: where they find a pickle they load it.
"""

import gzip
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision import datasets

from trainable.datasets.container import Dataset
from trainable.datasets.downloads import dataset, fetch

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Mnist:
    """Four idx files, each compressed by itself."""

    name: str
    source: type[datasets.MNIST]
    classes: tuple[str, ...]

    def load(self, data: Path) -> Dataset:
        """Raises BadInput if a file is damaged or cannot be downloaded."""
        return dataset(data, self.name, [md5 for _, md5 in self.source.resources], self._read)

    def _read(self, folder: Path) -> dict[str, np.ndarray]:
        arrays = {"classes": np.array(self.classes)}
        for what, (file, md5) in zip(ARRAYS, self.source.resources, strict=True):
            path = fetch(folder, [mirror + file for mirror in self.source.mirrors], md5)
            arrays[what] = idx(gzip.decompress(path.read_bytes()))
        return arrays


@dataclass(frozen=True)
class Emnist:
    """One zip with every split of EMNIST. "balanced" is read: 47 classes of digits and letters, each as large."""

    name: str = "emnist"
    source: type[datasets.EMNIST] = datasets.EMNIST

    def load(self, data: Path) -> Dataset:
        """Raises BadInput if the file is damaged or cannot be downloaded."""
        return dataset(data, self.name, [self.source.md5], self._read)

    def _read(self, folder: Path) -> dict[str, np.ndarray]:
        arrays = {"classes": np.array(self.source.classes_split_dict["balanced"])}
        with zipfile.ZipFile(fetch(folder, [self.source.url], self.source.md5)) as archive:
            for what, kind in zip(ARRAYS, ("images-idx3", "labels-idx1") * 2, strict=True):
                file = f"gzip/emnist-balanced-{what.partition('_')[0]}-{kind}-ubyte.gz"
                arrays[what] = idx(gzip.decompress(archive.read(file)))
        for what in ARRAYS[::2]:
            arrays[what] = np.ascontiguousarray(arrays[what].swapaxes(2, 3))  # they lie there on their side
        return arrays


def idx(raw: bytes) -> np.ndarray:
    """The array of bytes in an idx file (yann.lecun.com/exdb/mnist); images as [n, 1, height, width]."""
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    array = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape).copy()
    return array[:, None] if array.ndim == 3 else array
