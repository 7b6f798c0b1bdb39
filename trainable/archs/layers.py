"""Blocks that several families share."""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from trainable.errors import BadInput, check, lookup

ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

# channels -> a normalisation of [n, channels, h, w]; group: Wu and He, arXiv:1803.08494
NORMS = {"batch": nn.BatchNorm2d, "group": lambda channels: nn.GroupNorm(math.gcd(channels, 8), channels)}

# How a side is halved; stride: by the convolution that follows; blur: Zhang's MaxBlurPool, Rect-2, arXiv:1904.11486.
POOLS = {
    "max": lambda: nn.MaxPool2d(2),
    "average": lambda: nn.AvgPool2d(2),
    "stride": None,
    "blur": lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(2)),
}


def conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, activation: str = "relu", norm: str = "batch", groups: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size (but for the stride), normalisation, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        NORMS[norm](outputs),
        ACTIVATIONS[activation](),
    )


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class SqueezeExcite(nn.Sequential):
    """Weighs the channels by what is in the whole image: Hu et al., arXiv:1709.01507."""

    def __init__(self, channels: int):
        inner = max(4, channels // 8)
        squeeze, excite = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        super().__init__(nn.AdaptiveAvgPool2d(1), squeeze, nn.ReLU(inplace=True), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x)


class Patches(nn.Module):
    """Images [n, c, h, w], padded to multiples of the patch, to [n, dim, *size]; knobs: patch, stem, dim.

    Where the stem is `conv`, two convolutions of 3x3 come first: Xiao et al., arXiv:2106.14881.
    """

    def __init__(self, arch: str, knobs: Mapping, in_shape: tuple[int, int, int]):
        super().__init__()
        channels, patch, dim = in_shape[0], knobs["patch"], knobs["dim"]
        height, width = (-side % patch for side in in_shape[1:])
        self.size = tuple(math.ceil(side / patch) for side in in_shape[1:])
        self.pad = nn.ZeroPad2d((width // 2, width - width // 2, height // 2, height - height // 2))
        self.stem = nn.Identity()
        if knobs["stem"] == "conv":
            if patch % 2:
                raise BadInput(f"{arch}.patch is {patch}; with a conv stem, which halves the image, it should be even")
            self.stem = nn.Sequential(conv(channels, dim // 4, 3), conv(dim // 4, dim // 2, 3, stride=2))
            channels, patch = dim // 2, patch // 2
        self.embed = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.stem(self.pad(x)))


def flatten(channels: int, height: int, width: int, most: int = 8) -> tuple[nn.Sequential, int]:
    """A map as a vector, averaged to at most `most` x `most` before; and the length of that vector."""
    size = (min(height, most), min(width, most))
    pool = [] if size == (height, width) else [nn.AdaptiveAvgPool2d(size)]
    return nn.Sequential(*pool, nn.Flatten()), channels * size[0] * size[1]


def check_knobs(
    arch: str,
    knobs: Mapping,
    names: Mapping[str, Iterable],
    whole: Mapping[str, tuple[int, int]],
    shares: Iterable[str] = (),
):
    """Knobs that are one of some names, whole numbers from low to high, or shares from 0 to 0.95.

    Raises:
        BadInput: one that is not.
    """
    for knob, (low, high) in whole.items():
        check(f"{arch}.{knob}", knobs[knob], low, high, whole=True)
    for knob in shares:
        check(f"{arch}.{knob}", knobs[knob], 0, 0.95)
    for knob, known in names.items():
        lookup(dict.fromkeys(known), knobs[knob], f"{arch}.{knob}")


def check_odd(arch: str, knobs: Mapping):
    if knobs["kernel"] % 2 == 0:
        raise BadInput(f"{arch}.kernel is {knobs['kernel']}; it should be odd")
