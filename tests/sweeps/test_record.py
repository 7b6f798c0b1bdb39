import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from sweeps.search.keeper import Keeper
from sweeps.search.record import Record, read

WRITER = """
import sys, pathlib
from sweeps.search.record import Record
record = Record(pathlib.Path(sys.argv[1]))
for number in range(10**6):
    record.trial_started(number, {"arch": "convnet"}, {})
    record.rung(number, 0, {"val_loss": 0.5}, {})
    record.trial_ended(number, "complete", "")
    print(number, flush=True)
"""


def test_what_was_written_survives_a_kill(tmp_path):
    path = tmp_path / "record.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    said = [writer.stdout.readline() for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    said += writer.stdout.read().splitlines(keepends=True)
    writer.wait()
    told = sum(line.endswith("\n") for line in said)
    trials, rungs = read(path)
    assert [t["state"] for t in trials[:told]] == ["complete"] * told
    assert len(trials) - told <= 1, "at most the trial that was not told yet"
    assert len(rungs) in (len(trials), len(trials) - 1)


def test_a_reader_does_not_disturb(tmp_path):
    path = tmp_path / "record.db"
    record = Record(path)
    record.trial_started(0, {"arch": "convnet"}, {"arch": "convnet"})
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM trials").fetchall()
    began = time.monotonic()
    record.rung(0, 0, {"val_loss": 0.25}, {"model.safetensors": "abc"})
    assert time.monotonic() - began < 1
    reader.close()
    trials, rungs = read(path)
    assert trials[0]["config"] == {"arch": "convnet"}
    assert (rungs[0]["metrics"], rungs[0]["files"]) == ({"val_loss": 0.25}, {"model.safetensors": "abc"})


def test_a_rung_is_written_once(tmp_path):
    record = Record(tmp_path / "record.db")
    record.trial_started(0, {}, {})
    record.rung(0, 0, {}, {})
    with pytest.raises(sqlite3.IntegrityError):
        record.rung(0, 0, {}, {})


def test_keeper_keeps_the_best(tmp_path):
    keeper = Keeper(str(tmp_path), best=2)
    for number, loss in ((0, 0.5), (1, 0.3), (2, 0.9), (3, 0.4)):
        if keeper.wants(number, loss):
            digests = keeper.keep(number, loss, {"probs": b"x" * number, "model": b"weights"})
            assert len(digests["model"]) == 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3"]
    assert not keeper.wants(4, 0.45)
    assert not keeper.wants(1, 0.35), "a trial's better past is not overwritten"
    assert keeper.wants(1, 0.25), "and takes no place from its future"
    keeper.keep(1, 0.2, {"model": b"better"})
    assert (tmp_path / "1" / "model").read_bytes() == b"better"
    assert not keeper.beat(1, 0.5, 2.0, 0.1)
    keeper.end()
    assert keeper.beat(1, 0.7, 3.0, 0.1)
    assert keeper.latest() == {1: (0.7, 3.0, 0.1)}
