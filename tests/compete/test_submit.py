"""From a sweep's predictions to the score. The real client of Kaggle's against a server of the tests' own. faults.md 32 to 37."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import mlflow
import pandas as pd
import pytest
from competitions import DIGITS, SAMPLE, share_right
from kaggle_site import TOKEN, zipped
from running import ROOT, SWEEP, new_mlflow

from sweeps import arch_sweep, download, submit
from sweeps.compete.ledger import Entry, Ledger, calibration
from trainable import files
from trainable.datasets import load
from trainable.datasets.container import nothing
from trainable.errors import BadInput

pytestmark = pytest.mark.full


def long(case):
    """A case of a kind that `make test` has another of: each calls Kaggle's client half a dozen times, a second each."""
    return pytest.param(case, marks=pytest.mark.long)


def entries(results) -> list[Entry]:
    return Ledger(results).entries()


def test_no_credentials(site, refuses, results, swept, monkeypatch):
    swept("s")
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    said = refuses(submit.main, "s", "--results", results)
    assert "no Kaggle credentials: make a token at https://www.kaggle.com/settings/api" in said
    assert f"by hand: kaggle competitions submit flowers -f {results / 'submissions'}/" in said
    assert not site.submissions
    assert [entry.state for entry in entries(results)] == ["waiting"]


def test_credentials_that_have_expired(site, refuses, results, swept, monkeypatch):
    swept("s")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_of_last_year")
    said = refuses(submit.main, "s", "--results", results)
    assert "Kaggle does not accept the credentials in KAGGLE_API_TOKEN; make a new token at" in said
    assert "KGAT" not in said
    assert not site.submissions


@pytest.mark.parametrize("name", ["access_token", "kaggle.json"])
def test_credentials_that_everyone_can_read(name, site, command, results, swept, monkeypatch, tmp_path):
    swept("s")
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = tmp_path / "home" / ".kaggle" / name
    path.parent.mkdir()
    path.write_text(TOKEN if name == "access_token" else json.dumps({"username": "ada", "key": TOKEN}))
    path.chmod(0o644)
    status, said, _ = command(submit.main, "s", "--results", results)
    assert status == 0
    assert f"{path} can be read by others on this machine: chmod 600 {path}" in said
    assert TOKEN not in said
    assert len(site.submissions) == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (401, "does not accept the credentials in KAGGLE_API_TOKEN"),
        (403, "does not let you into flowers: accept its rules at https://www.kaggle.com/competitions/flowers/rules"),
        (404, "Kaggle has no competition 'flowers', or it is closed"),
    ],
)
def test_what_kaggle_refuses(code, says, site, refuses, results, swept):
    swept("s")
    site.faults["ListSubmissions"] = [str(code)]
    assert says in refuses(submit.main, "s", "--results", results)
    assert not site.submissions
    assert [entry.state for entry in entries(results)] == ["waiting"]


@pytest.mark.parametrize("fault", ["429", long("500"), long("503"), "lost"])
def test_what_passes_is_waited_for(fault, site, command, results, swept):
    """What only asks is asked again; exactly one submission in the end."""
    swept("s")
    for name in ("ListSubmissions", "GetSubmissionLimits"):
        site.faults[name] = [fault]
    status, said, _ = command(submit.main, "s", "--results", results)
    assert status == 0, said
    assert (len(site.submissions), entries(results)[0].state) == (1, "scored")


@pytest.mark.parametrize("fault", ["500", long("429"), "no network"])
def test_what_does_not_pass_waits(fault, site, command, results, swept, monkeypatch):
    swept("s")
    with monkeypatch.context() as away:
        if fault == "no network":
            away.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        else:
            site.faults["ListSubmissions"], site.for_ever = [fault], True
        status, said, _ = command(submit.main, "s", "--results", results)
    assert status == 1
    assert "1 still to send: python sweeps/submit.py --pending does, later." in said
    assert (site.submissions, entries(results)[0].state) == ([], "waiting")
    site.faults.clear()
    status, said, _ = command(submit.main, "--pending", "--results", results)
    assert status == 0, said
    assert (len(site.submissions), entries(results)[0].state) == (1, "scored")


