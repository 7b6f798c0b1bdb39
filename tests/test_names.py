"""Names and paths that a user gives: what cannot be used is refused in one line, with status 2, before anything is done."""

import os
import stat
from pathlib import Path

import pytest

from sweeps import arch_sweep, distil, download, ensemble, explain, flags, layout, mirror, predict, report, snapshot, submit, zoo
from trainable import predict as single
from trainable import train
from trainable.datasets import DATASETS
from trainable.errors import BadInput

LONG = "n" * 400
CHINESE = "名" * 100  # 300 bytes
DEVANAGARI = "क" * 86  # 258 bytes
HOSTILE = ("a\0b", "a\nb", LONG, "x/" * 3000, CHINESE, "", "\udcff", "~nobody-of-this-name/x")
NAMELESS = ("", ".", "..", "...", "a/b", "../a", "a\nb", "a\n", "\na", "a\0b", "-a", "a b", "a.", "a..")
NAMELESS += (LONG, CHINESE, DEVANAGARI, "\udcff")
OWN = ("records", "Records", "mlflow.db", "mlflow.db-wal", "MLFLOW.DB-shm", "mlflow-artifacts")
OWN += ("submissions", "submissions.parquet", "submissions.lock")
MEANT = ("a", "7", "2026-11-22-101500-x", "名" * 66, "ñandú", "a.b", "records-2", "mlflow", "submission")
DIGITS = ("--dataset", "digits-sample")
AWAY = ("--address", "127.0.0.1:1")  # refused, were all else as it should be


@pytest.mark.parametrize("name", [*NAMELESS, *OWN], ids=ascii)
@pytest.mark.parametrize("main", [arch_sweep.main, zoo.main], ids=["arch_sweep", "zoo"])
def test_names_that_no_sweep_can_have(refuses, tmp_path, main, name):
    said = refuses(main, *DIGITS, "--results", tmp_path, *AWAY, f"--name={name}")
    assert "--name " in said
    assert "no Ray cluster" not in said
    assert len(said) < 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a", "7", "2026-11-22-101500-x", "名" * 66, "ñandú", "a.b", "records-2", "mlflow", "submission"]
)
def test_names_that_a_sweep_can_have(name):
    flags.check_new_name(name)


def test_a_name_of_its_own_ends_with_no_dot(tmp_path):
    args = flags.Namespace(name=None, dataset="folder:flowers...", results=tmp_path, step_timeout="10m")
    flags.settle(args)
    assert args.name.endswith("-folder-flowers")


def test_everything_under_results_that_is_no_sweep_has_a_name_in_one_place():
    """A name that is written elsewhere is one that a sweep could take."""
    root = Path(layout.__file__).parents[1]
    names = [name for name in vars(layout).values() if isinstance(name, str)]
    names = [name for name in names if name.startswith(("mlflow", "submissions."))]
    assert len(names) == 4
    for path in root.glob("sweeps/**/*.py"):
        written = [name for name in names if f'"{name}"' in path.read_text()]
        assert path.name == "layout.py" or not written, path


# Every command that takes the name of a sweep, and where it stands.
NAMED = {
    "resume": (arch_sweep.main, [*AWAY, "--resume={}"]),
    "warm-start": (arch_sweep.main, [*DIGITS, *AWAY, "--warm-start={}"]),
    "ensemble": (ensemble.main, ["--", "{}"]),
    "report": (report.main, ["--", "{}"]),
    "several": (report.main, ["--", "{}", "{}"]),
    "explain": (explain.main, ["--", "{}", "0"]),
    "predict": (predict.main, ["--", "{}"]),
    "distil": (distil.main, ["--", "{}"]),
    "submit": (submit.main, ["--", "{}"]),
    "best-of": (submit.main, ["--dry-run", "--best-of={}"]),
    "mirror": (mirror.main, ["--", "{}"]),
    "trial": (train.main, ["--trial={}/0"]),
}


@pytest.mark.parametrize("name", [*HOSTILE, "nothing", "records", "mlflow.db"], ids=ascii)
@pytest.mark.parametrize("taker", NAMED)
def test_a_sweep_that_is_not_there(refuses, tmp_path, taker, name):
    main, arguments = NAMED[taker]
    said = refuses(main, "--results", tmp_path, *[a.format(name) for a in arguments])
    assert len(said) < 700
    assert "no Ray cluster" not in said
    assert list(tmp_path.iterdir()) == []


