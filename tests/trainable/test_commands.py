"""train.py and predict.py as a user runs them, on a small folder of images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trainable import datasets, predict, saved, train
from trainable.datasets.container import all_labels

FEW = ["--set", "convnet.width=8", "--set", "batch_size=16", "--threads", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "DATA", tmp_path / "data")
    monkeypatch.setattr(predict, "DATA", tmp_path / "data")


@pytest.fixture
def digits(sample, tmp_path) -> Path:
    """Three digits, 30 images each, and 10 to predict."""
    root = tmp_path / "digits"
    for label in range(3):
        (root / f"d{label}").mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(sample.train.labels == label)[:30]):
            Image.fromarray(sample.train.images[row, 0]).save(root / f"d{label}" / f"{i}.png")
    (root / "unlabelled").mkdir()
    for i, row in enumerate(np.flatnonzero(sample.val.labels < 3)[:10]):
        Image.fromarray(sample.val.images[row, 0]).save(root / "unlabelled" / f"{i}.png")
    return root


def trained(command, digits, out: Path, *more) -> Path:
    status, said, err = command(train.main, "--dataset", f"folder:{digits}", "--epochs", "3", "--out", out, *FEW, *more)
    assert status == 0, err
    assert f"Saved in {out}: model.safetensors, config.json" in said
    return out


def test_from_a_folder_of_images_to_its_predictions(command, digits, tmp_path):
    out = trained(command, digits, tmp_path / "net", "--plot")
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    about = json.loads((out / "config.json").read_text())
    assert about["problem"]["classes"] == ["d0", "d1", "d2"]
    assert about["config"]["engine"] in ("bf16-nhwc", "fp32-nhwc", "bf16-nchw", "fp32-nchw")
    assert set(about["scores"]) >= {"val_error", "val_loss", "temperature", "train_loss", "seconds"}

    mine = tmp_path / "mine.csv"
    status, said, err = command(predict.main, out, "--dataset", f"folder:{digits}", "--out", mine, "--device", "cpu")
    assert status == 0, err
    table = pd.read_csv(mine)
    assert list(table.columns) == ["file", "label"]
    assert list(table["file"]) == [f"unlabelled/{i}.png" for i in range(10)]
    assert set(table["label"]) <= {"d0", "d1", "d2"}
    assert f"wrote {mine}" in said

    status, said, err = command(predict.main, out, "--images", digits / "unlabelled", "--out", tmp_path / "again.csv")
    assert status == 0, err
    assert list(pd.read_csv(tmp_path / "again.csv")["label"]) == list(table["label"])


def test_several_networks_and_views(command, digits, tmp_path):
    nets = [trained(command, digits, tmp_path / str(seed), "--seed", seed) for seed in (0, 1)]
    asked = ["--dataset", f"folder:{digits}", "--split", "val", "--device", "cpu"]
    status, said, err = command(predict.main, *nets, *asked, "--views", "3", "--out", tmp_path / "both.csv")
    assert status == 0, err
    assert "all together" in said
    assert "3 views each" in said
    # The file holds the mean of both networks' probabilities over the three views.
    data = datasets.load(f"folder:{digits}")
    read = [predict.read(str(net)) for net in nets]
    probs = [predict.answer(one, data.val, range(3), "cpu", lambda n: None) for one in read]
    assert not np.allclose(probs[0], predict.answer(read[0], data.val, [0], "cpu", lambda n: None)), "views change something"
    expected = [data.classes[i] for i in np.mean(probs, axis=0).argmax(axis=1)]
    assert list(pd.read_csv(tmp_path / "both.csv")["label"]) == expected


@pytest.mark.parametrize("epochs", ["0.1", "0.5", "1.3"])
def test_fewer_images_than_a_batch(command, digits, tmp_path, epochs):
    """Whole batches end later than was asked for: the bar, and the table, live with it."""
    flags = ["--dataset", f"folder:{digits}", "--epochs", epochs, "--out", tmp_path / "net", "--set", "convnet.width=8"]
    status, said, err = command(train.main, *flags, "--set", "batch_size=512", "--threads", "1")
    assert status == 0, err
    assert "Warning" not in err
    assert f"Next: python trainable/predict.py {tmp_path / 'net'} --dataset folder:{digits}" in said


def test_nothing_is_overwritten(command, digits, tmp_path, monkeypatch):
    net = trained(command, digits, tmp_path / "net")
    before = (net / "config.json").read_bytes()
    status, _, err = command(train.main, "--dataset", f"folder:{digits}", "--out", net, *FEW)
    assert (status, err.count("\n")) == (2, 1)
    assert "holds a network already; choose another folder" in err
    assert (net / "config.json").read_bytes() == before
    monkeypatch.setattr(train, "ROOT", tmp_path)
    for expected in ("convnet-0", "convnet-0-1"):
        status, said, _ = command(train.main, "--dataset", f"folder:{digits}", "--epochs", "0.1", *FEW)
        assert status == 0
        assert f"Saved in {tmp_path / 'networks' / expected}:" in said


def test_all_labels(command, digits, tmp_path):
    out = trained(command, digits, tmp_path / "all", "--all-labels")
    about = json.loads((out / "config.json").read_text())
    assert "val_error" not in about["scores"]
    data = datasets.load(f"folder:{digits}")
    everything = all_labels(data)
    assert len(everything.train) == len(data.train) + len(data.val) == 90
    assert len(everything.val) == 0
    network, _, _ = saved.load(out)
    statistics = network[1][0][1].running_var
    assert (statistics > 0).all()
    assert not np.allclose(statistics, 1.0), "BatchNorm's statistics were measured, without a val to judge by"


def test_val_that_was_trained_on_judges_nothing(command, digits, tmp_path):
    out = trained(command, digits, tmp_path / "all", "--all-labels")
    asked = ["--dataset", f"folder:{digits}"]
    status, _, err = command(predict.main, out, *asked, "--split", "val", "--out", tmp_path / "x.csv")
    assert status == 2
    assert "trained with --all-labels has seen the val of folder-digits" in err
    status, _, err = command(train.main, *asked, "--weights", out, "--out", tmp_path / "next", *FEW)
    assert status == 2
    assert "trained with --all-labels has seen the val of folder-digits" in err
    trained(command, digits, tmp_path / "next", "--weights", out, "--all-labels")


def test_it_goes_on_from_another_network(command, digits, tmp_path):
    first = trained(command, digits, tmp_path / "first")
    second = trained(command, digits, tmp_path / "second", "--weights", first, "--set", "lr=1e-6", "--set", "average=0")
    one, two = (json.loads((net / "config.json").read_text()) for net in (first, second))
    assert two["problem"]["seen"] == ["folder-digits"]
    assert two["scores"]["val_loss"] == pytest.approx(one["scores"]["val_loss"], rel=0.3), "a tiny learning rate leaves it"


def test_what_has_seen_the_answers_is_refused(command, digits, tmp_path, sample, monkeypatch):
    """A network that was taught by MNIST may neither be a start for the competition's data nor predict it."""
    net = trained(command, digits, tmp_path / "net")
    config = json.loads((net / "config.json").read_text())
    config["problem"] |= {"seen": ["folder-digits", "mnist"], "classes": list("012")}
    del config["sha256"]  # or it is taken for damaged
    (net / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(datasets, "DATA", Path(__file__).resolve().parents[2] / "data")
    status, _, err = command(train.main, "--dataset", "digits-sample", "--weights", net, "--out", tmp_path / "x", *FEW)
    assert (status, err.count("\n")) == (2, 1)
    assert "mnist may not meet digits-sample" in err
    assert not (tmp_path / "x").exists()
    status, _, err = command(predict.main, net, "--dataset", "digits-sample", "--out", tmp_path / "x.csv")
    assert status == 2
    assert "mnist may not meet digits-sample" in err
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{tmp}/none"], "none holds no saved network"),
        (["{net}", "--dataset", "cifar"], "unknown dataset 'cifar'; known: "),
        (["{net}", "--split", "all"], "unknown split 'all'; known: unlabelled, test, val, train"),
        (["{net}", "--dataset", "folder:{digits}", "--split", "test"], "has no test images; it has unlabelled, val, train"),
        (["{net}"], "was trained on folder-digits; say --dataset folder:PATH or csv:PATH, or --images FOLDER"),
        (["{net}", "--images", "{digits}/unlabelled", "--split", "val"], "--images is a folder by itself"),
        (["{net}", "--images", "{tmp}/none"], "none"),
        (["{net}", "--dataset", "digits-sample"], "weights that learned from folder-digits may not meet digits-sample"),
        (["{net}", "--dataset", "folder:{other}"], "has the classes x, y; "),
        (["{net}", "--views", "0"], "--views: '0' is not a whole number above 0"),
        (["{net}", "--device", "cuda:77"], "--device cuda:77 is not to be had here; this machine has cpu"),
        (
            ["{net}", "--dataset", "folder:{digits}", "--out", "{tmp}"],
            "is a folder; name a file",
        ),
        ([], "the following arguments are required: NETWORK"),
    ],
)
def test_bad_input(command, digits, tmp_path, request, arguments, says):
    net = tmp_path / "net"
    if any("{net}" in a for a in arguments):
        trained(command, digits, net)
    other = tmp_path / "other"
    for label in "xy":
        shutil.copytree(digits / "d0", other / label)
    places = {"tmp": tmp_path, "net": net, "digits": digits, "other": other}
    monkeypatch = request.getfixturevalue("monkeypatch")
    if "digits-sample" in arguments:
        monkeypatch.setattr(datasets, "DATA", Path(__file__).resolve().parents[2] / "data")
    before = sorted(p.name for p in tmp_path.iterdir())
    status, _, err = command(predict.main, *(a.format(**places) for a in arguments))
    assert (status, err.count("\n")) == (2, 1), err
    assert says in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_views_of_a_network_trained_without_a_warp(command, digits, tmp_path):
    off = [f"--set=augment.{name}=0" for name in ("rotation", "shift", "scale", "shear", "elastic")]
    net = trained(command, digits, tmp_path / "net", *off)
    status, _, err = command(predict.main, net, "--images", digits / "unlabelled", "--views", "4", "--out", tmp_path / "x.csv")
    assert status == 2
    assert "was trained without a warp, so its views would all be the same" in err
