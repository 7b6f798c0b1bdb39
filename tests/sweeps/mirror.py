"""A sweep of three trials, and what its mirror in MLflow should be."""

import mlflow
import pandas as pd

from sweeps.search.record import Record
from trainable.config import TrialConfig

CONFIG = TrialConfig().flat()
METRICS = {"budget": 1.0, "val_loss": 0.2, "val_error": 0.05, "train_s": 8.0, "eval_s": 1.0, "engine": "fp32-nhwc"}


def begin(record: Record):
    """Three trials."""
    for number in range(3):
        record.trial_started(number, CONFIG, {}, {})
    record.rung(0, 0, METRICS, {})
    record.rung(1, 0, {**METRICS, "val_loss": 0.3}, {})


def finish(record: Record, again: bool = False):
    """One of them complete, one stopped, one failed before its first rung."""
    record.trial_ended(1, "stopped", "place 2 of 2", {"train_s": 8.0, "eval_s": 1.0})
    last_rung(record, again=again)
    record.trial_ended(2, "failed", "ValueError: no")


def play(record: Record):
    begin(record)
    finish(record)


def last_rung(record: Record, end: tuple[str, str] = ("complete", ""), again: bool = False):
    record.rung(0, 1, {**METRICS, "val_loss": 0.1, "budget": 4.0, "train_s": 16.0}, {}, again=again, end=end)


def runs_of(uri: str) -> pd.DataFrame:
    mlflow.set_tracking_uri(uri)
    return mlflow.search_runs(experiment_names=["digits"])


def history(uri: str, run: str) -> list:
    return [(m.step, m.value) for m in mlflow.MlflowClient(uri).get_metric_history(run, "val_loss")]


def check_mirror(uri: str):
    """One run a trial, no step twice, none left running."""
    runs = runs_of(uri)
    parent = runs[runs["tags.mlflow.parentRunId"].isna()]
    children = runs[runs["tags.mlflow.parentRunId"] == parent["run_id"].item()].sort_values("tags.trial")
    assert len(runs) == 4
    assert parent["status"].item() == "FINISHED"
    assert parent["metrics.val_error"].item() == 0.01
    assert parent["params.space"].item() == "quick"
    assert children["status"].tolist() == ["FINISHED", "KILLED", "FAILED"]
    assert children["tags.state"].tolist() == ["complete", "stopped", "failed"]
    assert children["tags.reason"].tolist() == ["", "place 2 of 2", "ValueError: no"]
    assert children["params.arch"].tolist() == ["convnet"] * 3
    assert [history(uri, run) for run in children["run_id"]] == [[(0, 0.2), (1, 0.1)], [(0, 0.3)], []]
