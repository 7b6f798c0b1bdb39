import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pandas as pd
import pytest
from running import new_mlflow

from sweeps.search.record import Record, read
from sweeps.show.tracking import Tracker
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


def cut_off(tracker: Tracker):
    """As when its driver is killed after a batch: what it has heard is written, no run is ended, no more is heard."""
    tracker.events.put({"kind": "sweep_ended", "metrics": {}, "files": [], "at": 1.0})
    tracker.closing.set()
    tracker.thread.join()
    tracker.client.update_run(tracker.parent, "RUNNING")


def resumed(path, track, uri) -> tuple[Record, Tracker]:
    """As a sweep does with --resume."""
    record = Record(path)
    record.interrupt_all("the sweep was cut off")
    tracker = track(uri, read(path))
    record.listeners = (tracker,)
    return record, tracker


def test_mlflow_mirror(tmp_path, monkeypatch, track, uri, path, warnings):
    monkeypatch.chdir(tmp_path)
    tracker = track(uri)
    play(Record(path, (tracker,)))
    artifact = tmp_path / "ensemble.json"
    artifact.write_text("{}")
    tracker.close({"val_error": 0.01}, [artifact])
    assert warnings == []
    check_mirror(uri)
    assert len(list((tmp_path / "artifacts").rglob("ensemble.json"))) == 1
    assert list(tmp_path.rglob("mlruns")) == []


def test_old_mlruns_beside_it(tmp_path, monkeypatch, track, uri, path, warnings):
    """faults.md 19: an old MLflow's folder, not all of it readable, in the working directory."""
    rubbish = {
        "0/meta.yaml": b"experiment_id: '0'\nname: digits\nlifecycle_stage: active\n",
        "1/meta.yaml": b"name: digits\nexperiment_id: [",
        "1/abc/meta.yaml": b"",
        "1/abc/metrics/val_loss": b"\xff\xfe no number",
        ".trash/2/meta.yaml": b"name: digits\n",
        "models/x": b"",
    }
    old = tmp_path / "mlruns"
    for name, data in rubbish.items():
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_bytes(data)
    before = stats(old)
    monkeypatch.chdir(tmp_path)
    tracker = track(uri)
    play(Record(path, (tracker,)))
    tracker.close({"val_error": 0.01}, [path])
    assert warnings == []
    check_mirror(uri)
    assert stats(old) == before
    assert {name: (old / name).read_bytes() for name in rubbish} == rubbish


def stats(folder) -> dict:
    """Every file and folder in it, and when it was changed."""
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_mlflow_after_a_kill(track, uri, path, warnings):
    """faults.md 20: one run a trial, no step twice, none left running; the ids stay."""
    tracker = track(uri)
    record = Record(path, (tracker,))
    begin(record)
    cut_off(tracker)
    before = runs_of(uri).set_index("tags.trial")["run_id"]
    record.rung(1, 1, {**METRICS, "val_loss": 0.25}, {}, end=("stopped", "place 2 of 2"))
    record.trial_ended(2, "failed", "ValueError: no")
    record.close()

    record, tracker = resumed(path, track, uri)
    record.trial_restarted(0, "the sweep goes on", CONFIG)
    last_rung(record)
    record.trial_started(3, CONFIG, {}, {})
    record.trial_ended(3, "failed", "ValueError: no")
    tracker.close({"val_error": 0.01}, [])
    assert warnings == []
    runs = runs_of(uri).set_index("tags.trial")
    assert len(runs) == 5
    assert sorted(runs["status"]) == ["FAILED", "FAILED", "FINISHED", "FINISHED", "KILLED"]
    assert runs["tags.state"][["0", "1", "2", "3"]].tolist() == ["complete", "stopped", "failed", "failed"]
    assert all(runs["run_id"][before.index.dropna()] == before[before.index.dropna()])
    assert history(uri, runs["run_id"]["0"]) == [(0, 0.2), (1, 0.1)]
    assert history(uri, runs["run_id"]["1"]) == [(0, 0.3), (1, 0.25)]


