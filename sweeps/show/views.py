"""From the record to tables: trials.parquet and curves.parquet, mirrors that can be rebuilt, and the views of them."""

import io
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.search.record import STATES, newest_about, read, rows
from sweeps.show import trained
from trainable import files
from trainable.archs import ARCHS
from trainable.config import TrialConfig
from trainable.schema import MEND, Damaged, Later
from trainable.stored_tables import FINITE, FLAGS, NUMBERS, TEXTS, WHOLE, WHOLE_OR_NOTHING, read_table

ENDS = tuple(state for state in STATES if state != "running")
# Columns that the views need where no record is left, and what they hold.
COLUMNS = {
    "trials": {
        "trial": WHOLE,
        "refits": Later(WHOLE_OR_NOTHING),
        **dict.fromkeys(("state", "reason", "family", "arch", "optimizer", "lr_schedule"), TEXTS),
        **dict.fromkeys(("t", "seconds", "train_s", "eval_s", "epochs", "lr"), FINITE),
        **dict.fromkeys(("budget", "val_error", "val_loss", "parameters"), NUMBERS),
        "ms": Later(NUMBERS),
    },
    "curves": {
        **dict.fromkeys(("trial", "rung"), WHOLE),
        "partial": FLAGS,
        **dict.fromkeys(("t", "budget", "val_error", "val_loss"), FINITE),
    },
}
LATER = {"refits": "Int64", "ms": "float64"}  # of trials, which old tables lack
OF_LAST_RUNG = ("budget", "val_error", "val_loss", "train_loss", "parameters")


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row a trial, with its last metrics and its configuration, and a row a rung. Where there is no record, as in
    results/records/, what `write_tables` made of it."""
    if not (folder / "record.db").exists():
        return _kept(folder)
    trials, rungs = read(folder / "record.db")
    restarts = Counter(row["number"] for row in rows(folder / "record.db", "restarts"))
    curves = []
    for r in rungs:
        row = {"trial": r["number"], "rung": r["rung"], "partial": bool(r["partial"])}
        curves.append(_beside({**row, "at": r["at"], "t": r["t"]}, r["metrics"]))
    curves = pd.DataFrame(curves)
    last = {r["number"]: r["metrics"] for r in rungs}
    evaluated = Counter(r["number"] for r in rungs)
    about = newest_about(folder / "record.db")
    data = about["data"] if about else {}
    table = []
    for trial in trials:
        number = trial["number"]
        metrics = {name: last.get(number, {}).get(name) for name in OF_LAST_RUNG}
        row = {
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
            "ms": _ms(trial, evaluated[number], data),
        }
        engine = last.get(number, {}).get("engine", trial["config"]["engine"])  # what the probe found
        table.append({**_beside(row, trial["config"]), "engine": engine})
    if not table:  # it has just begun
        return _nothing()
    trials = pd.DataFrame(table).astype({"refits": "Int64"})
    return trials.assign(training=trained.training(trials)), curves if len(curves) else _nothing()[1]


def _kept(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables as `write_tables` wrote them; raises Damaged."""
    trials, curves = (read_table(folder / f"{name}.parquet", kinds).to_pandas() for name, kinds in COLUMNS.items())
    if not len(trials):
        return _nothing()
    with_result = set(trials["trial"][trials["val_loss"].notna()])
    twice = trials.duplicated("trial").any() or curves.duplicated(["trial", "rung"]).any()
    if twice or with_result != set(curves["trial"]):
        both = f"{folder / 'trials.parquet'} and curves.parquet"
        raise Damaged(f"{both} do not fit: each should have a trial or a rung once, and the same trials; {MEND}")
    absent = {name: pd.Series(pd.NA, trials.index, "Float64") for name in LATER if name not in trials}
    trials = trials.assign(**absent).astype(LATER)
    return trials.assign(training=trained.training(trials)), curves if len(curves) else _nothing()[1]


def _beside(row: Mapping, others: Mapping) -> dict:
    """A row with other fields behind its own, which have precedence: a damaged record may name one as we do."""
    return {**row, **others, **row}


def _nothing() -> tuple[pd.DataFrame, pd.DataFrame]:
    """No trial and no rung, in the columns that they would have."""
    names = ["trial", "refits", "state", "reason", "restarts", "family", *OF_LAST_RUNG, "started", "t", "seconds", "train_s"]
    kinds = {"refits": "Int64", "state": str, "reason": str, "family": str}
    trials = pd.DataFrame(columns=[*names, "eval_s", "ms", *TrialConfig().flat()], dtype=float).astype(kinds)
    curves = pd.DataFrame(columns=["trial", "rung", "partial", "at", "t", "budget", "val_loss", "val_error"], dtype=float)
    return trials.assign(training=trained.training(trials)), curves.astype({"partial": bool})


