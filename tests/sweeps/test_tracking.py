import sqlite3
from contextlib import closing

import pytest
from mirror import CONFIG, METRICS, begin, check_mirror, finish, history, last_rung, play, runs_of

from sweeps.search.record import Record, read
from sweeps.show.tracking import Tracker


def cut_off(tracker: Tracker):
    """As when its driver is killed after a batch: what it has heard is written, no run is ended, no more is heard."""
    tracker.events.put({"kind": "sweep_ended", "metrics": {}, "files": [], "model": None, "at": 1.0})
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
