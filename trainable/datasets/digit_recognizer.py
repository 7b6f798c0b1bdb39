"""Kaggle's Digit Recognizer: 42,000 labelled digits of 28x28 pixels and 28,000 to predict.

Read from `digit-recognizer.zip` as Kaggle delivers it, or from `train.csv` and `test.csv`. The 28,000 are the
test: their labels are Kaggle's alone, so none of the 42,000 is put aside as a second one.
"""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from trainable.datasets import tables
from trainable.datasets.cache import cached, stamps
from trainable.datasets.competition import read_sample
from trainable.datasets.container import Competition, Dataset, Split, cut, nothing
from trainable.datasets.tables import LARGEST
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
    return next((name for name in FILES if (data / name).exists()), None)


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
    except FileNotFoundError as missing:
        raise BadInput(f"{missing.filename} is missing; train.csv and test.csv belong together") from missing
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
        train, test, sample = _unzip(sources[0])
    else:
        train, test = sources
        sample = None
    labelled = _table(train, ["label", *PIXELS])
    asked = _table(test, PIXELS)
    if sample and read_sample(sample) != (("ImageId", "Label"), [str(i + 1) for i in range(asked.num_rows)]):
        raise BadInput(f"{tables.name_of(sample)} should have ImageId, from 1 to {asked.num_rows}, and Label")
    return {
        "labels": tables.integers(labelled["label"], 9, f"{tables.name_of(train)}, label").astype(np.int64),
        "train": tables.pixels(labelled, PIXELS, tables.name_of(train)),
        "test": tables.pixels(asked, PIXELS, tables.name_of(test)),
    }


def _table(source: Path | io.BytesIO, columns: list[str]) -> pa.Table:
    table = tables.read(source)
    if table.column_names != columns:
        raise BadInput(
            f"{tables.name_of(source)} has {table.num_columns} columns, {table.column_names[0]} to {table.column_names[-1]}; "
            f"it should have {len(columns)}, {columns[0]} to {columns[-1]}"
        )
    return table


def check(path: Path):
    """Raises BadInput unless `path` is the competition's archive as Kaggle delivers it, whole."""
    _parse([path])
    if not _unzip(path)[2]:
        raise BadInput(f"{path} has no {SAMPLE} in it; download it again")


def _unzip(path: Path) -> tuple[io.BytesIO, io.BytesIO, io.BytesIO | None]:
    """train.csv, test.csv and, where it is there, the sample submission."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = []
            for name in ("train.csv", "test.csv", *({SAMPLE} & set(archive.namelist()))):
                if archive.getinfo(name).file_size > LARGEST:
                    raise BadInput(f"{name} in {path} would unpack to over {LARGEST >> 30} GiB; Kaggle's has 77 MB")
                file = io.BytesIO(archive.read(name))
                file.name = f"{path.name}:{name}"
                files.append(file)
            return files[0], files[1], files[2] if len(files) > 2 else None
    except KeyError as missing:
        raise BadInput(f"{path} has no train.csv and test.csv in it: {missing.args[0]}") from missing
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as wrong:  # RuntimeError: with a password
        raise BadInput(f"{path} is not a whole zip file ({wrong}); download it again") from wrong
