"""The networks that trials left behind, as members of an ensemble: find them, and let them predict, all places at once."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import ray
import safetensors.numpy
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sweeps import stored
from sweeps.search.record import read
from trainable import engine, files, saved, scores
from trainable.datasets.container import Dataset, Split, folds_of, in_folds, judging
from trainable.fit import predict
from trainable.ray_trial import in_view
from trainable.record_file import PROBS
from trainable.schema import Damaged

LAST = 50  # folds, of which a last fit leaves out the first: the fiftieth part of the labels calibrates it
SEED = 1_000_003  # between the seeds of one finalist; those of trials are a few apart
PREDICTIONS = "predictions.safetensors"  # beside what the trial handed over, whose digests the record has
RETRAIN = "train it again: arch_sweep.py --resume {sweep}, or remove {folder} to go without it"


@dataclass(frozen=True)
class Network:
    """A trained network in a sweep's folder."""

    number: int  # of the trial that left it
    arch: str
    folder: Path
    temperature: float
    digest: str  # of its weights
    config_digest: str = field(default="", kw_only=True)  # "" where it is not known

    @property
    def named(self) -> dict[str, str]:
        """The digests of its files, by name."""
        config = {saved.CONFIG: self.config_digest} if self.config_digest else {}
        return {**config, saved.WEIGHTS: self.digest}

    @property
    def saved_files(self) -> dict[str, bytes]:
        """Its files; raises BadInput where one is gone or damaged."""
        return saved.contents(self.folder, self.named, "record.db")

    @cached_property
    def probs(self) -> dict[str, np.ndarray]:
        """What it says of each split that it was asked about, calibrated, float32 [n, classes]."""
        return {**safetensors.numpy.load_file(self.folder / PROBS), **self._asked_later()}

    def _asked_later(self) -> dict[str, np.ndarray]:
        path = self.folder / PREDICTIONS
        if not path.is_file():  # nor a FIFO, which would hang
            return {}
        try:
            with safe_open(path, "np") as file:
                about = file.metadata() or {}
                names = file.keys() if about.get("weights") == self.digest else ()
                probs = {name: file.get_tensor(name) for name in names}
            # Before they had a digest of their own, they had that of the weights only.
            return probs if about.get("sha256") in (None, _digest(probs)) else {}
        except (OSError, SafetensorError):
            return {}  # it is not whole

    def keep(self, probs: dict[str, np.ndarray]):
        """What it says of more splits."""
        about = {"weights": self.digest, "sha256": _digest(probs)}
        files.write(self.folder / PREDICTIONS, safetensors.numpy.save(probs, about))
        self.probs.update(probs)


def _digest(probs: dict[str, np.ndarray]) -> str:
    """The SHA-256 of some arrays and their names."""
    out = hashlib.sha256()
    for name, values in sorted(probs.items()):
        out.update(repr((name, values.shape, str(values.dtype))).encode())
        out.update(np.ascontiguousarray(values))
    return out.hexdigest()


@dataclass(frozen=True)
class Member:
    """One configuration: the network that its trial left, or a network for every fold.

    What it says of images that it was not trained on is comparable: of val, or, out of fold, of every labelled image.
    """

    trial: int  # of the search
    arch: str
    metrics: dict  # of its trial at the last rung
    networks: tuple[Network, ...]
    val: np.ndarray  # float32 [n, classes], of the images that judge
    unlabelled: bool = False  # whether unlabelled images taught them too
    view: int = 0  # in which its networks see the images; 0: as they are
    seed: int = 0  # of a finalist that is trained with several, from 0
    last: Network | None = None  # its last fit, on nearly all labels
    sweep: int = 0  # whose it is of several that are combined, from 1
    epochs: float = 0.0  # of a full training of its configuration, where that is known
    full: bool = True  # trained to the last of them
    val_of_one: np.ndarray | None = None  # as `val`, of one of its networks, where that says something else than all

    @property
    def name(self) -> str:
        """For tables."""
        seed, view = (f" {what} {n}" if n else "" for what, n in (("seed", self.seed), ("view", self.view)))
        return f"{f'{self.sweep}/' if self.sweep else ''}{self.trial}{'u' * self.unlabelled}{seed}{view}"

    @property
    def answering(self) -> tuple[Network, ...]:
        """Those that are asked about new images."""
        return (self.last,) if self.last else self.networks

    @property
    def alone(self) -> np.ndarray:
        """Return what one of its networks says of the images that judge, float32 [n, classes].

        Out of fold an image is judged by one network anyway, the only one that has not seen it.
        """
        return self.val if self.val_of_one is None else self.val_of_one

    def said(self, network: Network, split: str) -> np.ndarray:
        """What one of its networks says of a split, in this member's view."""
        return network.probs[in_view(split, self.view)]


def find(folder: Path, leave_out: Callable[[str], object] | None = None) -> list[Member]:
    """The networks of a search that are there, judged on val, lowest cross-entropy first.

    Args:
        leave_out: hears in one line of each damaged network, which is left out; None: it is refused.

    Raises:
        BadInput: a file is not as it was recorded.
    """
    trials, rungs, last = _there(folder)
    members = []
    for number, trial in trials.items():
        rung, config = rungs.get(number), trial["config"]
        if trial["refits"] is None and (network := _network(folder, trial, rung, leave_out)):
            full = trial["state"] == "complete" and rung["rung"] == last[number]["rung"]  # and not at an earlier one, its best
            about = {"epochs": config["epochs"], "full": full}
            members.append(Member(number, config["arch"], rung["metrics"], (network,), network.probs["val"], **about))
    return sorted(members, key=lambda member: member.metrics["val_loss"])