@pytest.mark.parametrize("gone", ["parent", "parameters", pytest.param("database", marks=pytest.mark.full)])
def test_mlflow_has_lost_something(gone, tmp_path, track, uri, path, warnings):
    """faults.md 20: the parent run, what was to be logged right after each run was made, or everything."""
    tracker = track(uri)
    record = Record(path, (tracker,))
    begin(record)
    record.trial_ended(1, "stopped", "place 2 of 2", {"train_s": 8.0, "eval_s": 1.0})
    record.trial_ended(2, "failed", "ValueError: no")
    cut_off(tracker)
    record.close()
    if gone == "parent":
        tracker.client.delete_run(tracker.parent)
    elif gone == "parameters":
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db, db:
            db.execute("DELETE FROM params")
            db.execute("UPDATE runs SET status = 'RUNNING'")
    else:
        uri = f"sqlite:///{tmp_path / 'new.db'}"  # a new name: MLflow keeps the old file open in this process

    record, tracker = resumed(path, track, uri)
    record.trial_restarted(0, "the sweep goes on", CONFIG)
    last_rung(record)
    tracker.close({"val_error": 0.01}, [])
    assert warnings == []
    check_mirror(uri)


def test_mlflow_forgets_what_lay_between_two_rungs(track, uri, path, warnings):
    tracker = track(uri)
    record = Record(path, (tracker,))
    begin(record)
    interrupt(record)
    tracker.close({}, [])
    record.close()
    record, tracker = resumed(path, track, uri)
    record.trial_restarted(0, "the sweep goes on", CONFIG)
    finish(record)
    tracker.close({"val_error": 0.01}, [])
    assert warnings == []
    check_mirror(uri)


def interrupt(record: Record):
    """Trial 0, between two rungs."""
    record.rung(0, 1, {**METRICS, "val_loss": 0.15}, {}, partial=True, end=("interrupted", "the search ended"))


@pytest.mark.parametrize("then", ["killed", "between two rungs", "after a rung"])
def test_mlflow_was_away_when_a_trial_went_on(then, track, uri, path, warnings):
    """faults.md 18, 20: MLflow has a trial as interrupted, and heard nothing of a resumption that was interrupted too."""
    tracker = track(uri)
    record = Record(path, (tracker,))
    begin(record)
    interrupt(record)
    tracker.close({}, [])
    record.listeners = ()
    record.trial_restarted(0, "the sweep goes on", CONFIG)
    if then == "between two rungs":
        interrupt(record)
    elif then == "after a rung":
        last_rung(record, ("interrupted", "the search ended"))
    record.close()
    record, tracker = resumed(path, track, uri)
    record.trial_restarted(0, "the sweep goes on", CONFIG)
    finish(record, again=then == "after a rung")
    tracker.close({"val_error": 0.01}, [])
    assert warnings == []
    check_mirror(uri)


def test_mlflow_that_was_away_is_filled_on_resume(track, uri, path, warnings):
    play(Record(path))
    track(uri, read(path)).close({"val_error": 0.01}, [])
    assert warnings == []
    check_mirror(uri)


def test_mlflow_away_at_the_start(track, uri, path, warnings):
    """faults.md 18: nothing listens."""
    tracker = track(f"http://127.0.0.1:{free_port()}")
    check_gives_up(tracker, path, warnings, patience=30)
    track(uri, read(path)).close({"val_error": 0.01}, [])
    check_mirror(uri)


