"""What the ensemble gets wrong: which images, taken for what, and whether its members err on the same."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps import stored
from sweeps.choose.combine import combined
from sweeps.choose.ensemble import candidates
from sweeps.choose.members import Member, unheard
from trainable import scores
from trainable.datasets.container import Dataset, Split, judging
from trainable.errors import BadInput

KEY = ("trial", "view", "seed", "unlabelled")


@dataclass(frozen=True)
class Mistakes:
    """Of the chosen ensemble, on the labelled images that judge it; `probs` [n, classes] are what it says of them."""

    data: Dataset
    split: Split
    members: list[Member]
    probs: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Their rows, worst first."""
        rows = np.flatnonzero(self.probs.argmax(axis=1) != self.split.labels)
        return rows[np.argsort(-scores.losses(self.probs, self.split.labels)[rows], kind="stable")]

    def confusion(self) -> pd.DataFrame:
        """`label`, `said`, `count`: how often one class was taken for another."""
        pairs = pd.DataFrame({"label": self.split.labels[self.wrong], "said": self.probs[self.wrong].argmax(axis=1)})
        table = pairs.value_counts().rename("count").reset_index()
        return table.assign(**{name: [self.data.classes[i] for i in table[name]] for name in ("label", "said")})

    def diversity(self) -> pd.DataFrame:
        """`a`, `b` (members), `both`, `either`: images that both, and that either of them gets wrong; `shared` is their ratio."""
        errs = {m.name: m.val.argmax(axis=1) != self.split.labels for m in self.members}
        out = []
        for a, first in errs.items():
            for b, second in errs.items():
                both, either = int((first & second).sum()), int((first | second).sum())
                out.append({"a": a, "b": b, "both": both, "either": either, "shared": both / max(1, either)})
        return pd.DataFrame(out)


def mistakes(folder: Path, data: Dataset) -> Mistakes:
    """Raises BadInput where the members that ensemble.json names are not there any more."""
    about = stored.ensemble(folder)
    # A damaged network that is no member takes nothing from the page.
    members, labels, _ = candidates([folder], data, unheard)
    if len(labels) != about["judged_on"]["images"]:
        raise BadInput("the predictions of its members are not there")
    weight = {tuple(one[name] for name in KEY): one["weight"] for one in about["members"]}
    chosen = [member for member in members if tuple(getattr(member, name) for name in KEY) in weight]
    if len(chosen) < len(weight):
        candidates([folder], data)  # which says so where one is damaged
        raise BadInput("the predictions of some of its members are not there")
    if sum(len(one["networks"]) for one in about["members"]) < sum(len(member.answering) for member in chosen):
        chosen = [replace(member, val=member.alone) for member in chosen]  # one network of each, for the sake of time
    weights = np.array([weight[tuple(getattr(member, name) for name in KEY)] for member in chosen])
    probs = combined(about["method"], np.stack([member.val for member in chosen]), weights / weights.sum(), about["temperature"])
    split = data.val if about["judged_on"]["split"] == "val" else judging(data)
    return Mistakes(data, split, chosen, probs)
