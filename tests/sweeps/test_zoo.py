"""The architecture table: what it says of networks, and a real one from the command to the files."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from rich.console import Console
from running import ROOT, count, finish, launch, wait

from sweeps import zoo
from sweeps.choose import cost
from sweeps.choose.members import find as members_of
from sweeps.search.draw import SEARCHERS
from sweeps.search.record import Record, read
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import Search
from sweeps.show import figures, views, zoo_table
from trainable import engine
from trainable.archs import ARCHS
from trainable.archs.torchvision_zoo import TorchvisionArch
from trainable.config import TrialConfig
from trainable.datasets import Dataset, Split
from trainable.datasets.container import nothing

ZOO = [sys.executable, str(ROOT / "sweeps" / "zoo.py")]
DIGITS = ("--dataset", "digits-sample")


def problem(*in_shape: int, classes: int) -> Dataset:
    """Nothing but shapes: four black images."""
    split = Split(np.zeros((4, *in_shape), np.uint8), np.zeros(4, np.int64), np.arange(4))
    return Dataset("shapes", tuple(map(str, range(classes))), split, split, nothing(split), nothing(split))


def test_size_by_hand(tiny):
    """A convnet small enough for paper: 28 pixels, halved to 14 by the pool, one stage of one plain block."""
    knobs = {"width": 8, "stages": 1, "blocks": 1, "block": "plain", "kernel": 3, "stem": "full", "pool": "max"}
    parameters, macs = cost.size(TrialConfig(knobs=knobs), tiny)
    convolutions = 9 * 1 * 8, 9 * 8 * 16, 9 * 16 * 16, 9 * 16 * 16
    assert macs == 28 * 28 * convolutions[0] + 14 * 14 * sum(convolutions[1:]) + 16 * 10
    assert parameters == sum(convolutions) + 2 * (8 + 16 + 16 + 16) + 16 * 10 + 10


def test_small_data_have_too_few_steps_an_epoch_to_time(tiny):
    """One step an epoch, and one epoch: steps are timed beyond its end."""
    few = replace(tiny, train=tiny.train.take(np.arange(130)))
    config = TrialConfig(knobs={"width": 8}, epochs=1.0, engine="fp32-nhwc")
    assert cost._epoch_seconds(config, few, 1, "cpu") > 0


@pytest.mark.parametrize("arch", ["resnet18", pytest.param("efficientnet_b3", marks=pytest.mark.full)])
def test_size_as_published(arch):
    """At the images that a network was published for, its own numbers, to the digits that torchvision gives."""
    weights = torchvision.models.get_model_weights(arch).DEFAULT
    side = weights.transforms().crop_size[0]
    parameters, macs = cost.size(TrialConfig(arch=arch), problem(3, side, side, classes=1000))
    assert parameters == weights.meta["num_params"]
    assert macs / 1e9 == pytest.approx(weights.meta["_ops"], abs=0.0006)


@pytest.mark.full
def test_every_family_has_a_size(tiny):
    first = {ARCHS[arch].family: arch for arch in reversed(ARCHS)}
    for arch in [*zoo.GROUPS["eleven"], *first.values()]:
        parameters, macs = cost.size(TrialConfig(arch=arch), tiny)
        assert parameters > 1000, arch
        assert macs > 1000, arch


def test_measure(monkeypatch):
    """The median of many, warm; a network that works longer takes longer. Its clock is the test's own."""
    now = [0.0]
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0]))

    class Works(torch.nn.Module):
        calls = 0

        def forward(self, x):
            Works.calls += 1
            warm = Works.calls > cost.WARM
            now[0] += 0.001 * (1 + len(x) // 64) * (1 if warm else 20) * (5 if Works.calls % 7 == 0 else 1)
            return x.sum((1, 2, 3))

    plan = engine.plan(torch.nn.Conv2d(1, 1, 3), (1, 8, 8), "cpu", "fp32-nchw")
    out = cost.measure(Works(), plan, (1, 8, 8), seconds=0.2)
    assert out["ms_1"] == pytest.approx(1.0), "neither the warm-up nor the slow seventh counts"
    assert out["ms_128"] == pytest.approx(3.0)
    assert all(out[f"ms_{b}"] < out[f"ms_{b}_p90"] for b in cost.BATCHES)
    assert min(out["runs_1"], out["runs_128"]) >= cost.LEAST
    assert (out["threads"], out["setting"]) == (1, "fp32-nchw")
    assert out["device"]


def test_pareto():
    nan = float("nan")
    #          fast   both   slow   beaten  equal   lost   not timed
    x, y = [1.0, 2.0, 3.0, 3.0, 2.0, 2.0, nan], [0.9, 0.5, 0.1, 0.6, 0.5, 0.6, 0.0]
    assert views.front(pd.Series(x), pd.Series(y)) == [True, True, True, False, True, False, False]


SIZES = {"convnet": (1234, 999_950), "resnet18": (11_170_000, 37_100_000), "vit": (999, 0), "mnasnet0_5": (950_000, 2_000_000)}
TIMES = {"ms_1_p90": 9.0, "ms_128_p90": 99.0, "runs_1": 900, "runs_128": 40, "threads": 1, "device": "Some CPU", "setting": "x"}


@pytest.fixture
def table() -> pd.DataFrame:
    """Two networks, one that failed, one that was never begun."""
    trials = pd.DataFrame(
        {"trial": [0, 1, 2], "arch": ["resnet18", "vit", "convnet"], "state": ["complete", "failed", "complete"],
         "reason": ["", "ValueError: no", ""], "train_s": [100.0, 0.0, 9.6]}
    )  # fmt: skip
    score = {"val_errors": 40, "val_loss": 0.03, "submission": "submissions/x.csv", "epochs": 5.0}
    singles = [
        {"arch": "convnet", **score, "val_error": 0.0101, "ms_1": 1.126, "ms_128": 135.2, **TIMES},
        {"arch": "resnet18", **score, "val_error": 0.0099, "ms_1": 2.0, "ms_128": 22.0, **TIMES, "test_error": 0.0123},
    ]
    return zoo_table.tabulate(SIZES, trials, singles, cost.BATCHES)


def test_table(table, tmp_path):
    assert table["arch"].tolist() == ["resnet18", "convnet", "vit", "mnasnet0_5"]
    assert table["state"].tolist() == ["complete", "complete", "failed", "interrupted"]
    assert table["front_1"].tolist() == [True, True, False, False]
    assert table["front_128"].tolist() == [True, False, False, False]
    zoo_table.write(tmp_path, table, ["# A title"])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "zoo.parquet"), table)
    assert table.dtypes.astype(str).to_dict() == zoo_table.columns(cost.BATCHES)
    text = (tmp_path / "zoo.md").read_text()
    assert text.startswith(
        "# A title\n\n| architecture | params | MACs | val | loss | test | ms/1 | ms/128 | train |\n| --- | ---:"
    )
    assert "\n| resnet18 | 11.2M | 37.1M | 0.99% | 0.0300 | 1.23% | * 2.00 | * 22.0 | 100 |\n" in text
    assert "\n| convnet | 1.23k | 1.00M | 1.01% | 0.0300 | - | * 1.13 | 135 | 10 |\n" in text
    assert "\n| mnasnet0_5 | 950k | 2.00M | - | - | - | - | - | - |\n" in text
    assert "median of at least 40 warm runs; 1 thread, Some CPU." in text
    assert "vit, failed: ValueError: no" in text
    assert "mnasnet0_5, interrupted: the sweep ended before its turn" in text


