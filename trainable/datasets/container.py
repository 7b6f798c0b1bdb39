"""Dataset: what every dataset is read into."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from trainable.errors import BadInput, listed


@dataclass(frozen=True)
class Split:
    """Images of one purpose. `labels` are -1 where nobody knows them."""

    images: np.ndarray  # uint8 [n, channels, height, width]
    labels: np.ndarray  # int64 [n]
    ids: np.ndarray  # int64 or unicode [n], unique within the split

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> "Split":
        return Split(self.images[rows], self.labels[rows], self.ids[rows])


@dataclass(frozen=True)
class Competition:
    """Where predictions are scored: Kaggle's name of it, and a metric of competition.METRICS."""

    slug: str
    metric: str = "accuracy"


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
    id_column: str = "ImageId"  # the two columns of a submission
    label_column: str = "Label"
    competition: Competition | None = None
    val_given: bool = False  # by the user, who may know what train and val must not share: it is never trained on

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


def all_labels(data: Dataset) -> Dataset:
    """With val back in train, so that nothing is left to choose by; test stays apart."""
    whole = Split(*(np.concatenate([getattr(data.train, a), getattr(data.val, a)]) for a in ("images", "labels", "ids")))
    return replace(data, train=whole, val=nothing(whole))


def in_folds(data: Dataset) -> Split:
    """Return the images that folds are cut from: train, and with it a val that was cut from it."""
    return data.train if data.val_given else all_labels(data).train


def judging(data: Dataset) -> Split:
    """Return the images that judge finalists: a val that the user gave, else those of all folds."""
    return data.val if data.val_given else in_folds(data)


def as_recorded(data: Dataset, about: Mapping) -> Dataset:
    """Return the data as the finalists of a sweep had them.

    Args:
        about: `data` of its sweep.json. Sweeps that do not say `val_given` have trained finalists on a val
            that the user gave, and are judged out of fold.
    """
    given = data.val_given and bool(about.get("val_given"))
    return data if given == data.val_given else replace(data, val_given=given)


def folds_of(labels: np.ndarray, folds: int) -> np.ndarray:
    """Which fold each image is in, int64 [n]: equally large, each class spread evenly; the same at every call."""
    rng = np.random.default_rng(0)
    by_class = np.concatenate([rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    out = np.empty(len(labels), dtype=np.int64)
    out[by_class] = np.arange(len(labels)) % folds
    return out


def of_fold(data: Dataset, folds: int, fold: int) -> Dataset:
    """Cut the images `in_folds` anew: the `fold` is left out of train and is val. No folds: as it is.

    A val that the user gave stays val, and the fold is left out all the same.

    Raises:
        BadInput: there are fewer images than folds.
    """
    if not folds:
        return data
    pool = in_folds(data)
    if len(pool) < folds:
        raise BadInput(f"folds is {folds}, and there are {len(pool)} labelled images; take fewer folds")
    held = folds_of(pool.labels, folds) == fold
    val = data.val if data.val_given else pool.take(np.flatnonzero(held))
    return replace(data, train=pool.take(np.flatnonzero(~held)), val=val)


SURE = 0.95


def with_unlabelled(data: Dataset, probs: np.ndarray) -> Dataset:
    """With those unlabelled images in train, too, of whose label other networks are SURE at least (pseudo-labels, Lee 2013).

    Args:
        probs: what they say of the unlabelled images, [n, classes].
    """
    sure = np.flatnonzero(probs.max(axis=1) >= SURE)
    more = data.unlabelled.take(sure)
    taught = Split(more.images, probs[sure].argmax(axis=1).astype(data.train.labels.dtype), more.ids)
    joined = (np.concatenate([getattr(data.train, a), getattr(taught, a)]) for a in ("images", "labels", "ids"))
    return replace(data, train=Split(*joined))


def held_out(labels: np.ndarray, share: float, names: Sequence, seed: int = 0) -> np.ndarray:
    """Which of the images to hold out, bool [n]: of each class this share and at least one; the same at every call.

    Raises:
        BadInput: a class has fewer than two images; the message has its name from `names`.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(names):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise BadInput(f"class {name} has {len(rows)} labelled images; each class needs at least 2, one to hold out")
        held[rng.permutation(rows)[: max(1, round(share * len(rows)))]] = True
    return held


def cut(labelled: Split, share: float, classes: int, seed: int = 0) -> tuple[Split, Split]:
    """Cut a stratified share off: (the rest, the share), both in their first order. Raises BadInput as `held_out` does."""
    held = held_out(labelled.labels, share, range(classes), seed)
    return labelled.take(np.flatnonzero(~held)), labelled.take(np.flatnonzero(held))


def share_of_val(images: int) -> float:
    """What to hold out of so many labelled images of the user's own."""
    return 0.15 if images < 20_000 else 0.1


def naturally(text: str) -> tuple:
    """A sort key: image2 before image10, upper and lower case together."""
    return ([int(part) if i % 2 else part.casefold() for i, part in enumerate(re.split("([0-9]+)", text))], text)


def slug(text: str) -> str:
    """`text` as a part of a file name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "images"


def numbers(labels: Sequence[str], classes: Sequence[str], where: str) -> np.ndarray:
    """int64 [n]: each label's place in `classes`, -1 for "". Raises BadInput for a class that is not among them."""
    places = {"": -1} | {name: place for place, name in enumerate(classes)}
    strange = sorted(set(labels) - places.keys(), key=naturally)
    if strange:
        raise BadInput(f"{where} has a class {strange[0]!r} that train has not; train's are {listed(classes, strange[0])}")
    return np.array([places[label] for label in labels], dtype=np.int64)
