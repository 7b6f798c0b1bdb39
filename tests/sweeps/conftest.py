import numpy as np
import pytest
from handed_over import CONFIG, hand_over, probs_of
from running import new_mlflow

from sweeps.search.record import Record
from sweeps.show.tracking import Tracker


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def track(tmp_path, warnings):
    """track(uri, past) -> the Tracker of "a sweep", which warns into `warnings`."""

    def track(uri: str, past=None) -> Tracker:
        artifacts = tmp_path / "artifacts" if uri.startswith("sqlite:") else None
        return Tracker(uri, artifacts, "digits", "a sweep", {"space": "quick"}, warnings.append, past)

    return track


@pytest.fixture
def uri(tmp_path) -> str:
    new_mlflow(tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "record.db"


@pytest.fixture
def searched(tmp_path, tiny):
    """A record of a search: four trials to the end, with 10, 20, 30 and 40 errors of 200, and one that was stopped."""
    record = Record(tmp_path / "record.db", about={"arguments": {}, "data": {"fingerprint": "x"}})
    labels = tiny.val.labels
    for number in range(5):
        record.trial_started(number, {**CONFIG, "seed": number}, {}, {})
        wrong = np.zeros(len(labels), dtype=bool)
        # Those of 0 and 1 lie within each other, those of 2 elsewhere.
        start = {0: 0, 1: 0, 2: 100, 3: 0, 4: 0}[number]
        wrong[start : start + 10 * (number + 1)] = True
        stopped = number == 4
        end = ("stopped", "") if stopped else ("complete", "")
        hand_over(record, number, 0 if stopped else 1, 1.0 if stopped else 4.0, {"val": probs_of(labels, wrong)}, labels, end)
    return record