def unheard(said: str):
    """Leave a damaged network out without a word: who combined them has said so, or will."""


def out_of_fold(folder: Path, data: Dataset, leave_out: Callable[[str], object] | None = None) -> list[Member]:
    """The finalists of which every fold's network is trained, lowest cross-entropy first.

    They are judged by the images of `judging`: on a val that the user gave by all the networks that answer for
    the finalist, for none of them has seen it; else out of fold. `leave_out` as in `find`.
    """
    trials, rungs, _ = _there(folder)
    labels = judging(data).labels
    held_out = cache(lambda folds: folds_of(in_folds(data).labels, folds))
    by_finalist: dict[tuple, dict[int, Network]] = {}
    for number, trial in trials.items():
        config = trial["config"]
        if (
            trial["refits"] is not None
            and trial["state"] == "complete"
            and (network := _network(folder, trial, rungs.get(number), leave_out))
        ):
            key = trial["refits"], config["folds"], config["epochs"], config["seed"], config.get("unlabelled", 0)
            by_finalist.setdefault(key, {})[config["fold"]] = network
    members = []
    for (of, folds, epochs, seeded, unlabelled), networks in by_finalist.items():
        if len(networks) < folds:
            continue
        last = by_finalist.get((of, LAST, epochs, seeded, unlabelled), {}).get(0)
        seed = (seeded - trials[of]["config"]["seed"]) // SEED
        asked = [*networks.values(), *([last] if last else [])]
        views = min(sum(name.startswith("val") for name in network.probs) for network in asked)
        for view in range(views):
            in_order, one = tuple(networks[f] for f in range(folds)), None
            if data.val_given:
                said = [network.probs[in_view("val", view)] for network in ((last,) if last else in_order)]
                val, one = np.mean(said, axis=0), said[0]
            else:
                val = np.empty((len(labels), networks[0].probs["val"].shape[1]), dtype=np.float32)
                for fold, network in networks.items():
                    val[held_out(folds) == fold] = network.probs[in_view("val", view)]
            metrics = rungs[networks[0].number]["metrics"]
            judged = {"val_loss": scores.cross_entropy(val, labels), "val_error": scores.errors(val, labels) / len(labels)}
            about = {"unlabelled": bool(unlabelled), "view": view, "seed": seed, "last": last, "val_of_one": one}
            about["epochs"] = epochs
            members.append(Member(of, trials[of]["config"]["arch"], {**metrics, **judged}, in_order, val, **about))
    return sorted(members, key=lambda member: member.metrics["val_loss"])


def _there(folder: Path) -> tuple[dict[int, dict], dict[int, dict], dict[int, dict]]:
    """By number: trials, of each that handed over a network the last rung at which it did, and the last rung of all."""
    trials, rungs = read(folder / "record.db")
    handed_over = {rung["number"]: rung for rung in rungs if rung["files"]}
    return {trial["number"]: trial for trial in trials}, handed_over, {rung["number"]: rung for rung in rungs}


def _network(folder: Path, trial: dict, rung: dict | None, leave_out: Callable[[str], object] | None) -> Network | None:
    """The network that was handed over at a rung, if it is there; raises Damaged unless it is as it was recorded."""
    if rung is None:
        return None
    number, named = rung["number"], rung["files"]
    where = folder / "trials" / str(number)
    mend = RETRAIN.format(sweep=folder.name, folder=f"trials/{number}")
    try:
        if not stored.verify_files(where, named, "record.db", mend):
            return None
    except Damaged as wrong:
        if leave_out is None:
            raise
        leave_out(f"{wrong}. It is left out.")
        return None
    arch, temperature = trial["config"]["arch"], rung["metrics"]["temperature"]
    digests = named[saved.WEIGHTS], named.get(saved.CONFIG, "")
    return Network(number, arch, where, temperature, digests[0], config_digest=digests[1])


def predict_all(networks: list[Network], splits: dict[str, Split], places) -> list[dict[str, np.ndarray]]:
    """What each network says of each split, split -> float32 [n, classes]; kept beside its weights where it is new.

    `places`: the cpus, gpus and device of a trial on a cluster; None: in this process.
    """
    missing = [n for n in networks if not splits.keys() <= n.probs.keys()]
    if missing and places is None:
        for network in missing:
            network.keep(_predict(network.saved_files, network.temperature, splits, engine.cores(), None))
    elif missing:
        task = ray.remote(_predict).options(num_cpus=places.cpus, num_gpus=places.gpus)
        shared = ray.put(splits)
        running = [task.remote(n.saved_files, n.temperature, shared, places.cpus, places.device) for n in missing]
        for network, probs in zip(missing, ray.get(running), strict=True):
            network.keep(probs)
    return [{name: network.probs[name] for name in splits} for network in networks]


def restore(contents: dict[str, bytes], threads: int, device: str | None) -> tuple[nn.Module, engine.Plan, saved.Problem]:
    """In the process of a trial's place: a saved network where and as it will run."""
    torch.set_num_threads(threads)
    network, config, problem = saved.unpack(contents)
    plan = engine.plan(network, problem.in_shape, device, config.engine)
    return plan.place(network), plan, problem


def _predict(contents: dict, temperature: float, splits: dict[str, Split], threads: int, device: str | None) -> dict:
    network, plan, _ = restore(contents, threads, device)
    logits = {name: predict(network, split, plan) for name, split in splits.items()}
    return {name: scores.softmax(values, temperature).astype(np.float32) for name, values in logits.items()}
