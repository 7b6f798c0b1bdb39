"""Damage to the files of a sweep: which there are, how they are changed, and how they are put back."""

import contextlib
import copy
import io
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from trainable import errors
from trainable.stored import SEAL

RECORDED = Path(__file__).with_name("recorded")
DEEP = "[" * 20_000
JSON = ("config", "params", "distributions", "metrics", "files", "about", "data")  # columns of a record
STRANGE = ["", "x", "../..", "\x00", "é" * 200, -1, 0, 7, 1.5, True, None, [], {}, [1], {"x": 1}]
STRANGE += [float("nan"), float("inf"), -float("inf"), 10**30, 1e300, [[[]]], "\udcff"]


@dataclass(frozen=True)
class Told:
    """What a command ended with."""

    status: int
    out: str
    err: str


def call(main: Callable, *arguments) -> Told:
    """Run a command in this process as `errors.run` runs it; any other end is an error of the test."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = [f"{main.__module__.split('.')[-1]}.py", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            errors.run(main)
    except SystemExit as end:
        return Told(end.code, out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("errors.run returned")


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Put a file back as it was in the end, whatever lies there then."""
    content = path.read_bytes()
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(content)


@st.composite
def bytes_changed(draw, content: bytes) -> bytes | None:
    """A file with one byte changed, cut short, or of something else; None: a folder in its place."""
    how = draw(st.sampled_from(["flip", "flip", "flip", "cut", "longer", "other", "folder"]))
    at = draw(st.integers(0, len(content) - 1))
    if how == "flip":
        changed = bytearray(content)
        changed[at] ^= draw(st.integers(1, 255))
        return bytes(changed)
    if how == "cut":
        return content[:at]
    if how == "longer":
        return content + b"\x00" * draw(st.integers(1, 20))
    if how == "other":
        return draw(st.sampled_from([b"", b"{}", b"[]", b"null", b"\xff\xfe", DEEP.encode(), b'{"a": 1, "a": 2}', b"PAR1"]))
    return None


def places(value, before: tuple = ()) -> list[tuple]:
    """The path of every field in a JSON value; of lists the first item only."""
    out = [before] if before else []
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else []
    for name, item in items:
        out += places(item, (*before, name))
    return out


@st.composite
def field_changed(draw, text: str) -> str:
    """A JSON text without its own digest, and with one field that is missing, twice there, or of another kind."""
    value = copy.deepcopy(json.loads(text))
    if isinstance(value, dict):
        value.pop(SEAL, None)
    everywhere = places(value)
    if not everywhere:
        return json.dumps(draw(st.sampled_from(STRANGE)))
    path = draw(st.sampled_from(everywhere))
    holder = value
    for name in path[:-1]:
        holder = holder[name]
    new = draw(st.sampled_from(["(missing)", "(deep)", "(twice)", *STRANGE]))
    if new == "(missing)":
        del holder[path[-1]]
        return json.dumps(value)
    holder[path[-1]] = "(mark)" if isinstance(new, str) and new.startswith("(") else new
    text = json.dumps(value)
    if new == "(deep)":
        return text.replace('"(mark)"', DEEP + "]" * len(DEEP))
    if new == "(twice)" and isinstance(path[-1], str):
        name = json.dumps(path[-1])
        return text.replace(f'{name}: "(mark)"', f"{name}: 1, {name}: 2")
    return text


def cells(path: Path) -> list[tuple[str, str, int]]:
    """Table, column and row of every cell of a record; three rows of each table."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        out = []
        for table in tables:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            rows = [row for (row,) in db.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
            out += [(table, column, row) for column in columns for row in rows[:: max(1, len(rows) // 3)][:3]]
        return out


@st.composite
def cell_changed(draw, path: Path) -> tuple[str, str, int, object]:
    """A cell of a record, and what it is changed to."""
    table, column, row = draw(st.sampled_from(cells(path)))
    with contextlib.closing(sqlite3.connect(path)) as db:
        was = db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()[0]
    if column in JSON and draw(st.integers(0, 3)):
        return table, column, row, draw(field_changed(was))
    return table, column, row, draw(st.sampled_from(["", "x", b"\xff\xfe", -1, 99, 1.5, "{}", "[]", "null", DEEP, 2**62, None]))


def change_cell(path: Path, table: str, column: str, row: int, value):
    """Write a cell, if SQLite takes it there."""
    with contextlib.closing(sqlite3.connect(path)) as db, db, contextlib.suppress(sqlite3.IntegrityError, UnicodeEncodeError):
        db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
