"""A network on disk: `model.safetensors` and `config.json`, nothing that runs code when it is read.

`config.json` has the SHA-256 of the weights, and one of itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from trainable import schema, stored
from trainable.archs import build_network
from trainable.config import TrialConfig
from trainable.errors import BadInput
from trainable.schema import DIGESTS, SCALAR, TEXT, Damaged, Each, Kind, Later, Many, Maybe, number

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MEND = "copy the network again, or train it again"
SHAPE = Kind(
    "channels, height and width, each from 1 to 1024",
    lambda v: isinstance(v, list) and len(v) == 3 and all(type(n) is int and 1 <= n <= 1024 for n in v),
)
# Content of config.json. Files from before there were digests have none.
ABOUT = {
    "config": Each(SCALAR),
    "problem": {
        "dataset": TEXT,
        "in_shape": SHAPE,
        "classes": Many(TEXT, 2),
        "mean": Many(number(), 1),
        "std": Many(number(above=0), 1),
        "seen": Later(Maybe(Many(TEXT)), None),
        "temperature": Later(number(above=0), 1.0),
    },
    "files": Later(DIGESTS, {}),
}


@dataclass(frozen=True)
class Problem:
    """What a network was built for, and what it has seen of it."""

    dataset: str
    in_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: list[float]
    std: list[float]
    seen: tuple[str, ...]  # the datasets that have taught the weights, those they started from included
    temperature: float = 1.0  # by which the network's logits are yet to be divided: it was calibrated on val


def pack(config: TrialConfig, data, state, scores: dict) -> dict[str, bytes]:
    """The files of a saved network, by name: of a training's `state`, with `scores` beside it.

    The configuration names the engine's setting that was found for it, so that it can be trained again as it was.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in state.best_network.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    about = {
        "config": replace(config, engine=state.plan.setting).flat(),
        "problem": {
            "dataset": data.name,
            "in_shape": list(data.in_shape),
            "classes": list(data.classes),
            "mean": data.mean,
            "std": data.std,
            "seen": list(state.seen),
            "temperature": scores.get("temperature", 1.0),
        },
        "scores": scores,
        "torch": torch.__version__,
        "files": {WEIGHTS: hashlib.sha256(weights).hexdigest()},
    }
    text = json.dumps(stored.sealed(about), indent=2, ensure_ascii=False) + "\n"
    return {CONFIG: text.encode(), WEIGHTS: weights}


def described(text: bytes, path: Path | str = CONFIG) -> tuple[dict, Problem]:
    """The content of a config.json, and the problem in it.

    Raises:
        BadInput: it is not as it was written.
    """
    about = stored.from_json(text, ABOUT, f"{path} is not a saved network's", MEND)
    told = about["problem"]
    channels, classes = told["in_shape"][0], told["classes"]
    for name in ("mean", "std"):
        if len(told[name]) not in (1, channels):
            raise schema.wrong(str(path), f"problem.{name}", told[name], f"{channels} numbers, one a channel", MEND)
    if len(set(classes)) < len(classes):
        raise schema.wrong(str(path), "problem.classes", classes, "different names", MEND)
    told["seen"] = told["seen"] or [told["dataset"]]
    lists = {name: tuple(told[name]) for name in ("in_shape", "classes", "seen")}
    known = {name: told[name] for name in ("dataset", "mean", "std", "temperature")}
    return about, Problem(**known, **lists)


def unpack(files: Mapping[str, bytes], folder: Path | str = "") -> tuple[nn.Module, TrialConfig, Problem]:
    """The inverse of `pack`: the network on the CPU, in eval mode.

    Args:
        folder: where the files lie, for messages.

    Raises:
        BadInput: a file is damaged, or the weights are another network's.
    """
    where, weights_of = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    about, problem = described(files[CONFIG], where)
    if WEIGHTS in about["files"]:
        stored.verify(files[WEIGHTS], about["files"][WEIGHTS], weights_of, CONFIG, MEND)
    try:
        config = TrialConfig.from_flat(about["config"])
        network = build_network(config, problem)
    except Exception as wrong:  # an architecture's own
        reason = (str(wrong).splitlines() or [type(wrong).__name__])[0]
        raise Damaged(f"{where}: no network can be built from config: {reason}; {MEND}") from wrong
    try:
        weights = safetensors.torch.load(files[WEIGHTS])
        own = network.state_dict()
        if weights.keys() != own.keys():
            other = sorted(weights.keys() ^ own.keys())
            raise RuntimeError(f"{len(other)} tensors are of another network, {other[0]} the first")
        own.update(weights)  # and not `weights` alone: mnasnet reads the version that only a state_dict() carries
        network.load_state_dict(own)
    except Exception as wrong:  # torch's and safetensors', of many kinds
        reason = (str(wrong).splitlines() or [type(wrong).__name__])[0]
        raise Damaged(f"{weights_of} does not fit {CONFIG}: {reason}; {MEND}") from wrong
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise Damaged(f"{weights_of}: {name} has a value that is no finite number; {MEND}")
    return network.eval(), config, problem


def load(
    folder: Path | str, digests: Mapping[str, str] | None = None, named_in: str = ""
) -> tuple[nn.Module, TrialConfig, Problem]:
    """The network saved in `folder`, on the CPU, in eval mode: pixels in [0, 1], [n, *in_shape] -> logits [n, classes].

    The softmax of these logits is the calibrated probability: they are divided by the temperature already, and so the
    `temperature` of the problem is 1. `unpack` gives the network as it was trained.

    Args:
        digests: of its files, by name, where `named_in` has them.

    Raises:
        BadInput: as `unpack` does, and where a file is missing.
    """
    network, config, problem = unpack(contents(folder, digests, named_in), folder)
    if problem.temperature != 1:
        network.register_forward_hook(_Divide(problem.temperature))  # no layer more: a state_dict has the same names
    return network, config, replace(problem, temperature=1.0)


@dataclass(frozen=True)
class _Divide:
    """A forward hook that divides logits by a temperature, in float32, whatever the network computes in."""

    temperature: float

    def __call__(self, network: nn.Module, inputs: tuple, logits: torch.Tensor) -> torch.Tensor:
        return logits.float() / self.temperature


def contents(folder: Path | str, digests: Mapping[str, str] | None = None, named_in: str = "") -> dict[str, bytes]:
    """The two files of a saved network, which have these digests; raises BadInput."""
    folder, out = Path(folder), {}
    for name in (CONFIG, WEIGHTS):
        path = folder / name
        if not path.exists():
            raise missing(folder, name)
        out[name] = stored.content(path, mend=MEND, times=3)
        if name in (digests or {}):
            stored.verify(out[name], digests[name], path, named_in, MEND)
    return out


def missing(folder: Path, name: str) -> BadInput:
    """Build the error for a missing file of a saved network."""
    return BadInput(f"{folder} holds no saved network: there is no {name} in it")
