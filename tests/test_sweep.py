"""Real sweeps: real Ray, real digits, real MLflow."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from running import ROOT, bench, check_folder, check_mlflow, count, finish, load_file_of, processes_under, resume, start, wait

from sweeps import distil, ensemble, predict
from sweeps.choose import kept as kept_members
from sweeps.search import launch
from sweeps.search.cluster import cluster
from sweeps.search.draw import SEARCHERS
from sweeps.search.record import Record, read, rows
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES
from trainable import predict as single
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
def test_finalists(tmp_path, command, refuses):
    """Judged out of fold on every labelled image; combined again in other ways; gone on with."""
    (tmp_path / "mine.py").write_text(
        'def draw(trial):\n    lr = trial.suggest_float("lr", 2e-3, 8e-3, log=True)\n'
        '    return {"arch": "convnet", "convnet.width": 8, "engine": "fp32-nhwc", "lr": lr}\n'
    )
    arguments = ["--space", "mine.py:draw", "--trials", "3", "--max-epochs", "0.4", "--scheduler", "none"]
    sweep = start(tmp_path, *arguments, "--finalists", "2", "--folds", "2", "--views", "2")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    folder = tmp_path / "results" / "s"
    about = check_folder(folder)
    check_mlflow(folder)
    assert about["judged_on"] == {"split": "out of fold", "images": 10_000}
    assert "2 finalists (trials" in said
    assert "Ensembles, out of fold (10,000 images)" in said
    trials, _ = read(folder / "record.db")
    assert [t["refits"] is None for t in trials] == [True] * 3 + [False] * 4
    assert {t["state"] for t in trials} == {"complete"}
    for trial in trials[3:]:
        own, of = trial["config"], trials[trial["refits"]]["config"]
        assert {k for k in own if own[k] != of[k]} <= {"folds", "fold"}
        assert set(load_file_of(folder, trial["number"])) == {"val", "val.1", "test", "test.1"}
    assert set(about["methods"]) == {"mean", "vote", "greedy", "weights", "best"}
    assert [len(row["members"]) for row in about["sizes"]] == [1, 2, 3, 4], "two views of two finalists"
    assert about["judged"]["error"] < 0.6
    assert 0 <= about["cascade"]["share_passed_on"] <= 1

    results = ["--results", tmp_path / "results"]
    status, said, _ = command(ensemble.main, "s", *results, "--ensemble", "weights")
    assert status == 0
    again = json.loads((folder / "ensemble-2" / "ensemble.json").read_text())
    assert again["method"] == "weights"
    assert again["methods"]["weights"] == about["methods"]["weights"]
    assert "weights, chosen" in said
    fastest = min(times["ms_128"] / 128 for times in json.loads((folder / "times.json").read_text()).values())
    status, said, _ = command(ensemble.main, folder, folder, "--max-latency", 1.5 * fastest, "--out", tmp_path / "fast")
    assert status == 0
    fast = json.loads((tmp_path / "fast" / "ensemble.json").read_text())
    assert fast["ms_per_image"] <= 1.5 * fastest
    assert [len(m["networks"]) for m in fast["members"]] == [1]
    assert len(list(csv.reader((tmp_path / "fast" / "submission.csv").open()))) == 2001
    assert "the fastest member takes" in refuses(ensemble.main, "s", *results, "--max-latency", 1e-4)
    assert not (folder / "ensemble-3").exists()
    assert "holds an ensemble already" in refuses(ensemble.main, "s", *results, "--out", tmp_path / "fast")
    assert "holds no sweep" in refuses(ensemble.main, "nothing", *results)

    # What the finalists said is enough to combine them again.
    kept = tmp_path / "kept"
    kept.mkdir()
    shutil.copy(folder / "predictions.parquet", kept)
    assert "has predictions.parquet and no sweep.json" in refuses(ensemble.main, kept)
    shutil.copy(folder / "sweep.json", kept)
    status, said, _ = command(ensemble.main, kept, "--out", tmp_path / "of-kept")
    assert status == 0
    of_kept = json.loads((tmp_path / "of-kept" / "ensemble.json").read_text())
    assert (of_kept["method"], of_kept["judged_on"]) == (about["method"], about["judged_on"])
    assert of_kept["judged"]["loss"] == pytest.approx(about["judged"]["loss"], rel=1e-3), "its numbers have three digits"
    assert of_kept["ms_per_image"] == about["ms_per_image"]
    assert "the fastest member takes" in refuses(ensemble.main, kept, "--max-latency", 1.5 * fastest), "all folds together"
    lines, kept_lines = ((of / "submission.csv").read_text().splitlines() for of in (folder, tmp_path / "of-kept"))
    assert sum(a != b for a, b in zip(lines, kept_lines, strict=True)) < 10
    # Several sweeps together: a copy counts once, and rows say whose trial they mean.
    status, said, _ = command(ensemble.main, kept, folder, "--out", tmp_path / "once")
    assert status == 0
    assert pd.read_parquet(tmp_path / "once" / "predictions.parquet")["member"].nunique() == 4
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "sweep.json", other)
    members = [replace(m, networks=tuple(replace(n, digest=n.digest[::-1]) for n in m.networks)) for m in kept_members.read(kept)]
    kept_members.write(other, members, ["test"], [m.networks[0].ms for m in members])
    status, said, _ = command(ensemble.main, folder, other, "--out", tmp_path / "both")
    assert status == 0
    assert "Trials of 1/: s, 2/: other" in said
    about_both = json.loads((tmp_path / "both" / "ensemble.json").read_text())
    assert {name[:2] for name in about_both["sizes"][-1]["names"]} == {"1/", "2/"}
    assert {m["sweep"] for m in about_both["members"]} <= {1, 2}
    both = pd.read_parquet(tmp_path / "both" / "predictions.parquet")
    assert both["member"].nunique() == 8
    assert both.groupby(["member", "split"]).size().unique().tolist() == [10_000, 2000]
    assert np.exp(both.filter(like="logp_").astype(float)).sum(axis=1).to_numpy() == pytest.approx(np.ones(len(both)), abs=0.01)

    # New images are predicted by what was chosen.
    for of in (folder, tmp_path / "fast"):
        out = tmp_path / "again.csv"
        status, said, _ = command(predict.main, of, "--out", out)
        assert status == 0
        assert out.read_text() == (of / "submission.csv").read_text()
        errors = json.loads((of / "ensemble.json").read_text())["test"]["errors"]
        assert f"{errors} errors of 2,000" in said
    status, said, _ = command(predict.main, "s", *results, "--cascade", "--out", tmp_path / "cascade.csv")
    assert status == 0
    share = float(re.search(r"([\d.]+)% of them passed on", said).group(1)) / 100
    assert share == pytest.approx(about["cascade"]["share_passed_on"], abs=0.1)
    wrong = int(re.search(r"([\d,]+) errors of 2,000", said).group(1).replace(",", ""))
    assert abs(wrong - about["test"]["errors"]) < 60, "nearly as good as the ensemble"
    assert "was trained on it" in refuses(predict.main, "s", *results, "--split", "val")
    assert "holds no ensemble.json" in refuses(predict.main, "nothing", *results)

    # What a prediction costs, and whether what is shown is honest.
    figures = bench("cascade.py", folder, "--images", "50", "--turns", "1", to=tmp_path / "cascade.json")
    assert figures["judged"]["ensemble"] == about["judged"]
    assert all(len(times) == 1 for times in figures["ms"].values())
    figures = bench("nested.py", folder, "--splits", "2", to=tmp_path / "nested.json")
    assert {p["method"]: p["errors"] for p in figures["parts"] if p["members"] == "all"} == {
        name: method["judged"]["errors"] for name, method in about["methods"].items()
    }
    assert all(abs(s["shown"] - s["true"]) < 0.1 for s in figures["splits"])

    # One network is taught what the ensemble says.
    assert "holds no sweep" in refuses(distil.main, "nothing", *results)
    assert "is no member of the ensemble; take one of" in refuses(distil.main, "s", *results, "--trial", "99")
    status, said, _ = command(distil.main, "s", *results, "--epochs", "1", "--threads", "1")
    assert status == 0
    _, config, _ = saved.load(folder / "distilled")
    assert (config.knobs["width"], config.epochs, config.folds, config.fold, config.label_smoothing) == (8, 1.0, 2, 0, 0.0)
    report = json.loads((folder / "distilled" / saved.CONFIG).read_text())["scores"]
    assert report["taught_by"]
    assert report["val_error"] < 0.8, "guessing: 0.9"
    assert re.search(rf"taught +│ +{round(5000 * report['val_error'])} │", said)
    status, said, _ = command(single.main, folder / "distilled", "--out", tmp_path / "distilled.csv")
    assert status == 0

    sweep = resume(tmp_path)
    assert "is done" in finish(sweep)
    sweep = resume(tmp_path, "--finalists", "3", "--last-fit")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    trials, _ = read(folder / "record.db")
    assert [t["refits"] for t in trials[7:9]] == [next(n for n in range(3) if n not in {t["refits"] for t in trials[3:7]})] * 2
    assert sorted(t["refits"] for t in trials[9:]) == [0, 1, 2]
    assert {t["config"]["folds"] for t in trials[9:]} == {50}
    about = check_folder(folder)
    assert all(len(member["networks"]) == 1 for member in about["members"]), "the last fit answers for the folds"
    check_mlflow(folder)


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
    wait(lambda: count(record, "rungs") >= 1)
    os.kill(sweep.pid, signal.SIGINT)
    time.sleep(0.5)  # two signals at once may be seen as one
    os.kill(sweep.pid, signal.SIGINT)
    said = finish(sweep, 60)
    assert sweep.returncode == 130, said
    assert "Traceback" not in said
    assert len(read(record)[0]) >= 1


def test_a_killed_trial_process_costs_nothing(tmp_path):
    """faults.md 3: it goes on in another process from its last state."""
    sweep = start(tmp_path, "--quick", "--trials", "4", "--max-epochs", "1")
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
