"""record.db: everything a sweep knows, written before anybody else hears of it.

One SQLite transaction an event; then the listeners (progress, mirrors) are told. A sweep is resumed from this alone.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path

from sweeps.search.plausible import check_learned, check_rungs, check_trials
from trainable.record_file import STATES, VERSION, refuse_newer, rows, tables, unreadable

__all__ = ["STATES", "Record", "newest_about", "read", "rows"]

# `t` is seconds that drivers had worked on the sweep: it never goes back, whatever the clock does.
SCHEMA = """
CREATE TABLE IF NOT EXISTS drivers (   -- a row a start or resumption
    id INTEGER PRIMARY KEY,
    began REAL NOT NULL,               -- seconds since 1970
    seconds REAL NOT NULL DEFAULT 0,   -- up to its last event
    about TEXT NOT NULL                -- arguments, data, commit, versions; JSON
);
CREATE TABLE IF NOT EXISTS trials (
    number INTEGER PRIMARY KEY,
    refits INTEGER,                    -- the trial of the search that this one trains again on a fold; NULL: it is of the search
    config TEXT NOT NULL,              -- flat TrialConfig, JSON
    params TEXT NOT NULL,              -- as drawn by the searcher, JSON
    distributions TEXT NOT NULL,       -- from which, Optuna's JSON by parameter
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    trace TEXT NOT NULL DEFAULT '',    -- the end of the traceback of what failed
    started REAL NOT NULL,             -- seconds since 1970
    ended REAL,
    t REAL NOT NULL,                   -- when it started
    t_ended REAL,
    train_s REAL NOT NULL DEFAULT 0,
    eval_s REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS rungs (
    seq INTEGER PRIMARY KEY,           -- the order in which the scheduler judged them
    number INTEGER NOT NULL,
    rung INTEGER NOT NULL,             -- from 0
    partial INTEGER NOT NULL,          -- 1: the trial was interrupted before the rung's budget
    at REAL NOT NULL,
    t REAL NOT NULL,
    metrics TEXT NOT NULL,             -- JSON
    files TEXT NOT NULL,               -- name -> SHA-256 of what was handed over, JSON
    UNIQUE (number, rung)
);
CREATE TABLE IF NOT EXISTS learned (   -- from another sweep, before the first trial
    what TEXT NOT NULL,                -- told: a trial's result; start: parameters to try first
    data TEXT NOT NULL                 -- JSON
);
CREATE TABLE IF NOT EXISTS restarts (  -- a row each time that a trial's training began again from what it had
    number INTEGER NOT NULL,
    t REAL NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS phases (    -- what is done after the search
    name TEXT PRIMARY KEY,
    t REAL NOT NULL,
    files TEXT NOT NULL                -- name -> SHA-256 of what it wrote, JSON
);
"""


class Record:
    """A sweep's record, written by one process. Each listener is called with every event, a dict with `kind`.

    Args:
        about: of this driver.
        patience: called with one line while the disk is full, before each new try; what it raises ends the wait.
        began: when this driver began to work, of time.monotonic; None: now.

    Raises:
        BadInput: the file is no record, or a newer version's.
    """

    def __init__(
        self,
        path: Path,
        listeners: tuple[Callable[[dict], None], ...] = (),
        about: Mapping | None = None,
        patience: Callable[[str], None] | None = None,
        began: float | None = None,
    ):
        self.path, self.listeners, self.patience = path, listeners, patience
        self._began = time.monotonic() if began is None else began
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
            refuse_newer(self._db, path)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")  # NORMAL may forget the last events at a power cut
            self._db.executescript(SCHEMA)
            if "refits" not in {row[1] for row in self._db.execute("PRAGMA table_info(trials)")}:  # a record of version 0.1
                self._db.execute("ALTER TABLE trials ADD COLUMN refits INTEGER")
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            # From its first driver on, a record is one that can be resumed.
            self._before = self._db.execute("SELECT coalesce(sum(seconds), 0) FROM drivers").fetchone()[0]
            values = (time.time(), json.dumps(about or {}))
            self._driver = self._db.execute("INSERT INTO drivers (began, about) VALUES (?, ?)", values).lastrowid
        except (sqlite3.DatabaseError, UnicodeDecodeError) as wrong:
            raise unreadable(path, wrong) from wrong

    @property
    def t(self) -> float:
        """Seconds that drivers have worked on this sweep."""
        return self._before + time.monotonic() - self._began

    def trial_started(
        self, number: int, config: Mapping, params: Mapping, distributions: Mapping[str, str], refits: int | None = None
    ):
        now, t = time.time(), self.t
        told = {"kind": "trial_started", "number": number, "config": config, "params": params, "refits": refits, "at": now}
        with self._event(told) as db:
            db.execute(
                "INSERT INTO trials (state, number, refits, config, params, distributions, started, t) "
                "VALUES ('running', ?, ?, ?, ?, ?, ?, ?)",
                (number, refits, json.dumps(config), json.dumps(params), json.dumps(distributions), now, t),
            )

    def rung(
        self,
        number: int,
        rung: int,
        metrics: Mapping,
        files: Mapping[str, str] | None,
        *,
        partial: bool = False,
        again: bool = False,
        end: tuple[str, str] | None = None,
    ):
        """A trial's result, and in the same transaction its end (state, reason) where it ends there.

        `partial`: it was interrupted before the rung's budget. `again`: the rung was recorded before; it keeps its metrics
        and its place, and gets the new files unless they are None.
        """
        now = time.time()
        told = {"kind": "rung", "number": number, "rung": rung, "metrics": metrics, "at": now}
        with self._event(*([] if again else [told]), *_ended(number, end, now)) as db:
            if again and files is not None:
                db.execute("UPDATE rungs SET files = ? WHERE number = ? AND rung = ?", (json.dumps(files), number, rung))
            if not again:
                db.execute(
                    "INSERT INTO rungs (number, rung, partial, at, t, metrics, files) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (number, rung, partial, now, self.t, json.dumps(metrics), json.dumps(files)),
                )
            db.execute("UPDATE trials SET train_s = ?, eval_s = ? WHERE number = ?", (*_times(metrics), number))
            if end:
                self._end(db, number, *end, now)

    def learn(self, told: list[dict], start: list[dict]):
        """What a new sweep knows from another: results, and parameters to try first."""
        with self._event() as db:
            for what, many in (("told", told), ("start", start)):
                for data in many:
                    db.execute("INSERT INTO learned VALUES (?, ?)", (what, json.dumps(data)))

    def trial_ended(self, number: int, state: str, reason: str, times: Mapping | None = None, trace: str = ""):
        now = time.time()
        with self._event(*_ended(number, (state, reason), now)) as db:
            if times:
                db.execute("UPDATE trials SET train_s = ?, eval_s = ? WHERE number = ?", (*_times(times), number))
            self._end(db, number, state, reason, now)
            if trace:
                db.execute("UPDATE trials SET trace = ? WHERE number = ?", (trace, number))

    def trial_restarted(self, number: int, reason: str, config: Mapping):
        """It goes on from what it had handed over; a result between two rungs is forgotten."""
        with self._event({"kind": "trial_restarted", "number": number, "reason": reason, "at": time.time()}) as db:
            db.execute("INSERT INTO restarts (number, t, reason) VALUES (?, ?, ?)", (number, self.t, reason))
            db.execute("DELETE FROM rungs WHERE number = ? AND partial", (number,))
            again = "state = 'running', reason = '', ended = NULL, t_ended = NULL, config = ?"
            db.execute(f"UPDATE trials SET {again} WHERE number = ?", (json.dumps(config), number))

    def interrupt_all(self, reason: str):
        """No trial is left running."""
        for (number,) in self._db.execute("SELECT number FROM trials WHERE state = 'running'").fetchall():
            self.trial_ended(number, "interrupted", reason)

    def phase_done(self, name: str, files: Mapping[str, str]):
        with self._event() as db:
            db.execute("INSERT OR REPLACE INTO phases VALUES (?, ?, ?)", (name, self.t, json.dumps(files)))

    def forget_phases(self):
        """What came after the search has to be done again: the search goes on."""
        with self._event() as db:
            db.execute("DELETE FROM phases")

    def _end(self, db: sqlite3.Connection, number: int, state: str, reason: str, now: float):
        values = (state, reason, now, self.t, number)
        db.execute("UPDATE trials SET state = ?, reason = ?, ended = ?, t_ended = ? WHERE number = ?", values)

    @contextmanager
    def _event(self, *told: dict):
        """One transaction, tried again while the disk is full; then the listeners hear `told`."""
        changes = _Changes()
        yield changes
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    for statement, values in changes:
                        self._db.execute(statement, values)
                    seconds = (time.monotonic() - self._began, self._driver)
                    self._db.execute("UPDATE drivers SET seconds = ? WHERE id = ?", seconds)
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
                break
            except sqlite3.OperationalError as wrong:
                if self.patience is None or not _may_pass(wrong):
                    raise
                self.patience(f"{self.path} cannot be written ({wrong})")
        for event in told:
            for listen in self.listeners:
                listen(event)

    def close(self):
        self._db.close()


class _Changes(list):
    """Statements that are executed together later."""

    def execute(self, statement: str, values: tuple = ()):
        self.append((statement, values))


def _ended(number: int, end: tuple[str, str] | None, now: float) -> list[dict]:
    return [{"kind": "trial_ended", "number": number, "state": end[0], "reason": end[1], "at": now}] if end else []


def _times(metrics: Mapping) -> tuple[float, float]:
    return metrics.get("train_s", 0.0), metrics.get("eval_s", 0.0)


def _may_pass(wrong: sqlite3.OperationalError) -> bool:
    """A full disk, a lock held by a reader, and a file system that is read-only for a while."""
    return any(word in str(wrong) for word in ("full", "locked", "readonly", "disk I/O error", "unable to open"))


def read(path: Path) -> tuple[list[dict], list[dict]]:
    """All trials by number, and all rungs by number and rung, as dicts; JSON columns are decoded.

    Raises:
        BadInput: the file is no record, or damaged.
    """
    orders = {"trials": "number", "rungs": "number, rung", "learned": "rowid"}
    trials, rungs, learned = tables(path, orders, whole_file=True).values()
    check_trials(path, trials)
    check_learned(path, learned)
    check_rungs(path, trials, rungs)
    return trials, rungs


def newest_about(path: Path) -> dict | None:
    """What the last driver that said it was asked for: arguments, data, versions. None: none has."""
    return next((row["about"] for row in reversed(rows(path, "drivers", "id")) if row["about"]), None)
