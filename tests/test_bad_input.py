"""Bad input: status 2 and one line that says what is wrong and what would be right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import arch_sweep
from trainable import datasets, engine, errors, train

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset", "cifar"], "unknown dataset 'cifar'; known: digit-recognizer, digits-sample"),
        (["--space", "huge"], "unknown space 'huge'; known: default, all, quick, or FILE.py:function"),
        (["--searcher", "guess"], "unknown searcher 'guess'; known: tpe, random"),
        (["--scheduler", "never"], "unknown scheduler 'never'; known: asha, none"),
        (["--metric", "accuracy"], "unknown metric 'accuracy'; known: val_loss, val_error"),
        (["--ensemble", "stack"], "unknown ensemble 'stack'; known: mean, vote, greedy, weights, best"),
        (["--trials", "0"], "--trials: '0' is not a whole number above 0"),
        (["--trials", "-3"], "--trials: '-3' is not a whole number above 0"),
        (["--trials", "1.5"], "--trials: '1.5' is not a whole number above 0"),
        (["--time-budget", "5x"], "--time-budget '5x' is not a time; write 90s, 30m or 1h30m"),
        (["--time-budget", "0m"], "--time-budget '0m' should be above 0"),
        (["--max-epochs", "nan"], "--max-epochs: 'nan' is not a number of 1e-06 or more"),
        (["--max-epochs", "1e9"], "--max-epochs: '1e9' is not a number of 1e-06 or more and at most 100000"),
        (["--finalist-epochs", "1e-7"], "--finalist-epochs: '1e-7' is not a number of 1e-06 or more"),
        (["--seed", "-1"], "--seed: '-1' is not a whole number of 0 or more"),
        (["--seed", "x"], "--seed: 'x' is not a whole number of 0 or more"),
        (["--name", "../away"], "--name '../away': up to 100 letters"),
        (["--name", ""], "--name '': up to 100 letters"),
        (["--trial", "5"], "unrecognized arguments: --trial 5; --help lists the flags"),
        (["--cpus-per-trial", "4096"], "--cpus-per-trial 4096: the largest machine has"),
        (["--gpus-per-trial", "-1"], "--gpus-per-trial: '-1' is not a share of a GPU; give 0.01 to 1, or 0"),
        (["--gpus-per-trial", "nan"], "--gpus-per-trial: 'nan' is not a share of a GPU"),
        (["--gpus-per-trial", "1e-9"], "--gpus-per-trial: '1e-9' is not a share of a GPU"),
        (["--gpus-per-trial", "one"], "--gpus-per-trial: 'one' is not a share of a GPU"),
        (["--gpus-per-trial", "2"], "--gpus-per-trial: '2': a trial trains on one GPU at most; give 1, a share of one, or 0"),
        (["--gpus-per-trial", "1.5"], "--gpus-per-trial: '1.5': a trial trains on one GPU at most"),
        (["--gpus-per-trial", "inf"], "--gpus-per-trial: 'inf' is not a share of a GPU"),
        (["--gpus-per-trial", "0_1"], "--gpus-per-trial: '0_1' is not a share of a GPU"),
        (["--space", "nowhere.py:draw"], "no file nowhere.py"),
        (["--space", "README.md:draw"], "README.md should end with .py"),
        (["--time-budget", ""], "--time-budget '' is not a time"),
        (["--address", "127.0.0.1:1"], "no Ray cluster answers at '127.0.0.1:1'"),
    ],
)
def test_arch_sweep(refuses, tmp_path, arguments, says):
    said = refuses(arch_sweep.main, "--results", str(tmp_path), "--dataset", "digits-sample", *arguments)
    assert says in said
    assert said.startswith("arch_sweep.py: ")
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_sweep_is_not_overwritten(refuses, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "record.db").write_text("precious")
    said = refuses(arch_sweep.main, "--results", str(tmp_path), "--name", "mine", "--dataset", "digits-sample")
    assert "mine exists; choose another --name" in said
    assert (tmp_path / "mine" / "record.db").read_text() == "precious"


def test_results_that_cannot_be_written(refuses, tmp_path):
    (tmp_path / "file").write_text("")
    assert "choose a folder that can be written" in refuses(arch_sweep.main, "--results", str(tmp_path / "file" / "x"), "--quick")


def test_data_that_is_not_there(refuses, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DATA", tmp_path)
    (tmp_path / "digit-recognizer.zip").write_bytes(b"PK\x03\x04 cut short")
    results = str(tmp_path / "results")
    assert "not a whole zip file" in refuses(arch_sweep.main, "--results", results)
    (tmp_path / "digit-recognizer.zip").unlink()
    assert "digit-recognizer needs" in refuses(arch_sweep.main, "--results", results, "--dataset", "digit-recognizer")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--arch", "resnet19"], "unknown architecture 'resnet19'; known: "),
        (["--epochs", "0"], "--epochs: '0' is not a number of 1e-06 or more"),
        (["--set", "lr"], "--set lr: write KEY=VALUE"),
        (["--set", "lr=fast"], "lr is 'fast', not a number"),
        (["--set", "lrr=1"], "unknown key 'lrr'"),
        (["--set", "convnet.block=dense"], "unknown convnet.block 'dense'; known: plain, residual"),
        (["--set", "convnet.width=0"], "convnet.width is 0"),
        (["--set", "convnet.block=[1]"], "unknown convnet.block [1]; known: plain, residual"),
        (["--set", "convnet.kernel=4"], "convnet.kernel is 4; it should be odd"),
        (["--set", "convnet.stages=5"], "convnet.stages is 5: images of 28 pixels"),
        (["--set", "momentum=1"], "momentum is 1, outside 0 to 0.999999"),
        (["--set", "optimizer=lamb"], "unknown optimizer 'lamb'; known: "),
        (["--dataset", "cifar"], "unknown dataset 'cifar'"),
    ],
)
def test_train(refuses, tmp_path, arguments, says):
    assert says in refuses(train.main, "--out", str(tmp_path / "out"), *arguments)
    assert not (tmp_path / "out").exists()


def test_train_that_diverges(monkeypatch, capsys, tmp_path):
    flags = ["--set", "optimizer=sgd", "--set", "lr=1000", "--arch", "squeezenet1_1", "--dataset", "digits-sample"]
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(tmp_path), "--set", "lr_schedule=constant", *flags])
    with pytest.raises(SystemExit) as end:
        errors.run(train.main)
    assert end.value.code == 1
    assert "train.py: the loss is" in capsys.readouterr().err.splitlines()[-1]


def test_from_the_shell(tmp_path):
    """As a user sees it: the status, one line, and no traceback from an import or an exit handler."""
    for script, arguments in (("sweeps/arch_sweep.py", ["--trials", "0"]), ("trainable/train.py", ["--arch", "x"])):
        done = subprocess.run([sys.executable, ROOT / script, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("content", "count"), [("150000 100000", 1), ("max 100000", None), ("9900000 100000", None)])
def test_cores_are_those_this_process_may_use(monkeypatch, content, count):
    monkeypatch.setattr(engine.Path, "read_text", lambda path: content)
    assert engine.cores() == (count or len(os.sched_getaffinity(0)))
