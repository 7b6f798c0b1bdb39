"""From the networks of a finished search to ensemble.json and submission.csv."""

from pathlib import Path

import numpy as np

from sweeps.choose.combine import ENSEMBLES, choose, sharpen
from sweeps.choose.members import Member, find, predict_all
from trainable import files, scores
from trainable.datasets.container import Dataset
from trainable.submission import write_submission


def combine(folder: Path, data: Dataset, methods: list[str], places) -> dict | None:
    """Choose the best ensemble on val, score it once on test, predict the unlabelled images.

    Writes `ensemble.json` and `submission.csv`. Where a dataset has no unlabelled images, the submission is about its
    test images. `places` has the cpus, gpus and device of a trial.

    Returns what `ensemble.json` holds, or None if no trial left a network.
    """
    members = find(folder)
    if not members:
        return None
    choice, bests = choose(np.stack([m.val for m in members]), data.val.labels, methods)
    chosen = [members[i] for i in choice.members]
    splits = {name: split for name in ("test", "unlabelled") if len(split := getattr(data, name))}
    probs, times = predict_all(chosen, splits, places)
    combined = {
        name: sharpen(ENSEMBLES[choice.method](np.stack([p[name] for p in probs])), choice.temperature) for name in splits
    }
    single = min(members, key=lambda m: (scores.errors(m.val, data.val.labels), m.metrics["val_loss"]))
    about = {
        "method": choice.method,
        "temperature": choice.temperature,
        "members": [
            {**_about(m, data), "weight": 1 / len(chosen), "ms_per_image": t} for m, t in zip(chosen, times, strict=True)
        ],
        "val": _score(choice.errors, choice.loss, len(data.val)),
        "test": score(combined["test"], data.test.labels) if "test" in splits else None,
        "ms_per_image": sum(times),
        "best_single": _about(single, data),
        "methods": {b.method: {"members": len(b.members), "val": _score(b.errors, b.loss, len(data.val))} for b in bests},
        "submission": "unlabelled" if "unlabelled" in splits else "test",
    }
    asked = about["submission"]
    write_submission(folder / "submission.csv", data, splits[asked], combined[asked])
    files.write_json(folder / "ensemble.json", about)
    return about


def _about(member: Member, data: Dataset) -> dict:
    errors = scores.errors(member.val, data.val.labels)
    val = _score(errors, member.metrics["val_loss"], len(data.val))
    return {"trial": member.trial, "arch": member.arch, "epochs": member.metrics["budget"], "val": val}


def _score(errors: int, loss: float, images: int) -> dict:
    return {"errors": errors, "images": images, "error": errors / images, "loss": loss}


def score(probs: np.ndarray, labels: np.ndarray) -> dict:
    """Errors, images, error (share) and cross-entropy loss."""
    return _score(scores.errors(probs, labels), scores.cross_entropy(probs, labels), len(labels))
