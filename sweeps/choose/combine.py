"""ENSEMBLES: pure functions on probabilities.

A method takes probs [members, n, classes], best member first, and returns [n, classes], rows summing to 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trainable import scores


def mean(probs: np.ndarray) -> np.ndarray:
    """The mean of the probabilities (a soft vote)."""
    return probs.mean(axis=0)


def vote(probs: np.ndarray) -> np.ndarray:
    """The share of members whose most probable class it is (a majority vote); the mean decides a tie."""
    ballots = np.eye(probs.shape[2])[probs.argmax(axis=2)].mean(axis=0)
    # Less than any difference of one ballot, as long as there are fewer than a thousand members.
    return 0.999 * ballots + 0.001 * mean(probs)


def best(probs: np.ndarray) -> np.ndarray:
    """The best member alone."""
    return probs[0]


ENSEMBLES = {"mean": mean, "vote": vote, "best": best}


@dataclass(frozen=True)
class Choice:
    """A method over the `size` best members, and what it makes on val."""

    method: str
    size: int
    errors: int
    loss: float  # cross-entropy


def choose(probs: np.ndarray, labels: np.ndarray, methods: Iterable[str]) -> tuple[Choice, list[Choice]]:
    """The best ensemble on val, and the best of each method.

    Of all that make no more errors than the best single network, the one with the lowest cross-entropy: at this
    accuracy a count of errors is mostly luck, so it is a bound and not the measure.

    Args:
        probs: [members, n, classes], best member first.
        labels: [n].
        methods: names from ENSEMBLES.
    """
    bound = min(scores.errors(member, labels) for member in probs)

    def merit(choice: Choice) -> tuple:
        return max(choice.errors, bound), choice.loss

    bests = []
    for method in methods:
        # One network is no ensemble: `best` stands for it.
        sizes = [1] if method == "best" or len(probs) == 1 else range(2, len(probs) + 1)
        bests.append(min((_score(method, size, probs, labels) for size in sizes), key=merit))
    return min(bests, key=merit), bests


def _score(method: str, size: int, probs: np.ndarray, labels: np.ndarray) -> Choice:
    combined = ENSEMBLES[method](probs[:size])
    return Choice(method, size, scores.errors(combined, labels), scores.cross_entropy(combined, labels))
