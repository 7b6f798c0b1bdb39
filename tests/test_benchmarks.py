"""The benchmarks run and write the figures that they print; how large these are is not tested here."""

import importlib
import subprocess
import sys

import numpy as np
import optuna
import pandas as pd
import pytest
from running import BENCHMARKS, bench

from sweeps.search.draw import draw_config
from sweeps.search.space import SPACES

STATED = {"device", "torch", "commit", "load_before", "batch", "repeats"}


@pytest.mark.long
@pytest.mark.full
def test_engine(tmp_path):
    short = ("--repeats", "1", "--seconds", "0.2", "--steps", "1", "--seeds", "2", "--loss-steps", "2")
    figures = bench("engine.py", "--archs", "squeezenet1_1", *short, to=tmp_path / "figures.json")
    found = figures["images_a_second"]["squeezenet1_1"]
    assert set(figures) == STATED | {
        *("mode", "images_a_second", "ratio_geometric_mean", "ratio_lowest", "slowest"),
        *("outside_median_of_own_families", "loss", "loss_steps"),
    }
    assert set(found) == {"ours", "reference", "ratio", "outside"}
    assert all(len(values) == 1 and min(values) > 0 for values in found.values())
    assert max(found["outside"]) < 1
    assert figures["ratio_geometric_mean"] == pytest.approx(figures["ratio_lowest"])  # of one network
    loss = figures["loss"]["squeezenet1_1"]
    assert loss["difference"] == pytest.approx((sum(loss["ours"]) - sum(loss["reference"])) / 2)
    assert all(1 < value < 4 for value in loss["ours"] + loss["reference"])  # ten classes, hardly trained: about 2.3


@pytest.mark.long
@pytest.mark.full
def test_augment(tmp_path):
    figures = bench("augment.py", "--repeats", "1", "--seconds", "0.1", to=tmp_path / "figures.json")
    assert set(figures) == STATED | {"images_a_second", "pixels_moved", "times_image_by_image"}
    assert len(figures["images_a_second"]) == len(figures["times_image_by_image"]) == 4
    for found in figures["images_a_second"].values():
        assert all(found[way][0] > 0 for way in ("ours", "image by image", "one for the batch"))
    for moved in figures["pixels_moved"].values():
        for name, tolerance in (("elastic", 0.1), ("perspective", 0.25)):
            assert moved[name]["ours"] == pytest.approx(moved[name]["torchvision"], rel=tolerance), name


@pytest.mark.long
@pytest.mark.full
def test_device(tmp_path):
    short = ("--window", "0.1", "--seeds", "2", "--epochs", "0.3", "--targets", "1,100")
    figures = bench("device.py", "--archs", "convnet", *short, to=tmp_path / "figures.json")
    assert set(figures) == STATED | {"dataset", "window_s", "speed", "time", "sharing"}
    found, n = figures["speed"]["convnet"], figures["repeats"]
    assert {"images_a_second", "setting"} <= set(found) <= {"images_a_second", "setting", "share_in_kernels", "peak_gib"}
    assert len(found["images_a_second"]) == n
    assert min(found["images_a_second"]) > 0
    seeds = figures["time"]["convnet"]["0.3"]
    assert len(seeds) == 2
    for seed in seeds:
        assert set(seed) == {"train_s", "eval_s", "val_error", "reached_s"}
        # Evaluated after a quarter epoch and at the end: better than nothing at once, perfect never.
        assert 0 < seed["reached_s"]["1"] < seed["train_s"]
        assert seed["reached_s"]["100"] is None
        assert seed["eval_s"] > 0
        assert 0 < seed["val_error"] < 1
    counts = figures["sharing"]["convnet"]
    assert {"1", "2"} <= set(counts)
    for count, row in counts.items():
        assert [len(speeds) for speeds in row["each"]] == [n] * int(count)
        assert row["together"] == pytest.approx([sum(speeds) for speeds in zip(*row["each"], strict=True)])
        assert min(min(speeds) for speeds in row["each"]) > 0


