"""Networks of trainings that were stopped early: marked everywhere, and in an ensemble only where they help."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from handed_over import CONFIG, hand_over
from rich.console import Console

from sweeps import explain, report
from sweeps.choose import ensemble as choose_ensemble
from sweeps.choose import singles
from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import combine
from sweeps.choose.members import find
from sweeps.choose.partly import Compared, admitted, compare
from sweeps.search.record import Record, read
from sweeps.show import compare as compared_sweeps
from sweeps.show import figures, page, summary, views, zoo_table
from sweeps.show.trained import epochs, mark, partly
from trainable import scores
from trainable.datasets.container import nothing
from trainable.errors import BadInput

METHODS = list(ENSEMBLES)
PLACES = SimpleNamespace(cpus=1, gpus=0, device="cpu")


def networks(images: int, *right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Independent networks of three classes, each the surer of the right one the higher its number; and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)
    logits = [rng.normal(0, 1, (images, 3)) + strength * np.eye(3)[labels] for strength in right]
    return np.stack([scores.softmax(one) for one in logits]).astype(np.float32), labels


def test_what_helps_is_let_in_and_what_does_not_is_not():
    probs, labels = networks(600, 2.0, 2.0, 2.0)
    found = compare(probs, labels, [0], METHODS)
    assert found.helps, "three that err independently"
    assert found.errors_with < found.errors_without
    same = np.stack([probs[0]] * 3)
    found = compare(same, labels, [0], METHODS)
    assert not found.helps
    assert found.loss_with == pytest.approx(found.loss_without, abs=1e-6)
    probs, labels = networks(600, 3.0, 0.0, 0.0)
    assert not compare(probs, labels, [0], METHODS).helps, "who guesses is of no use"
    assert compare(probs, labels, [1, 2], METHODS).helps, "nor stands in the way of who knows"


def test_luck_is_not_help():
    """Of many that guess, some seem to complete the one that knows: where they are chosen, not where that is judged."""
    let_in = 0
    for seed in range(20):
        probs, labels = networks(60, 2.5, *[0.0] * 8, seed=seed)
        let_in += compare(probs, labels, [0], ["greedy", "weights", "best"]).helps
    assert let_in <= 2


def test_a_lower_loss_with_more_errors_is_no_help():
    assert Compared(0.5, 0.4, 0.01, 20, 20).helps
    assert not Compared(0.5, 0.4, 0.01, 20, 21).helps
    assert not Compared(0.5, 0.4, 0.06, 20, 10).helps, "noise"


@pytest.mark.parametrize("images", [1, 2, 7])
def test_few_images_decide_nothing(images):
    probs, labels = networks(images, 2.0, 2.0)
    assert compare(probs, labels, [0], METHODS).helps in (True, False)


@pytest.fixture
def folder(tmp_path, tiny):
    """Trial 0 is complete, 1 was stopped, 2 is complete but was at its best before, 3 was cut off."""
    record = Record(tmp_path / "record.db", about={"arguments": {"metric": "val_loss", "scheduler": "none"}, "data": ABOUT})
    probs, _ = networks(1, 0.0)
    labels = tiny.val.labels
    rng = np.random.default_rng(0)
    for number, end in enumerate(("complete", "stopped", "complete", "interrupted")):
        record.trial_started(number, {**CONFIG, "seed": number}, {}, {})
        logits = rng.normal(0, 1, (len(labels), 10)) + 4 * np.eye(10)[labels]
        probs = scores.softmax(logits).astype(np.float32)
        early = number > 0
        budget = {0: 4.0, 1: 1.0, 2: 1.0, 3: 2.5}[number]
        hand_over(record, number, 0, budget, {"val": probs}, labels, None if number == 2 else (end, "why"))
        if number == 2:
            metrics = {"budget": 4.0, "val_loss": 9.0, "val_error": 0.9, "temperature": 1.0, "train_s": 9.0, "eval_s": 1.0}
            record.rung(2, 1, metrics, {}, end=(end, ""))
        assert early or number == 0
    record.close()
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": {"dataset": "x"}, "data": ABOUT}))
    return tmp_path


ABOUT = {"fingerprint": "x", "images": {"train": 512, "val": 200, "test": 200, "unlabelled": 0}}


def test_who_is_fully_trained(folder):
    assert {m.trial: m.full for m in find(folder)} == {0: True, 1: False, 2: False, 3: False}
    assert {m.epochs for m in find(folder)} == {4.0}


def test_who_may_enter(folder, tiny):
    members, labels = find(folder), tiny.val.labels
    first = [i for i, m in enumerate(members) if m.full]
    everyone, about = admitted(members, labels, METHODS, [True] * 4)
    assert (everyone, about["networks"], about["taken"]) == ([0, 1, 2, 3], 3, True), "independent: they help"
    alike = [replace(m, val=members[first[0]].val) for m in members]
    some, about = admitted(alike, labels, METHODS, [True] * 4)
    assert (some, about["taken"]) == (first, False)
    assert "do not help beyond noise: loss" in about["why"]
    assert (
        admitted(alike, labels, METHODS, [not m.full for m in alike])[1]["why"] == "there is no full training that is fast enough"
    )
    assert admitted([m for m in members if not m.full], labels, METHODS, [True] * 3)[1]["why"] == "there is no full training"
    assert admitted([m for m in members if m.full], labels, METHODS, [True]) == ([0], None)


@pytest.fixture
def combined(folder, tiny, monkeypatch):
    monkeypatch.setattr(choose_ensemble, "latencies", lambda networks, *rest: [{"ms_128": 128.0} for _ in networks])
    monkeypatch.setattr(choose_ensemble, "predict_all", lambda networks, splits, places: None)
    labels = tiny.test.labels
    monkeypatch.setattr(
        choose_ensemble,
        "_predictions",
        lambda members, splits, places: [{name: np.eye(10)[labels] for name in splits} for _ in members],
    )
    return lambda methods=METHODS: combine([folder], tiny, methods, PLACES, print)


def test_every_page_marks_them(folder, combined, tiny, command):
    about = combined()
    few = [m for m in about["members"] if not m["full"]]
    assert few, "they help"
    assert about["partly_trained"]["taken"]
    assert all(m["epochs"] < m["of_epochs"] == 4.0 for m in few)
    assert any("(partly trained)" in name for name in about["sizes"][-1]["names"])
    trials, curves = views.write_tables(folder)
    assert trials["training"].tolist() == ["full", "partly trained", "full", "partly trained"]
    assert pd.read_parquet(folder / "trials.parquet")["training"].tolist() == trials["training"].tolist()
    assert views.leaderboard(trials, curves).set_index("trial")["training"].to_dict()[1] == "partly trained"
    assert views.families(trials, curves)["training"].tolist() == ["partly trained"], "of the best"
    out = io.StringIO()
    summary.show(Console(file=out, width=100), trials, curves, about, 200)
    said = out.getvalue()
    assert "*: partly trained, stopped before the last epoch" in said
    assert "3 partly trained networks may take part: out of sample they help" in said
    assert "Members that are partly trained: " in said
    text = page.page(folder)
    assert f"{epochs(few[0])}" in text
    assert epochs(few[0]).endswith("of 4, partly trained")
    assert "3 partly trained networks may take part" in text
    assert compared_sweeps.table([folder])["partly"].tolist() == [len(few)]
    status, said, _ = command(explain.main, folder, 1)
    assert status == 0
    assert "Not a full training: partly trained, 1 of 4 epochs." in said
    assert "Not a full training" not in command(explain.main, folder, 0)[1]
    status, said, _ = command(report.main, folder, "--view", "leaderboard")
    assert "partly trained" in said
    assert mark({}) == "", "an ensemble of before says nothing of it"
    assert partly({}) == ""
    assert epochs({"epochs": 3.0}) == "3"


def test_what_was_left_out_is_said(folder, tiny, combined, monkeypatch):
    members = find(folder)
    alike = [replace(m, val=members[0].val) for m in members]
    monkeypatch.setattr(
        choose_ensemble, "candidates", lambda *a: ([replace(m, val=alike[0].val) for m in alike], tiny.val.labels, "val")
    )
    about = combined()
    assert [m["full"] for m in about["members"]] == [True]
    assert about["partly_trained"] == {**about["partly_trained"], "networks": 3, "taken": False}
    assert "3 partly trained networks left out: out of sample they do not help beyond noise" in page.page(folder)


def test_the_zoo_marks_them(folder, tiny, monkeypatch):
    data = replace(tiny, test=nothing(tiny.test))
    times = {"ms_1": 1.0, "ms_128": 2.0, "runs_1": 9, "runs_128": 9, "threads": 1, "device": "a"}
    monkeypatch.setattr(singles, "latencies", lambda networks, *rest: [times for _ in networks])
    rows = singles.judge(folder, data, PLACES, print)
    rows = [{**row, "arch": f"net{i}"} for i, row in enumerate(rows)]
    whole = [row["full"] for row in rows]
    assert sorted(whole) == [False, False, False, True]
    trials = pd.DataFrame(
        {"trial": range(4), "arch": [r["arch"] for r in rows], "state": "complete", "reason": "", "train_s": 1.0}
    )
    monkeypatch.setattr(zoo_table, "ARCHS", {row["arch"]: SimpleNamespace(family="x") for row in rows})
    table = zoo_table.tabulate({row["arch"]: (1, 1) for row in rows}, trials, rows, (1, 128))
    text = zoo_table.markdown(table, [])
    assert text.count("%†") == 3
    assert "†: partly trained, not to the last epoch: net" in text
    figures.write_zoo(folder / "zoo.png", table, 200, (1, 128))


def test_a_vote_marks_them_and_goes_without_what_is_damaged(folder, tiny, monkeypatch):
    """The network that is damaged does not vote, and the table is not given up for it."""
    data = replace(tiny, test=nothing(tiny.test))
    there = [replace(m, arch=f"net{m.trial}") for m in find(folder)]
    (folder / "trials" / "3" / "model.safetensors").write_bytes(b"damaged")
    heard = []

    def found(folder, leave_out=None):
        left = {m.trial for m in find(folder, leave_out)}
        heard.append(left)
        return [m for m in there if m.trial in left]

    monkeypatch.setattr(singles, "find", found)
    voted = singles.vote(folder, data, ["net0", "net1"])
    assert heard == [{0, 1, 2}]
    assert voted["partly"] == ["net1"]
    (words,) = zoo_table.words_of_vote(voted, 200)
    assert "Majority vote of net0, net1†: " in words


def test_a_cascade_marks_its_first_network(folder, combined):
    about = combined()
    assert about["cascade"], "several take part"
    about["cascade"]["first_full"] = False
    out = io.StringIO()
    summary.show_ensemble(Console(file=out, width=200), about)
    first = f"trial {about['cascade']['first']} (partly trained)"
    assert f"one of {first} alone for the others" in out.getvalue()


def test_a_limit_that_no_network_keeps(folder, combined, tiny, monkeypatch):
    """A sweep at work takes the fastest and says so; whoever combines by hand is told."""
    said = []
    about = combine([folder], tiny, METHODS, PLACES, said.append, 0.001)
    assert len(about["members"]) == 1
    assert any("--max-latency 0.001: the fastest network takes 1 ms an image; it is taken alone." in line for line in said)
    with pytest.raises(BadInput, match="the fastest member takes 1 ms an image; allow for more"):
        combine([folder], tiny, METHODS, None, said.append, 0.001)


def test_a_network_that_could_not_be_timed_is_timed_again(folder, combined, tiny, monkeypatch):
    """One worker that was killed once says nothing of a network."""
    monkeypatch.setattr(choose_ensemble, "latencies", lambda networks, *rest: [{} for _ in networks])
    assert combined()["ms_per_image"] == float("inf")
    monkeypatch.setattr(choose_ensemble, "latencies", lambda networks, *rest: [{"ms_128": 128.0} for _ in networks])
    assert combined()["ms_per_image"] < 10


def test_mlflow_marks_them(folder, track, uri):
    past = read(folder / "record.db")
    track(uri, past).close({}, [], patience=None)
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(experiment_names=["digits"]).dropna(subset=["tags.trial"])
    assert runs.set_index("tags.trial")["tags.training"].to_dict() == dict(
        zip("0123", ["full", "partly trained", "full", "partly trained"], strict=True)
    )