def test_table_on_a_terminal(table):
    out = io.StringIO()
    zoo_table.show(Console(file=out, width=80), table.assign(arch="mobilenet_v3_large", val_error=0.9), "Four")
    rows = [line for line in out.getvalue().splitlines() if "mobilenet_v3_large  " in line]
    assert len(rows) == 4
    assert max(map(len, rows)) <= 80
    assert "…" not in out.getvalue()


def test_picture(table, tmp_path):
    for name, shown in (("all", table), ("none", table.iloc[2:])):
        figures.write_zoo(tmp_path / f"{name}.png", shown, 1500, cost.BATCHES)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def asked(*arguments: str):
    return zoo.parse([*DIGITS, *arguments])


def test_the_groups():
    assert asked().archs == list(zoo.GROUPS["eleven"])
    assert len(set(zoo.GROUPS["eleven"])) == 11
    assert set(zoo.GROUPS["eleven"]) <= set(ARCHS)
    assert asked("--archs", "all").archs == list(ARCHS)
    own = asked("--archs", "own").archs
    assert "convnet" in own
    assert not any(isinstance(ARCHS[arch], TorchvisionArch) for arch in own)
    assert asked("--archs", "convnet, resnet18,convnet").archs == ["convnet", "resnet18"]


def test_one_recipe(tmp_path):
    """Every network once, in the order given, under the same recipe and seed; a knob is for its network alone."""
    args = asked("--archs", "resnet18,convnet", "--set", "convnet.width=16", "--set", "lr=0.002", "--seed", "7", "--epochs", "2")
    recipes = {arch: zoo.recipe(args, arch) for arch in args.archs}
    sampler, scheduler = SEARCHERS["random"], SCHEDULERS["none"]()
    space, record = zoo.one_each(recipes), Record(tmp_path / "record.db")
    search = Search(space, record, sampler=sampler, scheduler=scheduler, rungs=[1.0, 2.0], trials=2, seed=None)
    drawn = [search.ask().config for _ in recipes]
    assert search.ask() is None
    assert [config["arch"] for config in drawn] == ["resnet18", "convnet"]
    assert [(config["lr"], config["seed"], config["epochs"]) for config in drawn] == [(0.002, 7, 2.0)] * 2
    assert drawn[1]["convnet.width"] == 16


