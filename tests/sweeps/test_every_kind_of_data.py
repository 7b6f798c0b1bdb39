"""Data on which every network is right, wrong, or says the same: each gives a plan, an ensemble and a page."""

import json
import sqlite3
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from handed_over import CONFIG, hand_over
from played import play

from sweeps import report, stored
from sweeps.choose import ensemble as choose_ensemble
from sweeps.choose.cascade import cascade
from sweeps.choose.combine import ENSEMBLES, by_size, choose
from sweeps.choose.ensemble import combine
from sweeps.choose.finalists import make_plan, promises, worth
from sweeps.choose.members import Member, Network, find
from sweeps.search.record import Record
from sweeps.show import page
from sweeps.show.importance import compared, importance
from trainable import scores

IMAGES = 60


def said(kind: str, labels: np.ndarray, seed: int) -> np.ndarray:
    """What a network says, float32 [n, 10]."""
    rng = np.random.default_rng(seed)
    sure = np.eye(10, dtype=np.float32)
    return {
        "separable": sure[labels],
        "hopeless": sure[(labels + 1 + seed) % 10],
        "one class": np.tile(sure[3], (len(labels), 1)),
        "constant": np.full((len(labels), 10), 0.1, dtype=np.float32),
        "no number": np.full((len(labels), 10), np.nan, dtype=np.float32),
        "luck": rng.dirichlet(np.ones(10), len(labels)).astype(np.float32),
        "one without a number": sure[labels] if seed else np.full((len(labels), 10), np.nan, dtype=np.float32),
    }[kind]


KINDS = ("separable", "hopeless", "one class", "constant", "no number", "luck", "one without a number")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(autouse=True)
def no_division_by_zero():
    """What NumPy only warns of is what this is about."""
    with np.errstate(divide="raise", invalid="raise"), warnings.catch_warnings(action="error", category=RuntimeWarning):
        yield


@pytest.mark.parametrize("seconds", [None, 50.0, 1e6])
def test_a_plan(kind, tiny, tmp_path, seconds):
    few = replace(tiny, val=tiny.val.take(np.arange(IMAGES)))
    record = Record(tmp_path / "record.db", about={"arguments": {}, "data": {"fingerprint": "x"}})
    for number in range(4):
        record.trial_started(number, {**CONFIG, "seed": number}, {}, {})
        hand_over(record, number, 0, 4.0, {"val": said(kind, few.val.labels, number)}, few.val.labels, ("complete", ""))
    plan = make_plan(tmp_path, few, None, None, [4.0, 6.0], 2, seconds, None if seconds else 1)
    assert plan.finalists, plan.why
    assert np.isfinite(plan.seconds)
    assert 3 <= plan.folds <= 6
    if seconds:
        assert plan.seconds <= seconds
    members = find(tmp_path)
    promised = promises(members, few.val.labels, [1.0] * 4)
    assert len(promised) == 15
    assert np.isfinite(list(promised.values())).all()
    if kind == "one without a number":
        assert 0 not in {finalist.trial for finalist in plan.finalists[:1]}, "who says nothing comes last"


@pytest.mark.parametrize("loss", [0.0, float("nan"), float("inf"), 16.1])
def test_losses_that_cannot_be_compared(loss):
    members = [Member(number, "convnet", {"budget": 4.0}, (), np.empty(0)) for number in range(3)]
    rungs = [{"number": n, "rung": 0, "metrics": {"val_loss": loss if n else 0.1, "budget": 4.0}} for n in range(3)]
    assert np.isfinite(worth(members, rungs)).all()
    assert worth(members, rungs[1:]) == [1.0] * 3, "all alike"


@pytest.mark.parametrize("images", [1, 2, 3, IMAGES])
def test_an_ensemble(kind, images):
    labels = np.arange(images) % 10
    probs = np.stack([said(kind, labels, seed) for seed in range(3)])
    taken, judged = choose(probs, labels, ENSEMBLES)
    assert len(judged) == len(ENSEMBLES)
    for one in judged:
        assert one.weights.sum() == pytest.approx(1)
        assert np.isfinite(one.losses).all()
        assert np.isfinite(one.temperature)
    assert 0 <= taken.errors <= images
    if kind == "separable":
        assert taken.errors == 0
    if kind == "one without a number" and images == IMAGES:
        assert taken.errors == 0
        assert taken.weights[0] == 0
    assert len(by_size(probs, labels, [1.0] * 3)) == 3
    found = cascade(probs[0], probs[1], labels)
    assert 0 <= found.share <= 1
    assert 0 <= found.errors <= images


