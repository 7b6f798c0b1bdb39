"""record.db: everything a sweep knows, written before anybody else hears of it.

One SQLite transaction an event; then the listeners (progress, mirrors) are told.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# A trial is `running`, then one of these:
#   complete      trained to the end
#   stopped       by the scheduler
#   interrupted   by the end of the search
#   failed        the reason says why
STATES = ("running", "complete", "stopped", "interrupted", "failed")

SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    number INTEGER PRIMARY KEY,
    config TEXT NOT NULL,      -- flat TrialConfig, JSON
    params TEXT NOT NULL,      -- as drawn by the searcher, JSON
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    started REAL NOT NULL,     -- seconds since 1970
    ended REAL,
    train_s REAL NOT NULL DEFAULT 0,
    eval_s REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS rungs (
    number INTEGER NOT NULL,
    rung INTEGER NOT NULL,     -- from 0; an interrupted trial's last lies between two budgets
    at REAL NOT NULL,
    metrics TEXT NOT NULL,     -- JSON
    files TEXT NOT NULL,       -- name -> SHA-256 of what was handed over, JSON
    PRIMARY KEY (number, rung)
);
"""


class Record:
    """A sweep's record, written by one process. Each listener is called with every event, a dict with `kind`."""

    def __init__(self, path: Path, listeners: tuple[Callable[[dict], None], ...] = ()):
        self.listeners = listeners
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)

    def trial_started(self, number: int, config: Mapping, params: Mapping):
        self._event(
            "INSERT INTO trials (number, config, params, state, started) VALUES (?, ?, ?, 'running', ?)",
            (number, json.dumps(config), json.dumps(params), time.time()),
            {"kind": "trial_started", "number": number, "config": config},
        )

    def rung(self, number: int, rung: int, metrics: Mapping, files: Mapping[str, str]):
        self._event(
            "INSERT INTO rungs (number, rung, at, metrics, files) VALUES (?, ?, ?, ?, ?)",
            (number, rung, time.time(), json.dumps(metrics), json.dumps(files)),
            {"kind": "rung", "number": number, "rung": rung, "metrics": metrics},
        )

    def trial_ended(self, number: int, state: str, reason: str, train_s: float = 0.0, eval_s: float = 0.0):
        self._event(
            "UPDATE trials SET state = ?, reason = ?, ended = ?, train_s = ?, eval_s = ? WHERE number = ?",
            (state, reason, time.time(), train_s, eval_s, number),
            {"kind": "trial_ended", "number": number, "state": state, "reason": reason},
        )

    def _event(self, statement: str, values: tuple, event: dict):
        self._db.execute(statement, values)  # one transaction: the connection commits each statement
        for listen in self.listeners:
            listen(event)

    def close(self):
        self._db.close()


def read(path: Path) -> tuple[list[dict], list[dict]]:
    """All trials and all rungs of a record, as dicts in order; JSON columns are decoded."""
    with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as db:
        db.row_factory = sqlite3.Row
        trials = [dict(row) for row in db.execute("SELECT * FROM trials ORDER BY number")]
        rungs = [dict(row) for row in db.execute("SELECT * FROM rungs ORDER BY number, rung")]
    db.close()
    for row in trials:
        row |= {"config": json.loads(row["config"]), "params": json.loads(row["params"])}
    for row in rungs:
        row |= {"metrics": json.loads(row["metrics"]), "files": json.loads(row["files"])}
    return trials, rungs
