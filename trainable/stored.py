"""The reading of files that were written earlier: each is checked against a schema and its digest first."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainable import reading
from trainable.errors import BadInput
from trainable.schema import ANYTHING, MEND, Damaged, checked

SEAL = "sha256"  # the field of a JSON object that has the digest of all its other fields
DEEPEST = 32  # levels of nesting; our own files have six
LARGEST = 32 << 20  # bytes of a JSON file; our own have 2 MB at most
SMALL = 1 << 20  # bytes of a text that is parsed without a look at the free memory
TIMES = 60  # bytes of memory that a byte of JSON can take: `{},{},...` takes 55


def content(path: Path, largest: int | None = None, mend: str = MEND, times: float = 1.0) -> bytes:
    """The bytes of a regular file.

    Args:
        largest: that a file of its kind can be.
        times: the memory that is needed to use it, as a multiple of its size.

    Raises:
        Damaged: there is no file, or something that is none, or it is too large or cannot be read.
    """
    try:
        return reading.read(path, times, largest)
    except BadInput as error:
        raise Damaged(str(error)) from error
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}; {mend}") from error


def parse(text: bytes | str, source: str, mend: str = MEND):
    """A JSON value.

    Raises:
        Damaged: it is no JSON in UTF-8, is nested DEEPEST deep, or has a key twice or a number
            beyond 64 bits.
        BadInput: there is not enough memory for what it can hold.
    """
    if len(text) > SMALL:
        reading.require(TIMES * len(text), source)
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=_once, parse_int=_whole)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate cannot be written
        if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
            raise RecursionError
    except UnicodeError as error:
        raise Damaged(f"{source} is not UTF-8 text ({error.reason}); {mend}") from error
    except RecursionError as error:
        raise Damaged(f"{source} is nested too deeply; {mend}") from error
    except (ValueError, TypeError) as error:
        raise Damaged(f"{source} cannot be read as JSON ({error}); {mend}") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"the number {digits[:20]}... is beyond 64 bits")
    return int(digits)


def _is_deep(value) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        lists = [item for item in level if isinstance(item, list)]
        lists += [list(item.values()) for item in level if isinstance(item, dict)]
        level = [inner for items in lists for inner in items]
    return bool(level)


def read_json(path: Path, kind=ANYTHING, mend: str = MEND):
    """The content of a JSON file, checked against a schema and its own digest where it has one.

    Raises:
        Damaged: it is not as it was written.
    """
    return from_json(content(path, LARGEST, mend), kind, str(path), mend)


def from_json(text: bytes | str, kind, source: str, mend: str = MEND):
    """As `read_json`, of a text that was read already."""
    given = parse(text, source, mend)
    value = checked(given, kind, source, mend=mend)
    if isinstance(given, dict) and SEAL in given and given[SEAL] != seal(given):
        raise Damaged(
            f"{source} is not as it was written: its content does not fit its field {SEAL}; {mend}, "
            f"or, if you changed it yourself and mean it, remove that field"
        )
    return value


def seal(value: Mapping) -> str:
    """The digest of a JSON object without its field SEAL: the SHA-256 of its canonical text."""
    rest = {name: item for name, item in value.items() if name != SEAL}
    plain = json.loads(json.dumps(rest))  # keys as JSON has them
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(value: Mapping) -> dict:
    """The object with its own digest."""
    return {**value, SEAL: seal(value)}


def verify(data: bytes, digest: str, path: Path | str, named_in: Path | str, mend: str = MEND) -> bytes:
    """The bytes of a file, if they have this digest.

    Args:
        named_in: the file that has the digest.

    Raises:
        Damaged: they have another.
    """
    now = hashlib.sha256(data).hexdigest()
    if now != digest:
        differ = f"its SHA-256 is {now[:12]}..., not {digest[:12]}..."
        raise Damaged(f"{path} does not fit {Path(named_in).name}: {differ}: it is damaged; {mend}")
    return data
