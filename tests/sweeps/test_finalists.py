"""Who is trained again, on which folds, and what comes of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from sweeps.choose import finalists
from sweeps.choose.finalists import make_plan, makespan, pick, promises, taught, teachers, worth
from sweeps.choose.members import PREDICTIONS, Member, Network, find, out_of_fold
from sweeps.resume import before
from sweeps.search import refits as refitting
from sweeps.search.record import Record, read
from trainable import files, saved, scores
from trainable.config import TrialConfig
from trainable.datasets.container import all_labels, folds_of, nothing, with_unlabelled
from trainable.ray_trial import PROBS

CONFIG = TrialConfig(epochs=4.0, engine="fp32-nhwc").flat()


def probs_of(labels: np.ndarray, wrong: np.ndarray, classes: int = 10) -> np.ndarray:
    """Nearly sure of the right class, and where `wrong` of the next one."""
    said = np.where(wrong, (labels + 1) % classes, labels)
    return (0.9 * np.eye(classes)[said] + 0.01).astype(np.float32)


def hand_over(record: Record, number: int, rung: int, budget: float, probs: dict, labels, end=None, train_s=8.0):
    """As a trial does: its files, then its rung."""
    where = record.path.parent / "trials" / str(number)
    contents = {saved.CONFIG: b"{}", saved.WEIGHTS: f"weights {number} {rung}".encode(), PROBS: safetensors.numpy.save(probs)}
    digests = {name: files.write(where / name, content) for name, content in contents.items()}
    loss = scores.cross_entropy(probs["val"], labels)
    metrics = {"budget": budget, "val_loss": loss, "val_error": 0.1, "temperature": 1.0, "train_s": train_s, "eval_s": 0.0}
    record.rung(number, rung, metrics, digests, end=end)


@pytest.fixture
def searched(tmp_path, tiny):
    """A record of a search: four trials to the end, with 10, 20, 30 and 40 errors of 200, and one that was stopped."""
    record = Record(tmp_path / "record.db", about={"arguments": {}, "data": {"fingerprint": "x"}})
    labels = tiny.val.labels
    for number in range(5):
        record.trial_started(number, {**CONFIG, "seed": number}, {}, {})
        wrong = np.zeros(len(labels), dtype=bool)
        # Those of 0 and 1 lie within each other, those of 2 elsewhere.
        start = {0: 0, 1: 0, 2: 100, 3: 0, 4: 0}[number]
        wrong[start : start + 10 * (number + 1)] = True
        stopped = number == 4
        end = ("stopped", "") if stopped else ("complete", "")
        hand_over(record, number, 0 if stopped else 1, 1.0 if stopped else 4.0, {"val": probs_of(labels, wrong)}, labels, end)
    return record


def test_makespan():
    assert makespan([], 2) == 0
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([1, 1, 1], 2) == 2
    assert makespan([5], 4) == 5


def test_good_and_different(searched, tmp_path, tiny):
    members = find(tmp_path)
    assert [m.trial for m in members] == [0, 1, 2, 3, 4]
    assert [m.trial for m in pick(members, tiny.val.labels, 2)] == [0, 2], "1 is better than 2 and errs where 0 does"
    assert [m.trial for m in pick(members, tiny.val.labels, 5)][-1] == 4, "what was trained less comes last"
    early = [replace(m, metrics={**m.metrics, "budget": 0.7}) if m.trial == 4 else m for m in members]
    assert [m.trial for m in pick(early, tiny.val.labels, 5)] == [0, 2, 1, 3], "a sixth of the training says nothing"
    assert [m.trial for m in pick(early[-1:], tiny.val.labels, 5)] == [4], "where there is no other"
    assert pick([], tiny.val.labels, 3) == []


def test_a_plan_fills_the_time(searched, tmp_path, tiny, monkeypatch):
    def plan(count=None, folds=5, epochs=4.0, slots=2, seconds=None, longer=(), seeds=1):
        return make_plan(tmp_path, tiny, count, folds, [epochs, *longer], slots, seconds, seeds)

    one = 8.0 * (512 + 200) * 0.8 / 512  # seconds of a network on four fifths of all that are labelled
    assert [f.trial for f in plan().finalists] == [0, 2, 1]
    assert plan().times == pytest.approx([one] * 15)
    assert plan().seconds == pytest.approx(8 * one), "15 networks, two at a time"
    assert len(plan(count=2).finalists) == 2
    assert len(plan(seconds=1e6).finalists) == 5, "all there are"
    need = makespan([one] * 10, 2) / finalists.SLACK
    assert len(plan(seconds=need + 1).finalists) == 2
    assert len(plan(seconds=need - 1).finalists) == 1
    assert len(plan(seconds=2 * need + 1, epochs=8.0).finalists) == 2
    assert len(plan(seconds=need + 1, slots=4).finalists) == 4
    none = plan(seconds=10.0)
    assert none.finalists == ()
    assert "one alone would need 0.4 minutes for 5 folds of 4 epochs, and 0.2 are left" in none.words()
    assert "none were asked for" in plan(count=0).words()
    assert "for 3 folds of 4 epochs" in plan(seconds=1.0, folds=None).words()
    assert plan(folds=None).folds == 5

    def chosen(rounds: float, folds: int, **more) -> tuple[int, int]:
        """Finalists and folds, where there is time for so many rounds of networks on so many folds."""
        plan_ = plan(seconds=8.0 * (512 + 200) * (folds - 1) / folds / 512 * rounds / finalists.SLACK + 0.1, folds=None, **more)
        return len(plan_.finalists), plan_.folds

    assert chosen(2, 4) == (1, 4)
    assert chosen(3, 5) == (2, 3), "two that err differently on a few folds come before one on many"
    assert chosen(4, 4) == (2, 4)
    assert chosen(9, 6) == (3, 6)
    assert chosen(10, 6) == (3, 6), "a fourth makes nothing better"
    assert chosen(1, 4, slots=4) == (1, 4)
    assert chosen(8, 6, slots=4) == (4, 6), "but where there is time"

    three = makespan([one] * 15, 2) / finalists.SLACK
    longer = {"longer": (6.0, 8.0)}
    some = plan(seconds=1.9 * three, **longer)
    assert (len(some.finalists), some.epochs) == (2, 8.0), "where a third adds little, two are trained longer"
    assert plan(seconds=0.65 * three, **longer).epochs == 4.0, "two that err differently come before one that is trained longer"
    assert plan(seconds=1.4 * three, count=2, **longer).epochs == 8.0
    with monkeypatch.context() as m:
        m.setattr(finalists, "BY_EPOCHS", 1.0)
        assert plan(seconds=1.9 * three, **longer).epochs == 4.0, "where longer trainings bring nothing, others have the time"
    seeds = [[f.trial for f in plan(seconds=s, seeds=None).finalists] for s in (three, 3 * three, 4 * three, 1e6)]
    assert seeds[0] == [0, 2, 1]
    assert [again[5:] for again in seeds[1:3]] == [[0], [0, 2, 1, 3]], (
        "what time there is after all goes to more seeds, best first"
    )
    assert len(seeds[3]) == 5 * finalists.MOST
    assert not any(f.seed for f in plan(seeds=None).finalists)
    assert plan(**longer).epochs == 4.0, "without a limit they are not trained longer"
    jobs = plan(count=1).jobs
    assert [config["fold"] for _, config in jobs] == [0, 1, 2, 3, 4]
    assert {(of, config["folds"], config["seed"]) for of, config in jobs} == {(0, 5, 0)}


def test_who_takes_too_long_makes_way(searched, tmp_path, tiny, monkeypatch):
    def slow(members, *rest):
        return [replace(m, metrics={**m.metrics, "train_s": 800.0 if m.trial == 2 else 8.0}) for m in pick(members, *rest)]

    monkeypatch.setattr(finalists, "pick", slow)
    assert [f.trial for f in make_plan(tmp_path, tiny, 3, 5, [4.0], 2, None).finalists] == [0, 2, 1]
    assert [f.trial for f in make_plan(tmp_path, tiny, 3, 5, [4.0], 2, 100.0).finalists] == [0, 1]


def test_half_of_a_difference_on_val_is_luck():
    def rung(number: int, at: int, loss: float, partial: int = 0) -> dict:
        return {"number": number, "rung": at, "partial": partial, "metrics": {"val_loss": loss}}

    members = [Member(number, "convnet", {}, (), np.empty(0)) for number in range(5)]
    to_the_end = [
        rung(n, at, loss) for n, *losses in ((0, 0.8, 0.1), (1, 1.0, 0.4), (2, 1.2, 0.4)) for at, loss in enumerate(losses)
    ]
    stopped = [rung(3, 0, 4.0), rung(4, 0, 1.0), rung(4, 1, 0.001, partial=1)]
    assert worth(members, to_the_end + stopped) == pytest.approx([0.5, 1.0, 1.0, 2.0, 1.0])
    assert worth(members, [rung(0, 0, 0.3, partial=1)]) == [1.0] * 5, "nobody came to a rung"


def test_what_has_learned_little_differs_much(tiny):
    labels, wrong = tiny.val.labels, np.zeros((4, len(tiny.val)), dtype=bool)
    wrong[:2, :10] = True
    wrong[2, 10:60], wrong[3, 100:150] = True, True
    members = [
        Member(number, "convnet", {"budget": 1.0 if number > 1 else 4.0}, (), probs_of(labels, one))
        for number, one in enumerate(wrong)
    ]
    promised = promises(members, labels, [1.0] * 4)
    assert promised[0, 1] == pytest.approx(1.0), "they err at the same images"
    assert promised[2, 3] == promised[0, 2] == pytest.approx(0.85), "stopped early: what two usually bring each other"
    assert promised[0, 1, 2, 3] == pytest.approx(0.775)


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
    assert [m.trial for m in out_of_fold(tmp_path, tiny)] == [2]
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
