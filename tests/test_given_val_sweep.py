"""A real sweep of images whose val the user gave, and all that is made of it."""

import json
import re

import numpy as np
import pytest
from patients import patients
from running import finish, resume, start

from sweeps import distil, ensemble, explain, report
from sweeps import predict as predict_sweep
from sweeps.search.record import read
from trainable import predict as predict_single
from trainable import saved

pytestmark = [pytest.mark.full, pytest.mark.long]


def test_what_cannot_be_learned_is_not(tmp_path, command):
    """Labels that are a coin toss a patient: on other patients every network guesses, and every number says so."""
    name = patients(tmp_path / "clinic", train=40)
    (tmp_path / "mine.py").write_text(
        'def draw(trial):\n    lr = trial.suggest_float("lr", 2e-3, 8e-3, log=True)\n'
        '    return {"arch": "convnet", "convnet.width": 8, "engine": "fp32-nhwc", "lr": lr, "augment.rotation": 0.0}\n'
    )
    arguments = ["--dataset", name, "--space", "mine.py:draw", "--trials", "2", "--max-epochs", "8", "--scheduler", "none"]
    sweep = start(tmp_path, *arguments, "--finalists", "2", "--folds", "2")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert "1,200 val (given by the user: never trained on)" in said
    assert "Ensembles, on validation images given by the user (1,200 images)" in said
    folder = tmp_path / "results" / "s"
    about = json.loads((folder / "ensemble.json").read_text())
    assert about["judged_on"] == {"split": "val", "images": 1200, "given": True}
    assert json.loads((folder / "sweep.json").read_text())["data"]["val_given"]
    errors = [about["judged"], about["best_single"]["judged"], *(m["judged"] for m in about["methods"].values())]
    assert all(0.3 < one["error"] < 0.7 for one in errors), "60 patients: a standard error of 6 %"
    train_losses = [r["metrics"]["train_loss"] for r in read(folder / "record.db")[1] if r["metrics"]["budget"] == 8.0]
    assert np.mean(train_losses) < 0.65, "though they have learned their own patients"
    finalists = [t["number"] for t in read(folder / "record.db")[0] if t["refits"] is not None]
    assert finalists
    for number in finalists:
        assert saved.load(folder / "trials" / str(number))[2].seen == ("folder-clinic",)

    results = ["--results", tmp_path / "results"]
    text = (folder / "report.html").read_text()
    assert "validation images given by the user, which also chose" in text
    assert "out of fold" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    status, said, _ = command(explain.main, "s", 2, *results)
    assert status == 0
    assert "on the validation images given by the user" in said
    status, said, _ = command(report.main, "s", folder, *results, "--json")
    assert status == 0
    assert {row["judged"] for row in json.loads(said)} == {"validation images given by the user"}
    status, said, _ = command(ensemble.main, "s", *results)
    assert status == 0
    assert "on validation images given by the user" in said
    status, said, _ = command(distil.main, "s", *results, "--epochs", "2", "--threads", "1")
    assert status == 0
    assert "On 1,200 validation images given by the user" in said
    assert saved.load(folder / "distilled")[2].seen == ("folder-clinic",)
    status, said, _ = command(predict_sweep.main, "s", *results, "--dataset", name, "--out", tmp_path / "out.csv")
    assert status == 0
    single = [folder / "trials" / "2", "--dataset", name, "--split", "val", "--out", tmp_path / "val.csv"]
    assert command(predict_single.main, *single)[0] == 0, "a network of a fold may be judged on it"

    sweep = resume(tmp_path, "--last-fit")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    again = json.loads((folder / "ensemble.json").read_text())
    assert again["judged_on"] == about["judged_on"]
    assert all(len(member["networks"]) == 1 for member in again["members"])
    assert 0.3 < again["judged"]["error"] < 0.7
