"""Arrays that were expensive to read, kept in `data/.cache`."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from trainable import reading

KEPT = 4  # files a dataset; a sweep at another image size does not throw the first one out


def cached(data: Path, name: str, key, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `make` returns, read from `data/.cache/<name>-<digest of key>.npz` where that is there and whole.

    A `data` that cannot be written to only costs the next start its speed.
    """
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    path = data / ".cache" / f"{name}-{digest}.npz"
    # Not there, damaged, or too large for the memory: whatever fails, the arrays are made again.
    with suppress(Exception):
        if kept := _read(path):
            return kept
    arrays = make()
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        own = path.parent.glob(f"{name}-{'[0-9a-f]' * 16}.npz")
        for old in sorted(own, key=lambda p: p.stat().st_mtime_ns)[:-KEPT]:
            old.unlink()
    return arrays


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, all of it; raises anything for a damaged one.

    np.load does not: it compares the checksum of an array only where that fills its member.
    """
    with reading.archive(path) as archive:
        reading.require(sum(member.file_size for member in archive.infolist()), path)
        return {name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()}


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # the checksum is compared at the end only
            raise ValueError(f"{name} holds more than its header promises")
        return array


def stamps(root: Path, names: Iterable[str]) -> list[tuple[str, int, int]]:
    """Name, size in bytes and time of change in ns of files under `root`: what tells that one has changed.

    Raises:
        OSError: one is missing.
    """
    return [(name, (about := os.stat(root / name)).st_size, about.st_mtime_ns) for name in names]
