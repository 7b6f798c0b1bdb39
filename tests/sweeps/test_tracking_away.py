"""MLflow's server or database is away, hangs, refuses or is locked: faults.md 18. The sweep goes on."""

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

import pytest
from mirror import CONFIG, METRICS, begin, check_mirror, finish, play
from running import wait

from sweeps.search.record import Record, read
from sweeps.show.tracking import Tracker


def test_mlflow_away_at_the_start(track, uri, path, warnings):
    """faults.md 18: nothing listens."""
    tracker = track(f"http://127.0.0.1:{free_port()}")
    check_gives_up(tracker, path, warnings)
    track(uri, read(path)).close({"val_error": 0.01}, [])
    check_mirror(uri)


def check_gives_up(tracker: Tracker, path, warnings: list[str], patience: float | None = None):
    """One warning, and the record has everything. Without a `patience`, its thread must end by itself."""
    play(Record(path, (tracker,)))
    tracker.close({}, [], patience=patience)
    assert tracker.thread.is_alive() == (patience is not None)
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
        wait(lambda: listens(port), process)
        yield f"http://127.0.0.1:{port}", kill
    finally:
        if process.poll() is None:
            kill()


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.full
@pytest.mark.parametrize("when", ["in the middle", pytest.param("at the end", marks=pytest.mark.long)])
def test_mlflow_server_stopped(when, tmp_path, track, path, warnings):
    """faults.md 18: a real server, there at first and then gone; a resumption with a new one fills in what is missing."""
    port = free_port()
    record = Record(path)
    with server(tmp_path, port) as (uri, kill):
        tracker = track(uri)
        record.listeners = (tracker,)
        begin(record)
        wait(lambda: len(tracker.runs) == 3 and "val_loss" in tracker.client.get_run(tracker.runs[1]).data.metrics)
        if when == "in the middle":
            kill()
            finish(record)
            wait(lambda: not tracker.thread.is_alive())
            assert len(warnings) == 1, "said at once"
        else:
            finish(record)
            kill()
        tracker.close({"val_error": 0.01}, [], patience=None)
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
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "100000")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tracker = track(f"http://127.0.0.1:{listener.getsockname()[1]}")
        connection, _ = listener.accept()
        with connection:
            for event in events(200):
                tracker(event)  # who waited for MLflow here would wait for hours
            check_gives_up(tracker, path, warnings, patience=0.5)
            assert "takes too long" in warnings[0]
    tracker.thread.join()
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
            check_gives_up(tracker, path, warnings)
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
        time.sleep(6)  # the subject: whoever waits for 5 s gives up
    tracker.close({"val_error": 0.01}, [], patience=None)
    assert warnings == []
    check_mirror(uri)


@pytest.mark.full
def test_mlflow_database_locked_to_the_end(database, track, uri, path, warnings):
    """faults.md 18: nothing can be written, and the sweep ends in time."""
    with locked(database):
        tracker = track(uri)
        check_gives_up(tracker, path, warnings, patience=2)
    tracker.thread.join()
    assert len(warnings) == 1
