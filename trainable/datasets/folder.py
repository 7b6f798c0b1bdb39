"""folder:PATH, any images, one sub-folder a class.

    flowers/rose/a.jpg            classes alone: val is cut from them
    flowers/tulip/2024/b.png
    flowers/unlabelled/c.jpg      to predict

or, with train/ above the classes, and as many of the others as there are:

    flowers/train/rose/a.jpg
    flowers/val/rose/b.jpg
    flowers/test/rose/c.jpg       without class folders: to predict
    flowers/unlabelled/d.jpg

Hidden files, and those whose ending is no image's, are passed over. competition.toml says where predictions go: see
competition.py.
"""

import os
from pathlib import Path

import numpy as np

from trainable.datasets import images
from trainable.datasets.competition import competing
from trainable.datasets.container import Dataset, Split, held_out, naturally, nothing, numbers, share_of_val, slug
from trainable.errors import BadInput

SPLITS = ("train", "val", "test", "unlabelled")


def load(path: str, data: Path, image_size: int | tuple[int, int] | None = None, channels: int | None = None) -> Dataset:
    """The images under `path`; the size and the channels are chosen as `images.read` says. `data` has the cache.

    Without val/, 10 to 15 % of train is cut off. `ids` are the file names relative to `path`.

    Raises:
        BadInput: no such folder, fewer than two classes, an empty one, one in val/ or test/ that train lacks, an image
            that belongs to no class or cannot be read.
    """
    root = _root(path, "it should have one sub-folder a class")
    pairs = _pairs(root, *_walk(root))
    classes = sorted({label for _, label in pairs["train"]}, key=naturally)
    names, labels = {}, {}
    for split, own in pairs.items():
        own.sort(key=lambda pair: naturally(pair[0]))
        names[split] = np.array([name for name, _ in own], dtype=str)
        labels[split] = numbers([label for _, label in own], classes, str(root / split))
    given = bool(len(names["val"]))
    if not given:
        held = held_out(labels["train"], share_of_val(len(labels["train"])), classes)
        for table in (names, labels):
            table["train"], table["val"] = table["train"][~held], table["train"][held]
    name = f"folder-{slug(root.resolve().name)}"
    arrays = images.read(data, name, root, {split: own.tolist() for split, own in names.items()}, image_size, channels)
    splits = [Split(arrays[split], labels[split], names[split]) for split in SPLITS]
    columns = {"id_column": "file", "label_column": "label"}
    return competing(Dataset(name, tuple(classes), *splits, **columns, val_given=given), root)


def loose(
    path: str, data: Path, image_size: int | tuple[int, int], channels: int, classes: tuple[str, ...]
) -> tuple[Dataset, Split]:
    """Every image under `path`, at any depth, to predict with networks that know `classes`: a Dataset without labels, and them.

    Raises:
        BadInput: no such folder, no image in it, or one that cannot be read.
    """
    root = _root(path, "it should hold the images to predict")
    names = sorted(_walk(root)[0], key=naturally)
    if not names:
        raise BadInput(f"{root} has no images; it should hold files such as a.png, b.jpg or c.webp")
    name = f"folder-{slug(root.resolve().name)}"
    read = images.read(data, name, root, {"unlabelled": names}, image_size, channels)["unlabelled"]
    asked = Split(read, np.full(len(names), -1), np.array(names))
    none = nothing(asked)
    return Dataset(name, classes, none, none, none, asked, id_column="file", label_column="label"), asked


def _root(path: str, right: str) -> Path:
    root = Path(os.path.expanduser(path))
    if not root.is_dir():
        raise BadInput(f"{path}: there is no such folder; {right}")
    return root


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Every image and every folder under `root`, relative to it, hidden ones left out; links are followed once."""
    files, folders, seen = [], [], set()
    for where, inside, names in os.walk(root, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            inside.clear()  # a link back to where we have been
            continue
        seen.add(real)
        inside[:] = [name for name in inside if not name.startswith(".")]
        relative = Path(where).relative_to(root)
        folders += [(relative / name).as_posix() for name in inside]
        files += [(relative / name).as_posix() for name in names if images.is_image(name)]
    for name in (str(root), *files):
        try:
            name.encode()
        except UnicodeEncodeError as wrong:
            raise BadInput(f"{root}: the file name {name!r} is not UTF-8; rename it") from wrong
    return files, folders


def _pairs(root: Path, files: list[str], folders: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Split -> (file name, class), the class "" in unlabelled. Raises BadInput for what has no place or is missing."""
    split_up = any(folder.startswith("train/") for folder in folders)
    reserved, above = (SPLITS, "train") if split_up else (SPLITS[1:], "")
    full = {"/".join(name.split("/")[:depth]) for name in files for depth in (1, 2)}
    for folder in sorted(folders, key=naturally):
        if (folder in reserved or folder.rpartition("/")[0] == above) and folder not in full:
            raise BadInput(f"{root / folder} has no images; fill the folder, or delete it")

    pairs = {split: [] for split in SPLITS}
    for name in files:
        first, _, rest = name.partition("/")
        split, inner = (first, rest) if first in reserved and rest else ("train", "" if split_up else name)
        label, inside, _ = inner.partition("/")
        pairs[split].append((name, label if inside else ""))
    if not any(label for _, label in pairs["test"]):
        pairs["unlabelled"] += pairs["test"]
        pairs["test"] = []
    pairs["unlabelled"] = [(name, "") for name, _ in pairs["unlabelled"]]

    labels = {label for _, label in pairs["train"] if label}
    if len(labels) < 2:
        only = f"one class only, {labels.pop()!r}" if labels else "no class folders"
        raise BadInput(f"{root} has {only}; it needs at least two, each with images")
    for split in ("train", "val", "test"):
        for name, label in pairs[split]:
            if not label:
                raise BadInput(f"{root / name} belongs to no class; move it into a class's folder, or into unlabelled/")
    return pairs
