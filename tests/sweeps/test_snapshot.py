"""What is fetched while a sweep writes is whole."""

import sqlite3
import threading

from sweeps import snapshot
from sweeps.search.record import Record, read


def test_a_record_that_is_written_to(tmp_path):
    """Twenty snapshots, each with a first part of the events and nothing half."""
    results = tmp_path / "results"
    (results / "s" / "trials" / "0").mkdir(parents=True)
    for name in ("lock", "trials/0/model.safetensors", "trials/0/.model.tmp"):
        (results / "s" / name).write_text(name)
    begun, over = threading.Event(), threading.Event()

    def write():
        record, number = Record(results / "s" / "record.db"), 0
        while not over.is_set():
            record.trial_started(number, {"arch": "convnet" * 500}, {}, {})
            record.rung(number, 0, {"val_loss": 1.0}, {}, end=("complete", ""))
            number += 1
            begun.set()
        record.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(60)
        seen = []
        for _ in range(20):
            copy = snapshot.snapshot(results) / "s" / "record.db"
            with sqlite3.connect(copy) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            trials, rungs = read(copy)
            assert [t["number"] for t in trials] == list(range(len(trials)))
            assert len(trials) - len(rungs) in (0, 1)
            seen.append(len(trials))
    finally:
        over.set()
        writer.join()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0], "it was written to meanwhile"
    fetched = tmp_path / "results.fetched"
    files = sorted(str(path.relative_to(fetched)) for path in fetched.rglob("*") if path.is_file())
    assert files == ["s/record.db", "s/trials/0/model.safetensors"]


def test_bad_input(tmp_path, refuses):
    assert "is no folder" in refuses(snapshot.main, tmp_path / "nothing")
