"""csv:PATH, a CSV with an image a row, or a folder with train.csv and, where there are, val.csv and test.csv.

    label,pixel0,pixel1,...       a label and whole numbers from 0 to 255: side x side of them, or 3 x side x side (red,
    3,0,255,...                   green and blue of the first pixel, then of the next); an id column may be among them

    image,label                   a label and the image's file (column image, file, filename, path or id), relative to the
    a.jpg,rose                    CSV or to the folder beside it that is called as it; without its ending if you like

A test.csv without labels is what to predict; competition.toml beside it says where predictions go: see competition.py.
"""

import functools
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from trainable.datasets import images, tables
from trainable.datasets.cache import cached, stamps
from trainable.datasets.competition import competing
from trainable.datasets.container import Dataset, Split, held_out, naturally, numbers, share_of_val, slug
from trainable.datasets.shape import LARGEST, SMALLEST, reshape
from trainable.errors import BadInput

FORMAT = 1  # of the cache: count up when what is cached changes
FILE_COLUMNS = ("image", "file", "filename", "path", "id")


def load(path: str, data: Path, image_size: int | tuple[int, int] | None = None, channels: int | None = None) -> Dataset:
    """The images of `path`; `data` has the cache. Without val.csv, 10 to 15 % of train is cut off.

    `ids` are the id column's, else the file names, else the row's number from 1.

    Raises:
        BadInput: no such file, columns that are of neither form, a value or a file that is missing or wrong, fewer than
            two classes, or one that train lacks.
    """
    where = Path(os.path.expanduser(path))
    main = where / "train.csv" if where.is_dir() else where
    if not os.path.lexists(main):
        raise BadInput(f"csv:{path}: there is no file {main}; it should be a CSV, or a folder with train.csv")
    sources = {"train": main}
    if main.name == "train.csv":
        others = {split: main.with_name(f"{split}.csv") for split in ("val", "test")}
        sources |= {split: source for split, source in others.items() if os.path.lexists(source)}
    for source in sources.values():
        with tables.opened(source):  # a link that leads nowhere is found here
            pass
    name = f"csv-{slug(main.resolve().parent.name if main.name == 'train.csv' else main.stem)}"
    key = (FORMAT, str(main.resolve()), stamps(main.parent, [source.name for source in sources.values()]))
    arrays = cached(data, name, key, lambda: _parse(sources))

    classes = sorted(set(arrays["train.labels"].tolist()), key=naturally)
    if len(classes) < 2:
        raise BadInput(f"{main.name} has one class only, {classes[0]!r}; it needs at least two")
    ids, labels, content = {}, {}, {}
    for split, source in sources.items():
        given = arrays[f"{split}.labels"]
        to = split if len(given) else "unlabelled"
        ids[to] = arrays[f"{split}.ids"]
        labels[to] = numbers(given.tolist() or [""] * len(ids[to]), classes, source.name)
        pixels = f"{split}.pixels" in arrays
        content[to] = arrays[f"{split}.pixels"] if pixels else np.array(_find(source, arrays[f"{split}.files"].tolist()))
    if "val" not in sources:
        held = held_out(labels["train"], share_of_val(len(labels["train"])), classes)
        for table in (ids, labels, content):
            table["train"], table["val"] = table["train"][~held], table["train"][held]
    for split in ("test", "unlabelled"):
        for table in (ids, labels, content):
            table.setdefault(split, table["train"][:0])
    if not pixels:
        files = {split: own.tolist() for split, own in content.items()}
        content = images.read(data, name, main.parent, files, image_size, channels)
    splits = [Split(content[split], labels[split], ids[split]) for split in ("train", "val", "test", "unlabelled")]
    columns = {column: str(arrays[column]) for column in ("id_column", "label_column")}
    dataset = Dataset(name, tuple(classes), *splits, **columns, val_given="val" in sources)
    return competing(reshape(dataset, image_size, channels), main.parent)


