"""ARCHS: every architecture by name.

An entry, a module or an object, has
  family        what it is counted as
  DEFAULTS      its knobs and their defaults
  space(trial)  knobs drawn from an Optuna trial; a parameter is called `<arch>.<knob>`
  build(knobs, in_shape, classes)  the network: floats [n, *in_shape] -> logits [n, classes]
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.align import align
from trainable.archs import convnet, mixer, plain, strided, vit, wide
from trainable.archs.torchvision_zoo import ZOO
from trainable.errors import BadInput

ARCHS = {
    "convnet": convnet,
    "wide": wide,
    "plain": plain,
    "strided": strided,
    "mixer": mixer,
    "vit": vit,
    **ZOO,
}


class Normalise(nn.Module):
    """Pixels in [0, 1] to mean 0 and standard deviation 1 a channel, as measured on the training images.

    Before that, images are aligned, but not in training, where that and the augmentation are one interpolation; and resized
    to `size` pixels a side, unless that is 0.
    """

    def __init__(self, mean: list[float], std: list[float], size: int = 0, how: str = "none"):
        super().__init__()
        self.size, self.how = size, how
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            x = align(x, self.how)
        if self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return (x - self.mean) / self.std


def build_network(config, data) -> nn.Sequential:
    """The network of a TrialConfig for a problem's shape (anything with in_shape, classes, mean and std).

    Floats in [0, 1], [n, *in_shape] -> logits [n, classes].

    Raises:
        BadInput: a knob that cannot be, or an architecture that ends its process.
    """
    arch = ARCHS[config.arch]
    side = config.input_size
    in_shape = (data.in_shape[0], side, side) if side else data.in_shape
    try:
        body = arch.build({**arch.DEFAULTS, **config.knobs}, in_shape, len(data.classes))
    except SystemExit as end:  # it would end whole sweeps without a word
        raise BadInput(f"the architecture {config.arch} calls exit({end.code}) while it is built") from end
    return nn.Sequential(Normalise(data.mean, data.std, side, config.align), body)
