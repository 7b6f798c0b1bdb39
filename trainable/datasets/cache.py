"""Arrays that were expensive to read, kept in `data/.cache`."""

import hashlib
import os
import zipfile
import zlib
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
    try:
        with reading.archive(path) as archive:
            promised = sum(member.file_size for member in archive.infolist())
            with np.load(archive.fp, allow_pickle=False) as kept:
                reading.require(promised, path)
                return dict(kept)
    # Not there, or not whole. MemoryError: an array's header promises more than there is.
    except (OSError, ValueError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile):
        pass
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


def stamps(root: Path, names: Iterable[str]) -> list[tuple[str, int, int]]:
    """Name, size in bytes and time of change in ns of files under `root`: what tells that one has changed.

    Raises:
        OSError: one is missing.
    """
    return [(name, (about := os.stat(root / name)).st_size, about.st_mtime_ns) for name in names]
