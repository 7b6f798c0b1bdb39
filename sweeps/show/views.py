"""From the record to tables: trials.parquet and curves.parquet, mirrors that can be rebuilt."""

import io
from collections import Counter
from pathlib import Path

import pandas as pd

from sweeps.search.record import read, rows
from trainable import files
from trainable.archs import ARCHS


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row a trial, with its last metrics and its configuration, and a row a rung."""
    trials, rungs = read(folder / "record.db")
    restarts = Counter(row["number"] for row in rows(folder / "record.db", "restarts"))
    curves = pd.DataFrame(
        [
            {"trial": r["number"], "rung": r["rung"], "partial": bool(r["partial"]), "at": r["at"], "t": r["t"], **r["metrics"]}
            for r in rungs
        ]
    )
    last = {r["number"]: r["metrics"] for r in rungs}
    table = []
    for trial in trials:
        number = trial["number"]
        names = ("budget", "val_error", "val_loss", "train_loss", "parameters")
        metrics = {name: last.get(number, {}).get(name) for name in names}
        table.append(
            {
                "trial": number,
                "refits": trial["refits"],
                "state": trial["state"],
                "reason": trial["reason"],
                "restarts": restarts[number],
                "family": ARCHS[trial["config"]["arch"]].family,
                **metrics,
                "started": trial["started"],
                "t": trial["t"],
                "seconds": (trial["t_ended"] or trial["t"]) - trial["t"],
                "train_s": trial["train_s"],
                "eval_s": trial["eval_s"],
                **trial["config"],
                "engine": last.get(number, {}).get("engine", trial["config"]["engine"]),  # what the probe found
            }
        )
    return pd.DataFrame(table).astype({"refits": "Int64"} if table else {}), curves


def write_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write both as Parquet and return them."""
    both = tables(folder)
    for name, table in zip(("trials", "curves"), both, strict=True):
        write_parquet(folder / f"{name}.parquet", table)
    return both


def write_parquet(path: Path, table: pd.DataFrame):
    """Whole or absent."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    files.write(path, buffer.getvalue())


def busy(trials: pd.DataFrame, slots: float) -> float:
    """The share of the places' time, from the first trial's start to the last one's end, spent in training and
    evaluation steps; 0 without trials."""
    if trials.empty:
        return 0.0
    span = (trials["t"] + trials["seconds"]).max() - trials["t"].min()
    return float((trials["train_s"] + trials["eval_s"]).sum() / max(1e-9, slots * span))
