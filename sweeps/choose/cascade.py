"""A cascade: one small network answers, and the ensemble only where that one is unsure. Pure functions of arrays."""

from dataclasses import dataclass

import numpy as np

from sweeps.choose.combine import cuts_of
from trainable import scores

GAIN = 0.95  # the last few images, of which a small network is sure and wrong, would cost most of the time


@dataclass(frozen=True)
class Cascade:
    """Judged on images that the threshold was not found on."""

    threshold: float  # of the small one's largest probability: below it the ensemble is asked
    share: float  # of the images that are passed on
    errors: int


def passed_on(small: np.ndarray, threshold: float) -> np.ndarray:
    """Return which images the small network is unsure of, or says nothing about.

    Args:
        small: probabilities [n, classes].
        threshold: of the largest probability, below which an image is passed on.

    Returns:
        bool [n].
    """
    return ~(small.max(axis=1) >= threshold)


def cascade(small: np.ndarray, large: np.ndarray, labels: np.ndarray, seed: int = 0) -> Cascade:
    """The cascade that passes on the fewest images and keeps GAIN of what the large one promises.

    small, large: probs [n, classes] of images that neither was trained on. The threshold is found on four fifths and judged
    on the last fifth, five times; the one that is returned is found on all.
    """
    errors = passed = 0
    for part, rest in cuts_of(len(labels), seed):
        on = passed_on(small[part], find_threshold(small[rest], large[rest], labels[rest]))
        said = np.where(on, large[part].argmax(axis=1), small[part].argmax(axis=1))
        errors, passed = errors + int((said != labels[part]).sum()), passed + int(on.sum())
    return Cascade(find_threshold(small, large, labels), passed / len(labels), errors)


def find_threshold(small: np.ndarray, large: np.ndarray, labels: np.ndarray) -> float:
    """The lowest at which GAIN is kept of what the large one promises: by its own probabilities, how much more often its
    answers are right than the small one's. Only the images on which they differ count, and there are few of them, so
    their labels would say less: some of the large one's answers are wrong by chance, or the label is.

    Where it makes more errors than the small one, nothing is passed on.
    """
    small, large = np.nan_to_num(small), np.nan_to_num(large)  # who says no number is not sure at all
    sure = small.max(axis=1)
    order = np.argsort(sure, kind="stable")
    promised = (large.max(axis=1) - large[np.arange(len(large)), small.argmax(axis=1)])[order]
    if scores.errors(large, labels) > scores.errors(small, labels):
        return float(sure[order[0]])
    kept = np.concatenate([[0.0], np.cumsum(promised)])  # with the k least sure images passed on
    k = int(np.argmax(kept >= GAIN * kept[-1]))
    return float(sure[order[k]]) if k < len(sure) else float("inf")
