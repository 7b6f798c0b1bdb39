"""Partly trained networks, whose training was stopped before its last epoch: is an ensemble better with them?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.choose.combine import choose, combined, cuts_of
from sweeps.choose.members import Member
from trainable import scores

NOISE = 1.96  # standard errors of a paired difference: beyond it lies what is no chance, 95 times of 100


@dataclass(frozen=True)
class Compared:
    """Ensembles of full trainings alone, and with partly trained networks, out of sample."""

    loss_without: float
    loss_with: float
    spread: float  # standard error of the difference of the two, image by image
    errors_without: int
    errors_with: int

    @property
    def helps(self) -> bool:
        """Return whether the loss is lower by more than noise, without more errors."""
        better = self.loss_without - self.loss_with > NOISE * self.spread
        return better and self.errors_with <= self.errors_without

    def __str__(self) -> str:
        loss = f"loss {self.loss_with:.4f} with them and {self.loss_without:.4f} without (± {NOISE * self.spread:.4f})"
        return f"{loss}, errors {self.errors_with} and {self.errors_without}"


def admitted(
    members: Sequence[Member], labels: np.ndarray, methods: Sequence[str], fits: Sequence[bool]
) -> tuple[list[int], dict | None]:
    """Choose which members may enter an ensemble: full trainings, and others where these help.

    Args:
        labels: of the images that judge the members.
        fits: whether a member is fast enough.

    Returns:
        Their places among the members, and what ensemble.json says of it: `networks` that are partly trained,
        whether they are `taken`, and `why`; None where every network is fully trained.
    """
    everyone = list(range(len(members)))
    whole = [i for i in everyone if members[i].full]
    partly = len(members) - len(whole)
    if not partly:
        return everyone, None
    if not any(fits[i] for i in whole):
        fast = " that is fast enough" if whole else ""
        return everyone, {"networks": partly, "taken": True, "why": f"there is no full training{fast}"}
    found = compare(np.stack([member.val for member in members]), labels, whole, methods)
    verdict = "help" if found.helps else "do not help beyond noise"
    about = {"networks": partly, "taken": found.helps, "why": f"out of sample they {verdict}: {found}"}
    return everyone if found.helps else whole, about


def compare(probs: np.ndarray, labels: np.ndarray, whole: Sequence[int], methods: Sequence[str], seed: int = 0) -> Compared:
    """Compare what is chosen from all members with what is chosen from those in `whole`.

    Order, method, weights and temperature are found on four fifths of the images and judged on the last fifth, five
    times. probs: [members, n, classes], of images that no member was trained on.
    """
    wrong, losses = np.zeros((2, len(labels)), dtype=bool), np.zeros((2, len(labels)))
    for part, rest in cuts_of(len(labels), seed):
        for i, some in enumerate((list(whole), list(range(len(probs))))):
            some.sort(key=lambda one, rest=rest: scores.cross_entropy(probs[one][rest], labels[rest]))
            taken, _ = choose(probs[some][:, rest], labels[rest], methods)
            said = combined(taken.method, probs[some][:, part], taken.weights, taken.temperature)
            wrong[i, part] = said.argmax(axis=1) != labels[part]
            losses[i, part] = scores.losses(said, labels[part])
    spread = (losses[0] - losses[1]).std() / len(labels) ** 0.5
    return Compared(*map(float, losses.mean(axis=1)), float(spread), *map(int, wrong.sum(axis=1)))
