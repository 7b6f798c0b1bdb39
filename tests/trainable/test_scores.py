import numpy as np
import pytest

from trainable import scores


def test_by_hand():
    probs = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    labels = np.array([0, 1, 1])
    assert scores.errors(probs, labels) == 1
    assert scores.cross_entropy(probs, labels) == pytest.approx(-np.log([0.5, 0.1, 0.8]).mean())
    assert scores.softmax(np.array([[0.0, np.log(3)]])) == pytest.approx(np.array([[0.25, 0.75]]))
    assert scores.softmax(np.array([[1000.0, 0.0]])) == pytest.approx(np.array([[1.0, 0.0]]))


@pytest.mark.parametrize("truth", [0.2, 0.7, 1.0, 3.0])
def test_temperature_is_the_one_that_made_the_labels(truth):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20000, 5))
    probs = scores.softmax(logits, truth)
    labels = (probs.cumsum(axis=1) > rng.random((20000, 1))).argmax(axis=1)
    found = scores.best_temperature(logits, labels)
    assert found == pytest.approx(truth, rel=0.05)
    lowest = min(np.geomspace(0.1, 10, 400), key=lambda t: scores.cross_entropy(scores.softmax(logits, t), labels))
    assert found == pytest.approx(lowest, rel=0.02)


def test_temperature_at_the_extremes():
    right = np.eye(3)[[0, 1, 2]]
    assert scores.best_temperature(right, np.array([0, 1, 2])) == pytest.approx(0.05)
    assert scores.best_temperature(right, np.array([1, 2, 0])) == pytest.approx(20)
    assert np.isfinite(scores.best_temperature(np.zeros((3, 3)), np.array([0, 1, 2])))


def test_ranking_by_calibrated_loss_does_not_punish_label_smoothing():
    logits = np.random.default_rng(0).normal(0, 2, (500, 4))
    labels = logits.argmax(axis=1)
    labels[:25] = (labels[:25] + 1) % 4

    def loss(factor):
        z = logits * factor
        return scores.cross_entropy(scores.softmax(z, scores.best_temperature(z, labels)), labels)

    assert loss(0.3) == pytest.approx(loss(1.0), rel=1e-3)


def test_wilson_interval():
    low, high = scores.interval(10, 1000)
    assert (low, high) == (pytest.approx(0.00544, abs=1e-4), pytest.approx(0.0183, abs=1e-4))
    assert scores.interval(0, 100)[0] == 0
    assert 0 < scores.interval(0, 100)[1] < 0.05
