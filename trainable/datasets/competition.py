"""Where the predictions of a dataset go, and in what form they are wanted there."""

import csv
import io
import os
import tomllib
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from trainable import reading
from trainable.datasets.container import Competition, Dataset
from trainable.errors import BadInput, lookup

FILE = "competition.toml"
METRICS = {"accuracy": True, "error": False}  # the share that is right, or wrong; whether more is better
KEYS = ("slug", "sample", "metric")
ROW = 200  # bytes of memory for a row of a sample, of 4 bytes or more


def competing(data: Dataset, root: Path) -> Dataset:
    """The dataset whose images lie in `root`, for the competition that `root`/competition.toml describes, if there is one.

    slug = "flowers"                      of kaggle.com/competitions/flowers
    sample = "sample_submission.csv"      the submission's form: two columns, a row an image to predict (default: this name)
    metric = "accuracy"                   or "error" (default: accuracy)

    `unlabelled` has the images that the sample names, in its order, under the ids that it gives them: a file's path under
    `root`, its name, or its name without the ending.

    Raises:
        BadInput: the description or the sample cannot be used, or the sample names an image that is not to be predicted.
    """
    path = root / FILE
    if not os.path.lexists(path):
        return data
    try:
        told = tomllib.loads(reading.read(path, most=reading.SETTINGS).decode())
    except OSError as wrong:
        raise BadInput(f"cannot read {path}: {wrong.strerror}") from wrong
    except RecursionError as wrong:
        raise BadInput(f"cannot read {path}: it is nested too deeply") from wrong
    except ValueError as wrong:
        raise BadInput(f"cannot read {path}: {str(wrong).splitlines()[0]}") from wrong
    for key in told:
        lookup(dict.fromkeys(KEYS), key, f"key in {path.name}")
    slug, metric = told.get("slug"), told.get("metric", "accuracy")
    if not isinstance(slug, str) or not slug:
        raise BadInput(f"{path}: slug is missing; it is the last part of the competition's address, kaggle.com/competitions/SLUG")
    lookup(METRICS, metric, f"metric in {path.name}")
    sample = root / str(told.get("sample", "sample_submission.csv"))
    (id_column, label_column), ids = read_sample(sample)
    rows = _rows(ids, data.unlabelled.ids.tolist(), sample)
    asked = replace(data.unlabelled.take(rows), ids=np.array(ids))
    competition = Competition(slug, metric)
    return replace(data, unlabelled=asked, id_column=id_column, label_column=label_column, competition=competition)


def read_sample(path: Path) -> tuple[tuple[str, str], list[str]]:
    """The two columns of a sample submission, and the ids in its order, as they stand there. Raises BadInput where it is none."""
    try:
        with reading.opened(path) as file:
            return parse_sample(file, path.name, reading.size_of(file))
    except FileNotFoundError as missing:
        raise BadInput(f"there is no {path}; it should be the competition's sample submission") from missing
    except OSError as wrong:
        raise BadInput(f"cannot read {path}: {wrong.strerror}") from wrong


def parse_sample(file: BinaryIO, name: str, size: int) -> tuple[tuple[str, str], list[str]]:
    """As `read_sample`, from an open file of so many bytes; `name` is for messages."""
    reading.require(ROW / 4 * size, name)
    try:
        rows = filter(None, csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline="")))
        header, ids = next(rows, []), []
        for row in rows:
            if len(row) != 2:
                header = header if len(header) != 2 else row
                break
            ids.append(row[0])
    except (UnicodeDecodeError, csv.Error) as wrong:
        raise BadInput(f"cannot read {name}: {wrong}") from wrong
    if len(header) != 2:
        raise BadInput(f"{name} has {len(header)} columns; a sample submission has two, ids and labels, in every row")
    if not all(ids) or len(set(ids)) < len(ids):
        raise BadInput(f"{name}: an id is missing or there twice")
    return tuple(header), ids


def _rows(ids: list[str], there: list, sample: Path) -> np.ndarray:
    """Where each id's image stands among those that are there, by the first of their names that all ids are found by."""
    there = list(map(str, there))
    missing = ""
    for named in (lambda name: name, lambda name: PurePosixPath(name).name, lambda name: PurePosixPath(name).stem):
        names = list(map(named, there))
        where = {name: row for row, name in enumerate(names)}
        absent = next((one for one in ids if one not in where), None)
        if absent is None and len(where) == len(names):
            return np.array([where[one] for one in ids], dtype=np.int64)
        missing = missing or absent or ""
    raise BadInput(f"{sample.name} asks for {missing!r}, and no image to predict is called so; the first there is {there[:1]}")
