"""torchvision's networks, fitted to small images of any number of channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torchvision
from torch import nn

from trainable.errors import check, lookup


@dataclass(frozen=True)
class TorchvisionArch:
    """An entry of ARCHS that adapts the torchvision network `name`.

    Knobs:
        stem_stride: by how much the first two halving layers shrink the image. 4 is as published, for images of
            224 pixels; 2 takes the stride from the first, 1 from both. Each step costs about four times the time.
        dropout: before the classifier; only where the published network has one.
    """

    name: str
    family: str

    @property
    def DEFAULTS(self) -> dict:
        return {"stem_stride": 4, **({"dropout": 0.2} if takes_dropout(self.name) else {})}

    def space(self, trial) -> dict:
        knobs = {"stem_stride": trial.suggest_categorical(f"{self.name}.stem_stride", [4, 2])}
        if "dropout" in self.DEFAULTS:
            knobs["dropout"] = trial.suggest_float(f"{self.name}.dropout", 0.0, 0.5)
        return knobs

    def build(self, knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
        extra = {"dropout": knobs["dropout"]} if "dropout" in knobs else {}
        for share in extra.values():
            check(f"{self.name}.dropout", share, 0, 1)
        strides_off = lookup({4: 0, 2: 1, 1: 2}, knobs["stem_stride"], f"{self.name}.stem_stride")
        network = torchvision.models.get_model(self.name, weights=None, num_classes=classes, **extra)
        keep_size(network, strides_off)
        take_channels(network, in_shape[0])
        for module in network.modules():
            if isinstance(module, nn.Linear):
                # mnasnet and efficientnet scale their head by the number of classes: ten would begin with logits
                # ten times too large.
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm2d):
                # mnasnet's 0.0003 and mobilenet_v3's 0.01 were meant for a million steps: in a short training the
                # running statistics would never leave their start.
                module.momentum = 0.1
        return network


@cache
def takes_dropout(name: str) -> bool:
    """Whether the network takes a `dropout`; only its constructor knows, behind **kwargs."""
    try:
        with torch.device("meta"):
            torchvision.models.get_model(name, weights=None, dropout=0.2)
    except TypeError:
        return False
    return True


def keep_size(network: nn.Module, layers: int):
    """Take the stride from the first `layers` halving layers."""
    halving = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d) and m.stride in (2, (2, 2))]
    for module in halving[:layers]:
        if isinstance(module, nn.MaxPool2d):
            module.kernel_size, module.stride, module.padding = 1, 1, 0
        else:
            module.stride = (1, 1)


def take_channels(network: nn.Module, channels: int):
    """Replace the first convolution by one that reads `channels` channels."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == channels:
        return
    parent, _, leaf = name.rpartition(".")
    replacement = nn.Conv2d(
        channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None
    )
    nn.init.kaiming_normal_(replacement.weight, nonlinearity="relu")
    setattr(network.get_submodule(parent), leaf, replacement)
