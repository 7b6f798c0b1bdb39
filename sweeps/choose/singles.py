"""Every network of a sweep by itself: its scores, its submission, its time; and a vote of some."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sweeps.choose.combine import combined
from sweeps.choose.cost import latencies
from sweeps.choose.members import find, predict_all, unheard
from sweeps.choose.scored import score
from trainable.datasets.container import Dataset
from trainable.submission import write_submission


def judge(folder: Path, data: Dataset, places, say: Callable[[str], None]) -> list[dict]:
    """Score every network that a trial left, write `submissions/<arch>.csv`, and time it.

    Where a dataset has no unlabelled images, the submissions are about its test images; where it has neither, there are none.

    Returns:
        A dict a network, lowest val cross-entropy first: `arch`, `epochs`, whether that is a `full` training, errors and
        losses on val and test,
        `submission` (the file, from `folder`), and what `cost.measure` returns.
    """
    members = find(folder, say)
    splits = {name: split for name in ("test", "unlabelled") if len(split := getattr(data, name))}
    networks = [member.networks[0] for member in members]
    probs = predict_all(networks, splits, places)
    say(f"Timing {len(members)} networks, one at a time.")
    rows = []
    for member, answers, times in zip(members, probs, latencies(networks, places, say), strict=True):
        row = {"arch": member.arch, "epochs": member.metrics["budget"], "full": member.full, **times}
        row |= _score("val", member.val, data.val.labels)
        if "test" in splits:
            row |= _score("test", answers["test"], data.test.labels)
        if splits:
            asked = list(splits)[-1]
            row["submission"] = f"submissions/{member.arch}.csv"
            write_submission(folder / row["submission"], data, splits[asked], answers[asked])
        rows.append(row)
    if not splits:
        say(f"No submissions: {data.name} has no images to predict, neither unlabelled nor test.")
    return rows


def vote(folder: Path, data: Dataset, archs: Sequence[str]) -> dict:
    """Combine networks of a sweep that `judge` has asked by majority vote; write `submissions/vote.csv`.

    Nothing is chosen: who votes is given, and each has one ballot. The mean of the probabilities
    decides a tie.

    Args:
        archs: the architectures that vote, each of which has left a network.

    Returns:
        `archs`, those of them that are `partly` trained, errors and losses on val and test, and the
        `submission`, as `judge` returns them.
    """
    by_arch = {member.arch: member for member in find(folder, unheard)}
    voters = [by_arch[arch] for arch in archs]
    equal = np.full(len(voters), 1 / len(voters))

    def together(probs: list[np.ndarray]) -> np.ndarray:
        return combined("vote", np.stack(probs), equal)

    out = {"archs": list(archs), "partly": [member.arch for member in voters if not member.full]}
    out |= _score("val", together([member.val for member in voters]), data.val.labels)
    probs = {
        name: together([member.networks[0].probs[name] for member in voters])
        for name in ("test", "unlabelled")
        if len(getattr(data, name))
    }
    if "test" in probs:
        out |= _score("test", probs["test"], data.test.labels)
    if probs:
        asked = list(probs)[-1]
        out["submission"] = "submissions/vote.csv"
        write_submission(folder / out["submission"], data, getattr(data, asked), probs[asked])
    return out


def _score(split: str, probs, labels) -> dict:
    return {f"{split}_{what}": value for what, value in score(probs, labels).items()}
