"""The tables of a sweep's record.db as they are read: their version, their schema, their rows."""

import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from trainable import schema, stored
from trainable.archs import ARCHS
from trainable.config import EPOCHS, TrialConfig
from trainable.errors import MOST
from trainable.schema import (
    ANYTHING,
    DIGESTS,
    SCALAR,
    TEXT,
    TIME,
    YES_OR_NO,
    Both,
    Damaged,
    Each,
    Kind,
    Later,
    Maybe,
    OrEmpty,
    number,
    one_of,
    whole,
)
from trainable.stored import LARGEST

VERSION = 1  # of the tables, in PRAGMA user_version; records from before it was written have 0
# A trial is `running`, then one of these:
#   complete      trained to the end
#   stopped       by the scheduler
#   interrupted   by the end of the search, or of its driver; --resume goes on with it
#   failed        the reason says why
STATES = ("running", "complete", "stopped", "interrupted", "failed")
MEND = "restore the record from a copy, or begin a new sweep"
PROBS = "probs.safetensors"  # what a network that was handed over says of val, or of every split

YEAR = 365 * 86400.0  # seconds: the longest time that a flag takes
_SWITCHES = ("last_fit", "use_unlabelled", "download", "submit", "quick")
# Arguments of a sweep, in the ranges of its flags (sweeps/arguments.py, sweeps/flags.py). A zoo has
# no search, so no metric, scheduler and epochs of one.
ARGUMENTS = {
    "dataset": Later(TEXT, None),
    "image_size": Later(Maybe(whole(1, 1024)), None),
    "metric": Later(one_of(("val_loss", "val_error")), "val_loss"),
    "scheduler": Later(TEXT, "none"),
    "max_epochs": Later(number(*EPOCHS)),
    "search_share": Later(number(0, 1, above=0)),
    "step_timeout": Later(number(0, YEAR, above=0)),
    "time_budget": Later(Maybe(number(0, YEAR, above=0))),
    "trials": Later(Maybe(whole(1, MOST))),
    "finalists": Later(Maybe(whole(0, 1000))),
    "finalist_epochs": Later(Maybe(number(*EPOCHS))),
    "finalist_seeds": Later(Maybe(whole(1, 1000))),
    "folds": Later(Maybe(whole(2, 1000))),
    "views": Later(whole(1, 100)),
    "max_latency": Later(Maybe(number(0, 1e6, above=0))),
    "seed": Later(whole(0, 2**31)),
    "concurrent": Later(Maybe(whole(1, MOST))),
    "cpus_per_trial": Later(whole(1, MOST), 1),
    "gpus_per_trial": Later(Maybe(number(0, 1))),
    **dict.fromkeys(("space", "searcher", "name"), Later(TEXT)),
    **dict.fromkeys(("ensemble", "address", "mlflow", "warm_start", "resume"), Later(Maybe(TEXT))),
    **dict.fromkeys(_SWITCHES, Later(YES_OR_NO)),
}
# Description of a driver: in the record, and in sweep.json.
ABOUT = {
    "arguments": ARGUMENTS,
    "data": {
        "fingerprint": TEXT,
        "images": Later(Each(whole(0)), {}),
        "val_given": Later(YES_OR_NO),
    },
    "versions": Later(Each(TEXT), {}),
    "commit": Later(Maybe(TEXT), None),
}
_DEFAULT = TrialConfig()
_TYPED = {
    name: Later(TEXT if isinstance(value, str) else number(), value)
    for name, value in vars(_DEFAULT).items()
    if not isinstance(value, Mapping)
}
# A flat TrialConfig: what is absent has its default, also where it was invented later.
CONFIG = Both(
    Each(SCALAR),
    {
        **_TYPED,
        "arch": Later(Kind("an architecture's name", lambda v: isinstance(v, str) and v in ARCHS), _DEFAULT.arch),
        "epochs": Later(number(*EPOCHS), _DEFAULT.epochs),
        **dict.fromkeys(("folds", "fold", "unlabelled", "seed"), Later(whole(0), 0)),
    },
)
METRICS = {
    "budget": number(above=0),
    "val_loss": number(),
    "val_error": number(0, 1),
    "train_loss": Later(Kind("a number", lambda v: isinstance(v, int | float))),  # it may diverge
    "temperature": Later(number(above=0)),
    "parameters": Later(whole(0)),
    **dict.fromkeys(("engine", "node_ip"), Later(TEXT)),
    **dict.fromkeys(("train_s", "eval_s"), Later(TIME, 0.0)),
}
PARAMS, DISTRIBUTIONS = Each(SCALAR), Each(TEXT)
TABLES = {
    "drivers": {"id": whole(), "began": TIME, "seconds": TIME, "about": OrEmpty(ABOUT)},
    "trials": {
        "number": whole(),
        "refits": Later(Maybe(whole()), None),  # a record of version 0.1 has no such column
        "config": CONFIG,
        "params": PARAMS,
        "distributions": DISTRIBUTIONS,
        "state": one_of(STATES),
        "reason": Later(TEXT, ""),
        "trace": Later(TEXT, ""),
        **dict.fromkeys(("started", "t", "train_s", "eval_s"), TIME),
        **dict.fromkeys(("ended", "t_ended"), Maybe(TIME)),
    },
    "rungs": {
        **dict.fromkeys(("seq", "number"), whole()),
        "rung": whole(0, 999),
        "partial": whole(0, 1),
        **dict.fromkeys(("at", "t"), TIME),
        "metrics": METRICS,
        "files": Maybe(DIGESTS),
    },
    "learned": {"what": one_of(("told", "start")), "data": Each(ANYTHING)},
    "restarts": {"number": whole(), "t": TIME, "reason": TEXT},
    "phases": {"name": TEXT, "t": TIME, "files": DIGESTS},
}
TOLD = {
    "params": PARAMS,
    "distributions": DISTRIBUTIONS,
    "state": one_of(("complete", "stopped")),
    "values": Each(number()),
}
_JSON = {"config", "params", "distributions", "metrics", "files", "about", "data"}