def test_what_suits_a_network():
    """A network without BatchNorm learns at a lower rate after a longer warm-up; `--set` has the last word."""
    args = asked(
        "--archs",
        "squeezenet1_0,resnet18,vgg11",
        "--set",
        "squeezenet1_0.lr=0.003",
        "--set",
        "resnet18.batch_size=64",
        "--epochs",
        "2",
    )
    squeezenet, resnet, vgg = (zoo.recipe(args, arch) for arch in args.archs)
    plain = TrialConfig()
    assert vgg.lr < resnet.lr == 0.002
    assert squeezenet.lr == 0.003
    assert squeezenet.warmup == vgg.warmup > resnet.warmup == plain.warmup
    assert {config.clip for config in (squeezenet, resnet, vgg)} == {1}
    assert [config.batch_size for config in (squeezenet, resnet, vgg)] == [128, 64, 128]


def test_stem_is_for_every_torchvision_network():
    args = asked("--archs", "resnet18,convnet,squeezenet1_1", "--stem", "fine", "--set", "squeezenet1_1.stem_stride=1")
    stems = [zoo.recipe(args, arch).knobs.get("stem_stride") for arch in args.archs]
    assert stems == ["fine", None, 1]
    assert zoo.recipe(asked(), "resnet18").knobs["stem_stride"] == "auto"


@pytest.mark.parametrize("slots", [1, 2, 16])
@pytest.mark.parametrize("seconds", [100.0, 10_000.0])
def test_time_is_shared_out(slots, seconds):
    """All fits, little is left over, and what is cheaper trains longer but not as much longer as it is cheaper."""
    times = {"large": 1000.0, "middle": 100.0, "small": 10.0, "twin": 10.0}
    extra = 0.01
    epochs = zoo.share_out(times, seconds, slots, extra)
    jobs = [times[arch] * (epochs[arch] + extra) for arch in times]
    assert zoo.makespan(sorted(jobs, reverse=True), slots) <= 1.01 * seconds
    if max(epochs.values()) < zoo.MOST_EPOCHS:
        assert zoo.makespan(sorted(jobs, reverse=True), slots) >= 0.97 * seconds
        assert epochs["middle"] / epochs["large"] == pytest.approx(10**0.5, rel=0.02)
        assert epochs["small"] == epochs["twin"]


