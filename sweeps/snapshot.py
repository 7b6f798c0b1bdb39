"""A copy of results/ that stands still, to be fetched while sweeps write there; `make fetch` has it made on a cluster's head.

python sweeps/snapshot.py results/                          # makes results.fetched/ anew, beside it
python sweeps/snapshot.py results.fetched/ --into results/  # takes over what was fetched

Databases are copied as SQLite copies them while they are written to; who copies their files may catch half a change. All else
is a link to what lies there, which is only ever replaced as a whole: the copy takes no room.
"""

import itertools
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sweeps.search.record import rows
from trainable.errors import BadInput, Parser, as_path, run

PASSING = ("-wal", "-shm", "-journal", "lock")


def main():
    p = Parser(prog="snapshot.py", description=__doc__.split("\n")[0])
    p.add_argument("results", type=as_path, help="the folder in which the sweeps lie")
    p.add_argument("--into", type=as_path, help="take them over into this folder, in place of making a copy")
    args = p.parse_args()
    if not args.into:
        snapshot(args.results.absolute())
        return
    for line in take_over(args.results.absolute(), args.into.absolute()):
        print(line)


def snapshot(results: Path) -> Path:
    """Where the copy lies. Raises BadInput where there is nothing to copy."""
    if not results.is_dir():
        raise BadInput(f"{results} is no folder; give that in which the sweeps lie")
    to = results.with_name(f"{results.name}.fetched")
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    paths = [path for path in results.rglob("*") if path.is_file() and not _passes(path.name)]
    # Databases first: whatever they speak of has been written by then.
    for path in sorted(paths, key=lambda path: path.suffix != ".db"):
        copy = to / path.relative_to(results)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            _database(path, copy) if path.suffix == ".db" else os.link(path, copy)
        except FileNotFoundError:
            continue  # replaced by a better one meanwhile
    return to


def take_over(fetched: Path, results: Path) -> Iterator[str]:
    """Every sweep that was fetched, in lines. A sweep of the same name that lies here and is another, or has gone on here, stays
    as it is, and the fetched one gets the next free name. MLflow's database is left out: here it may have other sweeps too."""
    for sweep in sorted(path.parent for path in fetched.glob("*/record.db")):
        name = sweep.name
        for count in itertools.count(2):
            to = results / name
            if not (to / "record.db").exists() or _follows(to, sweep):
                break
            name = f"{sweep.name}-{count}"
        shutil.copytree(sweep, to, dirs_exist_ok=True)
        other = f" (another {sweep.name} lies here already)" if name != sweep.name else ""
        yield f"{to}{other}; into MLflow: python sweeps/mirror.py {name}"


def _follows(here: Path, fetched: Path) -> bool:
    """Whether what was fetched is the sweep that lies here, as far as that or further."""
    (ours, our_time), (theirs, their_time) = (
        (drivers[0]["began"] if drivers else None, sum(row["seconds"] for row in drivers))
        for drivers in (rows(folder / "record.db", "drivers", "id") for folder in (here, fetched))
    )
    return ours == theirs and our_time <= their_time


def _passes(name: str) -> bool:
    """Whether a file is there for a moment only: SQLite's own, a lock, or one that is being written (files.py)."""
    return name.startswith(".") or name.endswith(PASSING)


def _database(path: Path, copy: Path):
    """Copy a database as SQLite does; link to one that is damaged or none, as to any other file.

    Raises:
        FileNotFoundError: it is gone.
        BadInput: it cannot be read, or the copy cannot be written.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=60)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            # One file, whatever the source is written as.
            target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError as wrong:
        # Operational: a file that is gone or locked away, or a full disk. Any other: its content.
        if isinstance(wrong, sqlite3.OperationalError) and path.exists():
            raise BadInput(f"cannot copy {path} to {copy}: {wrong}") from wrong
        copy.unlink(missing_ok=True)
        os.link(path, copy)


if __name__ == "__main__":
    run(main)
