"""Real sweeps: real Ray, real digits, real MLflow."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import ray
from safetensors.numpy import load_file

from sweeps.choose import members
from sweeps.search import launch
from sweeps.search.cluster import cluster
from sweeps.search.record import Record, read
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import SEARCHERS, Search
from sweeps.search.space import SPACES
from trainable import saved
from trainable.ray_trial import RayTrial

ROOT = Path(__file__).resolve().parents[1]
SWEEP = [sys.executable, str(ROOT / "sweeps" / "arch_sweep.py")]
FILES = ("sweep.json", "record.db", "trials.parquet", "curves.parquet", "ensemble.json", "submission.csv")

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


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen:
    """A sweep in a process group of its own, called from another folder."""
    command = [*SWEEP, "--results", str(tmp_path / "results"), "--name", "s", "--dataset", "digits-sample", *arguments]
    return subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(sweep: subprocess.Popen, seconds: float = 280) -> str:
    try:
        said, _ = sweep.communicate(timeout=seconds)
    finally:
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGKILL)
    return said


def check_folder(folder: Path) -> dict:
    """What every finished sweep leaves; returns ensemble.json."""
    for name in FILES:
        assert (folder / name).stat().st_size > 0, name
    with sqlite3.connect(folder / "record.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    trials, rungs = read(folder / "record.db")
    assert "running" not in {t["state"] for t in trials}
    table = pd.read_parquet(folder / "trials.parquet")
    assert table["trial"].tolist() == [t["number"] for t in trials]
    assert len(pd.read_parquet(folder / "curves.parquet")) == len(rungs)
    ensemble = json.loads((folder / "ensemble.json").read_text())
    assert ensemble["val"]["errors"] <= table["val_error"].min() * ensemble["val"]["images"] + 1e-6
    assert sum(m["weight"] for m in ensemble["members"]) == pytest.approx(1)
    for member in ensemble["members"]:
        _, config, _ = saved.load(folder / "trials" / str(member["trial"]))
        assert config.arch == member["arch"]
    found = {m.trial: m for m in members.find(folder)}
    assert {m["trial"] for m in ensemble["members"]} <= set(found), "what was chosen can be combined again"
    predicted = load_file(found[ensemble["members"][0]["trial"]].folder / members.PREDICTIONS)
    assert predicted["test"].shape == (2000, 10)
    rows = list(csv.reader((folder / "submission.csv").open()))
    assert rows[0] == ["ImageId", "Label"]
    assert len(rows) == 2001
    assert [int(i) for i, _ in rows[1:]] == sorted({int(i) for i, _ in rows[1:]})
    assert {label for _, label in rows[1:]} <= set("0123456789")
    assert not list(folder.rglob(".*.tmp"))
    return ensemble


def check_mlflow(folder: Path):
    """A parent run and a child a trial, none left running."""
    trials, rungs = read(folder / "record.db")
    uri = f"sqlite:///{folder.parent / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(experiment_names=["digits-sample"])
    assert len(runs) == len(trials) + 1
    assert "RUNNING" not in set(runs["status"])
    children = runs.dropna(subset=["tags.mlflow.parentRunId"])
    assert sorted(children["tags.trial"].astype(int)) == [t["number"] for t in trials]
    client = mlflow.MlflowClient(uri)
    histories = [client.get_metric_history(run, "val_loss") for run in children["run_id"]]
    assert sum(map(len, histories)) == len(rungs)


def test_a_sweep_by_trials(tmp_path, sample):
    """Ten trials of a user's own space; some fail to build, and the sweep goes on."""
    (tmp_path / "mine.py").write_text(SPACE)
    sweep = start(tmp_path, "--space", "mine.py:draw", "--trials", "10", "--max-epochs", "1.6", "--seed", "3")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    folder = tmp_path / "results" / "s"
    ensemble = check_folder(folder)
    check_mlflow(folder)
    trials, rungs = read(folder / "record.db")
    assert len(trials) == 10
    failed = [t for t in trials if t["state"] == "failed"]
    assert failed
    assert all("BadInput: convnet.width is 10000, outside 1 to 1024" in t["reason"] for t in failed)
    states = [t["state"] for t in trials]
    assert set(states) == {"complete", "stopped", "failed"}
    assert [r["metrics"]["budget"] for r in rungs if r["rung"] == 2] == pytest.approx([1.6] * states.count("complete"), abs=0.01)
    assert ensemble["test"]["images"] == 2000
    assert ensemble["test"]["error"] < 0.1
    about = json.loads((folder / "sweep.json").read_text())
    assert about["data"]["fingerprint"] == sample.fingerprint
    assert about["ended"]["trials"] == 10
    for expected in ("cores busy training:", "submission.csv", "make mlflow", "What was tried", "Test, never used to choose"):
        assert expected in said
    # The submission is what the members say: the test images' errors can be counted in it.
    labels = dict(zip(sample.test.ids, sample.test.labels, strict=True))
    rows = list(csv.DictReader((folder / "submission.csv").open()))
    assert sum(labels[int(r["ImageId"])] != int(r["Label"]) for r in rows) == ensemble["test"]["errors"]


