"""Checks of a whole record: what no field shows by itself, such as a fold beyond the folds."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from optuna.distributions import BaseDistribution, json_to_distribution

from trainable.record_file import MEND, PROBS
from trainable.saved import WEIGHTS
from trainable.schema import Damaged


def check_trials(path: Path, trials: Sequence[Mapping]):
    """Raises Damaged unless trials are numbered, known to their search, and drawn as they say."""
    searched = {trial["number"]: trial["config"] for trial in trials if trial["refits"] is None}
    for place, trial in enumerate(trials):
        where = f"{path}: trials {trial['number']}"
        if trial["number"] != place:
            raise Damaged(f"{path}: trials: number {place} is missing; {MEND}")
        if trial["refits"] is not None and trial["refits"] not in searched:
            raise Damaged(f"{where}.refits is {trial['refits']}, and the search has no such trial; {MEND}")
        folds, fold = trial["config"]["folds"], trial["config"]["fold"]
        if trial["refits"] is not None and not (fold < folds and 2 <= folds <= 1000):
            raise Damaged(f"{where}.config has the fold {fold} of {folds}, and should have one of 2 to 1000; {MEND}")
        # A finalist's further seeds are above that of its trial.
        of = trial["refits"]
        if of is not None and trial["config"]["seed"] < (least := searched[of]["seed"]):
            raise Damaged(f"{where}.config.seed should be {least} or more, as of trial {of}; {MEND}")
        _check_drawn(trial, where)


def check_learned(path: Path, learned: Sequence[Mapping]):
    """Raises Damaged unless what another sweep told was drawn as it says."""
    for place, row in enumerate(learned):
        if row["what"] == "told":
            _check_drawn(row["data"], f"{path}: learned {place}.data")


def check_rungs(path: Path, trials: Sequence[Mapping], rungs: Sequence[Mapping]):
    """Raises Damaged unless rungs belong to trials, once each, and a trial that came to its end has one."""
    known = {trial["number"] for trial in trials}
    for rung in rungs:
        where = f"{path}: rungs {rung['number']} rung {rung['rung']}"
        if rung["number"] not in known:
            raise Damaged(f"{where}: there is no such trial; {MEND}")
        named = rung["files"] or {}
        if named and (lacks := {WEIGHTS, PROBS} - named.keys() | {"temperature"} - rung["metrics"].keys()):
            raise Damaged(f"{where}: it has files, and no {min(lacks)}; {MEND}")
    if len({(rung["number"], rung["rung"]) for rung in rungs}) < len(rungs):
        raise Damaged(f"{path}: rungs: one of a trial is there twice; {MEND}")
    passed = {rung["number"] for rung in rungs if not rung["partial"]}
    for trial in trials:
        if trial["state"] == "complete" and trial["number"] not in passed:
            raise Damaged(f"{path}: trials {trial['number']}.state is 'complete', and it has passed no rung; {MEND}")


def _check_drawn(trial: Mapping, where: str):
    """Raises Damaged unless Optuna takes a trial's `params` as drawn from its `distributions`."""
    if alone := trial["params"].keys() ^ trial["distributions"].keys():
        raise Damaged(f"{where}: {min(alone)} is in one of params and distributions alone; {MEND}")
    for name, text in trial["distributions"].items():
        value = trial["params"][name]
        try:
            distribution = _distribution(text)
            fits = distribution._contains(distribution.to_internal_repr(value))
        except Exception as wrong:  # Optuna's, of many kinds
            raise Damaged(f"{where}.distributions.{name} is none of Optuna's ({wrong}); {MEND}") from wrong
        if not fits:
            raise Damaged(f"{where}.params.{name} is {value!r}, which its distribution does not have; {MEND}")


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)