def _ms(trial: dict, times: int, data: Mapping) -> float | None:
    """Milliseconds of its place that an image took while the trial was evaluated: about what a prediction costs."""
    images, folds = data.get("images", {}), trial["config"].get("folds")
    by_fold = folds and not data.get("val_given")
    judged = (images.get("train", 0) + images.get("val", 0)) / folds if by_fold else images.get("val")
    return 1e3 * trial["eval_s"] / times / judged if times and judged else None


def write_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write both as Parquet and return them."""
    both = tables(folder)
    for name, table in zip(("trials", "curves"), both, strict=True):
        write_parquet(folder / f"{name}.parquet", table)
    return both


def write_parquet(path: Path, table: pd.DataFrame):
    """Whole or absent. A column of numbers and words, as a knob may have them, becomes words."""
    mixed = [name for name in table if pd.api.types.infer_dtype(table[name]) in ("mixed", "mixed-integer")]
    table = table.assign(**{name: table[name].map(str, na_action="ignore") for name in mixed})
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, write_page_checksum=True)
    files.write(path, buffer.getvalue())


BUSY = "training and evaluating, of all places' time from the command to the end"


def busy(trials: pd.DataFrame, slots: float, seconds: float) -> float:
    """Return the share of the places' time that was spent in steps of training and evaluation, BUSY.

    Args:
        slots: places, on average.
        seconds: from the command to the end, of all drivers together; starting, waiting, combining and writing count.
    """
    return float((trials["train_s"] + trials["eval_s"]).sum() / max(1e-9, slots * seconds))


def searched(trials: pd.DataFrame) -> pd.DataFrame:
    """Those of the search, not of its finalists."""
    return trials[trials["refits"].isna()] if len(trials) else trials


def leaderboard(trials: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The trials of the search, those that trained longest first, of these the lowest val loss first: only what trained
    equally long compares."""
    found = searched(trials)
    columns = {"trial": "trial", "arch": "architecture", "state": "state", "budget": "epochs", "val_error": "error"}
    columns |= {
        "training": "training",
        "val_loss": "loss",
        "parameters": "parameters",
        "optimizer": "optimizer",
        "lr": "lr",
        "lr_schedule": "lr_schedule",
    }
    found = found.assign(minutes=(found["train_s"] + found["eval_s"]) / 60, rung=found["trial"].map(last_rungs(curves)))
    found = found.sort_values(["rung", "val_loss"], ascending=[False, True])
    return found[[*columns, "minutes"]].rename(columns=columns).reset_index(drop=True)


def last_rungs(curves: pd.DataFrame) -> Mapping[int, int]:
    """The last rung that each trial passed, by trial; of those that passed none, nothing."""
    return curves[~curves["partial"]].groupby("trial")["rung"].max() if len(curves) else {}


