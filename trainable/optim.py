"""Optimisers, learning-rate schedules and the running average of the weights."""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Optimizer:
    make: Callable[..., "torch.optim.Optimizer | Muon"]  # (parameter groups, peak lr, momentum)
    low: float  # the range of learning rates worth searching
    high: float


class Muon:
    """torch's Muon for kernels and matrices, each seen as [outputs, all else]; AdamW for the rest.

    Jordan et al., kellerjordan.github.io/posts/muon, 2024. Its steps are scaled to the size of AdamW's (Liu et al.,
    arXiv:2502.16982), so both take the same learning rate.
    """

    def __init__(self, groups: list[dict], lr: float, momentum: float):
        # torch's takes two dimensions only: each kernel gets a flat twin on the same memory.
        self._twins = {p: nn.Parameter(_flat(p.detach())) for group in groups for p in group["params"] if p.ndim > 1}
        flat = [{**group, "params": [self._twins[p] for p in group["params"] if p.ndim > 1]} for group in groups]
        rest = [{**group, "params": [p for p in group["params"] if p.ndim <= 1]} for group in groups]
        flat, rest = ([group for group in part if group["params"]] for part in (flat, rest))
        self.parts = []
        if flat:
            self.parts.append(torch.optim.Muon(flat, lr, momentum=momentum, adjust_lr_fn="match_rms_adamw"))
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr, betas=(momentum, 0.999), fused=True))

    @property
    def param_groups(self) -> list[dict]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self):
        for kernel, twin in self._twins.items():
            twin.grad = None if kernel.grad is None else _flat(kernel.grad)
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True):
        for kernel in self._twins:
            kernel.grad = None
        for part in self.parts:
            part.zero_grad(set_to_none)


def _flat(kernel: Tensor) -> Tensor:
    """[outputs, all else] on the same memory; the order of the columns means nothing to Muon."""
    if kernel.ndim == 4 and not kernel.is_contiguous():  # channels_last
        kernel = kernel.permute(0, 2, 3, 1)
    return kernel.view(len(kernel), -1)


# AdamW decouples weight decay from the gradient: Loshchilov and Hutter, arXiv:1711.05101. NAdam: Dozat 2016. RAdam:
# Liu et al., arXiv:1908.03265.
OPTIMIZERS = {
    "sgd": Optimizer(lambda p, lr, m: torch.optim.SGD(p, lr, momentum=m, nesterov=m > 0, fused=True), 0.02, 0.3),
    "adamw": Optimizer(lambda p, lr, m: torch.optim.AdamW(p, lr, betas=(m, 0.999), fused=True), 1e-3, 1e-2),
    "nadam": Optimizer(lambda p, lr, m: torch.optim.NAdam(p, lr, betas=(m, 0.999), decoupled_weight_decay=True), 1e-3, 1e-2),
    "radam": Optimizer(lambda p, lr, m: torch.optim.RAdam(p, lr, betas=(m, 0.999), decoupled_weight_decay=True), 1e-3, 1e-2),
    "rmsprop": Optimizer(lambda p, lr, m: torch.optim.RMSprop(p, lr, alpha=0.99, momentum=m), 2e-4, 3e-3),
    "muon": Optimizer(Muon, 1e-3, 1e-2),
}


def make_optimizer(name: str, network: nn.Module, lr: float, momentum: float, weight_decay: float):
    """The optimiser `name`; what has two dimensions or more decays, biases and normalisation do not (arXiv:1812.01187, 3.1)."""
    decaying = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return OPTIMIZERS[name].make([group for group in groups if group["params"]], lr, momentum)


def _warm(schedule: Callable[[float], float]) -> Callable[[float, float], float]:
    """A linear rise over the share `warmup` of the training, then `schedule` over the rest."""

    def factor(t: float, warmup: float) -> float:
        return t / warmup if t < warmup else schedule((t - warmup) / max(1e-9, 1 - warmup))

    return factor


def _onecycle(t: float, warmup: float) -> float:
    """Cosine up from 1/25, cosine down to 1e-4 of the start: Smith and Topin, arXiv:1708.07120, as in torch's OneCycleLR."""
    start, end = 1 / 25, 1 / 25 / 1e4
    if t < warmup:
        return 1 + (start - 1) * (1 + math.cos(math.pi * t / warmup)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (t - warmup) / max(1e-9, 1 - warmup))) / 2


# Each is a pure function (progress in [0, 1], warm-up share) -> factor on the peak learning rate.
LR_SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": _warm(lambda t: 1.0),
    "step": _warm(lambda t: 0.1 ** ((t >= 0.5) + (t >= 0.75))),
    "exponential": _warm(lambda t: 0.01**t),
    "cosine": _warm(lambda t: (1 + math.cos(math.pi * t)) / 2),
    "linear": _warm(lambda t: 1 - t),
    "trapezoid": _warm(lambda t: min(1.0, (1 - t) / 0.4)),  # flat, then to zero: Haegele et al., arXiv:2405.18392
    "onecycle": _onecycle,
}


class Average:
    """The exponential running average of a network's weights and buffers.

    The decay warms up as min(decay, (1 + n) / (10 + n)): without it BatchNorm's statistics stay near their
    initial values for hundreds of steps and the averaged network is useless until then.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        self._floats = list(zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True))
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(*self._floats, 1 - decay)
        for mine, theirs in self._others:
            mine.copy_(theirs)


def _tensors(network: nn.Module) -> Iterable[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
