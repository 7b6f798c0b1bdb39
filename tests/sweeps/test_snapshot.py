"""What is fetched while a sweep writes is whole."""

import sqlite3
import threading

import pytest

from sweeps import snapshot
from sweeps.search.record import Record, read, rows

ABOUT = {"arguments": {}, "data": {"fingerprint": "x"}}


def test_a_record_that_is_written_to(tmp_path):
    """Twenty snapshots, each with a first part of the events and nothing half."""
    results = tmp_path / "results"
    (results / "s" / "trials" / "0").mkdir(parents=True)
    for name in ("lock", "trials/0/model.safetensors", "trials/0/.model.tmp"):
        (results / "s" / name).write_text(name)
    written, over = threading.Event(), threading.Event()

    def write():
        record, number = Record(results / "s" / "record.db"), 0
        while not over.is_set():
            record.trial_started(number, {"arch": "convnet", "x": "y" * 3500}, {}, {})
            record.rung(number, 0, {"budget": 1.0, "val_loss": 1.0, "val_error": 0.1}, {}, end=("complete", ""))
            number += 1
            written.set()
        record.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = []
        for _ in range(20):
            written.wait()
            copy = snapshot.snapshot(results) / "s" / "record.db"
            with sqlite3.connect(copy) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            trials, rungs = read(copy)
            assert [t["number"] for t in trials] == list(range(len(trials)))
            assert len(trials) - len(rungs) in (0, 1)
            seen.append(len(trials))
            written.clear()
    finally:
        over.set()
        writer.join()
    assert seen == sorted(set(seen)), "it was written to meanwhile"
    fetched = tmp_path / "results.fetched"
    files = sorted(str(path.relative_to(fetched)) for path in fetched.rglob("*") if path.is_file())
    assert files == ["s/record.db", "s/trials/0/model.safetensors"]


@pytest.mark.parametrize("name", ["50%", "a?b", "a#b", "a%20b"])
def test_databases_in_a_folder_of_any_name(name, tmp_path):
    results = tmp_path / name
    (results / "s").mkdir(parents=True)
    Record(results / "s" / "record.db", about=ABOUT).close()
    copy = snapshot.snapshot(results) / "s" / "record.db"
    assert rows(copy, "drivers")[0]["about"]["data"]["fingerprint"] == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.fetched"]


def test_a_database_that_is_none_or_damaged(tmp_path):
    """It is taken as it lies there, and all else with it."""
    results = tmp_path / "results"
    for name in ("a", "b", "c"):
        (results / name).mkdir(parents=True)
        Record(results / name / "record.db", about=ABOUT).close()
    (results / "a" / "record.db").write_bytes(b"garbage" * 1000)
    damaged = bytearray((results / "b" / "record.db").read_bytes())
    damaged[16:18] = b"\x00\x03"  # size of a page
    (results / "b" / "record.db").write_bytes(damaged)
    fetched = snapshot.snapshot(results)
    for name in ("a", "b"):
        here, copy = (folder / name / "record.db" for folder in (results, fetched))
        assert here.read_bytes() == copy.read_bytes()
    assert rows(fetched / "c" / "record.db", "drivers")[0]["about"]["data"]["fingerprint"] == "x"


def test_taken_over(tmp_path):
    """A sweep of the same name that is another, or has gone on here, is not touched; MLflow's database neither."""
    fetched, results = tmp_path / "fetched", tmp_path / "results"
    for where in (fetched, results):
        for name in ("new", "same", "other", "further"):
            if (where, name) == (results, "new"):
                continue
            (where / name).mkdir(parents=True)
            Record(where / name / "record.db", about={"arguments": {}, "data": {"fingerprint": "x"}, "of": where.name}).close()
        (where / "mlflow.db").write_text(where.name)
    with sqlite3.connect(fetched / "same" / "record.db") as theirs:
        began = theirs.execute("SELECT began FROM drivers").fetchone()[0]
        theirs.execute("UPDATE drivers SET seconds = 5")
    for name, seconds in (("same", 3), ("further", 9)):
        for where in (fetched, results):
            with sqlite3.connect(where / name / "record.db") as db:
                db.execute("UPDATE drivers SET began = ?", (began,))
        with sqlite3.connect(results / name / "record.db") as db:
            db.execute("UPDATE drivers SET seconds = ?", (seconds,))
    said = list(snapshot.take_over(fetched, results))
    assert len(said) == 4
    of = {path.parent.name: rows(path, "drivers")[0]["about"]["of"] for path in results.glob("*/record.db")}
    assert of == {
        "new": "fetched", "same": "fetched", "other": "results", "other-2": "fetched",
        "further": "results", "further-2": "fetched",
    }  # fmt: skip
    assert (results / "mlflow.db").read_text() == "results"
    assert len(list(snapshot.take_over(fetched, results))) == 4
    assert len(list(results.glob("*/record.db"))) == 6, "a second time it follows what it brought"


def test_bad_input(tmp_path, refuses):
    assert "is no folder" in refuses(snapshot.main, tmp_path / "nothing")
