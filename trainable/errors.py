"""Bad input: one line, exit status 2."""

import argparse
import difflib
import errno
import math
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NoReturn


class BadInput(ValueError):
    """Something the user gave cannot be used. The message is one line: what is wrong, what would be right."""


class NoRoom(OSError):
    """A disk is full. The message is one line, as BadInput's is; the exit status is 1."""


def lookup(table: Mapping, name: str, what: str):
    """The entry `name` of a plug-in table.

    Raises:
        BadInput: `name` is not in the table; the message lists the known names.
    """
    if not isinstance(name, Hashable) or name not in table:
        raise BadInput(f"unknown {what} {name!r}; known: {', '.join(map(str, table))}{meant(name, table)}")
    return table[name]


def meant(name, known: Iterable[str]) -> str:
    """The end of a message: which known name is so like this one that it was probably meant."""
    near = difflib.get_close_matches(str(name), list(map(str, known)), 1)
    return f"; did you mean {near[0]}?" if near else ""


def check(name: str, value: float, low: float, high: float, whole: bool = False):
    """Raises BadInput unless `value` is a number, or a whole one, in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{name} is {value!r}, not a number")
    if whole and not isinstance(value, int):
        raise BadInput(f"{name} is {value!r}, not a whole number")
    if not low <= value <= high:
        raise BadInput(f"{name} is {value:.12g}, outside {low:.12g} to {high:.12g}")


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


def positive(kind: type, high: float = math.inf, or_zero: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number above 0, or 0 if `or_zero`, and at most `high`."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not 0 <= value <= high or value == math.inf or (value == 0 and not or_zero):
            noun = "a whole number" if kind is int else "a number"
            limit = f" and at most {high:.12g}" if high < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} {'of 0 or more' if or_zero else 'above 0'}{limit}")
        return value

    return parse


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command: BadInput becomes one line and status 2, Ctrl-C status 130."""
    try:
        status = main() or 0
    except BadInput as wrong:
        print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {' '.join(str(wrong).split())}", file=sys.stderr)
        status = 2
    except NoRoom as wrong:
        print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {wrong}", file=sys.stderr)
        status = 1
    except OSError as wrong:
        if wrong.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {wrong.filename or 'the disk'}: {wrong.strerror}; make room", file=sys.stderr)
        status = 1
    except FloatingPointError as diverged:
        print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {diverged}; a lower learning rate may help", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
