import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from optuna.distributions import FloatDistribution, distribution_to_json

from sweeps.resume import before
from sweeps.search.keeper import Keeper
from sweeps.search.record import Record, read, rows
from sweeps.show import views
from trainable import ray_trial, record_file
from trainable.config import TrialConfig
from trainable.errors import BadInput, NoRoom

CONFIG = TrialConfig().flat()
METRICS = {"budget": 1.0, "val_loss": 0.25, "val_error": 0.1, "train_s": 0.0, "eval_s": 0.0}
WRITER = """
import sys, pathlib
from sweeps.search.record import Record
record = Record(pathlib.Path(sys.argv[1]))
for number in range(10**6):
    record.trial_started(number, {"arch": "convnet"}, {}, {})
    record.rung(number, 0, {"budget": 1.0, "val_loss": 0.5, "val_error": 0.1}, {})
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


# Metrics and files of a network that was handed over.
FULL = {**METRICS, "val_loss": 0.25, "temperature": 1.0}
FILES = {"model.safetensors": "abc", "probs.safetensors": "def"}


def test_a_reader_does_not_disturb(tmp_path):
    """It goes on reading until the rung is written: a writer who had to wait for it would give up."""
    path = tmp_path / "record.db"
    record = Record(path)
    record.trial_started(0, CONFIG, {}, {})
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM trials").fetchall()
    record.rung(0, 0, FULL, FILES)
    reader.close()
    trials, rungs = read(path)
    assert trials[0]["config"] == CONFIG
    assert (rungs[0]["metrics"], rungs[0]["files"]) == (FULL, FILES)


def test_a_record_from_before_there_were_finalists(tmp_path):
    path = tmp_path / "record.db"
    record = Record(path)
    record._db.execute("ALTER TABLE trials DROP COLUMN refits")
    record.close()
    assert read(path) == ([], [])
    record = Record(path)
    record.trial_started(0, CONFIG, {}, {})
    record.trial_started(1, {**CONFIG, "folds": 2}, {}, {}, 0)
    assert [trial["refits"] for trial in read(path)[0]] == [None, 0]


def test_a_rung_is_written_once(tmp_path):
    record = Record(tmp_path / "record.db")
    record.trial_started(0, CONFIG, {}, {})
    record.rung(0, 0, METRICS, {})
    with pytest.raises(sqlite3.IntegrityError):
        record.rung(0, 0, METRICS, {})


def test_a_power_cut_forgets_nothing(tmp_path):
    record = Record(tmp_path / "record.db")
    assert record._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_time_never_goes_back(tmp_path, monkeypatch):
    """faults.md 17: the clock is set back between two drivers and within one."""
    path = tmp_path / "record.db"
    times = []
    for clock in (2e9, 1e9):
        record = Record(path)
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        record.trial_started(len(times), CONFIG, {}, {})
        monkeypatch.setattr(time, "time", lambda clock=clock: clock - 1e6)
        record.rung(len(times), 0, METRICS, {}, end=("complete", ""))
        times += [row["t"] for row in read(path)[0][len(times) :]]
        record.close()
    trials, _ = read(path)
    assert times == sorted(times)
    assert all(t["t_ended"] >= t["t"] for t in trials)
    assert trials[1]["t"] >= trials[0]["t_ended"]


def test_an_end_comes_with_its_rung(tmp_path):
    """In one transaction: no kill can leave a judged trial without its end."""
    record = Record(tmp_path / "record.db")
    record.trial_started(0, CONFIG, {}, {})
    record.rung(0, 0, {**METRICS, "train_s": 2.0, "eval_s": 0.5}, {}, end=("stopped", "place 3 of 3"))
    trials, rungs = read(tmp_path / "record.db")
    assert (trials[0]["state"], trials[0]["reason"], trials[0]["train_s"]) == ("stopped", "place 3 of 3", 2.0)
    assert len(rungs) == 1


def test_a_rung_between_budgets_gives_way_when_its_trial_goes_on(tmp_path):
    record = Record(tmp_path / "record.db")
    record.trial_started(0, {**CONFIG, "a": 1}, {}, {})
    record.rung(0, 0, {**METRICS, "val_loss": 0.5}, {})
    record.rung(0, 1, {**METRICS, "val_loss": 0.4}, {}, partial=True, end=("interrupted", "the search ended"))
    record.trial_restarted(0, "the sweep goes on", {**CONFIG, "a": 2})
    trials, rungs = read(tmp_path / "record.db")
    assert (trials[0]["state"], trials[0]["ended"], trials[0]["config"]) == ("running", None, {**CONFIG, "a": 2})
    assert [r["rung"] for r in rungs] == [0]
    record.rung(0, 1, {**METRICS, "val_loss": 0.3}, {"x": "1"})
    record.rung(0, 0, {**METRICS, "val_loss": 9.9}, {"x": "2"}, again=True)
    rungs = rows(tmp_path / "record.db", "rungs", "seq")
    assert [(r["rung"], r["metrics"]["val_loss"], r["files"]) for r in rungs] == [(0, 0.5, {"x": "2"}), (1, 0.3, {"x": "1"})]
    assert [r["reason"] for r in rows(tmp_path / "record.db", "restarts")] == ["the sweep goes on"]


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"no database at all" * 99, lambda whole: b""]
)
def test_a_record_that_is_cut_short_is_refused(tmp_path, damage):
    """faults.md 13."""
    path = tmp_path / "record.db"
    record = Record(path)
    for number in range(50):
        record.trial_started(number, {**CONFIG, "x": "y" * 500}, {}, {})
    record.close()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match="cannot be read as a sweep's record"):
        read(path)


OF_LR = distribution_to_json(FloatDistribution(1e-3, 1e-1))
TOLD = {"params": {"lr": 0.01}, "distributions": {"lr": OF_LR}, "state": "complete", "values": {"0": 0.5}}
FIELDS = ("trials", "started"), ("trials", "t_ended"), ("rungs", "at"), ("drivers", "began"), ("restarts", "t")


def set_config(**fields) -> str:
    return f"UPDATE trials SET config = '{json.dumps({**CONFIG, **fields})}' WHERE number = 1"


def set_told(**fields) -> str:
    return f"UPDATE learned SET data = '{json.dumps({**TOLD, **fields})}'"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("DELETE FROM rungs WHERE number = 0", "trials 0.state is 'complete', and it has passed no rung"),
        ("UPDATE rungs SET partial = 1", "trials 0.state is 'complete', and it has passed no rung"),
        ("UPDATE trials SET params = '{}'", "trials 0: lr is in one of params and distributions alone"),
        ("UPDATE trials SET distributions = '{}'", "trials 0: lr is in one of params and distributions alone"),
        ('UPDATE rungs SET files = \'{"model.safetensors": "abc"}\'', "it has files, and no probs.safetensors"),
        ("UPDATE rungs SET rung = 1000", "rung is 1000; it should be a whole number from 0 to 999"),
        (set_config(folds=2, fold=2), "trials 1.config has the fold 2 of 2"),
        (set_config(folds=1), "trials 1.config has the fold 0 of 1"),
        (
            f"UPDATE trials SET config = '{json.dumps({**CONFIG, 'seed': 7})}' WHERE number = 0",
            "trials 1.config.seed should be 7 or more, as of trial 0",
        ),
        (set_told(params={}), "learned 0.data: lr is in one of params and distributions alone"),
        (set_told(distributions={"lr": "{}"}), "learned 0.data.distributions.lr is none of Optuna's"),
        (set_told(params={"lr": 7}), "learned 0.data.params.lr is 7, which its distribution does not have"),
        (set_told(values={}), "learned 0.data.values is {}; it should be losses by rung"),
        (set_told(values={"1" * 5000: 0.5}), "learned 0.data.values is {'111.*losses by rung"),
        (set_told(values={"00": 0.5}), "learned 0.data.values is {'00': 0.5}; it should be losses by rung"),
        (
            "DROP TABLE trials; CREATE VIEW trials AS WITH RECURSIVE endless(number) AS "
            "(SELECT 0 UNION ALL SELECT number + 1 FROM endless) SELECT * FROM endless",
            "it has no table trials",
        ),
        ("ALTER TABLE trials ADD x TEXT AS (hex(zeroblob(50000000)))", "string or blob too big"),
        *(
            (f"UPDATE {table} SET {name} = 1e18", rf"{name} is 1e\+18; it should be a finite number of 0")
            for table, name in FIELDS
        ),
    ],
)
def test_what_nobody_can_have_recorded(tmp_path, damage, says):
    """Refused before anything is begun with it, in one line that names the field."""
    path = tmp_path / "record.db"
    record = Record(path, about=ABOUT)
    record.learn([TOLD], [])
    record.trial_started(0, CONFIG, {"lr": 0.01}, {"lr": OF_LR})
    record.trial_restarted(0, "its machine was taken away", CONFIG)
    record.rung(0, 0, FULL, FILES, end=("complete", ""))
    record.trial_started(1, {**CONFIG, "folds": 2, "fold": 1}, {}, {}, refits=0)
    record.close()
    reads = lambda: (before(tmp_path), views.tables(tmp_path))  # noqa: E731
    assert len(reads()[0].trials) == 2
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(damage)
    with pytest.raises(BadInput, match=f"record.db.*{says}"):
        reads()


ABOUT = {"arguments": {"scheduler": "asha", "searcher": "tpe"}, "data": {"fingerprint": "x"}}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("finalist_seeds", 10**12), ("finalists", 1001), ("folds", 1001), ("folds", 1), ("views", 101), ("trials", 10**9 + 1)],
        *[("concurrent", 10**10), ("cpus_per_trial", 0), ("image_size", 1025), ("seed", 2**31 + 1), ("max_epochs", 1e6)],
        *[("finalist_epochs", 1e-7), ("time_budget", 1e9), ("step_timeout", 1e9), ("max_latency", 1e7), ("gpus_per_trial", 2)],
    ],
)
def test_arguments_have_the_ranges_of_their_flags(tmp_path, argument, value):
    Record(tmp_path / "record.db", about={**ABOUT, "arguments": {**ABOUT["arguments"], argument: value}}).close()
    with pytest.raises(BadInput, match=rf"record.db: drivers 1.about.arguments.{argument} is .*; it should be "):
        before(tmp_path)


def test_a_trial_that_comes_to_its_first_rung_while_the_record_is_read(tmp_path, monkeypatch):
    """All tables are read as they were at one moment."""
    record = Record(tmp_path / "record.db")
    connect, numbers = sqlite3.connect, iter(range(2))

    class Watched(sqlite3.Connection):
        def execute(self, statement, *values):
            if "FROM rungs" in statement:
                record.trial_started(number := next(numbers), CONFIG, {}, {})
                record.rung(number, 0, METRICS, {})
            return super().execute(statement, *values)

    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, **more, factory=Watched))
    for number in range(2):
        assert [len(there) for there in read(tmp_path / "record.db")] == [number, number]


def test_the_file_of_predictions_has_one_name():
    """Whoever reads a record knows it without Ray."""
    assert record_file.PROBS == ray_trial.PROBS


def test_a_full_disk_is_waited_for(tmp_path):
    """faults.md 13. SQLite itself says that there is no room: its file may not grow."""
    path = tmp_path / "record.db"
    waited = []

    def patience(wrong: str):
        waited.append(wrong)
        if len(waited) == 3:
            record._db.execute("PRAGMA max_page_count = 100000")

    record = Record(path, patience=patience)
    record._db.execute(f"PRAGMA max_page_count = {record._db.execute('PRAGMA page_count').fetchone()[0]}")
    record.trial_started(0, {**CONFIG, "x": "y" * 50_000}, {}, {})
    assert len(waited) == 3
    assert "full" in waited[0]
    assert [t["number"] for t in read(path)[0]] == [0]


def test_what_ends_the_wait_is_raised_and_nothing_is_half_written(tmp_path):
    def patience(wrong: str):
        raise NoRoom(wrong)

    record = Record(tmp_path / "record.db", patience=patience)
    record._db.execute(f"PRAGMA max_page_count = {record._db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(NoRoom, match="record.db cannot be written"):
        record.trial_started(0, {**CONFIG, "x": "y" * 50_000}, {}, {})
    record._db.execute("PRAGMA max_page_count = 100000")
    record.trial_started(0, CONFIG, {}, {})
    assert len(read(tmp_path / "record.db")[0]) == 1


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
    assert keeper.beat(1, 0.5, 2.0, 0.1, ("a node", 1)) == (False, "")
    keeper.leave(frozenset({"a node"}), frozenset({3}))
    assert keeper.beat(1, 0.6, 2.5, 0.1, ("a node", 1)) == (False, "its machine was taken away")
    assert keeper.beat(2, 0.6, 2.5, 0.1, ("another", 1)) == (False, "")
    assert keeper.beat(3, 0.6, 2.5, 0.1, ("another", 1)) == (False, "its place was given to another sweep")
    keeper.end()
    assert keeper.beat(1, 0.7, 3.0, 0.1, ("a node", 1)) == (True, "")
    assert keeper.latest()[0][1] == (0.7, 3.0, 0.1)


def test_keeper_names_who_is_silent(tmp_path):
    keeper = Keeper(str(tmp_path), best=2)
    for number in (1, 2, 3):
        keeper.beat(number, 0.5, 1.0, 0.1, ("a node", number))
    keeper.rest(2)
    keeper.forget(3)
    assert keeper.latest(silence=1e9)[2] == {}
    assert keeper.latest(silence=0)[2] == {1: ("a node", 1)}
    assert keeper.latest(silence=0)[2] == {}, "said once"


def test_keeper_holds_the_latest_whole_state(tmp_path):
    keeper = Keeper(str(tmp_path), best=2)
    assert keeper.state(7) is None
    keeper.hold(7, 9, b"nine")
    keeper.hold(7, 10, b"ten")
    assert keeper.state(7) == b"ten"
    assert len(list(tmp_path.rglob("*"))) == 2, "the older one is gone"
    (found,) = (tmp_path / "7").iterdir()
    found.write_bytes(b"tEn")
    assert keeper.state(7) is None, "a flipped bit"
    found.unlink()
    os.mkfifo(found)
    assert keeper.state(7) is None, "and nobody waits for what a FIFO may hold"
    keeper.forget(7)
    assert not list(tmp_path.iterdir())