def families(trials: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row a family: how many trials, how they ended, the best of them on val, and what they cost."""
    found = searched(trials)
    out = []
    for family, mine in found.groupby("family"):
        ended = Counter(mine["state"])
        best = mine.loc[mine["val_loss"].idxmin()] if mine["val_loss"].notna().any() else {}
        minutes = (mine["train_s"] + mine["eval_s"]).sum() / 60
        row = {"family": family, "trials": len(mine), **{state: ended[state] for state in ENDS}, "best": best.get("trial")}
        row |= {"epochs": best.get("budget"), "training": best.get("training"), "error": mine["val_error"].min()}
        row |= {"loss": best.get("val_loss"), "minutes": minutes}
        out.append(row)
    names = ["family", "trials", *ENDS, "best", "epochs", "training", "error", "loss", "minutes"]
    kinds = {"best": "Int64"} if out else {}
    return pd.DataFrame(out, columns=names).astype(kinds).sort_values(["error", "loss"]).reset_index(drop=True)


def stops(trials: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row a rung of the search: who came, who went on, and where the line was."""
    found = searched(trials)
    mine = curves[curves["trial"].isin(found["trial"]) & ~curves["partial"]] if len(curves) else curves
    ended = found.set_index("trial")["state"]
    last = last_rungs(mine)
    out = []
    for rung, there in mine.groupby("rung") if len(mine) else ():
        ends = ended[[trial for trial in there["trial"] if last[trial] == rung]]
        on = there[~there["trial"].isin(ends.index)]
        row = {"rung": rung + 1, "epochs": there["budget"].median(), "reached": len(there), "went on": len(on)}
        row |= {state: int((ends == state).sum()) for state in ENDS}
        out.append({**row, "best loss": there["val_loss"].min(), "worst that went on": on["val_loss"].max()})
    names = ["rung", "epochs", "reached", "went on", *ENDS, "best loss", "worst that went on"]
    return pd.DataFrame(out, columns=names)


def cost(trials: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """What the places' time went into: search and finalists, by how a trial ended."""
    phase = np.where(trials["refits"].isna(), "search", "finalists") if len(trials) else []
    out = []
    for (name, state), mine in trials.assign(phase=phase).groupby(["phase", "state"]) if len(trials) else ():
        hours = {"training": mine["train_s"].sum() / 3600, "evaluating": mine["eval_s"].sum() / 3600}
        held = mine["seconds"].sum() / 3600
        out.append({"phase": name, "state": state, "trials": len(mine), **hours, "else": max(0.0, held - sum(hours.values()))})
    table = pd.DataFrame(out, columns=["phase", "state", "trials", "training", "evaluating", "else"])
    table["share"] = table[["training", "evaluating", "else"]].sum(axis=1) / max(
        1e-9, table[["training", "evaluating", "else"]].sum().sum()
    )
    return table.sort_values(["phase", "share"], ascending=False).reset_index(drop=True)


def failures(trials: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Why trials failed, were cut off or started again; reasons that differ only in numbers are one."""
    found = trials[trials["reason"].ne("") & trials["state"].ne("stopped")] if len(trials) else trials
    alike = found["reason"].str.replace(r"\d[\d.]*", "#", regex=True) if len(found) else found.get("reason")
    out = []
    for (_, state), mine in found.groupby([alike, "state"]) if len(found) else ():
        minutes = (mine["train_s"] + mine["eval_s"]).sum() / 60
        first = ", ".join(map(str, mine["trial"].head(5))) + (", ..." if len(mine) > 5 else "")
        out.append({"state": state, "trials": len(mine), "which": first, "minutes": minutes, "reason": mine["reason"].iloc[0]})
    table = pd.DataFrame(out, columns=["state", "trials", "which", "minutes", "reason"])
    return table.sort_values("trials", ascending=False).reset_index(drop=True)


def pareto(trials: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The complete trials that no other betters in error and in size, or in error and in time, smallest first."""
    found = searched(trials)
    found = found[found["state"].eq("complete")] if len(found) else found
    found = found.assign(by_size=front(found["parameters"], found["val_error"]), by_time=front(found["ms"], found["val_error"]))
    found = found[found["by_size"] | found["by_time"]].sort_values("parameters")
    columns = {"trial": "trial", "arch": "architecture", "parameters": "parameters", "ms": "ms", "val_error": "error"}
    return found.rename(columns=columns)[[*columns.values(), "by_size", "by_time"]].reset_index(drop=True)


def front(x: pd.Series, y: pd.Series) -> list[bool]:
    """Which points no other point beats: none is as low in both and lower in one. A point with a NaN is none."""
    points = [None if pd.isna(a) or pd.isna(b) else (a, b) for a, b in zip(x, y, strict=True)]
    order = sorted(p for p in points if p)
    best, on = float("inf"), set()
    for p in order:  # those that are as low in x come lowest in y first
        if p[1] < best:
            best = p[1]
            on.add(p)
    return [p in on for p in points]


def lanes(trials: pd.DataFrame) -> pd.DataFrame:
    """With `lane`: the place that each trial had, as few as were in use at a time. A trial that was cut off and went on keeps
    its place for the whole time."""
    free: list[float] = []  # when each lane is free again
    out = {}
    for _, trial in trials.sort_values("t").iterrows():
        lane = next((i for i, end in enumerate(free) if end <= trial["t"] + 0.5), len(free))
        free[lane : lane + 1] = [trial["t"] + trial["seconds"]]
        out[trial["trial"]] = lane + 1
    return trials.assign(lane=trials["trial"].map(out))


VIEWS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]] = {
    "leaderboard": leaderboard,
    "families": families,
    "stops": stops,
    "pareto": pareto,
    "cost": cost,
    "failures": failures,
}
