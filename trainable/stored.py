"""The reading of files that were written earlier: each is checked against a schema first.

A schema is a `Kind`, or one of the containers of kinds below; a dict of kinds is a JSON object with
these fields. Fields that a schema does not name are kept as they are. An error is one line: which
file, which field, what would be right.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainable import reading
from trainable.errors import BadInput

SEAL = "sha256"  # the field of a JSON object that has the digest of all its other fields
MEND = "restore the file from a copy"
DEEPEST = 32  # levels of nesting; our own files have six
LARGEST = 256 << 20  # bytes of a JSON file


class Damaged(BadInput):
    """A stored file is not as it was written. The message names the file and the remedy."""


@dataclass(frozen=True)
class Kind:
    """The values that a field may have, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Maybe:
    """A kind, or null."""

    kind: Any


@dataclass(frozen=True)
class Later:
    """A field that files written before it was invented lack; without a default it stays absent."""

    kind: Any
    default: Any = ...


@dataclass(frozen=True)
class Many:
    """A list of at least so many of a kind."""

    kind: Any
    least: int = 0


@dataclass(frozen=True)
class Each:
    """An object whose values are all of one kind, whatever its keys are."""

    kind: Any


@dataclass(frozen=True)
class OrEmpty:
    """A kind, or an object without fields."""

    kind: Any


@dataclass(frozen=True)
class Both:
    """A value that is of two kinds at once."""

    first: Any
    then: Any


def _finite(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(low: float = -math.inf, high: float = math.inf, above: float = -math.inf) -> Kind:
    """A finite number in [low, high], and greater than `above`."""
    words = "a finite number"
    if low > -math.inf:
        words += f" of {low:g} or more"
    if above > -math.inf:
        words += f" above {above:g}"
    if high < math.inf:
        words += f", at most {high:g}"
    return Kind(words, lambda v: _finite(v) and above < v and low <= v <= high)


def whole(low: int = 0, high: int = 2**63 - 1) -> Kind:
    """A whole number in [low, high]."""
    words = f"a whole number from {low} to {high}" if high < 2**63 - 1 else f"a whole number from {low}"
    return Kind(words, lambda v: type(v) is int and low <= v <= high)


def one_of(names) -> Kind:
    """One of some texts."""
    return Kind(f"one of {', '.join(map(str, names))}", lambda v: isinstance(v, str) and v in names)


ANYTHING = Kind("a value", lambda v: True)
TEXT = Kind("a text", lambda v: isinstance(v, str))
YES_OR_NO = Kind("true or false", lambda v: isinstance(v, bool))
SCALAR = Kind(
    "a text, a finite number, true, false or null",
    lambda v: v is None or isinstance(v, str | bool) or _finite(v),
)
# Infinite where a network could not be timed.
DURATION = Kind("a number of 0 or more", lambda v: v == math.inf or (_finite(v) and v >= 0))
DIGESTS = Kind(
    "an object of file names and digests",
    lambda v: isinstance(v, Mapping) and all("/" not in name and isinstance(digest, str) for name, digest in v.items()),
)


def checked(value, kind, source: str, field: str = "", mend: str = MEND):
    """The value with the defaults of the fields that it lacks.

    Args:
        source: the file, for the message.
        field: where in it the value stands.

    Raises:
        Damaged: the value is not of this kind.
    """

    def within(value, kind, name):
        return checked(value, kind, source, f"{field}.{name}" if field else str(name), mend)

    match kind:
        case Maybe():
            return None if value is None else checked(value, kind.kind, source, field, mend)
        case OrEmpty() if value == {}:
            return value
        case OrEmpty():
            return checked(value, kind.kind, source, field, mend)
        case Both():
            return checked(checked(value, kind.first, source, field, mend), kind.then, source, field, mend)
        case Later():
            return checked(value, kind.kind, source, field, mend)
        case Many():
            if not isinstance(value, list) or len(value) < kind.least:
                least = f" of {kind.least} or more" if kind.least else ""
                raise wrong(source, field, value, f"a list{least}", mend)
            return [within(item, kind.kind, place) for place, item in enumerate(value)]
        case Each():
            if not isinstance(value, Mapping):
                raise wrong(source, field, value, "an object", mend)
            return {name: within(item, kind.kind, name) for name, item in value.items()}
        case dict():
            if not isinstance(value, Mapping):
                raise wrong(source, field, value, "an object", mend)
            out = dict(value)
            for name, own in kind.items():
                if name in value:
                    out[name] = within(value[name], own, name)
                elif not isinstance(own, Later):
                    raise Damaged(f"{source}: {field}{'.' * bool(field)}{name} is missing; {mend}")
                elif own.default is not ...:
                    out[name] = own.default
            return out
    if not kind.fits(value):
        raise wrong(source, field, value, kind.words, mend)
    return value


def wrong(source: str, field: str, value, words: str, mend: str = MEND) -> Damaged:
    """The error to raise for a value that should be something else."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        shown = "a value too large to show"
    shown = f"{shown[:60]}..." if len(shown) > 63 else shown
    return Damaged(f"{source}: {field or 'its content'} is {shown}; it should be {words}; {mend}")


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
    """
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
