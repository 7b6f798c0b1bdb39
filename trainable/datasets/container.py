"""Dataset: what every dataset is read into."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainable.errors import BadInput


@dataclass(frozen=True)
class Split:
    """Images of one purpose. `labels` are -1 where nobody knows them."""

    images: np.ndarray  # uint8 [n, channels, height, width]
    labels: np.ndarray  # int64 [n]
    ids: np.ndarray  # int64 [n], unique within the split

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> "Split":
        return Split(self.images[rows], self.labels[rows], self.ids[rows])


@dataclass(frozen=True)
class Dataset:
    """A classification problem.

    `train` is trained on, `val` is held out to choose, `test` is never used to choose anything and scored once.
    `unlabelled` are the images a submission is about.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    unlabelled: Split

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return self.train.images.shape[1:]

    @cached_property
    def mean(self) -> list[float]:
        """Of the training images, a channel, with pixels in [0, 1]."""
        return [float(m) for m in self._moments[0]]

    @cached_property
    def std(self) -> list[float]:
        """Likewise; 1 where a channel never varies."""
        return [float(s) if s > 0 else 1.0 for s in self._moments[1]]

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        # From the 256 counts of pixel values: no float copy of the images is made.
        counts = np.stack([np.bincount(self.train.images[:, c].ravel(), minlength=256) for c in range(self.in_shape[0])])
        share, value = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
        mean = share @ value
        return mean, np.sqrt(np.maximum(share @ value**2 - mean**2, 0))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every array, in hex: two datasets are the same if and only if this is."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        for split in (self.train, self.val, self.test, self.unlabelled):
            for array in (split.images, split.labels, split.ids):
                digest.update(repr((array.shape, str(array.dtype))).encode())
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def nothing(like: Split) -> Split:
    """An empty split of the same shape."""
    return like.take(np.arange(0))


def cut(labelled: Split, share: float, classes: int, seed: int = 0) -> tuple[Split, Split]:
    """Cut a stratified share off: (the rest, the share), both in their first order, the same at every call.

    Raises:
        BadInput: a class has fewer than two images.
    """
    rng = np.random.default_rng(seed)
    off = []
    for label in range(classes):
        rows = np.flatnonzero(labelled.labels == label)
        if len(rows) < 2:
            raise BadInput(f"class {label} has {len(rows)} labelled images; each class needs at least 2, one to hold out")
        off.append(rng.permutation(rows)[: max(1, round(share * len(rows)))])
    held = np.zeros(len(labelled), dtype=bool)
    held[np.concatenate(off)] = True
    return labelled.take(np.flatnonzero(~held)), labelled.take(np.flatnonzero(held))
