from itertools import pairwise

import numpy as np
import pytest

from sweeps.choose.cascade import cascade, find_threshold, passed_on
from sweeps.choose.combine import ENSEMBLES, PARTS, by_size, choose, combined, judge, parts_of, weigh
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
    weight = ENSEMBLES[method](probs, labels)
    assert weight.shape == (7,)
    assert weight.sum() == pytest.approx(1)
    assert weight.min() >= 0
    out = combined(method, probs, weight)
    assert out.shape == probs.shape[1:]
    assert out.sum(axis=1) == pytest.approx(np.ones(len(labels)))
    assert out.min() >= 0
    assert np.array_equal(probs, before)
    alone = ENSEMBLES[method](probs[:1], labels)
    assert alone.tolist() == [1.0]
    assert np.array_equal(combined(method, probs[:1], alone).argmax(1), probs[0].argmax(1)), "one member decides alone"


def test_by_hand():
    #                  two for 0, barely    one for 1, surely
    probs = np.array([[[0.6, 0.4, 0.0]], [[0.6, 0.4, 0.0]], [[0.0, 1.0, 0.0]]])
    third = np.full(3, 1 / 3)
    assert combined("vote", probs, third).argmax() == 0
    assert combined("mean", probs, third).argmax() == 1
    assert combined("mean", probs, np.array([1.0, 0, 0])) == pytest.approx(np.array([[0.6, 0.4, 0.0]]))
    assert combined("vote", probs, np.array([0.25, 0.25, 0.5]))[0] == pytest.approx([0.5, 0.5, 0.0], abs=1e-3)


def test_the_mean_decides_a_tied_vote():
    probs = np.array([[[0.9, 0.1]], [[0.45, 0.55]]])
    half = np.full(2, 0.5)
    assert combined("vote", probs, half).argmax() == 0
    assert combined("vote", probs[::-1], half).argmax() == 0


def two_of_three() -> tuple[np.ndarray, np.ndarray]:
    """The first two are each right where the other is unsure; the third is of no use."""
    labels = np.zeros(40, dtype=int)
    first = np.where(np.arange(40) % 2, 0.9, 0.3)
    right = np.stack([first, 1.2 - first, np.full(40, 0.1)])
    return np.stack([right, 1 - right], axis=2), labels


def test_convex_weights_have_the_lowest_loss_there_is():
    probs, labels = two_of_three()
    found = ENSEMBLES["weights"](probs, labels)
    assert found == pytest.approx([0.5, 0.5, 0.0], abs=1e-2)
    probs, labels = members(3, 1.0)
    loss = lambda w: scores.cross_entropy(combined("weights", probs, np.array(w)), labels)  # noqa: E731
    grid = [(a / 20, b / 20, 1 - a / 20 - b / 20) for a in range(21) for b in range(21 - a)]
    assert loss(ENSEMBLES["weights"](probs, labels)) <= min(map(loss, grid)) + 1e-4


def test_greedy_selection():
    probs, labels = two_of_three()
    weight = ENSEMBLES["greedy"](probs[:2], labels)
    assert weight == pytest.approx([0.5, 0.5], abs=0.05), "without a bag, the two that complete each other"
    many, labels = members(9, 1.0)
    many[4] = np.roll(many[4], 1, axis=1)
    weight = ENSEMBLES["greedy"](many, labels)
    assert weight[4] == 0, "never the one that is wrong"
    assert (weight > 0).sum() >= 6
    assert np.array_equal(weight, ENSEMBLES["greedy"](many, labels)), "the same at every call"


@pytest.mark.parametrize("method", ENSEMBLES)
def test_an_image_is_judged_by_weights_that_have_not_seen_it(method):
    probs, labels = members(6, 0.8, images=200)
    found = judge(method, probs, labels)
    parts = parts_of(200)
    assert sorted(np.concatenate(parts)) == list(range(200))
    assert len(parts) == PARTS
    rest = np.setdiff1d(np.arange(200), parts[2])
    own = weigh(method, probs[:, rest], labels[rest])
    said = combined(method, probs[:, parts[2]], own.weights, own.temperature)
    assert np.array_equal(found.wrong[parts[2]], said.argmax(1) != labels[parts[2]])
    assert found.losses[parts[2]] == pytest.approx(scores.losses(said, labels[parts[2]]))
    assert (found.errors, found.loss) == (found.wrong.sum(), pytest.approx(found.losses.mean()))
    changed = labels.copy()
    changed[parts[2]] = (changed[parts[2]] + 1) % 5
    assert np.array_equal(weigh(method, probs[:, rest], changed[rest]).weights, own.weights)


def test_choosing_does_not_flatter():
    """Of many networks that guess, the best of them shows too few errors where it was chosen, and not where it is judged."""
    rng = np.random.default_rng(0)
    shown, judged, truth = [], [], []
    for _ in range(30):
        labels = rng.integers(0, 2, 400)
        probs = scores.softmax(rng.normal(0, 1, (40 * 400, 2))).reshape(40, 400, 2)
        shown.append(min(scores.errors(p[:200], labels[:200]) for p in probs) / 200)
        found = judge("best", probs[:, :200], labels[:200])
        judged.append(found.errors / 200)
        truth.append(scores.errors(probs[int(found.weights.argmax()), 200:], labels[200:]) / 200)
    assert np.mean(shown) < np.mean(truth) - 0.04
    assert abs(np.mean(judged) - np.mean(truth)) < 0.02


