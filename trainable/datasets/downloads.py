"""Datasets from the net: downloaded once, checked, whole or absent."""

import os
import socket
import sys
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np
from torchvision.datasets.utils import check_integrity, download_url

from trainable.datasets.cache import cached
from trainable.datasets.container import Dataset, Split, cut, nothing
from trainable.errors import BadInput

SILENCE = 60  # seconds without a byte, then the server counts as gone
VAL = 0.1
FORMAT = 1  # of the cache: count up when what is cached changes


def dataset(data: Path, name: str, md5: Sequence[str], read: Callable[[Path], dict[str, np.ndarray]]) -> Dataset:
    """A dataset with labels for its test, of whose train 10 % becomes val.

    Args:
        md5: of the files that hold it.
        read: reads them, in the folder it is given, where they are downloaded to: train_images and test_images (uint8
            [n, channels, height, width]), train_labels and test_labels (integers [n]), and classes (their names).

    Raises:
        BadInput: a file is damaged or cannot be downloaded.
    """
    arrays = cached(data, name, (FORMAT, list(md5)), lambda: read(data / name))
    classes = tuple(arrays["classes"].tolist())
    whole, test = (
        Split(arrays[f"{s}_images"], arrays[f"{s}_labels"].astype(np.int64), np.arange(1, len(arrays[f"{s}_labels"]) + 1))
        for s in ("train", "test")
    )
    train, val = cut(whole, VAL, len(classes))
    return Dataset(name, classes, train, val, test, unlabelled=nothing(test))


def fetch(folder: Path, urls: Sequence[str], md5: str) -> Path:
    """The file in `folder`, downloaded from the first of `urls` that has it, with a progress bar, unless it is there.

    Raises:
        BadInput: it is there and is damaged, or no server has it.
    """
    path = folder / os.path.basename(urls[0])
    if os.path.lexists(path):
        if not check_integrity(path, md5):
            raise BadInput(f"{path} is damaged: its md5 should be {md5}; delete it, and it is downloaded again")
        return path
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    failures = []
    silence = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)  # torchvision sets none
    try:
        for url in urls:
            print(f"downloading {url}", file=sys.stderr)
            try:
                download_url(url, folder, part.name, md5)
                part.replace(path)
                return path
            except (OSError, HTTPException, RuntimeError) as wrong:
                failures.append(f"{url}: {'what came is damaged' if type(wrong) is RuntimeError else wrong}")
    finally:
        socket.setdefaulttimeout(silence)
        part.unlink(missing_ok=True)
    raise BadInput(f"cannot download {path.name} ({'; '.join(failures)}); try again, or put that file into {folder} yourself")
