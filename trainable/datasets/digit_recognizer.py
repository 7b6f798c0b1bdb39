"""Kaggle's Digit Recognizer: 42,000 labelled digits of 28x28 pixels and 28,000 to predict.

Read from `digit-recognizer.zip` as Kaggle delivers it, or from `train.csv` and `test.csv`. The 28,000 are the
test: their labels are Kaggle's alone, so none of the 42,000 is put aside as a second one.
"""

import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from trainable import reading
from trainable.datasets import tables
from trainable.datasets.cache import cached, stamps
from trainable.datasets.competition import parse_sample
from trainable.datasets.container import Competition, Dataset, Split, cut, nothing
from trainable.errors import BadInput

COMPETITION = Competition("digit-recognizer")
FILES = ("digit-recognizer.zip", "train.csv")
SAMPLE = "sample_submission.csv"
SIDE = 28
VAL = 0.1
FORMAT = 1  # of the cache: count up when what is cached changes
PIXELS = [f"pixel{i}" for i in range(SIDE * SIDE)]


def find(data: Path) -> str | None:
    """The file it would be read from."""
    return next((name for name in FILES if os.path.lexists(data / name)), None)


def load(data: Path) -> Dataset:
    """Raises BadInput if a file is missing, cut short, or has other columns, pixels or labels than Kaggle's."""
    found = find(data)
    if not found:
        raise BadInput(
            f"digit-recognizer needs {data / FILES[0]} or {data / FILES[1]} and test.csv; "
            "`python sweeps/download.py` brings the zip"
        )
    sources = [found] if found.endswith(".zip") else ["train.csv", "test.csv"]
    try:
        key = (FORMAT, stamps(data, sources))
    except OSError as wrong:
        if isinstance(wrong, FileNotFoundError) and len(sources) > 1:
            raise BadInput(f"{wrong.filename} is missing; train.csv and test.csv belong together") from wrong
        raise BadInput(f"cannot read {wrong.filename}: {wrong.strerror}") from wrong
    arrays = cached(data, "digit-recognizer", key, lambda: _parse([data / source for source in sources]))
    labelled = Split(_images(arrays["train"]), arrays["labels"], np.arange(1, len(arrays["labels"]) + 1))
    train, val = cut(labelled, VAL, classes=10)
    count = len(arrays["test"])
    unlabelled = Split(_images(arrays["test"]), np.full(count, -1), np.arange(1, count + 1))
    return Dataset("digit-recognizer", tuple("0123456789"), train, val, nothing(val), unlabelled, competition=COMPETITION)


def _images(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 1, SIDE, SIDE)


def _parse(sources: list[Path]) -> dict[str, np.ndarray]:
    if sources[0].suffix == ".zip":
        with _unzipped(sources[0]) as tables_of:
            return _read(*tables_of)
    train, test = sources
    with tables.opened(train) as labelled, tables.opened(test) as asked:
        return _read(labelled, asked)


def _read(labelled: tables.Table, asked: tables.Table, sample: tuple | None = None) -> dict[str, np.ndarray]:
    pixels = dict.fromkeys(PIXELS, 255)
    _, train = _columns(labelled, ["label", *PIXELS]).read(numbers={"label": 9, **pixels})
    _, test = _columns(asked, PIXELS).read(numbers=pixels)
    if sample and sample[1] != (("ImageId", "Label"), [str(i + 1) for i in range(len(test))]):
        raise BadInput(f"{sample[0]} should have ImageId, from 1 to {len(test)}, and Label")
    return {"labels": train[:, 0].astype(np.int64), "train": np.ascontiguousarray(train[:, 1:]), "test": test}


def _columns(table: tables.Table, columns: list[str]) -> tables.Table:
    """The table, if these are its columns."""
    if table.columns != columns:
        raise BadInput(
            f"{table.name} has {len(table.columns)} columns, {table.columns[0]} to {table.columns[-1]}; "
            f"it should have {len(columns)}, {columns[0]} to {columns[-1]}"
        )
    return table


def check(path: Path):
    """Raises BadInput unless `path` is the competition's archive as Kaggle delivers it, whole."""
    _parse([path])
    with reading.archive(path) as archive:
        if SAMPLE not in archive.namelist():
            raise BadInput(f"{path} has no {SAMPLE} in it; download it again")


@contextmanager
def _unzipped(path: Path) -> Iterator[tuple]:
    """train.csv, test.csv and, where it is there, the sample submission (its name, and what it says), while the file is open."""
    try:
        with reading.archive(path) as archive, ExitStack() as stack:
            files = []
            for name in ("train.csv", "test.csv"):
                size = archive.getinfo(name).file_size
                files.append(tables.Table(stack.enter_context(archive.open(name)), f"{path.name}:{name}", size))
            if SAMPLE in archive.namelist():
                about = archive.getinfo(SAMPLE)
                name = f"{path.name}:{SAMPLE}"
                files.append((name, parse_sample(stack.enter_context(archive.open(about)), name, about.file_size)))
            yield tuple(files)
    except KeyError as missing:
        raise BadInput(f"{path} has no train.csv and test.csv in it: {missing.args[0]}") from missing
    except OSError as wrong:
        raise BadInput(f"cannot read {path}: {wrong.strerror or wrong}") from wrong
    except zipfile.BadZipFile as wrong:
        raise BadInput(f"{path} is not a whole zip file ({wrong}); download it again") from wrong
