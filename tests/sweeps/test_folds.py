"""Finalists on their folds: what is trained, and what comes of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from handed_over import probs_of

from sweeps.choose.finalists import make_plan, makespan, taught, teachers
from sweeps.choose.members import PREDICTIONS, Network, find, out_of_fold
from sweeps.resume import before
from sweeps.search import refits as refitting
from sweeps.search.record import read
from trainable import files, saved, scores
from trainable.datasets.container import all_labels, folds_of, nothing, with_unlabelled
from trainable.errors import BadInput
from trainable.ray_trial import PROBS


def refits(plan, record):
    return refitting.refits(plan.jobs, plan.epochs, record)


def train_all(search, record, tiny, until: int | None = None):
    """Answers its jobs as networks would that err at every tenth image of their fold."""
    pool = all_labels(tiny).train
    done = 0
    while job := search.ask():
        if done == until:
            return
        own = pool.labels[folds_of(pool.labels, job.config["folds"]) == job.config["fold"]]
        probs = {"val": probs_of(own, np.arange(len(own)) % 10 == 0)}
        probs |= {split: probs_of(np.zeros(200, int), np.zeros(200, bool)) for split in ("test", "unlabelled")}
        where = record.path.parent / "trials" / str(job.number)
        contents = {saved.CONFIG: b"{}", saved.WEIGHTS: str(job.number).encode(), PROBS: safetensors.numpy.save(probs)}
        digests = {name: files.write(where / name, content) for name, content in contents.items()}
        for rung, budget in enumerate(search.rungs):
            last = rung == len(search.rungs) - 1
            loss = scores.cross_entropy(probs["val"], own)
            result = {
                "budget": budget,
                "val_loss": loss,
                "val_error": 0.1,
                "temperature": 1.0,
                "rung": rung,
                "interrupted": False,
            }
            result |= {"train_s": budget, "eval_s": 0.0, "files": json.dumps(digests if last else {})}
            assert search.hear(job.number, result) != last
        done += 1
    assert search.finished


def test_out_of_fold(searched, tmp_path, tiny):
    plan = make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None)
    search = refits(plan, searched)
    train_all(search, searched, tiny)
    trials = read(searched.path)[0]
    assert [t["refits"] for t in trials] == [None] * 5 + [0] * 3 + [2] * 3
    assert [t["config"]["fold"] for t in trials[5:]] == [0, 1, 2] * 2
    members = out_of_fold(tmp_path, tiny)
    assert {m.trial for m in members} == {0, 2}
    labels = all_labels(tiny).train.labels
    for member in members:
        assert [n.number for n in member.networks] == ([5, 6, 7] if member.trial == 0 else [8, 9, 10])
        assert member.val.shape == (712, 10)
        assert member.val.sum(axis=1) == pytest.approx(np.ones(712), abs=1e-5)
        assert scores.errors(member.val, labels) == sum(-(-n // 10) for n in np.bincount(folds_of(labels, 3)))
        assert member.networks[1].probs["test"].shape == (200, 10)
    assert [m.trial for m in find(tmp_path)] == [0, 1, 2, 3, 4], "the search's own stay what they are"


def test_several_seeds(searched, tmp_path, tiny):
    once, twice = (make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None, seeds) for seeds in (1, 2))
    assert twice.seconds == pytest.approx(2 * once.seconds)
    assert "4 finalists (trials 0 convnet, 2 convnet, 0 convnet (seed 1), 2 convnet (seed 1)), each trained on 3" in twice.words()
    train_all(refits(once, searched), searched, tiny)
    assert make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None, 2).seconds == pytest.approx(once.seconds), "half is done"
    train_all(refits(twice, searched), searched, tiny)
    assert len({(t["config"]["seed"], t["config"]["fold"]) for t in read(searched.path)[0] if t["refits"] == 2}) == 6
    members = out_of_fold(tmp_path, tiny)
    assert sorted(m.name for m in members) == ["0", "0 seed 1", "2", "2 seed 1"]
    assert len({network.number for member in members for network in member.networks}) == 12


def test_what_time_is_left_after_a_plan_is_planned_again(searched, tmp_path, tiny):
    def plan(seconds: float):
        return make_plan(tmp_path, tiny, None, None, [4.0, 8.0], 2, seconds, None)

    first = plan(40.0)
    assert ([f.seed for f in first.finalists], first.folds, first.epochs) == ([0, 0], 4, 4.0)
    search = refits(first, searched)
    train_all(search, searched, tiny, until=4)
    searched.interrupt_all("the sweep was cut off")
    half = plan(300.0)
    assert (half.folds, half.epochs) == (4, 4.0), "what was begun is finished first"
    assert all(job in half.jobs for job in first.jobs)
    train_all(refits(first, searched), searched, tiny)
    assert all(job in first.jobs for job in plan(1.0).jobs), "no time for anything else"
    second = plan(30.0)
    assert all(job in second.jobs for job in first.jobs), "what is done costs nothing"
    assert len(second.jobs) > len(first.jobs)
    assert second.seconds == pytest.approx(makespan(second.times[len(first.jobs) :], 2), rel=0.3)
    much = plan(300.0)
    assert (much.folds, much.epochs) == (6, 8.0), "with much more time, what is worth more"
    assert make_plan(tmp_path, tiny, None, None, [4.0, 8.0], 2, None, None).folds == 4, "without a limit nothing is done twice"


def test_a_last_fit_answers_for_the_folds(searched, tmp_path, tiny):
    without, plan = (make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None, last=last) for last in (False, True))
    nearly_all = [49 / 50 / (2 / 3) * seconds for seconds in without.times[::3]]
    assert plan.times == pytest.approx(without.times + nearly_all)
    assert "on 3 folds (and once more on all but the 50th part) for 4 epochs: 8 networks" in plan.words()
    train_all(refits(without, searched), searched, tiny)
    assert make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None, last=True).seconds == pytest.approx(max(nearly_all))
    assert make_plan(tmp_path, tiny, 2, None, [4.0], 2, None, last=True).folds == 3, "the folds that are done"
    before = out_of_fold(tmp_path, tiny)
    assert all(member.answering == member.networks for member in before)
    train_all(refits(plan, searched), searched, tiny)
    members = out_of_fold(tmp_path, tiny)
    assert [len(member.answering) for member in members] == [1, 1]
    assert [member.answering[0].number for member in members] == [11, 12]
    for member, was in zip(members, before, strict=True):
        assert member.networks == was.networks
        assert np.array_equal(member.val, was.val), "nobody judges it: it is judged as the folds' are"


def test_only_what_is_missing_is_trained(searched, tmp_path, tiny):
    plan = make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None)
    search = refits(plan, searched)
    train_all(search, searched, tiny, until=4)
    assert [m.trial for m in out_of_fold(tmp_path, tiny)] == [0], "the other has one of three"
    searched.interrupt_all("the sweep was cut off")
    assert make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None).seconds < plan.seconds / 2
    again = refits(plan, searched)
    train_all(again, searched, tiny)
    trials = read(searched.path)[0]
    assert len(trials) == 5 + 6
    assert {t["state"] for t in trials[5:]} == {"complete"}
    done = refits(plan, searched)
    assert done.ask() is None
    assert done.finished


def test_what_is_wanted_no_more_is_not_trained(searched, tmp_path, tiny):
    first = refits(make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None), searched)
    train_all(first, searched, tiny, until=4)
    searched.interrupt_all("the sweep was cut off")
    other = refits(make_plan(tmp_path, tiny, 1, 3, [4.0], 2, None), searched)
    assert other.ask() is None
    last = read(searched.path)[0][-1]
    assert (last["state"], last["reason"]) == ("stopped", "it is of no finalist any more")


def test_a_damaged_fold_leaves_its_finalist_out(searched, tmp_path, tiny):
    search = refits(make_plan(tmp_path, tiny, 2, 3, [4.0], 2, None), searched)
    train_all(search, searched, tiny)
    path = tmp_path / "trials" / "6" / saved.WEIGHTS
    path.write_bytes(b"else")
    warned = []
    assert [m.trial for m in out_of_fold(tmp_path, tiny, warned.append)] == [2]
    assert len(warned) == 1
    with pytest.raises(BadInput, match=str(path)):
        out_of_fold(tmp_path, tiny)
    assert before(tmp_path).lost() == [6]


def test_predictions_are_of_the_weights_that_lie_there(tmp_path):
    files.write(tmp_path / PROBS, safetensors.numpy.save({"val": np.eye(2)}))
    network = lambda digest: Network(0, "convnet", tmp_path, 1.0, digest)  # noqa: E731
    network("a").keep({"test": np.ones((3, 2))})
    assert network("a").probs["test"].shape == (3, 2)
    assert set(network("b").probs) == {"val"}
    Path(tmp_path / PREDICTIONS).write_bytes(b"cut")
    assert set(network("a").probs) == {"val"}


def test_who_learns_from_unlabelled_images_is_taught_by_networks_of_its_own_fold(searched, tmp_path, tiny):
    data = replace(tiny, unlabelled=tiny.test, test=nothing(tiny.test))
    plan = make_plan(tmp_path, data, 2, 3, [4.0], 2, None)
    assert teachers(plan, tmp_path, data) == {}, "nobody is trained yet"
    train_all(refits(plan, searched), searched, data)
    found = teachers(plan, tmp_path, data)
    assert set(found) == {0, 1, 2}
    assert found[0].shape == (200, 10)
    again = taught(plan, data)
    assert again.epochs == pytest.approx(4.0 * (712 * 2 / 3) / (712 * 2 / 3 + 200))
    search = refits(again, searched)
    assert len(search.refits) == 12
    train_all(search, searched, data)
    members = out_of_fold(tmp_path, data)
    assert sorted(m.name for m in members) == ["0", "0u", "2", "2u"]
    assert {round(m.metrics["budget"], 3) for m in members if m.unlabelled} == {round(again.epochs, 3)}


def test_who_is_taught_is_not_taught_by_networks_of_other_folds(searched, tmp_path, tiny):
    """They have seen images that the pupil is judged on, or there are too few of them."""
    data = replace(tiny, unlabelled=tiny.test, test=nothing(tiny.test))
    for folds in (2, 3, 4):
        plan = make_plan(tmp_path, data, 2, folds, [4.0], 2, None)
        assert teachers(plan, tmp_path, data) == {}, "nobody is trained on these folds yet"
        train_all(refits(plan, searched), searched, data)
        assert set(teachers(plan, tmp_path, data)) == set(range(folds))


def test_pseudo_labels(tiny):
    data = replace(tiny, unlabelled=tiny.test)
    probs = probs_of(tiny.test.labels, np.arange(200) % 2 == 0) * 0.97 / 0.91
    probs[:10] = 0.1
    more = with_unlabelled(data, probs)
    assert len(more.train) == 512 + 190
    said = more.train.labels[512:]
    assert np.array_equal(said == tiny.test.labels[10:], np.arange(10, 200) % 2 == 1)
    assert np.array_equal(more.train.images[512:], tiny.test.images[10:])
    assert more.val is data.val