# Every flag that takes a path.
PATHS = {
    "results of arch_sweep": (arch_sweep.main, [*DIGITS, *AWAY, "--results={}"]),
    "results of zoo": (zoo.main, [*DIGITS, *AWAY, "--archs=mnasnet0_5", "--results={}"]),
    "results of resume": (arch_sweep.main, [*AWAY, "--resume=s", "--results={}"]),
    **{f"results of {name}": (main, ["--results={}", *a]) for name, (main, a) in NAMED.items() if a[0] == "--"},
    "ensemble": (ensemble.main, ["--out={}", "s"]),
    "report": (report.main, ["--out={}", "s"]),
    "distil": (distil.main, ["--out={}", "s"]),
    "predict": (predict.main, ["--out={}", "s"]),
    "images": (predict.main, ["--images={}", "s"]),
    "networks": (single.main, ["--", "{}"]),
    "network's images": (single.main, ["--images={}", "s"]),
    "network's out": (single.main, ["--out={}", "s"]),
    "train": (train.main, ["--out={}", *DIGITS, "--set", "lr=x"]),
    "weights": (train.main, [*DIGITS, "--weights=./{}"]),
    "folder": (train.main, ["--dataset=folder:{}"]),
    "csv": (train.main, ["--dataset=csv:{}"]),
    "dataset": (arch_sweep.main, [*AWAY, "--dataset={}"]),
    "space": (arch_sweep.main, [*DIGITS, *AWAY, "--space={}.py:draw"]),
    "data": (download.main, ["--data={}", "?"]),
    "slug": (download.main, ["--", "{}"]),
    "snapshot": (snapshot.main, ["--", "{}"]),
}


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("flag", PATHS)
def test_a_path_that_cannot_be(refuses, tmp_path, monkeypatch, flag, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "download", lambda *a: pytest.fail("nothing is fetched for such a name"))
    main, arguments = PATHS[flag]
    assert len(refuses(main, *[a.format(text) for a in arguments])) < 700
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []


def unwritable(path: Path) -> Path:
    """A folder that is there and in which not even root makes another."""
    if os.getuid() == 0:
        return Path("/sys")
    path.mkdir()
    path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("main", [arch_sweep.main, zoo.main], ids=["arch_sweep", "zoo"])
@pytest.mark.parametrize("where", ["there", "inside", "a file", "in a file"])
def test_results_that_cannot_be_written(refuses, tmp_path, main, where):
    """Said before Ray is started."""
    (tmp_path / "file").write_text("precious")
    folder = unwritable(tmp_path / "locked")
    results = {"there": folder, "inside": folder / "x", "a file": tmp_path / "file", "in a file": tmp_path / "file" / "x"}
    said = refuses(main, *DIGITS, *AWAY, "--results", results[where])
    assert f"--results {results[where]}: " in said
    assert "choose a folder that can be written" in said
    assert (tmp_path / "file").read_text() == "precious"


def test_a_page_that_cannot_be_written(refuses, tmp_path):
    """As any file of a command's: the operating system's word, in one line."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "trials.parquet").write_text("")
    (tmp_path / "s" / "record.db").write_text("")
    said = refuses(submit.main, "--pending", "--results", unwritable(tmp_path / "locked") / "x")
    assert "name a path that can be used" in said


def test_a_sweep_of_an_older_version_keeps_its_name(refuses, tmp_path):
    """Rules for new names are none for those that are there."""
    for name in ("ends.", "名" * 80, "records"):
        with pytest.raises(BadInput, match="holds no sweep"):
            arch_sweep.parse(["--resume", name, "--results", str(tmp_path)])


@pytest.mark.parametrize("slug", ["mnist", "cifar10", "digits-sample", "名", "a b", "../x", "n" * 101])
def test_a_competition_that_cannot_be(refuses, tmp_path, slug):
    said = refuses(download.main, slug, "--data", tmp_path / "data")
    assert ("dataset's own" in said) == (slug in DATASETS)
    assert not (tmp_path / "data").exists()
