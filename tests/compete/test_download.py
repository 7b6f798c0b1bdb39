"""A competition's data. The real client of Kaggle's against a server of the tests' own. faults.md 30 and 32."""

import io
import json
import re
import stat
import time
import zipfile

import numpy as np
import pytest
from competitions import DIGITS, TEST, TRAIN, flowers, kind_of
from kaggle_site import zipped

from sweeps import download
from sweeps.compete import archive, client
from trainable import files
from trainable.datasets import load
from trainable.errors import BadInput

pytestmark = pytest.mark.full


def test_the_competitions_data_come(site, command, tmp_path):
    site.slug, site.archive = "digit-recognizer", zipped(DIGITS)
    status, said, _ = command(download.main, "--data", tmp_path / "data")
    assert status == 0
    path = tmp_path / "data" / "digit-recognizer.zip"
    assert path.read_bytes() == site.archive
    kept = json.loads((tmp_path / "data" / "digit-recognizer.json").read_text())
    assert kept["sha256"] == files.digest(path)
    assert kept["members"] == {name: len(content) for name, content in DIGITS.items()}
    assert kept["sha256"] in said
    assert len(load("digit-recognizer", tmp_path / "data").unlabelled) == 7
    assert command(download.main, "--data", tmp_path / "data")[:2] == (0, f"{path} is there already.\n")
    assert site.calls["DownloadDataFiles"] == 1
    assert {item.name for item in (tmp_path / "data").iterdir()} == {path.name, "digit-recognizer.json", ".cache"}


def test_another_competitions_data_come(site, command, tmp_path):
    status, said, _ = command(download.main, "flowers", "--data", tmp_path / "data")
    assert status == 0
    root = tmp_path / "data" / "flowers"
    assert f"--dataset folder:{root}" in said
    data = load(f"folder:{root}", tmp_path / "data")
    assert (data.competition.slug, data.competition.metric) == ("flowers", "accuracy")
    assert (data.id_column, data.label_column) == ("id", "species")
    assert data.unlabelled.ids.tolist()[:4] == [line.split(",")[0] for line in flowers()["sample_submission.csv"].split()[1:5]]
    red = data.unlabelled.images[:, 0].mean(axis=(1, 2)) > 100
    assert red.tolist() == [kind_of(int(i)) == "rose" for i in data.unlabelled.ids], "each id has its own image"


def symlink() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as whole:
        link = zipfile.ZipInfo("passwords")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        whole.writestr(link, "/etc/passwd")
    return out.getvalue()


