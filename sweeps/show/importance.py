"""Which parameters mattered, and which of their values were good, among trials that are compared after equally long training."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, json_to_distribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from sweeps.search.record import read
from trainable.archs import ARCHS

GOOD = 0.25  # the share of the trials whose values are called good
ENOUGH = 20  # trials that a rung needs, where one has so many
HIGHEST = 16.2  # cross-entropy: a probability counts as at least 1e-7; what is no number is as bad
LEAST = 10  # trials with a parameter, below which nothing is said of its importance
NAMES = ["parameter", "importance", "trials", "good values", "tried"]


def compared(folder: Path, family: str | None = None) -> tuple[pd.DataFrame, float | None]:
    """The trials of the search at the highest rung that enough of them passed: `trial`, `loss` there, `params` and
    `distributions` as drawn; and the epochs of that rung, None where no rung has trials enough."""
    trials, rungs = read(folder / "record.db")
    mine = {t["number"]: t for t in trials if t["refits"] is None and family in (None, ARCHS[t["config"]["arch"]].family)}
    at: dict[int, list[dict]] = {}
    for row in rungs:
        if row["number"] in mine and not row["partial"]:
            at.setdefault(row["rung"], []).append(row)
    rung = max((r for r, there in at.items() if len(there) >= ENOUGH), default=max(at, key=lambda r: len(at[r]), default=None))
    if rung is None:
        return pd.DataFrame(columns=["trial", "loss", "params", "distributions"]), None
    table = [
        {
            "trial": row["number"],
            "loss": row["metrics"]["val_loss"],
            **{k: mine[row["number"]][k] for k in ("params", "distributions")},
        }
        for row in at[rung]
    ]
    return pd.DataFrame(table), float(np.median([row["metrics"]["budget"] for row in at[rung]]))


def importance(table: pd.DataFrame) -> pd.DataFrame:
    """A row a parameter that was drawn by the trials that are `compared`, the most important first.

    `importance` is the share by which it decides who is among the best quarter: conditional PED-ANOVA (Watanabe, Bansal and
    Hutter, arXiv:2304.10255; arXiv:2601.20800 for parameters that not every trial has). `good values` are those of the best
    quarter: of numbers the middle 80 %, of names each with its share.
    """
    if table.empty:
        return pd.DataFrame(columns=NAMES)
    table = table.assign(loss=table["loss"].astype(float).fillna(HIGHEST).clip(upper=HIGHEST))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    drawn: dict[str, list[tuple[float, object, BaseDistribution]]] = {}
    for row in table.itertuples():
        distributions = {name: json_to_distribution(text) for name, text in row.distributions.items() if name in row.params}
        params = {name: row.params[name] for name in distributions}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=row.loss))
        for name, value in params.items():
            drawn.setdefault(name, []).append((row.loss, value, distributions[name]))
    with warnings.catch_warnings(action="ignore"):  # of parameters that few trials have: nothing is said of them
        try:
            shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=GOOD))
        except (ValueError, RuntimeError):  # e.g. nothing was drawn in more than one way
            shares = {}
    out = [
        {
            "parameter": name,
            "importance": shares.get(name) if len(values) >= LEAST else None,
            "trials": len(values),
            **_values(values),
        }
        for name, values in drawn.items()
        if len({str(value) for _, value, _ in values}) > 1
    ]
    found = pd.DataFrame(out, columns=NAMES).astype({"importance": float})
    return found.sort_values(["importance", "trials"], ascending=False).reset_index(drop=True)


def _values(values: Sequence[tuple[float, object, BaseDistribution]]) -> dict[str, str]:
    """The values of the best, and of all, for people."""
    best = sorted(values, key=lambda item: item[0])[: max(3, round(GOOD * len(values)))]
    # As names, too, what trials drew in either way: a resumed space may let them.
    named = any(isinstance(value, str | bool) for _, value, _ in values)
    if named or any(isinstance(drawn, CategoricalDistribution) for _, _, drawn in values):
        counts = pd.Series([str(value) for _, value, _ in best]).value_counts()
        good = ", ".join(f"{name} {count / len(best):.0%}" for name, count in counts.head(4).items())
        return {"good values": good, "tried": f"{len({str(value) for _, value, _ in values})} choices"}
    low, high = np.quantile([value for _, value, _ in best], [0.1, 0.9])
    tried = [value for _, value, _ in values]
    return {"good values": f"{low:.3g} to {high:.3g}", "tried": f"{min(tried):.3g} to {max(tried):.3g}"}
