"""Real sweeps: real Ray, real digits, real MLflow."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chaos
import pytest
import ray
from running import ROOT, check_folder, check_mlflow, count, finish, processes_under, start, wait

from sweeps.search import launch
from sweeps.search.cluster import cluster
from sweeps.search.draw import SEARCHERS
from sweeps.search.record import Record, read, rows
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES
from trainable import saved
from trainable.ray_trial import RayTrial

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
    """Ten trials of a user's own space; some fail to build, and the sweep goes on."""
    (tmp_path / "mine.py").write_text(SPACE)
    sweep = start(tmp_path, "--space", "mine.py:draw", "--trials", "10", "--max-epochs", "1.6", "--seed", "3")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    folder = tmp_path / "results" / "s"
    chosen = check_folder(folder)
    check_mlflow(folder)
    trials, rungs = read(folder / "record.db")
    assert len(trials) == 10
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
    assert about["ended"]["trials"] == 10
    for expected in ("cores busy training:", "submission.csv", "make mlflow", "What was tried", "Test, never used to choose"):
        assert expected in said
    # The submission is what the members say: the test images' errors can be counted in it.
    labels = dict(zip(sample.test.ids, sample.test.labels, strict=True))
    rows = list(csv.DictReader((folder / "submission.csv").open()))
    assert sum(labels[int(r["ImageId"])] != int(r["Label"]) for r in rows) == chosen["test"]["errors"]


@pytest.mark.timeout(600)  # a sweep, its resumption, and two commands that train
def test_quick_sweep_in_less_time(tmp_path):
    """`make sweep` in 60 seconds: several families, a good ensemble, busy cores."""
    began = time.monotonic()
    sweep = start(tmp_path, "--quick", "--time-budget", "60s")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert time.monotonic() - began < 60 + 90
    folder = tmp_path / "results" / "s"
    chosen = check_folder(folder)
    check_mlflow(folder)
    assert chosen["test"]["error"] < 0.03
    trials, _ = read(folder / "record.db")
    assert "interrupted" in {t["state"] for t in trials}
    assert json.loads((folder / "sweep.json").read_text())["ended"]["cores_busy"] > 0.5


@pytest.mark.parametrize(
    "send", [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_the_first_signal_combines_what_there_is(mine, tmp_path, send):
    """Ctrl-C, which a terminal sends to every process of the group, and SIGTERM, which goes to one."""
    sweep = start(tmp_path, *mine, "--max-epochs", "20", "--time-budget", "10m")
    record = tmp_path / "results" / "s" / "record.db"
    wait(lambda: count(record, "rungs") >= 2)
    send(sweep.pid)
    said = finish(sweep, 90)
    assert sweep.returncode == 0, said
    check_folder(record.parent)
    check_mlflow(record.parent)
    assert "interrupted" in {t["state"] for t in read(record)[0]}


def test_ctrl_c_twice_stops_at_once(mine, tmp_path):
    sweep = start(tmp_path, *mine, "--max-epochs", "20", "--time-budget", "10m")
    record = tmp_path / "results" / "s" / "record.db"
    wait(lambda: count(record, "rungs") >= 1)
    os.kill(sweep.pid, signal.SIGINT)
    time.sleep(0.5)  # two signals at once may be seen as one
    os.kill(sweep.pid, signal.SIGINT)
    said = finish(sweep, 60)
    assert sweep.returncode == 130, said
    assert "Traceback" not in said
    assert len(read(record)[0]) >= 1


def test_a_killed_trial_process_costs_nothing(mine, tmp_path):
    """faults.md 3: it goes on in another process from its last state."""
    sweep = start(tmp_path, *mine, "--trials", "4", "--max-epochs", "2")
    record = tmp_path / "results" / "s" / "record.db"
    wait(lambda: count(record, "rungs") >= 1)
    # Ray names a process after the class that it holds or the method that it is in.
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_under(sweep.pid)}
    victim = next(pid for pid, title in titles.items() if title.startswith((b"ray::ResourceTrainable", b"ray::RayTrial")))
    os.kill(victim, signal.SIGKILL)
    said = finish(sweep)
    assert sweep.returncode == 0, said
    trials, _ = read(record)
    assert len(trials) == 4
    assert "failed" not in {t["state"] for t in trials}
    restarts = rows(record, "restarts")
    assert len(restarts) == 1
    assert "its process died" in restarts[0]["reason"]
    check_folder(record.parent)
    check_mlflow(record.parent)


def test_a_trial_that_hangs_does_not_hold_the_end(tmp_path, monkeypatch, tiny):
    class Hangs(RayTrial):
        def step(self):
            time.sleep(1000)

    monkeypatch.setattr(launch, "PATIENCE", 3.0)
    with cluster(None, 1, 0, 2) as places:
        record = Record(tmp_path / "record.db")
        sampler, scheduler = SEARCHERS["random"], SCHEDULERS["none"]()
        search = Search(SPACES["quick"], record, sampler=sampler, scheduler=scheduler, rungs=[1.0])
        began = time.monotonic()
        broken = launch.run_search(search, tiny, places, launch.Ending(5.0), tmp_path, trainable=Hangs)
        assert time.monotonic() - began < 60
        assert ray.get(ray.remote(lambda: "free").remote(), timeout=60) == "free", "the places are free to combine"
    assert "did not end within 3 seconds" in broken
    assert {t["state"] for t in read(tmp_path / "record.db")[0]} == {"interrupted"}


def test_no_time_for_a_trial(tmp_path):
    sweep = start(tmp_path, "--quick", "--time-budget", "1s")
    said = finish(sweep)
    assert sweep.returncode == 1, said
    assert "No trial left a network: 0 were tried. The time was over before the first; give more." in said
    assert "Traceback" not in said


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    sweep = start(tmp_path, "--quick", "--time-budget", "2m")  # a cold GPU takes most of the first one
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert "GPUs" in said
    check_folder(tmp_path / "results" / "s")


def test_train_alone(tmp_path):
    """One network, twice: the same numbers, and a folder that loads."""
    reports = []
    for out in ("a", "b"):
        command = [sys.executable, str(ROOT / "trainable" / "train.py"), "--arch", "resnet18", "--epochs", "0.05"]
        command += ["--dataset", "digits-sample", "--out", str(tmp_path / out)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"Saved in {tmp_path / out}: model.safetensors, config.json." in done.stdout
        reports.append(json.loads((tmp_path / out / saved.CONFIG).read_text())["scores"])
        assert (tmp_path / out / saved.WEIGHTS).stat().st_size > 40_000_000
    for report in reports:
        assert report.pop("seconds") > 0
    assert reports[0] == reports[1]
    _, config, _ = saved.load(tmp_path / "a")
    assert (config.arch, config.epochs) == ("resnet18", 0.05)
