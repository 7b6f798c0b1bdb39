"""ENSEMBLES: pure functions on probabilities.

Members' probabilities are probs [members, n, classes], best member first. A method weighs them from what they say of images
whose labels are known; `combined` then makes one prediction of many. What a method gets is judged on images that it was not
weighed by (`judge`), so that choosing does not flatter.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trainable import scores

PARTS = 5  # that the labelled images are cut into, to weigh by some and judge by the others
BAGS = 10  # of the greedy selection, each of half of the members
FIRST = 3  # members that a selection begins with, where it has so many
STEPS = 30  # of a selection
LEAST = 1e-3  # that a member must weigh
LEAST_LOSS = 1e-9  # nats: what is compared by its logarithm or by a quotient counts as at least so much


def mean(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Equal weights for the first few members: as many as have the lowest cross-entropy together (a soft vote)."""
    return _first_few(probs, labels, ballots=False)


def vote(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Likewise for a majority vote: each member is for its most probable class."""
    return _first_few(probs, labels, ballots=True)


def greedy(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Selection with replacement, begun with the best few, the best step kept, the mean of bags of half of the members.

    Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble selection from libraries of models, ICML 2004, section 3.
    """
    right = right_class(probs, labels)
    members = len(right)
    rng = np.random.default_rng(0)
    bags = BAGS if members > 2 else 1
    total = np.zeros(members)
    for _ in range(bags):
        bag = np.sort(rng.permutation(members)[: max(2, -(-members // 2))]) if bags > 1 else np.arange(members)
        total[bag] += _select(right[bag])
    return total / total.sum()


def _select(right: np.ndarray) -> np.ndarray:
    """How often each member is taken, as a share; right: the probability of the right class, [members, n]."""
    order = np.argsort(-np.log(right).mean(axis=1), kind="stable")[:FIRST]
    counts = np.zeros(len(right))
    counts[order] = 1
    together = right[order].sum(axis=0)
    best, lowest = counts.copy(), -np.log(together / len(order)).mean()
    for size in range(len(order) + 1, len(order) + STEPS + 1):
        losses = -np.log((together + right) / size).mean(axis=1)
        taken = int(losses.argmin())
        counts[taken] += 1
        together = together + right[taken]
        if losses[taken] < lowest:
            best, lowest = counts.copy(), losses[taken]
    return best / best.sum()


def weights(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The convex weights with the lowest cross-entropy of the mixture, by expectation-maximisation from equal ones.

    Each step multiplies a weight by the member's mean share in the probability of the right class and never raises the
    cross-entropy, which is convex in the weights (stacking of predictive distributions: Yao et al., arXiv:1704.02030).
    """
    right = right_class(probs, labels)
    out = np.full(len(right), 1 / len(right))
    for _ in range(200):
        before, out = out, out * (right / (out @ right)).mean(axis=1)
        if np.abs(out - before).max() < 1e-5:
            break
    out[out < min(LEAST, out.max())] = 0.0  # it would cost its time, and change nothing
    return out / out.sum()


def best(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The member with the fewest errors alone; of equals the one with the lowest cross-entropy."""
    order = [(scores.errors(p, labels), scores.cross_entropy(p, labels)) for p in probs]
    return np.eye(len(probs))[order.index(min(order))]


# How each weighs its members: probs [members, n, classes], labels [n] -> weights [members], which sum to 1.
ENSEMBLES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": mean,
    "vote": vote,
    "greedy": greedy,
    "weights": weights,
    "best": best,
}


def combined(method: str, probs: np.ndarray, weight: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """One prediction of many, [n, classes], rows summing to 1: the weighted mean of the probabilities, or for a vote the
    weighted share of the members for whom a class is the most probable; then sharpened to a temperature."""
    some = np.flatnonzero(weight)
    out = np.tensordot(weight[some], probs[some], 1)
    if method == "vote":
        ballots = np.tensordot(weight[some], np.eye(probs.shape[2])[probs[some].argmax(axis=2)], 1)
        # The mean decides a tie: less than any difference of one ballot among fewer than a thousand members.
        out = 0.999 * ballots + 0.001 * out
    return out if temperature == 1 else _sharpen(out, temperature)


def _sharpen(probs: np.ndarray, temperature: float) -> np.ndarray:
    """At another temperature: the most probable class stays, its probability changes."""
    return scores.softmax(np.log(probs.clip(1e-12)), temperature)


def _temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """At which their cross-entropy is lowest."""
    return scores.best_temperature(np.log(probs.clip(1e-12)), labels)


@dataclass(frozen=True)
class Weighed:
    """A method, and what it makes of some members."""

    method: str
    weights: np.ndarray  # [members]
    temperature: float  # of the combined probabilities: a mean of calibrated networks is under-confident


@dataclass(frozen=True)
class Judged(Weighed):
    """Weighed by all the images; judged on images that it was not weighed by."""

    wrong: np.ndarray  # bool [n]
    losses: np.ndarray  # [n], cross-entropy

    @property
    def errors(self) -> int:
        return int(self.wrong.sum())

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def members(self) -> int:
        return int((self.weights > 0).sum())


def weigh(method: str, probs: np.ndarray, labels: np.ndarray) -> Weighed:
    """Find a method's weights, and the temperature at which what it says has the lowest cross-entropy."""
    return _calibrated(method, probs, labels, ENSEMBLES[method](probs, labels))


def judge(method: str, probs: np.ndarray, labels: np.ndarray, seed: int = 0) -> Judged:
    """Weigh by all images for use, and for the judgement by four fifths, five times, each time judged on the last fifth.

    Members must not have been trained on these images (out-of-fold probabilities, or those of a held-out set).
    """
    weighed = [weigh(method, probs[:, rest], labels[rest]) for _, rest in cuts_of(len(labels), seed)]
    return _judged(weigh(method, probs, labels), weighed, probs, labels, seed)


def _calibrated(method: str, probs: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Weighed:
    return Weighed(method, weight, _temperature(combined(method, probs, weight), labels))


def _judged(whole: Weighed, weighed: Iterable[Weighed], probs: np.ndarray, labels: np.ndarray, seed: int) -> Judged:
    """`whole`, judged on each part by what was `weighed` by the others."""
    wrong, losses = np.zeros(len(labels), dtype=bool), np.zeros(len(labels))
    for (part, _), by_rest in zip(cuts_of(len(labels), seed), weighed, strict=True):
        said = combined(by_rest.method, probs[:, part], by_rest.weights, by_rest.temperature)
        wrong[part] = said.argmax(axis=1) != labels[part]
        losses[part] = scores.losses(said, labels[part])
    return Judged(**vars(whole), wrong=wrong, losses=losses)


def cuts_of(images: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows of each part, and all others; of one image, which leaves none, that one."""
    return [(part, np.setdiff1d(np.arange(images), part) if images > 1 else part) for part in parts_of(images, seed)]


def parts_of(images: int, seed: int = 0) -> list[np.ndarray]:
    """The rows of each part."""
    return np.array_split(np.random.default_rng(seed).permutation(images), min(PARTS, images))


def choose(probs: np.ndarray, labels: np.ndarray, methods: Iterable[str]) -> tuple[Judged, list[Judged]]:
    """The ensemble to take, and every method's.

    What makes more errors than the best there is, a single network or a method, is out, unless by no more than one standard
    error (of the paired difference, image by image): on few images the number of errors says little. Of the rest, the one
    with the lowest cross-entropy; but where that is a single network, the best of several that is within one standard
    error of it: the lowest of many networks is flattered by being chosen. The rule is Breiman's (CART, 1984), turned to
    ensembles.
    """
    judged = [judge(method, probs, labels) for method in methods]
    fewest = min([member.argmax(axis=1) != labels for member in probs] + [j.wrong for j in judged], key=np.sum)
    good = [j for j in judged if _within_one_error(j.wrong, fewest)] or [min(judged, key=lambda j: j.errors)]
    order = sorted(good, key=lambda j: j.loss)
    taken = order[0]
    if taken.members == 1:
        taken = next((j for j in order if j.members > 1 and _within_one_error(j.losses, taken.losses)), taken)
    return taken, judged


def by_size(
    probs: np.ndarray, labels: np.ndarray, costs: Sequence[float], most: float = np.inf, largest: int | None = None, seed: int = 0
) -> list[tuple[tuple[int, ...], Judged]]:
    """For each number of members the ones to take, equally weighed: each next is the one that lowers cross-entropy most.

    `costs` of the members; no more than `most` is spent together. `largest`: the most members. Judged as in `judge`.
    """
    whole = grow(probs, labels, costs, most)
    cuts = [rest for _, rest in cuts_of(len(labels), seed)]
    grown = [grow(probs[:, rest], labels[rest], costs, most) for rest in cuts]

    def first(order: list[int], size: int, rows: np.ndarray) -> Weighed:
        return _calibrated("mean", probs[:, rows], labels[rows], _equal(order[:size], len(probs)))

    out = []
    for size in range(1, min(len(whole), largest or len(whole)) + 1):
        weighed = [first(order, size, rest) for order, rest in zip(grown, cuts, strict=True)]
        judged = _judged(first(whole, size, np.arange(len(labels))), weighed, probs, labels, seed)
        out.append((tuple(whole[:size]), judged))
    return out


def grow(probs: np.ndarray, labels: np.ndarray, costs: Sequence[float] | None = None, most: float = np.inf) -> list[int]:
    """The members in the order in which each next lowers the cross-entropy of their mean most; as many as `most` pays for."""
    right = right_class(probs, labels)
    costs = [0.0] * len(right) if costs is None else costs
    chosen: list[int] = []
    together, spent = np.zeros(right.shape[1]), 0.0
    while True:
        left = [i for i in range(len(right)) if i not in chosen and spent + costs[i] <= most]
        if not left:
            return chosen
        losses = [-np.log((together + right[i]) / (len(chosen) + 1)).mean() for i in left]
        taken = left[int(np.argmin(losses))]
        chosen.append(taken)
        together, spent = together + right[taken], spent + costs[taken]


def _first_few(probs: np.ndarray, labels: np.ndarray, ballots: bool) -> np.ndarray:
    """Equal weights for as many of the first members as have the lowest cross-entropy together; two at least."""
    method = "vote" if ballots else "mean"
    losses = []
    for size in range(min(2, len(probs)), len(probs) + 1):
        out = combined(method, probs, _equal(range(size), len(probs)))
        losses.append(scores.calibrated_cross_entropy(out, labels))
    return _equal(range(int(np.argmin(losses)) + min(2, len(probs))), len(probs))


def _equal(chosen: Iterable[int], members: int) -> np.ndarray:
    out = np.zeros(members)
    out[list(chosen)] = 1
    return out / out.sum()


def right_class(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each member's probability of the right class, [members, n]; it counts as at least 1e-7, as does one that is no number."""
    return np.clip(np.nan_to_num(probs[:, np.arange(len(labels)), labels]), 1e-7, 1)


def _within_one_error(losses: np.ndarray, lowest: np.ndarray) -> bool:
    """Of their paired difference; of errors likewise."""
    difference = losses - lowest.astype(float)
    return difference.mean() <= difference.std() / len(difference) ** 0.5