@pytest.mark.long
@pytest.mark.full
def test_driver(tmp_path):
    figures = bench("driver.py", "--trials", "420", to=tmp_path / "figures.json")
    assert set(figures) == STATED - {"batch", "repeats"} | {
        *("n", "windows", "ratio", "ask_p99_ms", "resume_s", "kib_a_trial", "record_share", "events_a_trial", "fsync_ms"),
        *("seconds", "met"),
    }
    assert [window["trials"] for window in figures["windows"]] == [[50, 200], [220, 420]]
    for window in figures["windows"]:
        assert 0 < window["ask_p50_ms"] <= window["ask_p99_ms"]
        assert 0 < window["record_ms"] < window["trial_ms"]
    assert figures["ratio"] == pytest.approx(figures["windows"][1]["trial_ms"] / figures["windows"][0]["trial_ms"])
    assert 2 <= figures["events_a_trial"] <= 5  # one when it starts, one a rung that it reaches
    assert 0 < figures["record_share"] < 1
    assert figures["met"]["resume_s"] == (figures["resume_s"] <= 10)


@pytest.mark.long
@pytest.mark.full
def test_search_quality(tmp_path):
    short = ("--seeds", "2", "--trials", "50", "--settings", "20,40 5,10")
    figures = bench("search_quality.py", *short, to=tmp_path / "figures.json")
    assert set(figures) == STATED - {"batch", "repeats"} | {
        *("seeds", "trials", "at", "record", "surrogate", "found", "ask_ms", "against_whole"),
    }
    assert figures["at"] == [50]
    assert set(figures["found"]) == set(figures["ask_ms"]) == {"whole", "20,40", "5,10", "random"}
    assert figures["surrogate"]["r2"] > 0.3  # it says something
    for way, (difference,) in figures["against_whole"].items():
        pairs = zip(figures["found"][way], figures["found"]["whole"], strict=True)
        assert difference[0] == pytest.approx(sum(ours[0] - whole[0] for ours, whole in pairs) / 2)


