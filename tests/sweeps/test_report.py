"""Views and pages of sweeps that nobody trained; the browser looks at them in tests/test_seeing.py."""

import json
import re

import numpy as np
import optuna
import pandas as pd
import pytest
from played import RUNGS, play

from sweeps import report
from sweeps.search.space import Space
from sweeps.show import drawn, page, study, views
from sweeps.show.importance import compared, importance

TRIALS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return play(tmp_path_factory.mktemp("results") / "many", TRIALS)


@pytest.fixture(scope="module")
def tables(folder):
    return views.tables(folder)


def test_views_add_up(tables):
    trials, curves = tables
    for view in views.VIEWS.values():
        assert len(view(trials, curves)), view
        assert view(trials.iloc[:0], curves.iloc[:0]).empty, "a sweep that has just begun"
    families, stops, cost = (view(trials, curves) for view in (views.families, views.stops, views.cost))
    assert families["trials"].sum() == TRIALS
    assert families[list(views.ENDS)].sum().sum() == TRIALS
    assert stops["epochs"].tolist() == RUNGS
    assert stops["reached"].tolist()[1:] == stops["went on"].tolist()[:-1]
    assert cost["share"].sum() == pytest.approx(1)
    assert cost["training"].sum() * 3600 == pytest.approx(trials["train_s"].sum())


def test_leaderboard_compares_what_trained_equally_long(tables):
    board = views.leaderboard(*tables)
    assert board["epochs"].dropna().is_monotonic_decreasing
    for _, equally in board.groupby("epochs"):
        assert equally["loss"].is_monotonic_increasing


def test_failures_that_differ_in_numbers_are_one(tables):
    (row,) = views.failures(*tables).to_dict("records")
    assert row["trials"] == (tables[0]["state"] == "failed").sum() > 1
    assert row["reason"].startswith("FloatingPointError: the loss is nan at step ")


def test_lanes():
    """Three trials on two places; the third begins when the first ends."""
    trials = pd.DataFrame({"trial": [0, 1, 2], "t": [0.0, 1.0, 5.0], "seconds": [5.0, 9.0, 3.0]})
    assert views.lanes(trials)["lane"].tolist() == [1, 2, 1]


def test_importance_finds_what_decides(tmp_path):
    """Of two parameters, the loss depends on one: it is the important one, and its good values are where the loss is low."""

    def draw(trial):
        return {"lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True), "warmup": trial.suggest_float("warmup", 0.0, 0.3)}

    folder = play(tmp_path / "s", TRIALS, Space(draw), loss=lambda config: 0.1 + abs(np.log10(config["lr"]) + 2))
    there, epochs = compared(folder)
    table = importance(there)
    assert table["parameter"].tolist() == ["lr", "warmup"]
    assert table["importance"][0] > 0.7
    assert epochs == RUNGS[-1]
    low, high = map(float, table["good values"][0].split(" to "))
    assert 2e-3 < low < 1e-2 < high < 5e-2


def test_importance_of_a_family_alone(folder, tables):
    family = views.families(*tables)["family"][0]
    table = importance(compared(folder, family)[0])
    others = {name for name in tables[0]["family"].unique() if name != family}
    assert not {name.partition(".")[0] for name in table["parameter"]} & others


def test_study_is_the_search(folder, tables):
    study.write(folder)
    there = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / study.FILE}")
    trials, curves = tables
    assert len(there.trials) == TRIALS
    found = {t.number: t for t in there.trials}
    for trial in trials.itertuples():
        mine, rungs = found[trial.trial], curves[curves["trial"] == trial.trial]
        assert mine.state.name == {"complete": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}[trial.state]
        assert mine.intermediate_values == dict(zip(rungs["rung"], rungs["val_loss"], strict=True))
        assert mine.params["arch"] == trial.arch
        assert mine.user_attrs["reason"] == trial.reason
        assert mine.datetime_start.timestamp() == pytest.approx(trial.started, abs=1e-3)
        assert mine.value == (pytest.approx(rungs["val_loss"].iloc[-1]) if trial.state != "failed" else None)
    assert not list(folder.glob(".*")), "nothing is left of its making"


def test_page(folder):
    report.write_report(folder)
    text = (folder / page.FILE).read_text()
    assert len(text) < 1.6e6
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", text.partition('<script id="data"')[0])
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert len(data["tables"]["trials"]) == TRIALS
    assert set(data["specs"]) == {"curves", "progress", "by_time", "by_size", "timeline", "importance", "drawn", "parallel"}


def test_page_of_a_sweep_that_has_just_begun(tmp_path):
    folder = play(tmp_path / "s", 0)
    report.write_report(folder)
    assert "No trial has come to a rung yet" in (folder / page.FILE).read_text()


def test_page_without_the_record(folder, tables, tmp_path):
    """As in results/records/: what is kept are the tables."""
    views.write_tables(folder)
    for name in ("trials.parquet", "curves.parquet", "sweep.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for kept, own in zip(views.tables(tmp_path), tables, strict=True):
        pd.testing.assert_frame_equal(kept, own, check_dtype=False)
    assert "The best of each family" in page.page(tmp_path)


def test_a_folder_of_sweeps_is_one_table(folder, tmp_path):
    views.write_tables(folder)
    other = play(tmp_path / "other", 5)
    views.write_tables(other)
    for name in ("trials", "curves"):
        both = pd.read_parquet([str(where / f"{name}.parquet") for where in (folder, other)])
        assert set(both["trial"]) >= set(range(5))


def test_progress_only_falls(folder, tables):
    told = drawn.anytime("s", *tables)
    assert told["best"].is_monotonic_decreasing
    assert told["best"].iloc[-1] == tables[1]["val_loss"].min()


def test_command(folder, command, refuses, tmp_path):
    results = ["--results", folder.parent]
    status, said, _ = command(report.main, folder.name, *results, "--view", "families", "--json")
    assert status == 0
    assert sum(row["trials"] for row in json.loads(said)) == TRIALS
    for view in (*views.VIEWS, "importance"):
        status, said, _ = command(report.main, folder.name, *results, "--view", view)
        assert status == 0
        assert len(said.splitlines()) > 3
    status, said, _ = command(report.main, folder.name, folder, *results, "--out", tmp_path / "both.html")
    assert status == 0
    assert "both.html" in said
    assert (tmp_path / "both.html").stat().st_size > 500_000
    assert "holds no sweep; there are: many" in refuses(report.main, "nothing", *results)
    assert "--family x: that sweep tried " in refuses(report.main, folder.name, *results, "--view", "families", "--family", "x")
    assert "say which with --view" in refuses(report.main, folder.name, *results, "--json")
    assert "--view is of one sweep" in refuses(report.main, folder.name, folder.name, *results, "--view", "cost")
