"""A training under way as bytes, so that it can go on elsewhere: safetensors with JSON beside the tensors, no pickle."""

import json
from collections.abc import Iterator

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trainable.errors import BadInput

FORMAT = "1"


def pack(state, **more) -> bytes:
    """Everything that the next step of a fit.State depends on; `more` is kept beside it."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    plain = {}
    if state.average:
        tensors |= {f"average.{name}": tensor for name, tensor in state.average.network.state_dict().items()}
    for name, values, key in _optimizer_state(state.optimizer):
        if isinstance(values[key], Tensor):
            tensors[name] = values[key]
        else:
            plain[name] = values[key]
    tensors |= {"order": state.order, "random.steps": state.generator.get_state(), "random.torch": torch.get_rng_state()}
    if state.plan.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(state.plan.device)
    about = {
        "step": state.step,
        "averaged": state.average.steps if state.average else 0,
        "engine": state.plan.setting,
        "seen": state.seen,
        "plain": plain,
        **more,
    }
    ready = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    return safetensors.torch.save(ready, {"format": FORMAT, "about": json.dumps(about)})


def about(content: bytes) -> dict:
    """`step`, `averaged`, `engine`, `seen`, `plain` and what else was kept of what `pack` made.

    Raises:
        BadInput: it is not whole, or of another version.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}")
        return json.loads(header["about"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise BadInput(f"the state of a training cannot be read: {wrong!r}") from wrong


def unpack(content: bytes, state):
    """Put a new fit.State of the same configuration where the packed one was.

    Raises:
        BadInput: it is not whole, or of another network.
    """
    told = about(content)
    try:
        tensors = safetensors.torch.load(content)
        _load(state.network, tensors, "network.")
        if state.average:
            _load(state.average.network, tensors, "average.")
            state.average.steps = told["averaged"]
        _load_optimizer(state.optimizer, tensors, told["plain"])
        state.order.copy_(tensors["order"])
        state.generator.set_state(tensors["random.steps"])
        torch.set_rng_state(tensors["random.torch"])
        if state.plan.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], state.plan.device)
    except (safetensors.SafetensorError, KeyError, RuntimeError, IndexError) as wrong:
        raise BadInput(f"the state of a training does not fit: {str(wrong).splitlines()[0]}") from wrong
    state.step = told["step"]


def _load(network: nn.Module, tensors: dict[str, Tensor], prefix: str):
    own = network.state_dict()  # and not `tensors` alone: mnasnet reads the version that only a state_dict() carries
    own.update({name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)})
    network.load_state_dict(own)


def _parts(optimizer) -> list[torch.optim.Optimizer]:
    return getattr(optimizer, "parts", [optimizer])


def _optimizer_state(optimizer) -> Iterator[tuple[str, dict, str]]:
    for part, one in enumerate(_parts(optimizer)):
        for i, values in one.state_dict()["state"].items():
            for key in values:
                yield f"optimizer.{part}.{i}.{key}", values, key


def _load_optimizer(optimizer, tensors: dict[str, Tensor], plain: dict):
    states: list[dict] = [{} for _ in _parts(optimizer)]
    for name, value in [*tensors.items(), *plain.items()]:
        if name.startswith("optimizer."):
            _, part, i, key = name.split(".", 3)
            states[int(part)].setdefault(int(i), {})[key] = value
    for one, state in zip(_parts(optimizer), states, strict=True):
        parameters = [p for group in one.param_groups for p in group["params"]]
        for i, values in state.items():
            for key, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameters[i].shape:  # in the parameter's layout
                    values[key] = torch.empty_like(parameters[i], dtype=value.dtype).copy_(value)
        one.load_state_dict({"state": state, "param_groups": one.state_dict()["param_groups"]})
