"""A copy of results/ that stands still, to be fetched while sweeps write there; `make fetch` has it made on a cluster's head.

python sweeps/snapshot.py results/      # makes results.fetched/ anew, beside it

Databases are copied as SQLite copies them while they are written to; who copies their files may catch half a change. All else
is a link to what lies there, which is only ever replaced as a whole: the copy takes no room.
"""

import os
import shutil
import sqlite3
from pathlib import Path

from trainable.errors import BadInput, Parser, run

PASSING = ("-wal", "-shm", "-journal", "lock")


def main():
    p = Parser(prog="snapshot.py", description=__doc__.split("\n")[0])
    p.add_argument("results", type=Path, help="the folder in which the sweeps lie")
    snapshot(p.parse_args().results.absolute())


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


def _passes(name: str) -> bool:
    """Whether a file is there for a moment only: SQLite's own, a lock, or one that is being written (files.py)."""
    return name.startswith(".") or name.endswith(PASSING)


def _database(path: Path, copy: Path):
    source, target = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60), sqlite3.connect(copy)
    try:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # one file, whatever the source is written as
    finally:
        source.close()
        target.close()


if __name__ == "__main__":
    run(main)