def check_gives_up(tracker: Tracker, path, warnings: list[str], patience: float):
    """One warning, in time, and the record has everything."""
    play(Record(path, (tracker,)))
    began = time.monotonic()
    tracker.close({}, [], patience)
    assert time.monotonic() - began < patience + 2
    assert len(warnings) == 1
    assert "mirror of this sweep" in warnings[0]
    assert "\n" not in warnings[0]
    assert [trial["state"] for trial in read(path)[0]] == ["complete", "stopped", "failed"]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def server(tmp_path, port: int):
    """A real `mlflow server` over server.db, in a process group of its own; yields its address and how to kill it."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
               "--artifacts-destination", str(tmp_path / "artifacts"), "--port", str(port), "--workers", "1"]  # fmt: skip
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def kill():
        os.killpg(process.pid, 9)
        process.wait()

    try:
        wait_until(lambda: listens(port))
        yield f"http://127.0.0.1:{port}", kill
    finally:
        if process.poll() is None:
            kill()


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def wait_until(there):
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until, "waited for too long"
        time.sleep(0.1)


@pytest.mark.full
@pytest.mark.parametrize("when", ["in the middle", "at the end"])
def test_mlflow_server_stopped(when, tmp_path, track, path, warnings):
    """faults.md 18: a real server, there at first and then gone; a resumption with a new one fills in what is missing."""
    port = free_port()
    record = Record(path)
    with server(tmp_path, port) as (uri, kill):
        tracker = track(uri)
        record.listeners = (tracker,)
        begin(record)
        wait_until(lambda: len(tracker.runs) == 3 and "val_loss" in tracker.client.get_run(tracker.runs[1]).data.metrics)
        if when == "in the middle":
            kill()
            finish(record)
            wait_until(lambda: not tracker.thread.is_alive())
            assert len(warnings) == 1, "said at once"
        else:
            finish(record)
            kill()
        began = time.monotonic()
        tracker.close({"val_error": 0.01}, [], patience=20)
        assert time.monotonic() - began < 20
        assert len(warnings) == 1
        assert "no MLflow mirror of this sweep" in warnings[0]
    record.close()
    with server(tmp_path, port) as (uri, kill):
        track(uri, read(path)).close({"val_error": 0.01}, [])
        check_mirror(uri)
    assert len(warnings) == 1


def events(count: int) -> list[dict]:
    start = {"kind": "trial_started", "number": 0, "config": CONFIG, "at": 1.0}
    return [start, *({"kind": "rung", "number": 0, "rung": k, "metrics": METRICS, "at": 1.0} for k in range(count - 1))]


@pytest.mark.full
def test_mlflow_server_hangs(monkeypatch, track, path, warnings):
    """faults.md 18: it takes connections and never answers. The search is never held up; one warning, from either thread."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        tracker = track(f"http://127.0.0.1:{listener.getsockname()[1]}")
        connection, _ = listener.accept()
        with connection:
            began = time.monotonic()
            for event in events(200):
                tracker(event)
            assert time.monotonic() - began < 0.5
            assert tracker.thread.is_alive()
            check_gives_up(tracker, path, warnings, patience=0.5)
            assert "takes too long" in warnings[0]
            tracker.thread.join(30)
            assert not tracker.thread.is_alive()
            assert len(warnings) == 1


class Forbids(BaseHTTPRequestHandler):
    body = b""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = do_PATCH = do_PUT = answer

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("body", [b"", b"Invalid Host header\nand more", b'{"error_code": "PERMISSION_DENIED", "message": "no"}'])
def test_mlflow_server_forbids(body, track, path, warnings):
    """faults.md 18: 403 to everything, from a proxy or from MLflow itself."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (Forbids,), {"body": body})) as forbids:
        thread = threading.Thread(target=forbids.serve_forever)
        thread.start()
        try:
            tracker = track(f"http://127.0.0.1:{forbids.server_port}")
            check_gives_up(tracker, path, warnings, patience=20)
        finally:
            forbids.shutdown()
            thread.join()
    assert "403" in warnings[0] or "PERMISSION_DENIED" in warnings[0]


@contextmanager
def locked(path):
    """Another connection has the SQLite database for itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


@pytest.fixture(params=["new", "old"])
def database(request, tmp_path, warnings):
    """mlflow.db: one that does not exist yet, or one with another sweep's runs, that this process has not opened yet."""
    if request.param == "old":
        Tracker(f"sqlite:///{tmp_path / 'first.db'}", None, "flowers", "another", {}, warnings.append).close({}, [])
        shutil.copy(tmp_path / "first.db", tmp_path / "mlflow.db")
    return tmp_path / "mlflow.db"


@pytest.mark.full
def test_mlflow_database_locked_for_seconds(database, track, uri, path, warnings):
    """faults.md 18: longer than the 5 s that SQLAlchemy waits."""
    with locked(database):
        tracker = track(uri)
        play(Record(path, (tracker,)))
        time.sleep(6)
    tracker.close({"val_error": 0.01}, [], patience=60)
    assert warnings == []
    check_mirror(uri)


@pytest.mark.full
def test_mlflow_database_locked_to_the_end(database, track, uri, path, warnings):
    """faults.md 18: nothing can be written, and the sweep ends in time."""
    with locked(database):
        tracker = track(uri)
        check_gives_up(tracker, path, warnings, patience=2)
    tracker.thread.join(120)
    assert not tracker.thread.is_alive()
    assert len(warnings) == 1
