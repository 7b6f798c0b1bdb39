"""Fitting a torchvision network to small images: a finer stem, other channels, and stretched images where it must be."""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torchvision.models.swin_transformer import PatchMerging, PatchMergingV2

LARGEST = 224  # pixels: the images that the networks were made for


class ShapesOnly(TorchFunctionMode):
    """While it is entered, networks are built without values: every weight is on the meta device.

    `torch.device("meta")` takes the arithmetic along by which regnet finds its widths; this takes `torch.empty`, from
    which all weights are made, and leaves small buffers to `.to("meta")`.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def shapes_of(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` builds, on the meta device: vit_h_14 in 0.2 s and no memory.

    It draws no random numbers: swin's tables, made of zeros, are filled with some nevertheless, and a network must not
    depend on whether it is the first that a process builds.
    """
    with torch.random.fork_rng(devices=[]), ShapesOnly():
        return build().to("meta")


def halvings(network: nn.Module, side: int) -> list[tuple[int, list[str]]]:
    """The layers of a network on the meta device that shrink an image, [(stride, names)], in the order of the forward pass.

    Layers that read maps of one size, as the branches of a residual block do, shrink together: one entry.
    """
    found = {}

    def note(name, module, inputs):
        stride = max(torch.nn.modules.utils._pair(module.stride))
        if stride > 1:
            found.setdefault(inputs[0].shape[-1], (stride, []))[1].append(name)

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            module.register_forward_pre_hook(lambda module, inputs, name=name: note(name, module, inputs))
    network.eval()(torch.empty(1, 3, side, side, device="meta"))
    return list(found.values())


def last_map(network: nn.Module, side: int) -> int:
    """Return the pixels a side of the last feature map of a network on the meta device.

    Args:
        network: reads square RGB images.
        side: of these images, pixels.
    """
    sides = []

    def note(module, inputs, output):
        patches = isinstance(module, PatchMerging | PatchMergingV2)  # [n, height, width, channels]
        sides.append(min(output.shape[1:3] if patches else output.shape[2:]))

    shrinks = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | PatchMerging | PatchMergingV2
    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, shrinks)]
    network.eval()(torch.empty(1, 3, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return sides[-1]


def finer(network: nn.Module, layers: list[tuple[int, list[str]]], factor: int):
    """Let the first of `layers` shrink the image `factor` (1, 2 or 4) times less."""
    for stride, names in layers:
        less = min(factor, stride)
        for name in names if less > 1 else ():
            set_stride(network, name, stride // less)
        factor //= less


def set_stride(network: nn.Module, name: str, stride: int):
    """A convolution of patches keeps patches; a pool that shrinks nothing any more passes its input on."""
    module = network.get_submodule(name)
    if not isinstance(module, nn.Conv2d):  # its stride is 2 in every network
        module.kernel_size, module.stride, module.padding = stride, stride, 0
    elif module.kernel_size == module.stride:
        replace(network, name, module, kernel_size=(stride, stride), stride=(stride, stride))
    else:
        module.stride = (stride, stride)


def replace(network: nn.Module, name: str, conv: nn.Conv2d, **other):
    """Replace `conv` by a convolution like it but for `other`, initialised as the published one.

    The new weights are normal with the standard deviation of the published layer's fresh ones,
    scaled to the new number of inputs: the variance of a response stays as published, whatever
    scheme the family draws its weights by.
    """
    same = {key: getattr(conv, key) for key in ("in_channels", "out_channels", "kernel_size", "stride", "padding")}
    new = nn.Conv2d(**{**same, **other}, bias=conv.bias is not None)
    if not conv.weight.is_meta:
        inputs = conv.weight[0].numel() / new.weight[0].numel()
        nn.init.normal_(new.weight, std=conv.weight.std().item() * math.sqrt(inputs))
        if conv.bias is not None:
            nn.init.constant_(new.bias, conv.bias.mean().item())
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, new)


def take_channels(network: nn.Module, channels: int):
    """Let the first convolution read `channels` channels."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels != channels:
        replace(network, name, first, in_channels=channels)


def smallest_side(network: nn.Module, side: int) -> int:
    """`side` if a network on the meta device takes square images of so many pixels a side, else the next that it takes.

    At most LARGEST.
    """

    def takes(side: int) -> bool:
        try:
            network(torch.empty(2, 3, side, side, device="meta"))
        except (RuntimeError, ValueError):  # a map has vanished, or is smaller than a kernel
            return False
        return True

    network.eval()
    with torch.no_grad():
        return side if takes(side) else bisect.bisect_left(range(LARGEST), True, lo=side, key=takes)


def stretched(side: int, image: tuple[int, int]) -> tuple[int, int]:
    """`image` (height, width) in its proportions with no side below `side`."""
    short = min(image)
    return tuple(-(-length * max(side, short) // short) for length in image)  # rounded up


@dataclass(frozen=True)
class Stretch:
    """A hook before a network's forward: the images bilinearly at `size` (height, width).

    A hook and no layer, so that weights have torchvision's names whatever the size of the images.
    """

    size: tuple[int, int]

    def __call__(self, network: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return F.interpolate(inputs[0], self.size, mode="bilinear")
