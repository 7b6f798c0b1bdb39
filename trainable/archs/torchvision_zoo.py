"""torchvision's networks for classification, all of them, fitted to images of any size and number of channels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from torch import nn
from torchvision import models

from trainable.archs.torchvision_fit import (
    LARGEST,
    Stretch,
    finer,
    halvings,
    last_map,
    shapes_of,
    smallest_side,
    stretched,
    take_channels,
)
from trainable.errors import check, lookup

# The families whose published networks have a dropout before the classifier.
WITH_DROPOUT = frozenset(
    ("alexnet", "efficientnet", "googlenet", "inception", "mnasnet", "mobilenetv2", "mobilenetv3", "squeezenet", "vgg")
)


@dataclass(frozen=True)
class TorchvisionArch:
    """An entry of ARCHS that adapts the torchvision network `name`.

    Images too small for a network are stretched, inside it, to the smallest that it can take.

    Knobs:
        stem_stride: 4 is as published, for images of 224 pixels; at 2 and 1 the first layers shrink
            the image 2 and 4 times less; `auto`, `published` and `fine` are rules that look at
            the images (STEMS). CNNs lose strides in the order of the forward pass; convnext and
            the transformers cut smaller patches. Each step costs about four times the time. vit
            gets at least 7, 14 and 28 patches a side (at 4, 2 and 1), maxvit 4 cells a side in
            its last stage: a digit of 28 pixels is stretched to 7 patches, each of 4 x 4 of its
            pixels.
        dropout: before the classifier; only where the published network has one.
    """

    name: str

    @property
    def family(self) -> str:
        """The module of torchvision.models that holds it."""
        return models.get_model_builder(self.name).__module__.rpartition(".")[2]

    @property
    def DEFAULTS(self) -> dict:
        return {"stem_stride": "auto", **({"dropout": 0.2} if self.family in WITH_DROPOUT else {})}

    def space(self, trial) -> dict:
        knobs = {"stem_stride": trial.suggest_categorical(f"{self.name}.stem_stride", [4, 2])}
        if "dropout" in self.DEFAULTS:
            knobs["dropout"] = trial.suggest_float(f"{self.name}.dropout", 0.0, 0.5)
        return knobs

    def build(self, knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
        extra = {"dropout": knobs["dropout"]} if "dropout" in knobs else {}
        for share in extra.values():
            check(f"{self.name}.dropout", share, 0, 1)
        channels, image = in_shape[0], tuple(in_shape[1:])
        times = self.times_finer(knobs["stem_stride"], min(image))
        if self.family in SQUARE:
            side, published = SQUARE[self.family](self.name, times, max(image))
            size = (side, side)
        else:
            size, published = stretched(smallest(self.name, times, min(image)), image), LARGEST
        network = fitted(self.name, times, classes, published, **extra)
        take_channels(network, channels)
        soften(network)
        if self.family == "vision_transformer":  # it looks at the size of what it gets
            network.image_size, network.patch_size = side, network.conv_proj.kernel_size[0]
        if size != image:
            network.register_forward_pre_hook(Stretch(size))
        return network

    def times_finer(self, stem_stride: int | str, side: int) -> int:
        """Return how many times less than as published (1, 2 or 4) the stem shrinks an image.

        Args:
            stem_stride: the knob.
            side: the image's shorter one, pixels.

        Raises:
            BadInput: the knob has no such value.
        """
        what = f"{self.name}.stem_stride"
        rule = lookup({**{4 // times: lambda *_, t=times: t for times in TIMES}, **STEMS}, stem_stride, what)
        return rule(self, side)


def fitted(name: str, times: int, classes: int, side: int = LARGEST, **extra) -> nn.Module:
    """torchvision's network for RGB images of `side` pixels, the stem made `times` finer."""
    family = TorchvisionArch(name).family
    if family == "vision_transformer":
        extra["image_size"] = side
    if family in ("googlenet", "inception"):
        # Without the classifiers that only training uses; initialised as published, which torchvision asks for.
        extra |= {"aux_logits": False, "init_weights": True}
    if family == "maxvit":
        network = maxvit_tiny(side, classes)
    else:
        network = models.get_model(name, weights=None, num_classes=classes, **extra)
    if times > 1:
        finer(network, layers(name), times)
    return network


@cache
def layers(name: str) -> list[tuple[int, list[str]]]:
    """Its halving layers."""
    return halvings(shapes_of(lambda: fitted(name, 1, 2)), LARGEST)


@cache
def kept(name: str, times: int, side: int) -> int:
    """Return the side of its last feature map for images of `side` pixels, the stem `times` finer."""
    network = shapes_of(lambda: fitted(name, times, 2))
    return last_map(network, smallest_side(network, side))


@cache
def smallest(name: str, times: int, side: int) -> int:
    """The smallest side of at least `side` pixels that an image must have for the network, its stem `times` finer."""
    return smallest_side(shapes_of(lambda: fitted(name, times, 2)), side)


def vit_sides(name: str, times: int, side: int) -> tuple[int, int]:
    """The side to which images of `side` pixels are stretched, and the side that gives as many patches as published."""
    published = int(name.rpartition("_")[2])
    patch = published // times
    patches = max(7 * times, math.ceil(side / patch))
    return patches * patch, patches * published


def maxvit_sides(name: str, times: int, side: int) -> tuple[int, int]:
    """As `vit_sides`, for the cells of the last stage, which are 32 pixels wide as published."""
    cell = 32 // times
    cells = min(math.ceil(side / (cell * p)) * p for p in PARTITIONS)
    return cells * cell, cells * 32


# The families that take square images of certain sizes alone.
SQUARE = {"vision_transformer": vit_sides, "maxvit": maxvit_sides}
# Cells a side of the windows in which maxvit attends; 7 as published.
PARTITIONS = (7, 6, 5, 4)


def maxvit_tiny(side: int, classes: int) -> nn.Module:
    """maxvit_t, whose builder leaves no choice of the partition."""
    return models.MaxVit(
        input_size=(side, side),
        partition_size=next(p for p in PARTITIONS if side // 32 % p == 0),
        stem_channels=64,
        block_channels=[64, 128, 256, 512],
        block_layers=[2, 2, 5, 2],
        head_dim=32,
        stochastic_depth_prob=0.2,
        num_classes=classes,
    )


def soften(network: nn.Module):
    """Initial values for few classes and a short training."""
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1:]
    for linear in last:
        # mnasnet and efficientnet scale their head by the number of classes: ten would begin with logits ten times
        # too large. vit's is zero: nothing before it would move in the first step.
        nn.init.normal_(linear.weight, 0, 0.01)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # mnasnet's 0.0003 and mobilenet_v3's 0.01 were meant for a million steps: in a short training the
            # running statistics would never leave their start.
            module.momentum = 0.1


TIMES = (1, 2, 4)
LEAST_MAP = 2  # pixels a side of the last map; of 1, its kernels of 3 x 3 would only read padding


def auto_stem(arch: TorchvisionArch, side: int) -> int:
    """Return the coarsest stem that leaves LEAST_MAP pixels a side of the last map, else the finest.

    Transformers that stretch small images to enough cells keep the published one.
    """
    if arch.family in SQUARE:
        return 1
    return next((times for times in TIMES if kept(arch.name, times, side) >= LEAST_MAP), TIMES[-1])


# Rules for a stem: (architecture, shorter side of the images) -> times finer than as published.
STEMS = {
    "auto": auto_stem,
    "published": lambda arch, side: 1,
    "fine": lambda arch, side: max(2, auto_stem(arch, side)),
}

ZOO = {name: TorchvisionArch(name) for name in models.list_models(module=models)}