def test_quick_sweep_in_less_time(tmp_path):
    """`make sweep` in 80 seconds: several families, a good ensemble, busy cores."""
    began = time.monotonic()
    sweep = start(tmp_path, "--quick", "--time-budget", "80s")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert time.monotonic() - began < 80 + 90
    folder = tmp_path / "results" / "s"
    ensemble = check_folder(folder)
    check_mlflow(folder)
    assert ensemble["test"]["error"] < 0.03
    trials, _ = read(folder / "record.db")
    assert "interrupted" in {t["state"] for t in trials}
    assert json.loads((folder / "sweep.json").read_text())["ended"]["cores_busy"] > 0.5


@pytest.mark.parametrize(
    "send", [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_the_first_signal_combines_what_there_is(tmp_path, send):
    """Ctrl-C, which a terminal sends to every process of the group, and SIGTERM, which goes to one."""
    sweep = start(tmp_path, "--quick", "--time-budget", "10m")
    record = tmp_path / "results" / "s" / "record.db"
    wait(lambda: count(record, "rungs") >= 2)
    send(sweep.pid)
    said = finish(sweep, 90)
    assert sweep.returncode == 0, said
    check_folder(record.parent)
    check_mlflow(record.parent)
    assert "interrupted" in {t["state"] for t in read(record)[0]}


def test_ctrl_c_twice_stops_at_once(tmp_path):
    sweep = start(tmp_path, "--quick", "--time-budget", "10m")
    record = tmp_path / "results" / "s" / "record.db"
    wait(lambda: count(record, "rungs"))
    os.kill(sweep.pid, signal.SIGINT)
    time.sleep(0.5)  # two signals at once may be seen as one
    os.kill(sweep.pid, signal.SIGINT)
    said = finish(sweep, 60)
    assert sweep.returncode == 130, said
    assert "Traceback" not in said
    assert len(read(record)[0]) >= 1


def test_a_killed_trial_process_costs_one_trial(tmp_path):
    sweep = start(tmp_path, "--quick", "--trials", "5", "--max-epochs", "1")
    record = tmp_path / "results" / "s" / "record.db"
    wait(lambda: count(record, "rungs") >= 1)
    # Ray names a process after the class that it holds or the method that it is in.
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_under(sweep.pid)}
    victim = next(pid for pid, title in titles.items() if title.startswith((b"ray::ResourceTrainable", b"ray::RayTrial")))
    os.kill(victim, signal.SIGKILL)
    said = finish(sweep)
    assert sweep.returncode == 0, said
    trials, _ = read(record)
    failed = [t for t in trials if t["state"] == "failed"]
    assert len(trials) == 5
    assert len(failed) == 1
    assert "its process died" in failed[0]["reason"]
    check_mlflow(record.parent)


def test_a_trial_that_hangs_does_not_hold_the_end(tmp_path, monkeypatch, tiny):
    class Hangs(RayTrial):
        def step(self):
            time.sleep(1000)

    monkeypatch.setattr(launch, "PATIENCE", 3.0)
    with cluster(None, 1, 0, 2) as places:
        record = Record(tmp_path / "record.db")
        sampler, scheduler = SEARCHERS["random"](0), SCHEDULERS["none"]()
        search = Search(SPACES["quick"], record, sampler=sampler, scheduler=scheduler, rungs=[1.0])
        began = time.monotonic()
        broken = launch.run_search(search, tiny, places, launch.Ending(5.0), tmp_path, trainable=Hangs)
        assert time.monotonic() - began < 60
        assert ray.get(ray.remote(lambda: "free").remote(), timeout=60) == "free", "the places are free to combine"
    assert "did not end within 3 seconds" in broken
    assert {t["state"] for t in read(tmp_path / "record.db")[0]} == {"interrupted"}


def test_when_every_trial_fails(tmp_path):
    (tmp_path / "mine.py").write_text("def draw(trial):\n    return {'convnet.width': 10_000}\n")
    sweep = start(tmp_path, "--space", "mine.py:draw", "--trials", "3")
    said = finish(sweep)
    assert sweep.returncode == 1, said
    assert "No trial left a network: 3 were tried. 3 of them: BadInput: convnet.width is 10000" in said
    assert "Traceback" not in said


def test_no_time_for_a_trial(tmp_path):
    sweep = start(tmp_path, "--quick", "--time-budget", "1s")
    said = finish(sweep)
    assert sweep.returncode == 1, said
    assert "No trial left a network: 0 were tried. The time was over before the first; give more." in said
    assert "Traceback" not in said


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    sweep = start(tmp_path, "--quick", "--time-budget", "60s")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert "GPUs" in said
    check_folder(tmp_path / "results" / "s")


def test_train_alone(tmp_path):
    """One network, twice: the same numbers, and a folder that loads."""
    reports = []
    for out in ("a", "b"):
        command = [sys.executable, str(ROOT / "trainable" / "train.py"), "--arch", "resnet18", "--epochs", "0.2"]
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
    assert (config.arch, config.epochs) == ("resnet18", 0.2)


def count(record: Path, table: str) -> int:
    """The rows of a record that may not be there yet."""
    try:
        return len(read(record)[table == "rungs"])
    except sqlite3.OperationalError:
        return 0


def wait(condition, seconds: float = 120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.2)


def processes_under(root: int) -> list[int]:
    """Every process that descends from `root`."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue  # it ended meanwhile
    found, frontier = [], [root]
    while frontier:
        frontier = [pid for pid, parent in parents.items() if parent in frontier]
        found += frontier
    return found