def test_time_that_is_too_short_or_too_long_to_share_out():
    assert zoo.share_out({"one": 100.0}, 0.0, 2, 0.1) == {"one": zoo.LEAST_EPOCHS}
    assert zoo.share_out({"one": 100.0}, 1e9, 2, 0.1) == {"one": zoo.MOST_EPOCHS}
    assert zoo.share_out({}, 100.0, 2, 0.1) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stem", "coarse"], "unknown stem 'coarse'; known: auto, published, fine"),
        (["--set", "mnasnet0_5.stem_stride=3"], "unknown mnasnet0_5.stem_stride 3"),
        (["--epochs", "1", "--time-budget", "1h"], "give one of them"),
        (["--time-budget", "soon"], "--time-budget 'soon' is not a time"),
        (["--vote", "resnet18,mnasnet0_5"], "unknown architecture to vote, among those of --archs 'resnet18'; known: mnasnet0_5"),
        (["--vote", "mnasnet0_5"], "--vote mnasnet0_5: give at least two networks, each once"),
        (["--archs", "resnet18,resnet19"], "unknown architecture 'resnet19'; known: resnet18, "),
        (["--archs", ""], "unknown architecture ''"),
        (["--epochs", "0"], "--epochs: '0' is not a number of 1e-06 or more"),
        (["--epochs", "1e-7"], "--epochs: '1e-7' is not a number of 1e-06 or more and at most 100000"),
        (["--set", "lr"], "--set lr: write KEY=VALUE"),
        (["--set", "epochs=3"], "--set epochs=3: use --epochs instead"),
        (["--set", "arch=convnet"], "--set arch=convnet: use --archs instead"),
        (["--set", "convnet.width=16"], "unknown key 'convnet.width'"),
        (["--archs", "convnet", "--set", "convnet.width=0"], "convnet.width is 0"),
        (["--name", "../away"], "--name '../away': up to 100 letters"),
        (["--name", "there"], "there exists; choose another --name"),
        (["--dataset", "cifar"], "unknown dataset 'cifar'"),
        (["--gpus-per-trial", "2"], "--gpus-per-trial: '2': a trial trains on one GPU at most"),
        (["--cpus-per-trial", "4096"], "--cpus-per-trial 4096: the largest machine has"),
    ],
)
def test_bad_input(refuses, tmp_path, arguments, says):
    (tmp_path / "there").mkdir()
    said = refuses(zoo.main, *DIGITS, "--archs", "mnasnet0_5", "--results", tmp_path, *arguments)
    assert said.startswith("zoo.py: ")
    assert says in said
    assert [path.name for path in tmp_path.iterdir()] == ["there"], "nothing is left behind"


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen:
    return launch([*ZOO, "--results", str(tmp_path), "--name", "z", *arguments, *DIGITS], tmp_path)


def check_folder(folder: Path, sample: Dataset) -> pd.DataFrame:
    assert all((folder / name).exists() for name in zoo.WRITTEN)
    table = pd.read_parquet(folder / "zoo.parquet")
    assert table.dtypes.astype(str).to_dict() == zoo_table.columns(cost.BATCHES)
    labels = dict(zip(sample.test.ids, sample.test.labels, strict=True))
    for _, row in table.dropna(subset=["submission"]).iterrows():
        rows = list(csv.DictReader((folder / row["submission"]).open()))
        assert [int(r["ImageId"]) for r in rows] == sample.test.ids.tolist()
        assert sum(labels[int(r["ImageId"])] != int(r["Label"]) for r in rows) == row["test_errors"]
        assert f"| {row['arch']} |" in (folder / "zoo.md").read_text()
    assert not list(folder.rglob(".*.tmp"))
    return table


