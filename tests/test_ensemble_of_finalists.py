"""From a real sweep with finalists to everything that is made of it."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from running import bench, check_folder, check_mlflow, finish, load_file_of, resume, start

from sweeps import distil, ensemble, predict
from sweeps.choose import kept as kept_members
from sweeps.search.record import read
from trainable import predict as single
from trainable import saved
from trainable.datasets import load

pytestmark = pytest.mark.full


@pytest.mark.long
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
    assert "have come or gone" not in said, "they have all places, as the search had"
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
    there = kept_members.read(kept, load("digits-sample"))
    members = [replace(m, networks=tuple(replace(n, digest=n.digest[::-1]) for n in m.networks)) for m in there]
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
        assert f"{errors:,} errors of 2,000" in said
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
