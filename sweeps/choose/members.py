"""The networks that trials left behind: find them, and let them predict, all places at once."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import safetensors.numpy
import torch
from torch import nn

from sweeps.search.record import read
from trainable import engine, files, saved, scores
from trainable.datasets.container import Split
from trainable.fit import predict
from trainable.ray_trial import PROBS

PREDICTIONS = "predictions.safetensors"  # beside what the trial handed over, whose digests the record has


@dataclass(frozen=True)
class Member:
    """A trained network with its probabilities for val."""

    trial: int
    arch: str
    metrics: dict
    folder: Path
    val: np.ndarray  # float32 [n, classes]

    @property
    def saved_files(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in (saved.CONFIG, saved.WEIGHTS)}


def find(folder: Path) -> list[Member]:
    """The networks in a sweep's folder, lowest val cross-entropy first; a file that is not as recorded is left out."""
    trials, rungs = read(folder / "record.db")
    handed_over = {rung["number"]: rung for rung in rungs if rung["files"]}  # the last of each trial
    members = []
    for number, rung in handed_over.items():
        where = folder / "trials" / str(number)
        if all(_digest(where / name) == digest for name, digest in rung["files"].items()):
            val = safetensors.numpy.load_file(where / PROBS)["val"]
            members.append(Member(number, trials[number]["config"]["arch"], rung["metrics"], where, val))
    return sorted(members, key=lambda member: member.metrics["val_loss"])


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def predict_all(members: list[Member], splits: dict[str, Split], places) -> tuple[list[dict], list[float]]:
    """Every member's probabilities for every split, kept beside its weights, and its milliseconds an image.

    Returns:
        A dict split -> float32 [n, classes] for each member, and the times.
    """
    task = ray.remote(_predict).options(num_cpus=places.cpus, num_gpus=places.gpus)
    shared = ray.put(splits)
    running = [task.remote(m.saved_files, m.metrics["temperature"], shared, places.cpus, places.device) for m in members]
    answers = ray.get(running)
    for member, (probs, _) in zip(members, answers, strict=True):
        files.write(member.folder / PREDICTIONS, safetensors.numpy.save(probs))
    return [probs for probs, _ in answers], [ms for _, ms in answers]


def restore(contents: dict[str, bytes], threads: int, device: str | None) -> tuple[nn.Module, engine.Plan, saved.Problem]:
    """In the process of a trial's place: a saved network where and as it will run."""
    torch.set_num_threads(threads)
    network, config, problem = saved.unpack(contents)
    plan = engine.plan(network, problem.in_shape, device, config.engine)
    return plan.place(network), plan, problem


def _predict(
    contents: dict, temperature: float, splits: dict[str, Split], threads: int, device: str | None
) -> tuple[dict, float]:
    network, plan, _ = restore(contents, threads, device)
    began = time.monotonic()
    out = {name: scores.softmax(predict(network, split, plan), temperature).astype(np.float32) for name, split in splits.items()}
    images = sum(len(split) for split in splits.values())
    return out, 1000 * (time.monotonic() - began) / max(1, images)
