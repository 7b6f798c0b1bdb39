"""Bad input: one line, exit status 2."""

import argparse
import difflib
import errno
import math
import os
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

LINE = 600  # characters of a message at most
LISTED = 120  # characters of a list in a message; of a longer one it has NEAREST and a count
NEAREST = 5
MOST = 10**9  # of anything that is counted or measured, where no other limit is given
WHOLE = r"-?[0-9]{1,30}"
DECIMAL = r"-?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,4})?"
# Errors of the operating system for a path that cannot be used as asked.
UNUSABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
)


class BadInput(ValueError):
    """Something the user gave cannot be used. The message is one line: what is wrong, what would be right."""


class NoRoom(OSError):
    """A disk is full. The message is one line, as BadInput's is; the exit status is 1."""


def without_numbers(reason: str) -> str:
    """A reason as it is compared with others: the same at another step is the same."""
    return re.sub(r"\d[\d.]*", "", reason)


def lookup(table: Mapping, name: str, what: str):
    """The entry `name` of a plug-in table.

    Raises:
        BadInput: `name` is not in the table; the message lists the known names.
    """
    if not isinstance(name, Hashable) or name not in table:
        raise BadInput(f"unknown {what} {short(repr(name))}; known: {listed(table, name)}{meant(name, table)}")
    return table[name]


def meant(name, known: Iterable[str]) -> str:
    """The end of a message: which known name is so like this one that it was probably meant."""
    near = _like(name, list(map(str, known)), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


def listed(names: Iterable, near: object = "") -> str:
    """Names for a message: of a long list those most like `near`, and the number of the others."""
    every = list(map(str, names))
    if len(", ".join(every)) <= LISTED:
        return ", ".join(every)
    first = _like(near, every, NEAREST, 0.4)
    first += [name for name in every if name not in first][: NEAREST - len(first)]
    rest = len(every) - len(first)
    return ", ".join(short(name, 40) for name in first) + (f" and {rest} more" if rest else "")


def _like(name, known: list[str], most: int, cutoff: float) -> list[str]:
    return difflib.get_close_matches(str(name)[:100], known, most, cutoff)


def short(text: object, most: int = 100) -> str:
    """Text for a message, on one line: control characters escaped, too long a middle left out."""
    words = " ".join(str(text).split())
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    end = most // 3
    return plain if len(plain) <= most else f"{plain[: most - end - 5]} ... {plain[-end:]}"


def number(text: str, kind: type = float) -> float | None:
    """The number that a text is, where it is a plain one.

    Returns:
        None for anything else that int() or float() would take: spaces, a plus sign, underscores,
        digits of other alphabets, nan, inf, and more digits than a number has use for.
    """
    return kind(text) if re.fullmatch(WHOLE if kind is int else DECIMAL, text) else None


def check(name: str, value: float, low: float, high: float, whole: bool = False):
    """Raises BadInput unless `value` is a number, or a whole one, in [low, high]."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or (isinstance(value, float) and not math.isfinite(value)):
        raise BadInput(f"{name} is {short(repr(value))}, not a number")
    if whole and not isinstance(value, int):
        raise BadInput(f"{name} is {value!r}, not a whole number")
    if not low <= value <= high:
        shown = f"{value:.12g}" if abs(value) < 1e300 else "a number of more than 300 digits"
        raise BadInput(f"{name} is {shown}, outside {low:.12g} to {high:.12g}")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds a flag's default where it has one and its help does not name it."""

    def _get_help_string(self, action):
        named = "default" in (action.help or "") or action.default in (None, False, [])
        return action.help if named else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that complains in one line and takes no abbreviated flags."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=_Help, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; --help lists the flags")


def positive(kind: type, high: float = MOST, or_zero: bool = False, low: float = 0) -> Callable[[str], float]:
    """An argparse type: a number above 0, or 0 if `or_zero`, at least `low` and at most `high`; see `number`."""

    def parse(text: str):
        value = number(text, kind)
        if value is None or not low <= value <= high or (value == 0 and not or_zero):
            noun = "a whole number" if kind is int else "a number"
            least = f"of {low:g} or more" if or_zero or low else "above 0"
            raise argparse.ArgumentTypeError(f"{short(repr(text))} is not {noun} {least} and at most {high:.12g}")
        return value

    return parse


def as_path(text: str) -> Path:
    """An argparse type: a path that a file system can hold; nothing need lie there."""
    why = "" if text else "it is empty"
    try:
        os.stat(text)
    except ValueError:
        why = "it holds a NUL character"
    except OSError as wrong:
        if wrong.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            why = wrong.strerror
    if why:
        raise argparse.ArgumentTypeError(f"{short(repr(text))} is no path ({why}); name a file or folder")
    return Path(os.path.expanduser(text))


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command: BadInput and a path that cannot be used become one line and status 2, Ctrl-C 130."""
    try:
        status = main() or 0
    except BadInput as wrong:
        status = _fails(2, str(wrong))
    except NoRoom as wrong:
        status = _fails(1, str(wrong))
    except OSError as wrong:
        if wrong.errno in (errno.ENOSPC, errno.EDQUOT):
            status = _fails(1, f"{wrong.filename or 'the disk'}: {wrong.strerror}; make room")
        elif wrong.errno in UNUSABLE and wrong.filename is not None:
            status = _fails(2, f"{short(wrong.filename)}: {wrong.strerror}; name a path that can be used")
        else:
            raise
    except MemoryError as wrong:
        said = str(wrong).splitlines()
        status = _fails(1, f"out of memory{f': {said[0]}' if said else ''}")
    except FloatingPointError as diverged:
        status = _fails(1, f"{diverged}; a lower learning rate may help")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = 130
    sys.exit(status)


def _fails(status: int, message: str) -> int:
    """Print what is wrong, in one line. Returns the status to exit with."""
    print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {short(message, LINE)}", file=sys.stderr)
    return status
