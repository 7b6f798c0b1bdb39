"""Real faults in real sweeps: nothing that was recorded is lost, nothing is done twice."""

import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chaos
import pytest
import ray
from killed_at import PLACES
from running import ROOT, SWEEP, belonging, check_folder, check_mlflow, count, finish, hear, resume, start, wait

from sweeps.search import launch
from sweeps.search.cluster import cluster
from sweeps.search.draw import SEARCHERS
from sweeps.search.keeper import Keeper
from sweeps.search.record import Record, read, rows
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import PARTS, Search
from sweeps.search.space import Space
from trainable import files
from trainable.ray_trial import RayTrial

pytestmark = pytest.mark.full

TINY = ("--space", "mine.py:draw", "--max-epochs", "0.3")
SECRET = "hunter2-swordfish"
HANG = 100_000.0  # seconds


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(chaos.SPACE)
    return tmp_path


@pytest.mark.long
def test_chaos(mine):
    """faults.md 1: a sweep that is killed, at a random moment and in one place after the other, comes to what it comes to
    undisturbed. `python tests/chaos.py` has more moments."""
    command = [sys.executable, str(ROOT / "tests" / "chaos.py"), "--trials", "4", "--kills", "1", "--max-epochs", "0.3"]
    done = subprocess.run([*command, "--folder", str(mine)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The same 4 trials, rungs, decisions and numbers" in done.stdout
    driver, ours = [sys.executable, str(ROOT / "tests" / "killed_at.py")], ["--results", str(mine / "results")]
    begun = ["--name", "s", "--dataset", "digits-sample", *TINY, "--trials", "4", "--concurrent", "1"]
    begun += ["--finalists", "1", "--folds", "2"]
    for place, nth in zip(PLACES, (1, 2, 5, 4, 1, 1), strict=True):
        killed = subprocess.run([*driver, place, str(nth), *ours, *begun], cwd=mine, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
        begun = ["--resume", "s"]
    sweep = resume(mine)
    said = finish(sweep)
    assert sweep.returncode == 0, said
    folder = mine / "results" / "s"
    check_folder(folder)
    check_mlflow(folder)
    assert chaos.facts(folder) == chaos.facts(mine / "whole")
    assert len(rows(folder / "record.db", "drivers")) == 1 + len(PLACES)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "moment",
    [
        lambda folder, processes: any("gcs_server" in line for line in processes),
        pytest.param(lambda folder, processes: count(folder / "record.db", "rungs") >= 1, marks=pytest.mark.long),
    ],
    ids=["while Ray starts", "in the search"],
)
def test_nothing_outlives_a_killed_driver(moment, mine, monkeypatch):
    """faults.md 1: the driver alone is killed; its guard ends after all the others, and leaves nothing of Ray's session."""
    monkeypatch.setenv("SWEEP_TEST", str(mine))
    sweep = start(mine, *TINY, "--trials", "40")
    folder = mine / "results" / "s"
    wait(lambda: moment(folder, belonging(sweep.pid, str(mine)).values()))
    before = belonging(sweep.pid, str(mine))
    (guard,) = [pid for pid, line in before.items() if "guard.py" in line]
    sweep.kill()
    sweep.wait()
    wait(lambda: guard not in belonging(sweep.pid, str(mine)))
    assert belonging(sweep.pid, str(mine)) == {}, before
    assert not list((Path(tempfile.gettempdir()) / "ray").glob(f"session_*_{sweep.pid}"))
    sweep.stdout.close()


@pytest.mark.long
def test_networks_that_were_damaged_are_trained_again(mine):
    """faults.md 14: cut short, empty, with a flipped bit, gone."""
    sweep = start(mine, *TINY, "--trials", "4", "--scheduler", "none", "--concurrent", "1")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    folder = mine / "results" / "s"
    before, paths = chaos.facts(folder), sorted(folder.glob("trials/*/model.safetensors"))
    assert len(paths) == 4
    digests = [files.digest(path) for path in paths]
    for i, path in enumerate(paths):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        damaged = (bytes(content), bytes(content[: len(content) // 2]), b"", None)[i]
        path.unlink() if damaged is None else path.write_bytes(damaged)
    sweep = resume(mine)
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert [files.digest(path) for path in paths] == digests
    assert chaos.facts(folder) == before
    assert [row["reason"] for row in rows(folder / "record.db", "restarts")] == ["its network is lost or damaged"] * 4
    check_folder(folder)
    check_mlflow(folder)


@pytest.mark.long
def test_rubbish_pickles_and_secrets(mine, monkeypatch):
    """faults.md 2, 15, 16, 37 and 38: what lies in the folder of a sweep that Ctrl-C, twice, stopped at once is never run, and no
    secret gets there."""
    for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    began = time.time()
    sweep = start(mine, *TINY, "--trials", "6", "--concurrent", "1")
    folder = mine / "results" / "s"
    wait(lambda: count(folder / "record.db", "rungs") >= 3, sweep)
    os.kill(sweep.pid, signal.SIGINT)
    # Its trials are so short that they may have ended by themselves.
    said = hear(sweep, launch.ENDING, "the best networks are combined")
    os.kill(sweep.pid, signal.SIGINT)
    said += finish(sweep)
    assert sweep.returncode == 130, said
    assert "Traceback" not in said
    assert len(read(folder / "record.db")[0]) >= 1
    trap = pickle.dumps(Trap(str(mine / "executed")))
    for path in [*folder.rglob("tune/**/*"), *folder.glob("trials/*/*"), folder / "tune" / "tuner.pkl", folder / "evil.pkl"]:
        if not path.is_dir() and path.name != "probs.safetensors":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(trap)
    (folder / "sweep.json").write_text('{"arguments": {"trials": 999999, "space": "quick"}}')
    (folder / "trials" / "0" / "state-999999-0123456789abcdef.safetensors").write_bytes(trap)
    sweep = resume(mine)
    said += finish(sweep)
    assert sweep.returncode == 0, said
    check_folder(folder)
    assert len(read(folder / "record.db")[0]) == 6, "the record says how many, not sweep.json"
    for command in (
        ["sweeps/explain.py", str(folder), "0"],
        ["trainable/train.py", "--trial", f"{folder}/0", "--out", str(mine / "n")],
    ):
        done = subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    assert not (mine / "executed").exists()
    logs = [path for path in (Path(tempfile.gettempdir()) / "ray").glob("session_2*") if path.stat().st_mtime >= began]
    assert logs
    places = [*mine.rglob("*"), *(path for log in logs for path in log.rglob("*"))]
    assert SECRET not in said
    assert [path for path in places if path.is_file() and SECRET.encode() in path.read_bytes()] == []


class Trap:
    """Whoever loads its pickle makes a file."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB at tmp_path/results."""
    where = tmp_path / "results"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(where)], capture_output=True).returncode:
        pytest.skip("needs root: no file system can be mounted here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.long
def test_a_full_disk(mine, small_disk):
    """faults.md 13: it waits, says so once, and goes on; when it is ended meanwhile it ends clean, and is resumed."""
    log, folder, ballast = mine / "log", small_disk / "s", small_disk / "ballast"

    def fill():
        subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=64k"], capture_output=True)  # until there is no room

    with log.open("w") as out:
        command = [*SWEEP, "--results", str(small_disk), "--name", "s", "--dataset", "digits-sample", *TINY, "--trials", "14"]
        command += ["--finalists", "0"]
        sweep = subprocess.Popen(command, cwd=mine, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait(lambda: count(folder / "record.db", "rungs") >= 2, sweep)
        fill()
        wait(lambda: "waits" in log.read_text(), sweep)
        so_far = len(log.read_text())
        wait(lambda: " gone" in log.read_text()[so_far:], sweep)  # the next of its lines, which say how long it has worked
        before = count(folder / "record.db", "rungs")
        ballast.unlink()
        wait(lambda: count(folder / "record.db", "rungs") >= before + 3, sweep)
        assert "Traceback" not in log.read_text()
        fill()
        wait(lambda: log.read_text().count("waits") >= 2, sweep)
        sweep.send_signal(signal.SIGINT)
        sweep.wait()
    finally:
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGKILL)
            sweep.wait()
    said = log.read_text()
    assert sweep.returncode == 1, said
    assert "Traceback" not in said
    assert said.count("waits") <= 4, "once each time; the record and the keeper may both say it"
    ballast.unlink()
    sweep = resume(mine)
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert len(read(folder / "record.db")[0]) == 14
    check_folder(folder)


def search_of(config: dict, folder: Path, trials: int = 1, budgets=(1.0, 2.0)) -> Search:
    more = {"sampler": SEARCHERS["random"], "scheduler": SCHEDULERS["none"](), "rungs": list(budgets), "trials": trials}
    return Search(Space(lambda trial: config), Record(folder / "record.db"), **more)


@pytest.fixture(scope="module")
def places():
    """A cluster for the tests that bring trials of their own."""
    with cluster(None, 1, 0, 2) as places:
        yield places


def searched(search: Search, folder: Path, data, places, trainable, **more):
    """Run it to its end, which nothing must break off."""
    broken = launch.run_search(search, data, places, launch.Ending(None), folder, trainable=trainable, **more)
    assert broken is None


@pytest.mark.long
def test_an_architecture_that_hangs_while_it_is_built(tmp_path, tiny, places, monkeypatch):
    """It is missed before its first step, and named."""
    marker, said = tmp_path / "hung", []

    class HangsOnce(RayTrial):
        def _begin(self):
            if not marker.exists():
                marker.write_text(str(os.getpid()))
                time.sleep(HANG)
            super()._begin()

    monkeypatch.setattr(launch, "Keeper", patient(marker))
    search = search_of({"convnet.width": 8}, tmp_path)
    searched(search, tmp_path, tiny, places, HangsOnce, silence=2.0, warn=said.append)
    assert [t["state"] for t in read(tmp_path / "record.db")[0]] == ["complete"]
    assert said == ["Trial 0 (convnet) has made no step for 2 seconds: its process is ended."]


def patient(marker: Path) -> type[Keeper]:
    """A keeper that takes nothing for hung but the process in `marker`: on a busy machine any may be silent for seconds."""

    class Patient(Keeper):
        def latest(self, silence):
            heard = {str(process) for _, (_, process) in self.heard.values()}
            hangs = marker.exists() and marker.read_text() in heard
            return super().latest(silence if hangs else math.inf)

    return Patient


def test_a_trial_that_hangs_is_started_again(tmp_path, tiny, places, monkeypatch):
    """faults.md 5."""
    marker, said = tmp_path / "hung", []

    class HangsOnce(RayTrial):
        def _evaluate(self, interrupted):
            if self.rung == 1 and not marker.exists():
                marker.write_text(str(os.getpid()))
                time.sleep(HANG)
            return super()._evaluate(interrupted)

    monkeypatch.setattr(launch, "Keeper", patient(marker))
    search = search_of({"convnet.width": 8}, tmp_path)
    searched(search, tmp_path, tiny, places, HangsOnce, silence=2.0, warn=said.append)
    assert [t["state"] for t in read(tmp_path / "record.db")[0]] == ["complete"]
    assert [(r["rung"], round(r["metrics"]["budget"])) for r in read(tmp_path / "record.db")[1]] == [(0, 1), (1, 2)]
    assert said == ["Trial 0 (convnet) has made no step for 2 seconds: its process is ended."]
    assert "its process died" in rows(tmp_path / "record.db", "restarts")[0]["reason"]


def test_a_trial_that_hangs_does_not_hold_the_end(tmp_path, tiny, places, monkeypatch):
    """The deadline comes when it hangs."""
    hung, woke = tmp_path / "hung", tmp_path / "woke"

    class Hangs(RayTrial):
        def step(self):
            hung.touch()
            time.sleep(HANG)
            woke.touch()

    monkeypatch.setattr(launch, "PATIENCE", 3.0)
    ending, search = launch.Ending(None), search_of({"convnet.width": 8}, tmp_path, trials=places.slots)
    deadline = lambda beats: hung.exists() and ending.give(0.0)  # noqa: E731
    broken = launch.run_search(search, tiny, places, ending, tmp_path, trainable=Hangs, tell=deadline)
    assert not woke.exists()
    everything = ray.remote(num_cpus=ray.cluster_resources()["CPU"])
    assert ray.get(everything(lambda: "free").remote()) == "free", "the slots are free to combine"
    assert "did not end within 3 seconds" in broken
    assert {t["state"] for t in read(tmp_path / "record.db")[0]} == {"interrupted"}


@pytest.mark.long
def test_a_trial_killed_while_it_hands_over(tmp_path, tiny, places):
    """faults.md 3: what was half handed over is not there; it comes to the same numbers as one that was not killed."""

    def dying(method: str):
        class Dies(RayTrial):
            pass

        def dies(self, *arguments):
            if self.rung == 1 and not (tmp_path / f"{method} died").exists():
                (tmp_path / f"{method} died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return getattr(RayTrial, method)(self, *arguments)

        setattr(Dies, method, dies)
        return Dies

    found = {}
    for name in ("whole", "_hand_over", "_hand_over_state"):
        folder = tmp_path / name
        folder.mkdir()
        search = search_of({"convnet.width": 8, "engine": "fp32-nhwc"}, folder)
        searched(search, folder, tiny, places, RayTrial if name == "whole" else dying(name))
        rungs = read(folder / "record.db")[1]
        found[name] = [(r["rung"], r["metrics"]["val_loss"], r["metrics"]["train_loss"]) for r in rungs]
        assert len(rows(folder / "record.db", "restarts")) == (name != "whole")
        assert not list((folder / "trials").rglob(".*")), "no half-written file"
    assert found["whole"] == found["_hand_over"] == found["_hand_over_state"]
    assert len(found["whole"]) == 2


@pytest.mark.long
def test_out_of_memory(tmp_path, tiny, places):
    """faults.md 22: the real allocator refuses a whole batch, and has room for its parts."""

    class Narrow(RayTrial):
        def _begin(self):
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 700 * 2**20, resource.RLIM_INFINITY))
            super()._begin()

    # A map of the first layers alone takes 100 MB, of which the whole batch needs a dozen at once.
    wide = {"convnet.width": 64, "batch_size": 512, "engine": "fp32-nchw"}
    search = search_of(wide, tmp_path, budgets=(2.0, 4.0))
    searched(search, tmp_path, tiny, places, Narrow)
    (trial,), rungs = read(tmp_path / "record.db")
    assert trial["state"] == "complete", trial["reason"]
    assert trial["config"]["accumulate"] == PARTS
    assert len(rungs) == 2
    (again,) = rows(tmp_path / "record.db", "restarts")
    assert again["reason"].endswith("now alone, each batch in 4 parts")


@pytest.mark.long
def test_every_trial_diverges(mine):
    """faults.md 21 and 25: real NaNs of a real training; the sweep says what the failures have in common."""
    (mine / "mine.py").write_text('def draw(trial):\n    return {"lr": 1000.0, "optimizer": "sgd", "average": 0.0}\n')
    sweep = start(mine, "--space", "mine.py:draw", "--max-epochs", "8", "--trials", "3")
    said = finish(sweep)
    assert sweep.returncode == 1, said
    assert "No trial left a network: 3 were tried. 3 of them: FloatingPointError" in said
    assert "Traceback" not in said
    trials, _ = read(mine / "results" / "s" / "record.db")
    assert all("FloatingPointError" in t["trace"] for t in trials)
