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
    """A method over some members, and what it makes on val."""

    method: str
    members: tuple[int, ...]  # places in the order of the members given
    errors: int
    loss: float  # cross-entropy at the best temperature
    temperature: float  # of the combined probabilities: the mean of calibrated networks is under-confident


def choose(probs: np.ndarray, labels: np.ndarray, methods: Iterable[str]) -> tuple[Choice, list[Choice]]:
    """The ensemble to take, and the best of each method.

    What makes more errors than the best single network is out, where `methods` allow for less. Of the rest, the one
    with the lowest cross-entropy; but where that is a single network, the best of several that is within one standard
    error of it (of the paired difference, image by image): the lowest of many networks is flattered by being chosen.
    The rule is Breiman's (CART, 1984), turned to ensembles.

    Args:
        probs: [members, n, classes], best member first.
        labels: [n].
        methods: names from ENSEMBLES.
    """
    errors = [scores.errors(member, labels) for member in probs]
    singles = {0, errors.index(min(errors))}
    choices, losses = [], []
    for method in methods:
        # One network is no ensemble: `best` stands for it.
        sizes = range(2, len(probs) + 1) if len(probs) > 1 else [1]
        for members in [(i,) for i in singles] if method == "best" else [tuple(range(size)) for size in sizes]:
            combined = ENSEMBLES[method](probs[list(members)])
            temperature = scores.best_temperature(np.log(combined.clip(1e-12)), labels)
            by_image = scores.losses(sharpen(combined, temperature), labels)
            choices.append(Choice(method, members, scores.errors(combined, labels), float(by_image.mean()), temperature))
            losses.append(by_image)

    def merit(i: int) -> tuple:
        return max(choices[i].errors, min(errors)), choices[i].loss

    order = sorted(range(len(choices)), key=merit)
    taken = order[0]
    if len(choices[taken].members) == 1:
        several = [i for i in order if len(choices[i].members) > 1 and merit(i)[0] == merit(taken)[0]]
        taken = next((i for i in several if _within_one_error(losses[i], losses[taken])), taken)
    # The one taken comes first, so that it stands for its method.
    bests = [next(choices[i] for i in [taken, *order] if choices[i].method == method) for method in methods]
    return choices[taken], bests


def sharpen(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities at another temperature: the most probable class stays, its probability changes."""
    return scores.softmax(np.log(probs.clip(1e-12)), temperature)


def _within_one_error(losses: np.ndarray, lowest: np.ndarray) -> bool:
    difference = losses - lowest
    return difference.mean() <= difference.std() / len(difference) ** 0.5