WITHOUT = TRAIN.replace("pixel783\n", "pixels\n", 1)
BAD = {
    "a bomb": (zipped({**DIGITS, "zeros.bin": b"\0" * (8 << 20)}), r"'zeros.bin' would unpack to \d,?\d+ times its size"),
    "truncated": (zipped(DIGITS)[:3000], "is not a whole zip file"),
    "damaged": (zipped(DIGITS).replace(b"PK\x03\x04", b"PK\x03\x05", 1), "is not a whole zip file"),
    "climbs out": (zipped({**DIGITS, "../climbed.csv": "no"}), "'../climbed.csv' would be written outside of its folder"),
    "a link": (symlink(), "'passwords' is no plain file"),
    "a dot": (zipped({**DIGITS, ".": "no"}), "'.' is no plain file; nothing is unpacked"),
    "no archive": (b"<html>Sign in</html>", "is not a whole zip file"),
    "another column": (
        zipped({**DIGITS, "train.csv": WITHOUT}),
        "train.csv has 785 columns, label to pixels; it should have 785",
    ),
    "no sample": (zipped({"train.csv": TRAIN, "test.csv": TEST}), "has no sample_submission.csv"),
    "another sample": (
        zipped({**DIGITS, "sample_submission.csv": "id,label\n1,0\n"}),
        "should have ImageId, from 1 to 7, and Label",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_data_is_refused(name, site, command, tmp_path):
    site.slug, site.archive = "digit-recognizer", BAD[name][0]
    data = tmp_path / "data"
    data.mkdir()
    (data / "mine.csv").write_text("stays")
    status, _, said = command(download.main, "--data", data)
    (line,) = [line for line in said.splitlines() if "%|" not in line and line]  # beside the client's bar
    assert status == 2
    assert re.search(BAD[name][1], line)
    assert {path.name: path.read_text() for path in data.iterdir() if path.is_file()} == {"mine.csv": "stays"}
    assert not (tmp_path / "climbed.csv").exists()


def test_nothing_is_unpacked_over_what_is_there(site, command, tmp_path):
    (tmp_path / "data" / "flowers").mkdir(parents=True)
    status, said, _ = command(download.main, "flowers", "--data", tmp_path / "data")
    assert (status, said) == (0, f"{tmp_path / 'data' / 'flowers'} is there already.\n")
    assert not site.calls


class Hours:
    """In place of a module's `time`: an hour between two looks, once there is a part of an archive in `folder`."""

    def __init__(self, folder):
        self.folder, self.now, self.sleep = folder, 0.0, time.sleep

    def monotonic(self) -> float:
        self.now += 3600.0 * any(path.stat().st_size for path in self.folder.glob("*.zip"))
        return self.now


def test_a_download_that_was_cut_off_goes_on(site, command, monkeypatch, tmp_path):
    """No byte for too long: what there is stays, and the rest is fetched. A stopped one goes on at the next call."""
    noise = np.random.default_rng(0).integers(0, 256, 4 << 20, dtype=np.uint8).tobytes()
    site.slug, site.archive = "digit-recognizer", zipped({**DIGITS, "noise.bin": noise})
    site.faults["file"], site.for_ever = ["hang"], True
    with monkeypatch.context() as silent:
        silent.setattr(client, "SILENCE", 3000.0)
        silent.setattr(client, "time", Hours(tmp_path / "data" / ".digit-recognizer.download"))
        status, _, said = command(download.main, "--data", tmp_path / "data")
    assert status == 1
    assert "Kaggle did not answer" in said
    assert "call this again" in said
    (part,) = [path for path in (tmp_path / "data" / ".digit-recognizer.download").iterdir() if path.suffix == ".zip"]
    assert 0 < part.stat().st_size < len(site.archive)
    assert not (tmp_path / "data" / "digit-recognizer.zip").exists()
    site.faults.clear()
    sent = site.bytes_sent
    assert command(download.main, "--data", tmp_path / "data")[0] == 0
    assert site.bytes_sent - sent < len(site.archive), "not from its beginning"
    assert (tmp_path / "data" / "digit-recognizer.zip").read_bytes() == site.archive


def test_rules_that_are_not_accepted_stop_a_download(site, refuses, tmp_path):
    site.accepted = False
    said = refuses(download.main, "flowers", "--data", tmp_path / "data")
    assert "accept its rules at https://www.kaggle.com/competitions/flowers/rules" in said
    assert list((tmp_path / "data").glob("flow*")) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slug = 3", "slug is missing"),
        ("slug = ", "cannot read"),
        ('slug = "flowers"\nmetrics = "accuracy"', "unknown key in competition.toml 'metrics'; known: slug, sample, metric"),
        ('slug = "flowers"\nmetric = "f1"', "unknown metric in competition.toml 'f1'; known: accuracy, error"),
        ('slug = "flowers"\nsample = "other.csv"', "there is no"),
        ('slug = "flowers"\nsample = "three.csv"', "has 3 columns; a sample submission has two"),
        ('slug = "flowers"\nsample = "twice.csv"', "an id is missing or there twice"),
        ('slug = "flowers"\nsample = "strange.csv"', "asks for '0100', and no image to predict is called so"),
    ],
)
def test_a_competition_that_is_described_wrongly(text, says, swept, tmp_path):
    root = tmp_path / "data" / "flowers"
    for name, content in (("three", "a,b,c\n1,2,3\n"), ("twice", "id,b\nx,2\nx,3\n"), ("strange", 'id,b\n"0100",rose\nx,rose\n')):
        (root / f"{name}.csv").write_text(content)
    (root / "competition.toml").write_text(text)
    with pytest.raises(BadInput, match=re.escape(says)):
        load(f"folder:{root}", tmp_path / "data")


def test_an_archive_that_is_too_large_for_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a.txt": "x" * 100}))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 10}))
    with pytest.raises(BadInput, match="and 0.0 are free; make room"):
        archive.unpack(path, tmp_path / "to")
    assert not (tmp_path / "to").exists()
