"""Who is trained again, on how many folds, for how long."""

from dataclasses import replace

import numpy as np
import pytest
from handed_over import probs_of

from sweeps.arch_sweep import check_folds
from sweeps.choose import finalists
from sweeps.choose.finalists import make_plan, makespan, pick, promises, worth
from sweeps.choose.members import Member, find
from trainable.datasets.container import all_labels
from trainable.errors import BadInput


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


@pytest.mark.parametrize(
    ("images", "folds", "expected"), [(2, None, 0), (3, None, 3), (4, None, 4), (712, 713, 0), (712, 712, 712)]
)
def test_no_more_folds_than_images(searched, tmp_path, tiny, monkeypatch, images, folds, expected):
    """Else every network of a finalist would fail, one like the other."""
    few = all_labels(tiny).train.take(np.arange(images))
    monkeypatch.setattr(finalists, "in_folds", lambda data: few)
    plan = make_plan(tmp_path, tiny, 1, folds, [4.0], 2, None, last=True)
    assert (plan.folds if plan.finalists else 0) == expected
    if not expected:
        assert plan.why == f"there are {images} labelled images, fewer than folds"
    assert plan.last == (bool(expected) and images >= finalists.LAST)


def test_folds_that_were_asked_for_are_checked_before_the_search(tiny):
    check_folds(712, tiny)
    check_folds(None, tiny)
    with pytest.raises(BadInput, match="--folds 713: there are 712 labelled images to cut into folds; give at most 712"):
        check_folds(713, tiny)


def test_who_takes_too_long_makes_way(searched, tmp_path, tiny, monkeypatch):
    def slow(members, *rest):
        return [replace(m, metrics={**m.metrics, "train_s": 800.0 if m.trial == 2 else 8.0}) for m in pick(members, *rest)]

    monkeypatch.setattr(finalists, "pick", slow)
    assert [f.trial for f in make_plan(tmp_path, tiny, 3, 5, [4.0], 2, None).finalists] == [0, 2, 1]
    assert [f.trial for f in make_plan(tmp_path, tiny, 3, 5, [4.0], 2, 100.0).finalists] == [0, 1]


def test_half_of_a_difference_on_val_is_luck():
    def rung(number: int, at: int, loss: float, budget: float | None = None) -> dict:
        return {"number": number, "rung": at, "partial": bool(budget), "metrics": {"val_loss": loss, "budget": budget or 4.0**at}}

    members = [Member(number, "convnet", {}, (), np.empty(0)) for number in range(5)]
    to_the_end = [
        rung(n, at, loss) for n, *losses in ((0, 0.8, 0.1), (1, 1.0, 0.4), (2, 1.2, 0.4)) for at, loss in enumerate(losses)
    ]
    stopped = [rung(3, 0, 4.0), rung(4, 0, 0.1), rung(4, 1, 4 * 0.4**0.5, 2.0)]
    assert worth(members, to_the_end + stopped) == pytest.approx([0.5, 1.0, 1.0, 2.0, 2.0]), "4: in the middle of two rungs"
    assert worth(members, [rung(0, 0, 0.3, 0.5)]) == [1.0] * 5, "nobody came to a rung"


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
