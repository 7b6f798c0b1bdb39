"""Schemas of what was stored earlier: the kinds of values that its fields may have.

A schema is a `Kind`, or one of the containers of kinds below; a dict of kinds is a JSON object with
these fields. Fields that a schema does not name are kept as they are. An error is one line: which
file, which field, what would be right.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainable.errors import BadInput

MEND = "restore the file from a copy"


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
    """Return whether JSON and SQLite keep a value as a number: finite, whole ones of 64 bits."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


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
TIME = number(0, 2.5e11)  # seconds, also since 1970: a date has a year up to 9999
SCALAR = Kind(
    "a text, a finite number, true, false or null",
    lambda v: v is None or isinstance(v, str | bool) or _finite(v),
)
# Infinite: the time of a network that could not be timed, the threshold below which all images are.
OR_INFINITE = Kind("a number of 0 or more", lambda v: v == math.inf or (_finite(v) and v >= 0))
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
        case OrEmpty() | Later():
            return checked(value, kind.kind, source, field, mend)
        case Both():
            return checked(checked(value, kind.first, source, field, mend), kind.then, source, field, mend)
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
