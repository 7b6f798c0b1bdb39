"""Wide, shallow and fast: airbench94 (Jordan, arXiv:2404.00498, github.com/KellerJordan/cifar10-airbench), narrower.

A 2x2 convolution (learned, not whitened), groups of conv-pool-norm-act-conv-norm-act, a global maximum, logits scaled down.
BatchNorm has a bias but no weight and forgets quickly; kernels begin as the identity.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainable.archs import layers
from trainable.archs.layers import ACTIVATIONS
from trainable.errors import BadInput, check

family = "wide"

DEFAULTS = {
    "width": 16,  # channels of the first group
    "growth": 6,  # the other groups have so many times more
    "groups": 3,  # each halves the image
    "depth": 2,  # convolutions of a group
    "kernel": 3,
    "activation": "gelu",
    "scale": 0.11,  # of the logits
    "dropout": 0.0,
}


def space(trial) -> dict:
    return {
        # Numbers of channels that 16 does not divide are slow: 24 train as fast as 32 (AVX512, bf16).
        "width": trial.suggest_int("wide.width", 16, 32, step=16),
        "growth": trial.suggest_int("wide.growth", 2, 6),
        "groups": trial.suggest_int("wide.groups", 2, 3),
        "depth": trial.suggest_int("wide.depth", 1, 3),
        "activation": trial.suggest_categorical("wide.activation", list(ACTIVATIONS)),
        "scale": trial.suggest_float("wide.scale", 0.05, 1.0, log=True),
        "dropout": trial.suggest_float("wide.dropout", 0.0, 0.3),
    }


class Scale(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def build(knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network for images of more than 2 ** groups pixels a side.

    Raises:
        BadInput: a knob that cannot be, or an image too small.
    """
    whole = {"width": (1, 1024), "growth": (1, 16), "groups": (1, 7), "depth": (1, 100), "kernel": (1, 15)}
    layers.check_knobs("wide", knobs, {"activation": ACTIVATIONS}, whole, shares=("dropout",))
    layers.check_odd("wide", knobs)
    check("wide.scale", knobs["scale"], 1e-4, 100)
    if min(in_shape[1:]) <= 2 ** knobs["groups"]:
        raise BadInput(
            f"wide.groups is {knobs['groups']}: images of {min(in_shape[1:])} pixels are too small; "
            f"fewer groups or an input_size of {2 ** knobs['groups'] + 1} would do"
        )
    act = ACTIVATIONS[knobs["activation"]]
    channels = 2 * 4 * in_shape[0]  # two for each pixel of a 2x2 patch
    body = [nn.Conv2d(in_shape[0], channels, 2), act()]
    for group in range(knobs["groups"]):
        width = knobs["width"] * (knobs["growth"] if group else 1)
        for i in range(knobs["depth"]):
            pool = [nn.MaxPool2d(2)] if i == 0 else []
            body += [same(channels, width, knobs["kernel"]), *pool, norm(width), act()]
            channels = width
    head = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(knobs["dropout"])]
    return nn.Sequential(*body, *head, nn.Linear(channels, classes, bias=False), Scale(knobs["scale"]))


def same(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A convolution that passes the inputs on, as far as there are outputs for them, until it has learned more."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.dirac_(layer.weight[:inputs].detach())
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, momentum=0.4)
    del layer.weight
    layer.register_buffer("weight", torch.ones(channels))
    return layer
