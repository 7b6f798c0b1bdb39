"""ARCHS: every architecture by name.

An entry, a module or an object, has
  family        what it is counted as
  DEFAULTS      its knobs and their defaults
  space(trial)  knobs drawn from an Optuna trial; a parameter is called `<arch>.<knob>`
  build(knobs, in_shape, classes)  the network: floats [n, *in_shape] -> logits [n, classes]
"""

import torch
from torch import Tensor, nn

from trainable.archs import convnet
from trainable.archs.torchvision_zoo import TorchvisionArch

# The first of each family is where a search begins: a cheap one.
ARCHS = {
    "convnet": convnet,
    "resnet18": TorchvisionArch("resnet18", "resnet"),
    "resnet34": TorchvisionArch("resnet34", "resnet"),
    "mobilenet_v3_small": TorchvisionArch("mobilenet_v3_small", "mobilenet"),
    "mobilenet_v3_large": TorchvisionArch("mobilenet_v3_large", "mobilenet"),
    "mobilenet_v2": TorchvisionArch("mobilenet_v2", "mobilenet"),
    "squeezenet1_1": TorchvisionArch("squeezenet1_1", "squeezenet"),
    "squeezenet1_0": TorchvisionArch("squeezenet1_0", "squeezenet"),
    "mnasnet0_5": TorchvisionArch("mnasnet0_5", "mnasnet"),
    "mnasnet1_0": TorchvisionArch("mnasnet1_0", "mnasnet"),
    "efficientnet_b0": TorchvisionArch("efficientnet_b0", "efficientnet"),
    "efficientnet_b3": TorchvisionArch("efficientnet_b3", "efficientnet"),
}


class Normalise(nn.Module):
    """Pixels in [0, 1] to mean 0 and standard deviation 1 a channel, as measured on the training images."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def build_network(config, data) -> nn.Sequential:
    """The network of a TrialConfig for a problem's shape (anything with in_shape, classes, mean and std)."""
    arch = ARCHS[config.arch]
    body = arch.build({**arch.DEFAULTS, **config.knobs}, data.in_shape, len(data.classes))
    return nn.Sequential(Normalise(data.mean, data.std), body)