@pytest.mark.full
def test_a_zoo(tmp_path, sample):
    """Two cheap networks and their vote, from the command to the files."""
    sweep = start(
        tmp_path, "--archs", "mnasnet0_5,convnet", "--epochs", "0.1",
        "--set", "convnet.width=8", "--vote", "convnet,mnasnet0_5",
    )  # fmt: skip
    said = finish(sweep)
    assert sweep.returncode == 0, said
    table = check_folder(tmp_path / "z", sample)
    assert set(table["arch"]) == {"mnasnet0_5", "convnet"}
    assert table["state"].tolist() == ["complete"] * 2
    assert table["val_error"].is_monotonic_increasing
    assert (table["ms_128"] > table["ms_1"]).all()
    assert (table["threads"] == 1).all()
    assert table["front_1"].any()
    trials, rungs = read(tmp_path / "z" / "record.db")
    macs = table.set_index("arch")["macs"]
    assert [t["config"]["arch"] for t in trials] == sorted(macs.index, key=lambda arch: -macs[arch]), "the slowest first"
    assert {t["config"]["seed"] for t in trials} == {0}
    assert len(rungs) == 8
    check_vote(tmp_path / "z", sample, ["convnet", "mnasnet0_5"], said)
    assert json.loads((tmp_path / "z" / "sweep.json").read_text())["command"][:2] == ["python", "sweeps/zoo.py"]
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = mlflow.search_runs(experiment_names=["digits-sample"])
    assert runs["status"].tolist() == ["FINISHED"] * 3


def check_vote(folder: Path, sample: Dataset, archs: list[str], said: str):
    """The class that most networks are for, or of a tie the one with the higher mean probability."""
    members = {member.arch: member for member in members_of(folder)}
    probs = np.stack([members[arch].networks[0].probs["test"] for arch in archs])
    ballots = np.eye(probs.shape[2])[probs.argmax(axis=2)].sum(axis=0)
    right = np.where(ballots == ballots.max(axis=1, keepdims=True), probs.mean(axis=0), -1).argmax(axis=1)
    rows = list(csv.DictReader((folder / "submissions" / "vote.csv").open()))
    assert [int(row["Label"]) for row in rows] == right.tolist()
    wrong = int((right != sample.test.labels).sum())
    text = f"Majority vote of {', '.join(archs)}: "
    assert text in said
    assert f"{wrong} on test" in (folder / "zoo.md").read_text().partition(text)[2]


@pytest.mark.full
@pytest.mark.long
def test_a_time_budget_is_shared_out(tmp_path):
    """What an epoch costs is measured, what it allows is said, and that is what they train for."""
    archs = "mnasnet0_5,convnet"
    sweep = start(tmp_path, "--archs", archs, "--time-budget", "1h", "--set", "convnet.width=8", "--set", "convnet.stages=1")
    record = tmp_path / "z" / "record.db"
    wait(lambda: count(record, "trials"), sweep)
    sweep.terminate()
    said = finish(sweep)
    assert sweep.returncode == 0, said
    trials = {t["config"]["arch"]: t["config"] for t in read(record)[0]}
    told = dict(pair.split() for pair in said.partition("Epochs: ")[2].partition(".\n")[0].split(", "))
    assert {arch: f"{config['epochs']:g}" for arch, config in trials.items()}.items() <= told.items()


@pytest.mark.full
@pytest.mark.long
def test_sigterm_tabulates_what_is_trained(tmp_path, sample):
    sweep = start(tmp_path, "--archs", "squeezenet1_1,resnet18", "--epochs", "2", "--concurrent", "1")
    record = tmp_path / "z" / "record.db"
    wait(lambda: count(record, "rungs"), sweep)
    sweep.terminate()
    said = finish(sweep)
    assert sweep.returncode == 0, said
    table = check_folder(tmp_path / "z", sample)
    assert table["arch"].tolist() == ["resnet18", "squeezenet1_1"], "the slowest first; the other was never begun"
    assert table["state"].tolist() == ["interrupted"] * 2
    assert table["submission"].notna().tolist() == [True, False]
    assert "squeezenet1_1, interrupted: the sweep ended before its turn" in said


@pytest.mark.full
@pytest.mark.long
def test_when_every_network_fails(tmp_path):
    sweep = start(tmp_path, "--archs", "squeezenet1_1", "--set", "optimizer=sgd", "--set", "lr=1000")
    said = finish(sweep)
    assert sweep.returncode == 1, said
    assert "No network to tabulate: 1 were tried. 1 of them: FloatingPointError: the loss is" in said
    assert "Traceback" not in said
