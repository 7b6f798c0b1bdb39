import pytest
from running import new_mlflow

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
