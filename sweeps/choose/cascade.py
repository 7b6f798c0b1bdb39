"""A cascade: one small network answers, and the ensemble only where that one is unsure. Pure functions of arrays."""

from dataclasses import dataclass

import numpy as np

from sweeps.choose.combine import parts_of

GAIN = 0.95  # the last few errors are images of which a network is sure, and wrong; they would cost most of the time


@dataclass(frozen=True)
class Cascade:
    """Judged on images that the threshold was not found on."""

    threshold: float  # of the small one's largest probability: below it the ensemble is asked
    share: float  # of the images that are passed on
    errors: int


def passed_on(small: np.ndarray, threshold: float) -> np.ndarray:
    """Which images the small one is unsure of, bool [n]; small: probs [n, classes]."""
    return small.max(axis=1) < threshold


def cascade(small: np.ndarray, large: np.ndarray, labels: np.ndarray, seed: int = 0) -> Cascade:
    """The cascade that passes on the fewest images and makes GAIN of the errors good that the large one does.

    small, large: probs [n, classes] of images that neither was trained on. The threshold is found on four fifths and judged
    on the last fifth, five times; the one that is returned is found on all.
    """
    errors = passed = 0
    for part in parts_of(len(labels), seed):
        rest = np.setdiff1d(np.arange(len(labels)), part)
        on = passed_on(small[part], find_threshold(small[rest], large[rest], labels[rest]))
        said = np.where(on, large[part].argmax(axis=1), small[part].argmax(axis=1))
        errors, passed = errors + int((said != labels[part]).sum()), passed + int(on.sum())
    return Cascade(find_threshold(small, large, labels), passed / len(labels), errors)


def find_threshold(small: np.ndarray, large: np.ndarray, labels: np.ndarray) -> float:
    """The lowest at which GAIN of what the large one makes good is."""
    sure = small.max(axis=1)
    order = np.argsort(sure, kind="stable")
    wrong_small, wrong_large = ((p.argmax(axis=1) != labels)[order] for p in (small, large))
    # With the k least sure images passed on.
    errors = np.concatenate([[0], np.cumsum(wrong_large)]) + wrong_small.sum() - np.concatenate([[0], np.cumsum(wrong_small)])
    saved = wrong_small.sum() - wrong_large.sum()
    k = int(np.argmax(errors <= wrong_small.sum() - GAIN * max(saved, 0)))
    return float(sure[order[k]]) if k < len(sure) else float("inf")