@pytest.mark.long
@pytest.mark.full
def test_recorded(tmp_path):
    """On curves that tell at once who is best, stopping saves most of the time."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        true = float(rng.uniform(0.01, 1.0))
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number)).ask()
        flat = draw_config(SPACES["default"], trial).flat()
        for budget in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0):
            values = {f"{s}_{name}": true * (1 + 1 / budget) for s in "ab" for name in ("loss", "raw", "error")}
            noise = {f"{s}_views": float(rng.uniform()) for s in "ab"}
            at_the_end = {"true_loss": true, "true_error": true / 10} if budget == 8 else {}
            rows.append({"config": number, "budget": budget, "train_s": 10 * budget, **values, **noise, **at_the_end, **flat})
    pd.DataFrame(rows).to_parquet(tmp_path / "curves.parquet")
    figures = bench("recorded.py", "--curves", str(tmp_path / "curves.parquet"), "--repeats", "6", to=tmp_path / "figures.json")
    assert set(figures) == STATED - {"batch"} | {"configurations", "ranking", "searching"}
    ranks = {(r["budget"], r["figure"], r["sets"]): r for r in figures["ranking"]}
    assert len(ranks) == 6 * 4 * 2
    assert ranks[0.25, "loss", "one set"]["rank"] == pytest.approx(1)
    assert (ranks[0.25, "loss", "two sets"]["kept"], ranks[0.25, "loss", "two sets"]["regret"]) == (1, 0)
    assert abs(ranks[0.25, "views", "one set"]["rank"]) < 0.4
    assert ranks[0.25, "views", "one set"]["regret"] > 0
    found, needs = figures["searching"]["found"], figures["searching"]["needs"]
    assert np.mean([path[-1] for path in found["random"]]) < np.mean([path[0] for path in found["random"]])
    assert np.mean([path[-1] for path in found["random, asha"]]) < np.mean([path[-1] for path in found["random"]])
    assert np.median(needs["random, asha"]) < np.median(needs["random"])


@pytest.mark.full
@pytest.mark.parametrize("name", ["engine.py", "device.py"])
def test_bad_input(name):
    command = [sys.executable, str(BENCHMARKS / name), "--archs", "convnet,nonsense"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name}: unknown architecture 'nonsense'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
@pytest.mark.full
def test_ablation(tmp_path, monkeypatch):
    only = "no averaged weights,augmentation x 1.4,moments,half as long"
    short = ("--dataset", "digits-sample", "--epochs", "0.2", "--seeds", "2", "--only", only)
    figures = bench("ablation.py", *short, to=tmp_path / "figures.json")
    assert figures["images"] == 10_000 // 3 + 1
    rows = {row["variant"]: row for row in figures["variants"]}
    assert list(rows) == ["base", *only.split(",")]
    base = rows["base"]
    assert (base["against_base"], base["standard_error"]) == (0, 0)
    for row in rows.values():
        assert len(row["errors"]) == len(row["loss"]) == len(row["seconds"]) == 2
        difference = sum(row["errors"]) / 2 - sum(base["errors"]) / 2
        assert row["against_base"] == pytest.approx(difference)
        assert len(row["beside_base"]) == 2
        assert min(row["beside_base"]) > 0
    assert base["beside_base"][0] == pytest.approx(base["beside_base"][1]), "one pair of seeds, in either order"
    assert max(base["beside_base"]) < np.mean(base["loss"]), "two are better than one"
    monkeypatch.syspath_prepend(BENCHMARKS)
    config_of = importlib.import_module("ablation").config_of
    assert config_of("convnet", "half as long", 0, 0.2).epochs == 0.1


@pytest.mark.long
@pytest.mark.full
def test_recorded_curves(tmp_path):
    figures = bench("recorded.py", "--repeats", "2", to=tmp_path / "figures.json")
    assert figures["configurations"] >= 200
    last = next(r for r in figures["ranking"] if (r["budget"], r["figure"], r["sets"]) == (8.0, "loss", "one set"))
    assert last["rank"] > 0.9, "what is measured on the same network at the end"
    found = figures["searching"]["found"]
    assert all(len(runs) == 2 and all(0.005 < error <= 0.9 for run in runs for error in run) for runs in found.values())


@pytest.mark.long
@pytest.mark.full
def test_scaling(tmp_path):
    short = ("--places", "1,2", "--trials", "2", "--simulated", "1")
    figures = bench("scaling.py", *short, to=tmp_path / "figures.json")
    assert set(figures) == STATED - {"batch", "repeats"} | {"configurations", "measured", "simulated", "driver"}
    assert [row["places"] for row in figures["measured"]] == [1, 2]
    for row in figures["measured"]:
        assert row["trials"] <= row["reports"] <= 3 * row["trials"]
        assert 0 < row["busy"] < 1
    assert figures["driver"]["ms_a_report"] > 0
    assert [row["places"] for row in figures["simulated"]] == [1]


@pytest.mark.full
def test_simulated_scaling(monkeypatch):
    """A driver that works 20 ms a report has time for four."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    scaling = importlib.import_module("scaling")
    known = scaling.recorded()
    one, four = (scaling.simulate(places, 8 * 25, known, cost=0.02) for places in (1, 4))
    assert 3.5 < four["trials_an_hour"] / one["trials_an_hour"] < 4.5
    for row in (one, four):
        assert 0.8 < row["busy"] < 1
        assert 0 < row["driver"] < 1


@pytest.mark.long
@pytest.mark.full
def test_seeing(tmp_path):
    short = ("--trials", "20", "--repeats", "1", "--tune-trials", "4")
    figures = bench("seeing.py", *short, to=tmp_path / "figures.json")
    assert set(figures) == STATED - {"batch"} | {"trials", "seconds", "megabytes", "tune_ms_a_report"}
    assert all(len(values) == 1 and min(values) > 0 for values in figures["seconds"].values())
    assert 0.9 < figures["megabytes"] < 2
    (pair,) = figures["tune_ms_a_report"]
    assert set(pair) == {"with", "without"}
