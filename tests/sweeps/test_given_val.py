"""A val that the user gave stays val: nothing is trained on it, and it judges the finalists."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
from handed_over import probs_of

from sweeps.choose import ensemble as choose_ensemble
from sweeps.choose import kept
from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import combine
from sweeps.choose.finalists import make_plan, taught
from sweeps.choose.members import out_of_fold
from sweeps.choose.mistakes import mistakes
from sweeps.search import refits as refitting
from sweeps.show import views
from sweeps.show.judged import judges
from trainable import files, saved, scores
from trainable.config import TrialConfig
from trainable.datasets.container import as_recorded, folds_of, in_folds, judging, of_fold
from trainable.fit import fit
from trainable.ray_trial import PROBS


@pytest.fixture
def given(tiny):
    return replace(tiny, val_given=True)


def train_all(plan, record, data):
    """Every job of the plan ends with a network that errs at ten images of the val, each at its own ten."""
    search = refitting.refits(plan.jobs, plan.epochs, record)
    rng = np.random.default_rng(0)
    while job := search.ask():
        wrong = np.zeros(len(data.val), dtype=bool)
        wrong[rng.permutation(len(wrong))[:10]] = True
        said = {"val": probs_of(data.val.labels, wrong), "test": probs_of(data.test.labels, wrong[: len(data.test)])}
        where = record.path.parent / "trials" / str(job.number)
        contents = {saved.CONFIG: b"{}", saved.WEIGHTS: str(job.number).encode(), PROBS: safetensors.numpy.save(said)}
        digests = {name: files.write(where / name, content) for name, content in contents.items()}
        for rung, budget in enumerate(search.rungs):
            last = rung == len(search.rungs) - 1
            metrics = {"budget": budget, "val_loss": scores.cross_entropy(said["val"], data.val.labels), "val_error": 0.05}
            metrics |= {"temperature": 1.0, "rung": rung, "interrupted": False, "train_s": budget, "eval_s": 0.0}
            search.hear(job.number, {**metrics, "files": json.dumps(digests if last else {})})
    assert search.finished


def test_folds_are_cut_within_train(given, tiny):
    assert in_folds(given) is given.train
    assert judging(given) is given.val
    parts = [of_fold(given, 3, fold) for fold in range(3)]
    for fold, part in enumerate(parts):
        assert part.val is given.val
        kept_in = folds_of(given.train.labels, 3) != fold
        assert np.array_equal(part.train.images, given.train.images[kept_in])
        assert not set(part.train.ids) & set(given.val.ids), "ids of the sample are unique over its splits"
    left_out = [set(given.train.ids) - set(part.train.ids) for part in parts]
    assert set.union(*left_out) == set(given.train.ids), "every image of train is left out once"
    pooled = [of_fold(tiny, 3, fold) for fold in range(3)]
    assert sum(len(part.val) for part in pooled) == len(tiny.train) + len(tiny.val), "a val of ours is in the folds"
    assert given.fingerprint == tiny.fingerprint


def test_a_network_of_a_fold_has_not_seen_a_given_val(given, tiny):
    config = TrialConfig(batch_size=8, folds=2, engine="fp32-nhwc")
    for data, seen in ((given, ("tiny",)), (tiny, ("tiny", "tiny with val"))):
        _, state = next(fit(config, of_fold(data, 2, 0), device="cpu"))
        assert state.seen == seen
    assert as_recorded(given, {"val_given": True}) is given
    assert not as_recorded(given, {}).val_given, "a sweep of before has trained on it"


def test_plans_count_train_alone(searched, tmp_path, given, tiny):
    plans = [make_plan(tmp_path, data, 2, 4, [4.0], 2, None) for data in (given, tiny)]
    assert plans[0].times == pytest.approx([8.0 * 3 / 4] * 8)
    assert plans[1].times == pytest.approx([8.0 * 3 / 4 * 712 / 512] * 8)
    data = replace(given, unlabelled=given.test)
    assert taught(plans[0], data).epochs == pytest.approx(4.0 * (512 * 3 / 4) / (512 * 3 / 4 + 200))


def test_finalists_are_judged_on_it_by_the_networks_that_answer(searched, tmp_path, given):
    labels = given.val.labels
    train_all(make_plan(tmp_path, given, 2, 3, [4.0], 2, None), searched, given)
    members = out_of_fold(tmp_path, given)
    for member in members:
        of_each = [network.probs["val"] for network in member.networks]
        assert member.val == pytest.approx(np.mean(of_each, axis=0))
        assert np.array_equal(member.alone, of_each[0])
        assert scores.errors(member.alone, labels) == 10
        assert scores.errors(member.val, labels) < 10, "three that err elsewhere outvote each other"
    train_all(make_plan(tmp_path, given, 2, 3, [4.0], 2, None, last=True), searched, given)
    for member in out_of_fold(tmp_path, given):
        assert np.array_equal(member.val, member.last.probs["val"]), "it answers, and has not seen val either"


PLACES = SimpleNamespace(cpus=1, gpus=0, device="cpu")


def test_what_is_shown_says_so(searched, tmp_path, given, monkeypatch):
    monkeypatch.setattr(choose_ensemble, "latencies", lambda networks, *rest: [{"ms_128": 128.0} for _ in networks])
    train_all(make_plan(tmp_path, given, 2, 3, [4.0], 2, None), searched, given)
    about = combine([tmp_path], given, list(ENSEMBLES), PLACES, print)
    assert about["judged_on"] == {"split": "val", "images": 200, "given": True}
    assert judges(about["judged_on"]) == "validation images given by the user"
    assert judges({"split": "val", "images": 200}) == "val"
    assert judges({"split": "out of fold", "images": 200}) == "out of fold"
    assert all(len(member["networks"]) == 3 for member in about["members"])
    assert about["cascade"]["first_judged"]["errors"] == 10, "before the ensemble one network answers, not three"
    found = mistakes(tmp_path, given)
    assert found.split is given.val
    assert len(found.wrong) < 10, "of all their networks, not of one of each"
    # What is kept of them is judged by the same images.
    (tmp_path / "kept").mkdir()
    (tmp_path / kept.FILE).rename(tmp_path / "kept" / kept.FILE)
    for one, other in zip(kept.read(tmp_path / "kept", given), out_of_fold(tmp_path, given), strict=True):
        assert one.val == pytest.approx(other.val, rel=2e-3, abs=1e-3)
        assert one.alone == pytest.approx(other.alone, rel=2e-3, abs=1e-3)
    of_kept = combine([tmp_path / "kept"], given, list(ENSEMBLES), PLACES, print, to=tmp_path / "again")
    assert of_kept["judged_on"] == about["judged_on"]
    assert of_kept["judged"]["errors"] == about["judged"]["errors"]


def test_a_limit_is_kept_by_one_network_each_that_is_judged_as_one(searched, tmp_path, given, monkeypatch):
    monkeypatch.setattr(choose_ensemble, "latencies", lambda networks, *rest: [{"ms_128": 128.0} for _ in networks])
    train_all(make_plan(tmp_path, given, 1, 3, [4.0], 2, None), searched, given)
    about = combine([tmp_path], given, list(ENSEMBLES), PLACES, print, max_latency=1.5)
    assert [len(member["networks"]) for member in about["members"]] == [1]
    assert about["judged"]["errors"] == about["members"][0]["judged"]["errors"] == 10
    assert len(mistakes(tmp_path, given).wrong) == 10


def test_evaluation_is_of_all_of_a_given_val():
    trial = {"config": {"folds": 4}, "eval_s": 2.0}
    images = {"train": 800, "val": 200}
    assert views._ms(trial, 2, {"images": images, "val_given": True}) == pytest.approx(1e3 * 2.0 / 2 / 200)
    assert views._ms(trial, 2, {"images": images}) == pytest.approx(1e3 * 2.0 / 2 / 250)
