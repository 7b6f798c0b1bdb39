"""Real sweeps: real Ray, real digits, real MLflow."""

import csv
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import chaos
import pytest
from running import ROOT, check_folder, check_mlflow, count, finish, processes_under, resume, start, wait

from sweeps.search import launch
from sweeps.search.record import read, rows
from trainable import engine, saved

pytestmark = pytest.mark.full

# A space of two cheap networks and one that cannot be built, so that failures are part of every sweep here.
SPACE = """
def draw(trial):
    arch = trial.suggest_categorical("arch", ["convnet", "squeezenet1_1", "broken"])
    if arch == "broken":
        return {"arch": "convnet", "convnet.width": 10_000}
    lr = trial.suggest_float("lr", 2e-3, 8e-3, log=True)
    return {"arch": arch, "lr": lr, "convnet.width": 16} if arch == "convnet" else {"arch": arch, "lr": lr}
"""


@pytest.fixture
def mine(tmp_path) -> tuple[str, str]:
    """A space of one small family, by its flag."""
    (tmp_path / "mine.py").write_text(chaos.SPACE)
    return "--space", "mine.py:draw"


def test_a_sweep_by_trials(tmp_path, sample):
    """Eight trials of a user's own space; some fail to build, and the sweep goes on."""
    (tmp_path / "mine.py").write_text(SPACE)
    sweep = start(tmp_path, "--space", "mine.py:draw", "--trials", "8", "--max-epochs", "1.6", "--seed", "3")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    folder = tmp_path / "results" / "s"
    chosen = check_folder(folder)
    check_mlflow(folder)
    trials, rungs = read(folder / "record.db")
    assert len(trials) == 8
    failed = [t for t in trials if t["state"] == "failed"]
    assert failed
    assert all("BadInput: convnet.width is 10000, outside 1 to 1024" in t["reason"] for t in failed)
    states = [t["state"] for t in trials]
    assert set(states) == {"complete", "stopped", "failed"}
    assert [r["metrics"]["budget"] for r in rungs if r["rung"] == 2] == pytest.approx([1.6] * states.count("complete"), abs=0.01)
    assert chosen["test"]["images"] == 2000
    assert chosen["test"]["error"] < 0.1
    about = json.loads((folder / "sweep.json").read_text())
    assert about["data"]["fingerprint"] == sample.fingerprint
    assert about["ended"]["trials"] == 8
    for expected in ("cores busy training:", "submission.csv", "make mlflow", "What was tried", "Test, never used to choose"):
        assert expected in said
    # The submission is what the members say: the test images' errors can be counted in it.
    labels = dict(zip(sample.test.ids, sample.test.labels, strict=True))
    rows = list(csv.DictReader((folder / "submission.csv").open()))
    assert sum(labels[int(r["ImageId"])] != int(r["Label"]) for r in rows) == chosen["test"]["errors"]


@pytest.mark.long
def test_a_quick_sweep_with_a_deadline(tmp_path):
    """`make sweep`, whose search has its deadline at its fourth rung: every slot has a trial that hands over what it has."""
    driver = [sys.executable, str(ROOT / "tests" / "deadline_at.py"), "4"]
    sweep = start(tmp_path, "--quick", "--time-budget", "100h", "--concurrent", "2", driver=driver)
    said = finish(sweep)
    assert sweep.returncode == 0, said
    folder = tmp_path / "results" / "s"
    chosen = check_folder(folder)
    check_mlflow(folder)
    assert chosen["test"]["error"] < 0.06
    trials, rungs = read(folder / "record.db")
    interrupted = [t["number"] for t in trials if t["state"] == "interrupted"]
    assert len(interrupted) in (1, 2), "one of the two may have been stopped by the fourth rung"
    assert sum(not row["partial"] for row in rungs) >= 4
    ended = json.loads((folder / "sweep.json").read_text())["ended"]
    worked = sum(t["train_s"] + t["eval_s"] for t in trials)
    assert ended["cores_busy"] == pytest.approx(worked / (min(2, engine.cores()) * ended["seconds"]), rel=0.05)
    assert f"cores busy training: {ended['cores_busy']:.0%} (training and evaluating, of all places' time from the" in said


LONG = ("--trials", "1000", "--max-epochs", "8", "--concurrent", "2")  # nothing but what befalls it ends such a sweep


def test_a_sweep_that_is_disturbed(mine, tmp_path):
    """faults.md 2 to 4: a second driver, a trial's process that is killed, and Ctrl-C, which a terminal sends to every process of
    the group."""
    sweep = start(tmp_path, *mine, *LONG)
    record = tmp_path / "results" / "s" / "record.db"
    wait(lambda: count(record, "rungs") >= 1, sweep)

    second = resume(tmp_path)
    said = finish(second)
    assert second.returncode == 2
    assert said.count("\n") == 1
    assert f"has a driver at work (process {sweep.pid} on" in said
    assert sweep.poll() is None

    # Ray names a process after the class that it holds or the method that it is in.
    def trains(pid: int) -> bool:
        with suppress(OSError):  # it ended meanwhile
            return Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"ray::ResourceTrainable", b"ray::RayTrial"))
        return False

    training = []
    wait(lambda: training.extend(filter(trains, processes_under(sweep.pid))) or training, sweep)
    os.kill(training[0], signal.SIGKILL)
    wait(lambda: rows(record, "restarts"), sweep)
    before = count(record, "rungs")
    wait(lambda: count(record, "rungs") >= before + 2, sweep)

    os.killpg(sweep.pid, signal.SIGINT)
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert launch.ENDING in said
    check_folder(record.parent)
    check_mlflow(record.parent)
    trials, rungs = read(record)
    states = {t["state"] for t in trials}
    assert "interrupted" in states
    assert "failed" not in states
    for trial in trials:
        own = [row["rung"] for row in rungs if row["number"] == trial["number"]]
        assert own == list(range(len(own))), "each once"
    (restart,) = rows(record, "restarts")
    assert "its process died" in restart["reason"]


@pytest.mark.long
def test_sigterm_combines_what_there_is(mine, tmp_path):
    """It goes to one process alone."""
    sweep = start(tmp_path, *mine, *LONG)
    record = tmp_path / "results" / "s" / "record.db"
    wait(lambda: count(record, "rungs") >= 2, sweep)
    os.kill(sweep.pid, signal.SIGTERM)
    said = finish(sweep)
    assert sweep.returncode == 0, said
    check_folder(record.parent)
    check_mlflow(record.parent)
    assert "interrupted" in {t["state"] for t in read(record)[0]}


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    sweep = start(tmp_path, "--quick", "--trials", "4", "--max-epochs", "2")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert "GPUs" in said
    check_folder(tmp_path / "results" / "s")


def test_train_alone(tmp_path):
    """One network, twice: the same numbers, and a folder that loads."""
    reports = []
    for out in ("a", "b"):
        command = [sys.executable, str(ROOT / "trainable" / "train.py"), "--arch", "mobilenet_v3_small", "--epochs", "0.05"]
        command += ["--dataset", "digits-sample", "--out", str(tmp_path / out)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"Saved in {tmp_path / out}: model.safetensors, config.json." in done.stdout
        reports.append(json.loads((tmp_path / out / saved.CONFIG).read_text())["scores"])
        assert (tmp_path / out / saved.WEIGHTS).stat().st_size > 5_000_000
    for report in reports:
        assert report.pop("seconds") > 0
    assert reports[0] == reports[1]
    _, config, _ = saved.load(tmp_path / "a")
    assert (config.arch, config.epochs) == ("mobilenet_v3_small", 0.05)
