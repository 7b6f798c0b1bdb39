"""study.db: a mirror of the search for Optuna's dashboard, and for whoever knows Optuna. Nothing here reads it."""

import json
import os
import sqlite3
import tempfile
import warnings
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import optuna
from optuna.distributions import json_to_distribution

from sweeps.search.record import read
from trainable.archs import ARCHS

FILE = "study.db"
# As Optuna calls them: it prunes what a scheduler stops.
STATES = {"running": "RUNNING", "complete": "COMPLETE", "stopped": "PRUNED", "interrupted": "FAIL", "failed": "FAIL"}
SAID = ("budget", "val_error", "parameters", "train_s", "eval_s", "engine")  # of the last rung, as attributes


def write(folder: Path, metric: str = "val_loss", to: Path | None = None) -> Path:
    """Write the study of a sweep's search, whole or not at all; it is named as the sweep.

    A trial's value is its `metric` at its last rung, its intermediate values are by rung, from 0. Optuna makes the file, and
    the rows are put there in one go: by its own calls each trial takes 58 ms, so 1.
    """
    to = to or folder / FILE
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as temporary:
        path = Path(temporary) / to.name
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        with warnings.catch_warnings(action="ignore"):  # that names of metrics are experimental
            study = optuna.create_study(storage=storage, study_name=folder.name, direction="minimize")
            study.set_metric_names([metric])
            study.set_user_attr("sweep", str(folder))
        storage.engine.dispose()
        with closing(sqlite3.connect(path)) as db, db:
            _fill(db, study._study_id, *read(folder / "record.db"), metric)
        os.replace(path, to)
    return to


def _fill(db: sqlite3.Connection, study: int, trials: list[dict], rungs: list[dict], metric: str):
    at: dict[int, list[dict]] = {}
    for row in rungs:
        at.setdefault(row["number"], []).append(row)
    known: dict[str, optuna.distributions.BaseDistribution] = {}
    for place, trial in enumerate(trial for trial in trials if trial["refits"] is None):
        mine, config = at.get(trial["number"], []), trial["config"]
        state, key = STATES[trial["state"]], place + 1
        times = [_utc(trial[when]) for when in ("started", "ended")]
        db.execute("INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?)", (key, place, study, state, *times))
        for name, text in trial["distributions"].items():
            if name in trial["params"]:
                known.setdefault(text, json_to_distribution(text))
                value = known[text].to_internal_repr(trial["params"][name])
                _insert(db, "trial_params", trial_id=key, param_name=name, param_value=value, distribution_json=text)
        for row in mine:
            value = row["metrics"][metric]
            kind = {"intermediate_value": value, "intermediate_value_type": "FINITE"}
            _insert(db, "trial_intermediate_values", trial_id=key, step=row["rung"], **kind)
        if mine and state in ("COMPLETE", "PRUNED"):
            value = mine[-1]["metrics"][metric]
            _insert(db, "trial_values", trial_id=key, objective=0, value=value, value_type="FINITE")
        last = mine[-1]["metrics"] if mine else {}
        about = {
            "trial": trial["number"],
            "family": ARCHS[config["arch"]].family,
            "arch": config["arch"],
            "state": trial["state"],
        }
        about |= {"reason": trial["reason"], **{name: last[name] for name in SAID if name in last}}
        for name, value in about.items():
            _insert(db, "trial_user_attributes", trial_id=key, key=name, value_json=json.dumps(value))


def _insert(db: sqlite3.Connection, table: str, **values):
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
