"""A network on disk: `model.safetensors` and `config.json`, nothing that runs code when it is read."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from trainable import reading
from trainable.archs import build_network
from trainable.config import TrialConfig
from trainable.errors import BadInput

WEIGHTS, CONFIG = "model.safetensors", "config.json"


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
    }
    return {
        CONFIG: (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode(),
        WEIGHTS: safetensors.torch.save(tensors),
    }


def unpack(files: dict[str, bytes]) -> tuple[nn.Module, TrialConfig, Problem]:
    """The inverse of `pack`: the network on the CPU, in eval mode.

    Raises:
        BadInput: a file is cut short, or the weights are another network's.
    """
    try:
        about = json.loads(files[CONFIG])
        lists = {name: tuple(about["problem"][name]) for name in ("in_shape", "classes", "seen")}
        problem = Problem(**{**about["problem"], **lists})
        config = TrialConfig.from_flat(about["config"])
        network = build_network(config, problem)
        weights = safetensors.torch.load(files[WEIGHTS])
        own = network.state_dict()
        if weights.keys() != own.keys():
            other = sorted(weights.keys() ^ own.keys())
            raise RuntimeError(f"{len(other)} tensors are of another network, {other[0]} the first")
        own.update(weights)  # and not `weights` alone: mnasnet reads the version that only a state_dict() carries
        network.load_state_dict(own)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as wrong:
        raise BadInput(f"{CONFIG} is not a saved network's: {wrong!r}") from wrong
    except (safetensors.SafetensorError, RuntimeError) as wrong:
        raise BadInput(f"{WEIGHTS} does not fit {CONFIG}: {str(wrong).splitlines()[0]}") from wrong
    return network.eval(), config, problem


def load(folder: Path | str) -> tuple[nn.Module, TrialConfig, Problem]:
    """The network saved in `folder`, on the CPU, in eval mode: pixels in [0, 1], [n, *in_shape] -> logits [n, classes].

    The softmax of these logits is the calibrated probability: they are divided by the temperature already, and so the
    `temperature` of the problem is 1. `unpack` gives the network as it was trained.

    Raises:
        BadInput: as `unpack` does, and where a file is missing.
    """
    folder = Path(folder)
    try:
        contents = {name: reading.read(folder / name, times=3) for name in (CONFIG, WEIGHTS)}
    except OSError as wrong:
        raise missing(folder, wrong) from wrong
    network, config, problem = unpack(contents)
    if problem.temperature != 1:
        network.register_forward_hook(_Divide(problem.temperature))  # no layer more: a state_dict has the same names
    return network, config, replace(problem, temperature=1.0)


@dataclass(frozen=True)
class _Divide:
    """A forward hook that divides logits by a temperature, in float32, whatever the network computes in."""

    temperature: float

    def __call__(self, network: nn.Module, inputs: tuple, logits: torch.Tensor) -> torch.Tensor:
        return logits.float() / self.temperature


def missing(folder: Path, wrong: OSError) -> BadInput:
    """What to raise where a file of a saved network cannot be read."""
    name = Path(wrong.filename).name
    why = f"there is no {name} in it" if isinstance(wrong, FileNotFoundError) else f"{name} cannot be read: {wrong.strerror}"
    return BadInput(f"{folder} holds no saved network: {why}")
