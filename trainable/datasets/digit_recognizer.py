"""Kaggle's Digit Recognizer: 42,000 labelled digits of 28x28 pixels and 28,000 to predict.

Read from `digit-recognizer.zip` as Kaggle delivers it, or from `train.csv` and `test.csv`. The 28,000 are the
test: their labels are Kaggle's alone, so none of the 42,000 is put aside as a second one.
"""

import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pyarrow import compute

from trainable.datasets.container import Dataset, Split, cut, nothing
from trainable.errors import BadInput

FILES = ("digit-recognizer.zip", "train.csv")
SIDE = 28
VAL = 0.1
FORMAT = 1  # of the cache: count up when what is cached changes
LARGEST = 1 << 30  # bytes one CSV may unpack to; Kaggle's has 77 million


def find(data: Path) -> str | None:
    """The file it would be read from."""
    return next((name for name in FILES if (data / name).exists()), None)


def load(data: Path) -> Dataset:
    """Raises BadInput if a file is missing, cut short, or has other columns, pixels or labels than Kaggle's."""
    found = find(data)
    if not found:
        raise BadInput(
            f"digit-recognizer needs {data / FILES[0]} or {data / FILES[1]} and test.csv; "
            "`kaggle competitions download digit-recognizer -p data` brings the zip"
        )
    sources = [data / found] if found.endswith(".zip") else [data / "train.csv", data / "test.csv"]
    arrays = _cached(data, sources)
    labelled = Split(_images(arrays["train"]), arrays["labels"], np.arange(1, len(arrays["labels"]) + 1))
    train, val = cut(labelled, VAL, classes=10)
    count = len(arrays["test"])
    unlabelled = Split(_images(arrays["test"]), np.full(count, -1), np.arange(1, count + 1))
    return Dataset("digit-recognizer", tuple("0123456789"), train, val, nothing(val), unlabelled)


def _images(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 1, SIDE, SIDE)


def _cached(data: Path, sources: list[Path]) -> dict[str, np.ndarray]:
    """The parsed arrays, kept in `data/.cache` for as long as the sources have the same size and time."""
    try:
        stamps = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sources]
    except FileNotFoundError as missing:
        raise BadInput(f"{missing.filename} is missing; train.csv and test.csv belong together") from missing
    key = hashlib.sha256(repr((FORMAT, stamps)).encode()).hexdigest()[:16]
    path = data / ".cache" / f"digit-recognizer-{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # not there, or not whole: read the sources
    arrays = _parse(sources)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a read-only or full data folder only costs the next start its speed
    return arrays


def _parse(sources: list[Path]) -> dict[str, np.ndarray]:
    if sources[0].suffix == ".zip":
        train, test = _unzip(sources[0])
    else:
        train, test = sources
    labelled = _table(train, ["label", *_pixel_columns()])
    labels = _integers(labelled["label"], 9, f"{_name(train)}, label").astype(np.int64)
    return {
        "labels": labels,
        "train": _pixels(labelled.drop_columns(["label"]), train),
        "test": _pixels(_table(test, _pixel_columns()), test),
    }


def _unzip(path: Path) -> tuple[io.BytesIO, io.BytesIO]:
    try:
        with zipfile.ZipFile(path) as archive:
            files = []
            for name in ("train.csv", "test.csv"):
                if archive.getinfo(name).file_size > LARGEST:
                    raise BadInput(f"{name} in {path} would unpack to over {LARGEST >> 30} GiB; Kaggle's has 77 MB")
                file = io.BytesIO(archive.read(name))
                file.name = f"{path.name}:{name}"
                files.append(file)
            return files[0], files[1]
    except KeyError as missing:
        raise BadInput(f"{path} has no train.csv and test.csv in it: {missing.args[0]}") from missing
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as wrong:  # RuntimeError: with a password
        raise BadInput(f"{path} is not a whole zip file ({wrong}); download it again") from wrong


def _pixel_columns() -> list[str]:
    return [f"pixel{i}" for i in range(SIDE * SIDE)]


def _name(source) -> str:
    return Path(source.name).name


def _table(source: Path | io.BytesIO, columns: list[str]) -> pa.Table:
    try:
        # One block: a column's type is found from all of its values.
        table = pa.csv.read_csv(source, read_options=pa.csv.ReadOptions(block_size=LARGEST))
    except (pa.ArrowException, OSError) as wrong:
        raise BadInput(f"cannot read {_name(source)}: {str(wrong).splitlines()[0][:200]}") from wrong
    if table.column_names != columns:
        raise BadInput(
            f"{_name(source)} has {table.num_columns} columns, {table.column_names[0]} to {table.column_names[-1]}; "
            f"it should have {len(columns)}, {columns[0]} to {columns[-1]}"
        )
    if not table.num_rows:
        raise BadInput(f"{_name(source)} has no rows")
    return table


def _integers(column: pa.ChunkedArray, high: int, where: str) -> np.ndarray:
    """Raises BadInput unless every value is an integer in [0, high]."""
    if not pa.types.is_integer(column.type) or column.null_count:
        raise BadInput(f"{where}: a value is missing or not a whole number; it should be 0 to {high}")
    extremes = compute.min_max(column).as_py()
    for value in extremes.values():
        if not 0 <= value <= high:
            raise BadInput(f"{where}: a value is {value}; it should be 0 to {high}")
    return column.to_numpy()


def _pixels(table: pa.Table, source) -> np.ndarray:
    out = np.empty((table.num_rows, SIDE * SIDE), dtype=np.uint8)
    for i, name in enumerate(table.column_names):
        out[:, i] = _integers(table[name], 255, f"{_name(source)}, {name}")
    return out