@pytest.mark.parametrize("name", ["CreateSubmission", long("upload"), long("StartSubmissionUpload")])
@pytest.mark.parametrize("fault", ["lost", "500"])
def test_a_lost_reply(name, fault, site, command, results, swept):
    """Whether it had arrived or not: one submission in the end."""
    swept("s")
    site.faults[name] = [fault]
    status, said, _ = command(submit.main, "s", "--results", results)
    assert status == 0, said
    assert len(site.submissions) == 1
    (entry,) = entries(results)
    assert (entry.state, entry.ref) == ("scored", "1000")
    assert entry.score == pytest.approx(share_right(site.submissions[0]["content"]), abs=1e-5)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_driver_killed_while_it_sends(arrived, site, command, results, swept):
    folder = swept("s")
    book = Ledger(results)
    entry, path = submit.candidate(folder, results)
    entry = book.add(entry, path)
    book.change(entry, state="sending")
    if arrived:
        site.uploads["blob"] = path.read_bytes()
        site.submit("blob", entry.message)
    assert command(submit.main, "--pending", "--results", results)[0] == 0
    assert len(site.submissions) == 1
    assert entries(results)[0].state == "scored"


def test_nobody_knows_whether_it_arrived(site, command, results, swept):
    """The reply was lost, and then the network: looked for at the next call, before anything is sent again."""
    swept("s")
    site.faults["CreateSubmission"], site.faults["ListSubmissions"], site.for_ever = ["lost"], ["", "500"], True
    status, said, _ = command(submit.main, "s", "--results", results)
    assert status == 1
    assert "1 still to send" in said
    assert (len(site.submissions), entries(results)[0].state) == (1, "sending")
    site.faults.clear()
    assert command(submit.main, "--pending", "--results", results)[0] == 0
    assert len(site.submissions) == 1
    assert entries(results)[0].state == "scored"


@pytest.mark.long
def test_the_daily_limit(site, command, results, swept):
    """What waits goes the next day, in the order of its promise, as it was when it was offered."""
    site.limit, site.used = 3, 3
    for name, errors in (("worst", 5), ("best", 1), ("middle", 3)):
        folder = swept(name, errors)
        status, said, _ = command(submit.main, name, "--results", results)
        assert status == 1
        assert f"Today's limit of flowers is reached: {name} waits." in said
        (folder / "submission.csv").write_text("a sweep that went on wrote this")
    assert command(submit.main, "--pending", "--results", results)[0] == 1
    assert site.submissions == []
    site.limit, site.used = 2, 0
    status, said, _ = command(submit.main, "--pending", "--results", results)
    assert status == 1
    assert "1 still to send" in said
    assert [one["description"].split(":")[0] for one in site.submissions] == ["best", "middle"]
    site.used = 0
    assert command(submit.main, "--pending", "--results", results)[0] == 0
    assert [one["description"].split(":")[0] for one in site.submissions] == ["best", "middle", "worst"]
    assert command(submit.main, "--pending", "--results", results)[1] == "Nothing waits, and every submission has its score.\n"


def test_the_limit_is_reached_by_someone_else_meanwhile(site, command, results, swept):
    swept("s")
    site.limit, site.used = 1, 0
    site.faults["CreateSubmission"] = ["400"]
    site.after["CreateSubmission"] = lambda: setattr(site, "used", 1)
    status, said, _ = command(submit.main, "s", "--results", results)
    assert (status, entries(results)[0].state) == (1, "waiting"), said


def test_a_score_that_does_not_come(site, command, results, swept):
    swept("s")
    site.scored_after = 10**9
    status, said, _ = command(submit.main, "s", "--results", results, "--wait", "1s")
    assert status == 0
    assert "No score yet of 1: python sweeps/submit.py --pending picks it up." in said
    assert entries(results)[0].state == "pending"
    site.scored_after = 0
    status, said, _ = command(submit.main, "--pending", "--results", results)
    assert status == 0
    assert "Score of s: " in said
    assert re.search(r", place [1-4] of 3 \(estimate 0\.98750, ", said)
    assert len(site.submissions) == 1


def test_a_file_that_kaggle_cannot_score(site, command, results, swept):
    swept("s")
    site.status = "ERROR"
    status, said, _ = command(submit.main, "s", "--results", results)
    assert status == 1
    assert "Kaggle could not score s: Evaluation Exception." in said
    (entry,) = entries(results)
    assert (entry.state, entry.reason, math.isnan(entry.score)) == ("error", "Evaluation Exception", True)


