"""Files that are whole or absent."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from trainable import reading


def write(path: Path, content: bytes | str) -> str:
    """Write a file under a temporary name, sync it, rename it. Returns its SHA-256 in hex."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return hashlib.sha256(data).hexdigest()


def write_json(path: Path, value) -> str:
    return write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def digest(path: Path) -> str:
    """The SHA-256 of a regular file, in hex."""
    with reading.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(path: Path, sha256: str) -> bool:
    """Whether there is a file with this digest."""
    return path.is_file() and digest(path) == sha256