def refuse_newer(db: sqlite3.Connection, path: Path) -> int:
    """The version of a record's tables; raises BadInput where this code is older than they are."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        known = f"this code knows up to {VERSION}"
        raise Damaged(f"{path} has tables of version {version}, and {known}; update the code")
    return version


def unreadable(path: Path, error: Exception) -> Damaged:
    """The error to raise where SQLite cannot read a record."""
    return Damaged(f"{path} cannot be read as a sweep's record ({error}); {MEND}")


def rows(path: Path, table: str, order: str = "rowid", whole_file: bool = False) -> list[dict]:
    """A table of a record, as `tables` gives it; raises Damaged."""
    return tables(path, {table: order}, whole_file)[table]


def tables(path: Path, orders: Mapping[str, str], whole_file: bool = False) -> dict[str, list[dict]]:
    """Tables of a record, by name, all as they were at one moment: a driver may be writing to them.

    JSON is decoded, columns that were invented later have their defaults.

    Args:
        orders: by what the rows of each are sorted.
        whole_file: let SQLite look through all of the file first.

    Raises:
        Damaged: the file is no record, or of a newer version, or a field is not what it should be.
    """
    if path.exists() and not path.is_file():
        raise Damaged(f"{path} is no regular file; it should be a sweep's record; {MEND}")
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=60)
        try:
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)  # a generated column can be as long as it likes
            db.execute("BEGIN")
            refuse_newer(db, path)
            if whole_file and (said := db.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
                raise sqlite3.DatabaseError(str(said[0]).splitlines()[-1])
            # A view may be a query that has no end.
            real = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0")}
            if missing := orders.keys() - real:
                raise sqlite3.DatabaseError(f"it has no table {min(missing)}")
            db.row_factory = sqlite3.Row
            found = {
                table: [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY {order}")]
                for table, order in orders.items()
            }
        finally:
            db.close()
    # UnicodeDecodeError: a name or a text in the file is not UTF-8, and so is what SQLite says of it.
    except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    return {table: [_row(path, table, place, row) for place, row in enumerate(there)] for table, there in found.items()}


def _row(path: Path, table: str, place: int, row: dict) -> dict:
    key = next((row[name] for name in ("number", "id", "name") if name in row), place)
    where = f"{table} {key}" + (f" rung {row['rung']}" if "rung" in row else "")
    for name in _JSON & row.keys():
        source = f"{path}: {where}.{name}"
        if not isinstance(row[name], str):
            raise schema.wrong(str(path), f"{where}.{name}", row[name], "JSON", MEND)
        row[name] = stored.parse(row[name], source, MEND)
    row = schema.checked(row, TABLES[table], str(path), where, MEND)
    if table == "learned" and row["what"] == "told":
        row["data"] = schema.checked(row["data"], TOLD, str(path), f"{where}.data", MEND)
        values = row["data"]["values"]
        if not all(re.fullmatch(r"[0-9]|[1-9][0-9]{1,2}", rung) for rung in values) or (
            row["data"]["state"] == "complete" and not values
        ):
            words = "losses by rung, one at least of a complete trial"
            raise schema.wrong(str(path), f"{where}.data.values", values, words, MEND)
    elif table == "learned":
        row["data"] = schema.checked(row["data"], PARAMS, str(path), f"{where}.data", MEND)
    return row