@pytest.mark.long
def test_the_same_and_the_worse_are_refused(site, command, refuses, results, swept):
    swept("good", 2), swept("worse", 4), swept("better", 1)
    assert command(submit.main, "good", "--results", results)[0] == 0
    assert "the very same file was sent (of good, score" in refuses(submit.main, "good", "--results", results)
    said = refuses(submit.main, "worse", "--results", results)
    assert "its estimate, 0.97500, is worse than that of good, 0.98750, which was sent; --force" in said
    assert len(site.submissions) == 1
    status, said, _ = command(submit.main, "worse", "--best-of", "better", "good", "--results", results)
    assert status == 0
    assert "better promises most: 0.99375." in said
    assert command(submit.main, "worse", "--force", "--results", results)[0] == 0
    assert command(submit.main, "good", "--force", "--results", results)[0] == 0
    assert [one["description"].split(":")[0] for one in site.submissions] == ["good", "better", "worse", "good"]
    assert [entry.state for entry in entries(results)] == ["scored"] * 4
    status, said, _ = command(submit.main, "--list", "--results", results)
    assert status == 0
    assert re.search(r"4 scored: score minus estimate [+-]0\.\d{5} ± 0\.\d{5}; \d of them inside the interval\.", said)
    told = json.loads(command(submit.main, "--list", "--json", "--results", results)[1])
    assert [row["sweep"] for row in told] == ["good", "worse", "better", "good"]


def test_a_dry_run_needs_no_account(site, command, results, swept, monkeypatch):
    swept("s")
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    status, said, _ = command(submit.main, "s", "--dry-run", "--results", results)
    assert status == 0
    assert "submission.csv of s is what flowers takes: estimate 0.98750." in said
    assert "By hand: kaggle competitions submit flowers -f " in said
    assert not site.calls
    assert entries(results) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows[:-1], "has 29 rows; it should have 30, one for each image to predict"),
        (lambda rows: [*rows, rows[-1]], "has 31 rows; it should have 30"),
        (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], "row 1: id is '"),
        (lambda rows: [*rows[:-1], [rows[-1][0], "daisy"]], "row 30: species is 'daisy'; it should be one of rose, tulip"),
        (lambda rows: [*rows[:-1], [rows[-1][0], "1.0"]], "row 30: species is '1.0'; it should be one of rose, tulip"),
        (lambda rows: [[*row, "0"] for row in rows], "has the columns id, species, 0; they should be id, species"),
        (lambda rows: [*rows[:5], [*rows[5], "0"], *rows[6:]], "row 5: it has 3 values; it should have two"),
        (lambda rows: [], "is empty; it should have the columns id, species and 30 rows"),
        (lambda rows: [["Id", "species"], *rows[1:]], "has the columns Id, species; they should be id, species"),
    ],
)
def test_a_wrong_file_is_refused_before_it_is_sent(change, says, site, refuses, results, swept):
    path = swept("s") / "submission.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(",".join(row) + "\n" for row in change(rows)))
    assert says in refuses(submit.main, "s", "--results", results)
    assert not site.calls
    assert entries(results) == []


@pytest.mark.parametrize("label", ["10", "3.0", "-1", ""])
def test_a_wrong_digit_is_refused(label, tmp_path):
    from sweeps.compete.check import check

    (tmp_path / "digit-recognizer.zip").write_bytes(zipped(DIGITS))
    data = load("digit-recognizer", tmp_path)
    path = tmp_path / "submission.csv"
    path.write_text(SAMPLE)
    check(path, data)
    path.write_text(SAMPLE.replace("7,0\n", f"7,{label}\n"))
    with pytest.raises(BadInput, match=f"row 7: Label is '{label}'; it should be one of 0, 1, 2"):
        check(path, data)


def test_what_belongs_to_no_competition(refuses, results, swept, tmp_path):
    folder = swept("s")
    (tmp_path / "data" / "flowers" / "competition.toml").unlink()
    about = json.loads((folder / "sweep.json").read_text())
    about["data"]["fingerprint"] = load(about["arguments"]["dataset"], tmp_path / "data").fingerprint
    files.write_json(folder / "sweep.json", about)
    assert "belongs to no competition; competition.toml in its folder says which" in refuses(
        submit.main, "s", "--results", results
    )


