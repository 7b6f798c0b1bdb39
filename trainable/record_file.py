"""The tables of a sweep's record.db as they are read: their version, their schema, their rows."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from trainable import stored
from trainable.archs import ARCHS
from trainable.config import TrialConfig
from trainable.stored import (
    ANYTHING,
    DIGESTS,
    SCALAR,
    TEXT,
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

VERSION = 1  # of the tables, in PRAGMA user_version; records from before it was written have 0
# A trial is `running`, then one of these:
#   complete      trained to the end
#   stopped       by the scheduler
#   interrupted   by the end of the search, or of its driver; --resume goes on with it
#   failed        the reason says why
STATES = ("running", "complete", "stopped", "interrupted", "failed")
MEND = "restore the record from a copy, or begin a new sweep"

_COUNTS = ("trials", "finalists", "finalist_seeds", "folds", "views", "concurrent", "seed")
_AMOUNTS = ("time_budget", "finalist_epochs", "search_share", "max_latency", "gpus_per_trial")
_SWITCHES = ("last_fit", "use_unlabelled", "download", "submit", "quick")
# Arguments of a sweep. A zoo has no search, so no metric, scheduler and epochs of one.
ARGUMENTS = {
    "dataset": Later(TEXT, None),
    "image_size": Later(Maybe(whole(1)), None),
    "metric": Later(one_of(("val_loss", "val_error")), "val_loss"),
    "scheduler": Later(TEXT, "none"),
    "max_epochs": Later(Maybe(number(above=0)), None),
    "cpus_per_trial": Later(whole(1), 1),
    **dict.fromkeys(("space", "searcher", "name"), Later(TEXT)),
    **dict.fromkeys(("ensemble", "address", "mlflow", "warm_start", "resume"), Later(Maybe(TEXT))),
    **dict.fromkeys(_COUNTS, Later(Maybe(whole(0)))),
    **dict.fromkeys((*_AMOUNTS, "step_timeout"), Later(Maybe(number(0)))),
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
        "epochs": Later(number(above=0), _DEFAULT.epochs),
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
    "engine": Later(TEXT),
    **dict.fromkeys(("train_s", "eval_s"), Later(number(0), 0.0)),
}
PARAMS, DISTRIBUTIONS = Each(SCALAR), Each(TEXT)
TABLES = {
    "drivers": {"id": whole(), "began": number(), "seconds": number(0), "about": OrEmpty(ABOUT)},
    "trials": {
        "number": whole(),
        "refits": Later(Maybe(whole()), None),  # a record of version 0.1 has no such column
        "config": CONFIG,
        "params": PARAMS,
        "distributions": DISTRIBUTIONS,
        "state": one_of(STATES),
        "reason": Later(TEXT, ""),
        "trace": Later(TEXT, ""),
        **dict.fromkeys(("started", "t"), number()),
        **dict.fromkeys(("ended", "t_ended"), Maybe(number())),
        **dict.fromkeys(("train_s", "eval_s"), number(0)),
    },
    "rungs": {
        **dict.fromkeys(("seq", "number", "rung"), whole()),
        "partial": whole(0, 1),
        **dict.fromkeys(("at", "t"), number()),
        "metrics": METRICS,
        "files": Maybe(DIGESTS),
    },
    "learned": {"what": one_of(("told", "start")), "data": Each(ANYTHING)},
    "restarts": {"number": whole(), "t": number(), "reason": TEXT},
    "phases": {"name": TEXT, "t": number(), "files": DIGESTS},
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
    """A table of a record: JSON is decoded, columns that were invented later have their defaults.

    Args:
        whole_file: let SQLite look through all of the file first.

    Raises:
        Damaged: the file is no record, or of a newer version, or a field is not what it should be.
    """
    if path.exists() and not path.is_file():
        raise Damaged(f"{path} is no regular file; it should be a sweep's record; {MEND}")
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=60)
        try:
            refuse_newer(db, path)
            if whole_file and (said := db.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
                raise sqlite3.DatabaseError(str(said[0]).splitlines()[-1])
            db.row_factory = sqlite3.Row
            found = [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY {order}")]
        finally:
            db.close()
    # UnicodeDecodeError: a name or a text in the file is not UTF-8, and so is what SQLite says of it.
    except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    return [_row(path, table, place, row) for place, row in enumerate(found)]


def _row(path: Path, table: str, place: int, row: dict) -> dict:
    key = next((row[name] for name in ("number", "id", "name") if name in row), place)
    where = f"{table} {key}" + (f" rung {row['rung']}" if "rung" in row else "")
    for name in _JSON & row.keys():
        source = f"{path}: {where}.{name}"
        if not isinstance(row[name], str):
            raise stored.wrong(str(path), f"{where}.{name}", row[name], "JSON", MEND)
        row[name] = stored.parse(row[name], source, MEND)
    row = stored.checked(row, TABLES[table], str(path), where, MEND)
    if table == "learned" and row["what"] == "told":
        row["data"] = stored.checked(row["data"], TOLD, str(path), f"{where}.data", MEND)
        values = row["data"]["values"]
        if not all(rung.isascii() and rung.isdecimal() for rung in values):
            raise stored.wrong(str(path), f"{where}.data.values", values, "losses by rung", MEND)
    elif table == "learned":
        row["data"] = stored.checked(row["data"], PARAMS, str(path), f"{where}.data", MEND)
    return row
