import numpy as np
import pytest

from sweeps.choose.combine import ENSEMBLES, choose, sharpen, vote
from trainable import scores


def members(n: int, right: float, seed: int = 0, images: int = 500, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Independent members that are right with about this chance, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(0, 1, (n, images, classes)) + 2 * right * np.eye(classes)[labels]
    return np.stack([scores.softmax(m) for m in logits]), labels


@pytest.mark.parametrize("method", ENSEMBLES)
def test_each_method(method):
    probs, labels = members(7, 1.0)
    before = probs.copy()
    out = ENSEMBLES[method](probs)
    assert out.shape == probs.shape[1:]
    assert out.sum(axis=1) == pytest.approx(np.ones(len(labels)))
    assert out.min() >= 0
    assert np.array_equal(probs, before)
    assert np.array_equal(ENSEMBLES[method](probs[:1]).argmax(1), probs[0].argmax(1)), "one member decides alone"
    same = ENSEMBLES[method](np.repeat(probs[:1], 3, axis=0))
    assert np.array_equal(same.argmax(1), probs[0].argmax(1))


def test_by_hand():
    #                  two for 0, barely    one for 1, surely
    probs = np.array([[[0.6, 0.4, 0.0]], [[0.6, 0.4, 0.0]], [[0.0, 1.0, 0.0]]])
    assert ENSEMBLES["vote"](probs).argmax() == 0
    assert ENSEMBLES["mean"](probs).argmax() == 1
    assert ENSEMBLES["best"](probs) == pytest.approx(np.array([[0.6, 0.4, 0.0]]))


def test_the_mean_decides_a_tied_vote():
    probs = np.array([[[0.9, 0.1]], [[0.45, 0.55]]])
    assert vote(probs).argmax() == 0
    assert vote(probs[::-1]).argmax() == 0


@pytest.mark.parametrize("seed", range(20))
def test_never_more_errors_than_the_best_single(seed):
    probs, labels = members(6, 0.5 + seed / 10, seed, images=60)
    choice, bests = choose(probs, labels, ENSEMBLES)
    assert choice.errors <= min(scores.errors(p, labels) for p in probs)
    assert {b.method for b in bests} == set(ENSEMBLES)
    assert choice in bests, "what is taken stands in the table"
    combined = sharpen(ENSEMBLES[choice.method](probs[list(choice.members)]), choice.temperature)
    assert (choice.errors, choice.loss) == (scores.errors(combined, labels), scores.cross_entropy(combined, labels))


def test_good_members_are_combined_and_a_bad_one_left_out():
    probs, labels = members(5, 1.5)
    choice, _ = choose(probs, labels, ENSEMBLES)
    assert len(choice.members) >= 4
    probs[4] = np.roll(probs[4], 1, axis=1)
    choice, _ = choose(probs, labels, ENSEMBLES)
    assert 2 <= len(choice.members) <= 4


def test_a_single_that_is_better_by_luck_does_not_win():
    """Of equal networks, the one that is ahead on val is often ahead of their mean, by less than it can tell."""
    ahead = 0
    for seed in range(60):
        (base,), labels = members(1, 1.5, seed, images=200)
        noise = np.random.default_rng(seed).normal(0, 0.3, (2, *base.shape))
        probs = np.stack([scores.softmax(np.log(base) + n) for n in noise])
        probs = probs[np.argsort([scores.cross_entropy(p, labels) for p in probs])]
        choice, bests = choose(probs, labels, ENSEMBLES)
        losses = {b.method: b.loss for b in bests}
        ahead += choice.method == "mean" and losses["best"] < losses["mean"]
    assert ahead > 0


def test_a_useless_member_is_not_let_in():
    """However few the images, and so however large the standard error."""
    probs, labels = members(3, 1.0, images=60)
    useless, _ = members(1, -1.0, seed=9, images=60)
    choice, _ = choose(np.concatenate([probs, useless]), labels, ["mean"])
    assert 3 not in choice.members


def test_a_single_that_is_better_by_far_wins():
    good, labels = members(1, 2.0)
    bad, _ = members(2, 0.1, seed=1)
    choice, _ = choose(np.concatenate([good, bad]), labels, ENSEMBLES)
    assert (choice.method, choice.members) == ("best", (0,))


def test_a_single_with_fewer_errors_but_more_loss_sets_the_bound():
    """Two networks: the first is surer and wrong twice, the second unsure and wrong once."""
    labels = np.zeros(40, dtype=int)
    first, second = np.tile([0.99, 0.01], (40, 1)), np.tile([0.6, 0.4], (40, 1))
    first[:2], second[5] = [0.45, 0.55], [0.01, 0.99]
    choice, _ = choose(np.stack([first, second]), labels, ["best"])
    assert (choice.members, choice.errors) == ((1,), 1)


def test_an_ensemble_of_one():
    probs, labels = members(1, 1.0)
    choice, bests = choose(probs, labels, ENSEMBLES)
    assert choice.members == (0,)
    assert len(bests) == 3
