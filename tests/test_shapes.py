"""Every command that follows a sweep, on data with and without val, test and images to predict."""

import csv
import json

import numpy as np
import pytest
import shapes
from running import finish, new_mlflow, start

from sweeps import distil, ensemble, explain, mirror, predict, report, submit
from sweeps.choose import singles
from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import SUBMISSION, combine
from sweeps.choose.package import package
from sweeps.search.record import read
from sweeps.show import views, zoo_table
from trainable import predict as single
from trainable import train

NONE = "no images to predict, neither unlabelled nor test"


@pytest.fixture(scope="session", params=shapes.SHAPES, ids=shapes.name_of)
def swept(request, tmp_path_factory):
    """The sweep's folder, its data and what it said of combining; and which splits the data have."""
    root = tmp_path_factory.mktemp("shape")
    shapes.draw(root / "images", request.param)
    folder, said = root / "results" / "s", []
    data = shapes.swept(folder, f"folder:{root / 'images'}")
    assert {name for name in ("test", "unlabelled") if len(getattr(data, name))} == set(request.param) - {"val"}
    assert len(data.val) == (12 if "val" in request.param else 4)
    combine([folder], data, list(ENSEMBLES), None, said.append)
    return folder, data, said, request.param


@pytest.fixture
def asked(swept) -> str | None:
    """The split that is predicted."""
    return next((name for name in ("unlabelled", "test") if name in swept[3]), None)


def rows(path) -> int:
    with path.open() as file:
        return len(list(csv.reader(file))) - 1


def test_combine(swept, asked, command, tmp_path):
    folder, data, said, shape = swept
    about = json.loads((folder / "ensemble.json").read_text())
    assert about["submission"] == asked
    assert (about["test"] is not None) == ("test" in shape)
    assert (folder / SUBMISSION).exists() == bool(asked)
    assert [line for line in said if NONE in line] == ([] if asked else [f"No {SUBMISSION}: {data.name} has {NONE}."])
    status, told, wrong = command(ensemble.main, folder, "--out", tmp_path / "out")
    assert status == 0, wrong
    assert (f"ensemble.json, {SUBMISSION}" in told) == bool(asked)
    assert (NONE in " ".join(told.split())) == (not asked)
    assert not asked or rows(tmp_path / "out" / SUBMISSION) == len(getattr(data, asked))


def test_look(swept, command):
    folder, *_ = swept
    status, said, wrong = command(report.main, folder)
    assert status == 0, wrong
    page = (folder / "report.html").read_text()
    assert "There is no ensemble yet" not in page
    for number in (0, 2):
        status, said, wrong = command(explain.main, folder, number)
        assert status == 0, wrong
        assert f"Trial {number} of s" in said
    status, said, wrong = command(report.main, folder, folder, "--json")
    assert status == 0, wrong
    assert len(json.loads(said)) == 2


def test_predict(swept, asked, command, refuses, tmp_path):
    folder, data, _, shape = swept
    out = tmp_path / "out.csv"
    if asked:
        status, _, wrong = command(predict.main, folder, *of(data, folder), "--out", out)
        assert status == 0, wrong
        assert rows(out) == len(getattr(data, asked))
    else:
        assert NONE in refuses(predict.main, folder, *of(data, folder), "--out", out)
        assert not out.exists()
    for split in ("test", "unlabelled"):
        asks = (predict.main, folder, *of(data, folder), "--split", split, "--out", out)
        if split in shape:
            assert command(*asks)[0] == 0
        else:
            assert f"has no {split} images" in refuses(*asks)
    loose = folder.parents[1] / "images" / "train" / "left"
    status, _, wrong = command(predict.main, folder, "--images", loose, "--out", out)
    assert status == 0, wrong
    assert rows(out) == 16


def of(data, folder) -> tuple[str, str]:
    return "--dataset", f"folder:{folder.parents[1] / 'images'}"


def test_distil(swept, asked, command, tmp_path):
    folder, *_ = swept
    out = tmp_path / "taught"
    status, said, wrong = command(distil.main, folder, "--epochs", "1", "--threads", "1", "--out", out)
    assert status == 0, wrong
    assert (f"predict.py {out} --dataset folder:" in said) == bool(asked)


def test_submit(swept, refuses):
    folder, *_ = swept
    said = refuses(submit.main, folder, "--dry-run", "--results", folder.parent)
    assert "belongs to no competition" in said


@pytest.mark.full
def test_mirror_and_export(swept, command, tmp_path):
    folder, *_ = swept
    new_mlflow(folder.parent / "mlflow.db")
    status, said, wrong = command(mirror.main, folder, "--no-model")
    assert status == 0, wrong
    assert "In MLflow at" in said
    package(folder, tmp_path / "model")
    assert (tmp_path / "model" / "MLmodel").exists()


def test_zoo(swept, asked, tmp_path):
    """Every network by itself: as sweeps/zoo.py does after its trainings."""
    folder, data, _, shape = swept
    said = []
    rows = singles.judge(folder, data, None, said.append)
    assert len(rows) == 2
    assert all(("submission" in row) == bool(asked) for row in rows)
    assert sum(NONE in line for line in said) == (not asked)
    trials, _ = views.tables(folder)
    table = zoo_table.tabulate({"convnet": (1, 1)}, trials[:1], rows[:1], (1, 128))
    assert table["test_error"].notna().all() == ("test" in shape)
    zoo_table.write(tmp_path, table, ["a zoo"])


def test_one_network(swept, asked, command, tmp_path):
    folder, data, *_ = swept
    flags = ["--epochs", "1", "--threads", "1", "--set", "convnet.width=8", "--set", "batch_size=8"]
    status, said, wrong = command(train.main, *of(data, folder), *flags, "--out", tmp_path / "net")
    assert status == 0, wrong
    assert ("Next: python" in said) == bool(asked)
    status, said, wrong = command(single.main, tmp_path / "net", *of(data, folder), "--out", tmp_path / "out.csv")
    assert status == 0, wrong
    assert rows(tmp_path / "out.csv") == len(getattr(data, asked or "val"))


# Every command has been seen with every combination above; two splits at once bring a sweep nothing more.
WHOLE = [pytest.param(s, marks=[pytest.mark.long] if s else []) for s in shapes.SHAPES if len(s) != 2]


@pytest.mark.full
@pytest.mark.parametrize("shape", WHOLE, ids=shapes.name_of)
def test_a_whole_sweep(tmp_path, shape):
    """From the command to its last words."""
    shapes.draw(tmp_path / "images", shape)
    space = f"def draw(trial):\n    return { ({k: v for k, v in shapes.CONFIG.items() if k != 'epochs'})!r}\n"
    (tmp_path / "mine.py").write_text(space)
    flags = ["--space", "mine.py:draw", "--trials", "2", "--max-epochs", "1", "--dataset", f"folder:{tmp_path / 'images'}"]
    sweep = start(tmp_path, *flags, "--finalists", "1", "--folds", "2")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert "Traceback" not in said
    folder, asked = tmp_path / "results" / "s", {"unlabelled", "test"} & set(shape)
    assert (folder / SUBMISSION).exists() == bool(asked)
    assert (NONE in said) == (not asked)
    assert (f"{SUBMISSION}  " in said) == bool(asked), "it is listed where it is"
    assert (folder / "report.html").stat().st_size
    assert len(read(folder / "record.db")[0]) == 4
    assert np.isclose(sum(m["weight"] for m in json.loads((folder / "ensemble.json").read_text())["members"]), 1)