def _parse(sources: dict[str, Path]) -> dict[str, np.ndarray]:
    """For each split: labels (none where there is no such column), ids, and files or pixels [n, channels, side, side]."""
    out = {}
    for split, source in sources.items():
        with tables.opened(source) as table:
            columns = _columns(table)
            label, named = columns.get("label"), [columns[name] for name in FILE_COLUMNS if name in columns]
            own = columns.get("id", named[0] if named else None)
            rest = [column for name, column in columns.items() if name != "label" and name not in FILE_COLUMNS]
            if split == "train":
                out["label_column"], pixels, shape = np.array(label), rest, _shape(len(rest), source.name)
            if label is None and split != "test":
                raise BadInput(f"{source.name} has no column label; it has {_some(columns.values())}")
            if shape and sorted(rest) != sorted(pixels):
                raise BadInput(
                    f"{source.name} should have the same {len(pixels)} pixel columns as train.csv; it has {_some(rest)}"
                )
            if not shape and not named:
                raise BadInput(
                    f"{source.name} has {len(rest)} columns that are not the label, {_some(rest)}; it should have side x side or "
                    f"3 x side x side of pixels with a side of {SMALLEST} to {LARGEST}, or a "
                    f"column {', '.join(FILE_COLUMNS[:-1])} or {FILE_COLUMNS[-1]} of image files"
                )
            texts = tuple(filter(None, (label, *named)))
            text, values = table.read(texts, dict.fromkeys(pixels, 255) if shape else None)
        for column in texts:
            _check_complete(text[column], f"{source.name}, {column}")
        for column in {own, *named[:1]} - {None}:
            _check_unique(text[column], f"{source.name}, {column}")
        out[f"{split}.labels"] = text[label] if label else np.array([], dtype=str)
        out[f"{split}.ids"] = _ids(text[own]) if own else np.arange(1, len(values) + 1)
        out["id_column"] = np.array(own or "ImageId")  # the last's: what is predicted is in test.csv
        if shape:
            out[f"{split}.pixels"] = np.ascontiguousarray(values.reshape(-1, *shape).transpose(0, 3, 1, 2))
        else:
            out[f"{split}.files"] = text[named[0]]
    return out


def _columns(table: tables.Table) -> dict[str, str]:
    """The header: names in small letters -> names as they stand there."""
    columns = {column.strip().lower(): column for column in table.columns}
    if len(columns) < len(table.columns):
        raise BadInput(f"{table.name}: two of its columns have the same name; it has {_some(table.columns)}")
    return columns


def _some(columns: Iterable[str]) -> str:
    first, more = list(columns)[:6], len(list(columns)) - 6
    return (", ".join(first) or "none") + (f" and {more} more" if more > 0 else "")


def _shape(pixels: int, where: str) -> tuple[int, int, int] | None:
    """(side, side, channels), or None if so many numbers are no square image.

    Raises:
        BadInput: the image is larger than a network takes.
    """
    for channels in (1, 3):
        side = math.isqrt(pixels // channels)
        if side >= SMALLEST and side * side * channels == pixels:
            if side > LARGEST:
                raise BadInput(
                    f"{where} has {pixels:,} columns of pixels, for images of {side} x {side}; "
                    f"a side should be {SMALLEST} to {LARGEST} pixels"
                )
            return side, side, channels
    return None


def _check_complete(values: np.ndarray, where: str):
    if (values == "").any():
        raise BadInput(f"{where}: row {1 + int((values == '').argmax())} has no value")


def _check_unique(values: np.ndarray, where: str):
    known, counts = np.unique(values, return_counts=True)
    if len(known) < len(values):
        raise BadInput(f"{where}: {str(known[counts.argmax()])!r} stands there {counts.max()} times; it should stand once")


def _ids(values: np.ndarray) -> np.ndarray:
    """int64 if every value is a whole number written plainly, else the text (007 keeps its zeros)."""
    try:
        whole = values.astype(np.int64)
    except (ValueError, OverflowError):
        return values
    return whole if (whole.astype(str) == values).all() else values


def _find(source: Path, names: list[str]) -> list[str]:
    """The image file of each name, relative to the CSV's folder. Raises BadInput if there is none."""
    folder = source.parent

    @functools.cache
    def without_ending(where: str) -> dict[str, str]:
        inside = sorted(os.listdir(folder / where)) if (folder / where).is_dir() else []
        return {os.path.splitext(file)[0]: os.path.join(where, file) for file in inside if images.is_image(file)}

    def find(name: str) -> str | None:
        for relative in (name, os.path.join(source.stem, name)):
            if (folder / relative).is_file():
                return relative
            if found := without_ending(os.path.dirname(relative)).get(os.path.basename(relative)):
                return found
        return None

    found = [find(name) for name in names]
    if None in found:
        missing = names[found.index(None)]
        raise BadInput(
            f"{source.name} names {missing!r}, which is neither in {folder} nor in its folder {source.stem}/; "
            f"{found.count(None)} of {len(found)} are missing"
        )
    return found
