"""Real sweeps as processes of their own, and what every finished one leaves."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from safetensors.numpy import load_file

from sweeps.choose import members
from sweeps.search.record import read
from trainable import saved
from trainable.errors import BadInput
from trainable.ray_trial import PROBS

ROOT = Path(__file__).resolve().parents[1]
SWEEP = [sys.executable, str(ROOT / "sweeps" / "arch_sweep.py")]
BENCHMARKS = ROOT / "tests" / "benchmarks"
FILES = ("sweep.json", "record.db", "trials.parquet", "curves.parquet", "ensemble.json", "submission.csv")
FILES += ("report.html", "study.db")
_launched: list[subprocess.Popen] = []


def bench(name: str, *arguments, to: Path) -> dict:
    """Run a benchmark: the figures that it wrote."""
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments), "--json", str(to)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(to.read_text())


def new_mlflow(path: Path):
    """A database of MLflow's without a run. MLflow takes three seconds to make one, so one is made and copied."""
    first = Path(os.environ["XDG_CACHE_HOME"]) / "mlflow.db"
    if not first.exists():
        mlflow.MlflowClient(f"sqlite:///{first}").search_experiments()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(first, path)


def load_file_of(folder: Path, number: int) -> dict:
    """What the network of a trial said of each split."""
    files = [folder / "trials" / str(number) / name for name in (PROBS, members.PREDICTIONS)]
    return {name: probs for path in files if path.exists() for name, probs in load_file(path).items()}


def start(tmp_path: Path, *arguments: str, driver: Sequence[str] = SWEEP) -> subprocess.Popen:
    """A sweep in a process group of its own, called from another folder; without finalists where nothing is said of them.

    Args:
        driver: the command to start it with, in place of arch_sweep.py.
    """
    if "--finalists" not in arguments:
        arguments += ("--finalists", "0")
    new_mlflow(tmp_path / "results" / "mlflow.db")
    own = ("--results", str(tmp_path / "results"), "--name", "s", "--dataset", "digits-sample")
    return launch([*driver, *own, *arguments], tmp_path)


def resume(tmp_path: Path, *arguments: str) -> subprocess.Popen:
    return launch([*SWEEP, "--results", str(tmp_path / "results"), "--resume", "s", *arguments], tmp_path)


def launch(command: Sequence[str], cwd: Path) -> subprocess.Popen:
    """A command in a process group of its own, both its outputs in one pipe; `kill_all` ends it if its test does not."""
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=cwd, start_new_session=True, **quiet)
    _launched.append(process)
    return process


def kill_all():
    """Kill every process group that `launch` began and that still runs: its test has failed."""
    while _launched:
        process = _launched.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def hear(process: subprocess.Popen, *words: str) -> str:
    """Read what `process` says, up to a line with one of these words; the test fails where it ends without."""
    said = ""
    for line in process.stdout:
        said += line
        if any(some in line for some in words):
            return said
    raise AssertionError(f"it ended without saying {words!r}: {said}")


def finish(sweep: subprocess.Popen) -> str:
    """Everything that `sweep` says until it ends. Only pytest's own limit, against hangs, ends it sooner."""
    return sweep.communicate()[0]


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
    assert sum(m["weight"] for m in ensemble["members"]) == pytest.approx(1)
    for member in ensemble["members"]:
        _, config, _ = saved.load(folder / "trials" / str(member["trial"]))
        assert config.arch == member["arch"]
    again = load_file_of(folder, int(Path(ensemble["members"][0]["networks"][0]).name))
    assert again["test"].shape == (2000, 10), "what was chosen can be combined again"
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


def count(record: Path, table: str) -> int:
    """The rows of a record that may not be there yet."""
    try:
        return len(read(record)[table == "rungs"])
    except BadInput:
        return 0


def wait(condition: Callable[[], object], process: subprocess.Popen | None = None):
    """Poll until `condition` holds, however slow the machine is; pytest's own limit is the one against hangs.

    Args:
        process: what should bring it about; the test fails at once where it has ended without.
    """
    while not condition():
        ended = process is not None and process.poll() is not None
        assert not ended or condition(), f"it ended before, with status {process.returncode}"
        time.sleep(0.2)


def runs(pid: int) -> bool:
    """Return whether a process has not ended; one that waits for its parent to look has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


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


def open_files(folder: Path) -> list[str]:
    """Where the links in a process's /proc/<id>/fd lead; of those that were closed meanwhile nowhere."""
    found = []
    for link in folder.iterdir():
        with suppress(OSError):
            found.append(os.readlink(link))
    return found


def belonging(driver: int, token: str) -> dict[int, str]:
    """Every process of a sweep that was started with `token` in its environment, the driver among them: id -> command line.

    Found by the environment, by an open file of the driver's Ray session (setproctitle may write over the environment), and as
    a descendant of the driver. One that has ended, and waits for its parent, is none.
    """
    found, descendants = {}, {str(pid) for pid in processes_under(driver)}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
            is_marked = token.encode() in (folder / "environ").read_bytes()
            is_open = any("/session_" in link and f"_{driver}/" in link for link in open_files(folder / "fd"))
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if state != "Z" and (is_marked or is_open or folder.name in descendants):
            found[int(folder.name)] = line
    return found