@pytest.mark.parametrize("images", [3, IMAGES])
def test_an_ensemble_that_is_written_can_be_read(kind, images, tiny, tmp_path, monkeypatch):
    """Also a cascade that passes on whatever it is asked."""
    few = replace(tiny, val=tiny.val.take(np.arange(images)), test=tiny.test.take(np.arange(5)))
    record = Record(tmp_path / "record.db", about={"arguments": {}, "data": {"fingerprint": "x"}})
    for number in range(3):
        probs = {name: said(kind, split.labels, number) for name, split in (("val", few.val), ("test", few.test))}
        record.trial_started(number, {**CONFIG, "seed": number}, {}, {})
        hand_over(record, number, 0, 4.0, probs, few.val.labels, ("complete", ""))
    monkeypatch.setattr(
        choose_ensemble, "latencies", lambda networks, *rest: [{"ms_128": n + 1.0} for n, _ in enumerate(networks)]
    )
    combine([tmp_path], few, ENSEMBLES, None, print)
    assert stored.ensemble(tmp_path)["members"]


def test_a_cascade_that_passes_on_everything_is_written_as_it_is(tmp_path):
    labels = np.arange(3)
    sure = np.eye(10, dtype=np.float32)
    found = cascade(0.9 * sure[(labels + 1) % 10] + 0.01, sure[labels], labels)
    assert found.threshold == float("inf")
    assert stored.CASCADE["threshold"].fits(found.threshold)


def test_a_cascade_begins_with_images_as_they_are(tmp_path):
    """The first network is asked for these alone, so what judges it is what it says of these."""
    labels = np.arange(IMAGES) % 10
    right, luck = said("separable", labels, 0), said("luck", labels, 1)
    network = Network(0, "convnet", tmp_path / "0", 1.0, "")
    warped = Member(0, "convnet", {}, (network,), right, view=1)
    seen = [warped, Member(0, "convnet", {}, (network,), luck)]
    made = choose_ensemble._cascade(seen, right, labels, [0.5, 1.0], [0, 1], tmp_path)
    assert made["first"] == "0"
    alone = choose_ensemble._cascade(seen[1:], right, labels, [0.5], [0], tmp_path)
    assert alone is None, "one member alone"
    unwarped = choose_ensemble._cascade([warped, warped], right, labels, [0.5, 0.5], [0, 1], tmp_path)
    assert unwarped is None, "nobody could be asked first"


def test_more_members_than_any_weight_needs():
    labels = np.arange(IMAGES) % 10
    probs = np.stack([said("constant", labels, 0)] * 1500)
    assert ENSEMBLES["weights"](probs, labels).sum() == pytest.approx(1)


def test_a_temperature_is_a_number(kind):
    labels = np.arange(IMAGES) % 10
    with np.errstate(divide="ignore"):
        logits = np.log(said(kind, labels, 0).clip(1e-30))
    assert 0.05 <= scores.best_temperature(logits, labels) <= 20
    assert 0.05 <= scores.best_temperature(1e30 * logits, labels) <= 20
    assert np.isfinite(scores.calibrated_cross_entropy(said(kind, labels, 0), labels))
    assert np.isfinite(scores.cross_entropy(said(kind, labels, 0), labels))


def test_every_image_is_a_number_of_errors():
    for errors in (0, 1):
        low, high = scores.interval(errors, 1)
        assert 0 <= low <= high <= 1


@pytest.mark.parametrize("loss", [0.0, 16.1])
def test_a_page_where_all_trials_are_alike(tmp_path, loss):
    folder = play(tmp_path / "s", 30, loss=lambda config: 1.0)
    with sqlite3.connect(folder / "record.db") as db:
        for seq, text in db.execute("SELECT seq, metrics FROM rungs").fetchall():
            metrics = json.dumps({**json.loads(text), "val_loss": loss, "val_error": 0.0})
            db.execute("UPDATE rungs SET metrics = ? WHERE seq = ?", (metrics, seq))
    found = importance(compared(folder)[0])
    assert found["importance"].dropna().between(0, 1).all()
    report.write_report(folder)
    assert (folder / page.FILE).stat().st_size > 500_000
    if loss == 0:
        text = (folder / page.FILE).read_text()
        data = json.loads(text.partition('<script id="data" type="application/json">')[2].partition("</script>")[0])
        best = pd.DataFrame(data["tables"]["progress"])["best"]
        assert (best > 0).all(), "a logarithmic axis has no 0"