@pytest.mark.parametrize("seed", range(10))
def test_what_is_taken_stands_in_the_table(seed):
    probs, labels = members(6, 0.5 + seed / 10, seed, images=60)
    choice, judged = choose(probs, labels, ENSEMBLES)
    assert [j.method for j in judged] == list(ENSEMBLES)
    assert any(choice is j for j in judged)
    fewest = min(min(scores.errors(p, labels) for p in probs), min(j.errors for j in judged))
    assert choice.errors - fewest <= max(0, choice.errors + fewest) ** 0.5, "one standard error at most"


def test_a_few_errors_more_do_not_outweigh_the_loss():
    """On 200 images: the first errs 4 times and is sure of it; together with the second it errs 6 times, at 4 other images."""
    labels = np.zeros(200, dtype=int)
    right = np.full((2, 200), 0.99)
    right[0, :4], right[1, :4] = 1e-4, [0.3, 0.3, 0.9999, 0.9999]
    right[0, 2:4] = 0.1
    right[0, 4:8], right[1, 4:8] = 0.55, 0.3
    right[1, 8:14] = 0.4
    probs = np.stack([right, 1 - right], axis=2)
    assert [scores.errors(p, labels) for p in probs] == [4, 12]
    choice, judged = choose(probs, labels, ["mean", "best"])
    assert {j.method: j.errors for j in judged} == {"mean": 6, "best": 4}
    assert choice.method == "mean"


def test_good_members_are_combined_and_a_bad_one_left_out():
    probs, labels = members(5, 1.5)
    choice, _ = choose(probs, labels, ENSEMBLES)
    assert choice.members >= 4
    probs[4] = np.roll(probs[4], 1, axis=1)
    choice, _ = choose(probs, labels, ENSEMBLES)
    assert 2 <= choice.members <= 4
    assert choice.weights[4] < 0.02


def test_a_useless_member_is_not_let_in():
    """However few the images, and so however large the standard error."""
    probs, labels = members(3, 1.0, images=60)
    useless, _ = members(1, -1.0, seed=9, images=60)
    choice, _ = choose(np.concatenate([probs, useless]), labels, ["mean"])
    assert choice.weights[3] == 0


def test_a_single_that_is_better_by_far_wins():
    good, labels = members(1, 2.0)
    bad, _ = members(2, 0.1, seed=1)
    probs = np.concatenate([good, bad])
    choice, _ = choose(probs, labels, ["mean", "vote", "best"])
    assert (choice.method, choice.weights.tolist()) == ("best", [1, 0, 0])
    choice, _ = choose(probs, labels, ENSEMBLES)
    assert choice.weights[0] > 0.9


def test_an_ensemble_of_one():
    probs, labels = members(1, 1.0)
    choice, judged = choose(probs, labels, ENSEMBLES)
    assert choice.weights.tolist() == [1.0]
    assert len(judged) == len(ENSEMBLES)


def test_the_best_of_each_size():
    probs, labels = members(6, 1.0, images=400)
    sizes = by_size(probs, labels, [1.0] * 6)
    assert [len(chosen) for chosen, _ in sizes] == [1, 2, 3, 4, 5, 6]
    for (few, _), (more, _) in pairwise(sizes):
        assert more[:-1] == few, "one more each time"
    assert sizes[-1][1].loss < sizes[0][1].loss
    assert len(by_size(probs, labels, [1.0] * 6, largest=2)) == 2
    chosen, judged = sizes[2]
    assert judged.weights[list(chosen)] == pytest.approx(np.full(3, 1 / 3))


def test_what_costs_too_much_is_left_out():
    probs, labels = members(5, 1.0, images=400)
    costs = [5.0, 1.0, 1.0, 1.0, 5.0]
    for most, allowed in ((0.5, 0), (1.0, 1), (2.5, 2), (6.5, 3), (100.0, 5)):
        sizes = by_size(probs, labels, costs, most)
        assert len(sizes) <= 5
        assert bool(sizes) == bool(allowed)
        for chosen, _ in sizes:
            assert sum(costs[i] for i in chosen) <= most


def test_the_threshold_by_hand():
    """Of five images the first network is wrong at two, the least sure and the third least sure; the large one at one."""
    labels = np.zeros(5, dtype=int)
    small = np.array([[0.45, 0.55], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2], [0.9, 0.1]])
    large = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.9, 0.1], [0.9, 0.1]])
    threshold = find_threshold(small, large, labels)
    assert passed_on(small, threshold).tolist() == [True, False, False, False, False], "one is as good as all"
    assert find_threshold(large, small, labels) == large.max(axis=1).min(), "nothing is passed on to a worse one"
    large[2] = [0.9, 0.1]
    found = find_threshold(small, large, labels)
    assert passed_on(small, found).tolist() == [True, True, True, False, False]
    labels[2] = 1
    assert find_threshold(small, large, labels) == found, "one label that is against the large one moves nothing"


def test_a_cascade_is_as_good_as_the_ensemble():
    probs, labels = members(8, 0.8, images=4000)
    large = probs.mean(axis=0)
    found = cascade(probs[0], large, labels)
    alone, together = scores.errors(probs[0], labels), scores.errors(large, labels)
    assert together < alone / 10
    assert alone - found.errors > 0.93 * (alone - together)
    assert 0 < found.share < 0.9