def test_calibration():
    one = Entry("c", "d", "s", "0" * 64, "accuracy", 0.99, 0.98, 0.995, "out of fold", 100, "m", state="scored", score=0.992)
    other = Entry("c", "d", "t", "1" * 64, "accuracy", 0.99, 0.98, 0.995, "out of fold", 100, "m", state="scored", score=0.998)
    waits = Entry("c", "d", "u", "2" * 64, "accuracy", 0.99, 0.98, 0.995, "out of fold", 100, "m")
    assert calibration([waits]) is None
    told = calibration([one, other, waits])
    assert (told["scored"], told["inside"]) == (2, 1)
    assert told["mean"] == pytest.approx(0.005)
    assert told["sd"] == pytest.approx(0.006 / math.sqrt(2))


@pytest.mark.long
def test_the_whole_loop(site, command, results, tmp_path):
    """Data, sweep, submission, score; and all of it again, which sends nothing that is not better."""
    assert command(download.main, "flowers", "--data", tmp_path / "data")[0] == 0
    root = tmp_path / "data" / "flowers"
    (tmp_path / "mine.py").write_text(
        'def draw(trial):\n    return {"arch": "convnet", "convnet.width": 8, "engine": "fp32-nhwc", '
        '"lr": trial.suggest_float("lr", 2e-3, 8e-3)}\n'
    )
    new_mlflow(results / "mlflow.db")
    arguments = ["--dataset", f"folder:{root}", "--space", f"{tmp_path / 'mine.py'}:draw", "--trials", "2", "--max-epochs", "8"]
    arguments += ["--finalists", "1", "--folds", "2", "--results", str(results), "--submit"]
    done = subprocess.run([*SWEEP, *arguments, "--name", "one"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Sent: one is submission 1000 of flowers." in done.stdout
    (entry,) = entries(results)
    assert (entry.state, entry.sweep, entry.images) == ("scored", "one", 160)
    assert entry.score == pytest.approx(share_right(site.submissions[0]["content"]), abs=1e-5)
    assert entry.score > 0.8, "the images are easy"
    mlflow.set_tracking_uri(f"sqlite:///{results / 'mlflow.db'}")
    (experiment,) = [e.name for e in mlflow.search_experiments() if e.name != "Default"]
    (parent,) = mlflow.search_runs(experiment_names=[experiment], filter_string="tags.mlflow.runName = 'one'").to_dict("records")
    assert parent["metrics.kaggle_score"] == entry.score
    page = (results / "one" / "report.html").read_text()
    assert "Sent to the competition" in page
    assert f"{entry.score:.5f}" in page
    again = [*SWEEP, "--resume", "one", "--results", str(results), "--submit"]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not sent: the very same file was sent (of one" in done.stdout
    assert len(site.submissions) == 1
    mirrored = subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "mirror.py"), str(results / "one")], capture_output=True, text=True
    )
    assert mirrored.returncode == 0, mirrored.stderr
    assert pd.read_parquet(results / "submissions.parquet").score.tolist() == [entry.score]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset", "digits-sample", "--submit"], "--submit: digits-sample belongs to no competition; competition.toml in"),
        (["--dataset", "FLOWERS", "--submit"], "--submit: no Kaggle credentials; make a token at"),
        (
            ["--dataset", "cifar10", "--download"],
            "--download brings digit-recognizer; python sweeps/download.py SLUG brings others",
        ),
    ],
)
def test_a_sweep_that_could_send_nothing_is_not_begun(arguments, says, site, refuses, swept, results, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    swept("before")
    arguments = [word.replace("FLOWERS", f"folder:{tmp_path / 'data' / 'flowers'}") for word in arguments]
    assert says in refuses(arch_sweep.main, *arguments, "--trials", "1", "--results", results)
    assert [path.name for path in results.iterdir()] == ["before"]


def test_a_competition_without_images_to_predict(site, swept, tmp_path):
    """As a sample submission with nothing but a header says."""
    swept("before")
    data = load(f"folder:{tmp_path / 'data' / 'flowers'}")
    submit.ready(data)
    with pytest.raises(
        BadInput, match=r"--submit: .* has no images to predict; its sample submission should have a row for each"
    ):
        submit.ready(replace(data, unlabelled=nothing(data.train)))
