"""Augmentation in batch, on the device: one warp with one interpolation, then changes of pixels.

Every image gets its own transformation, drawn from a torch.Generator: the same generator gives the same images.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Augment:
    """One augmentation; a strength of 0 is off.

    `kind` says what `draw` returns for n images at a strength:
      affine  draw(n, strength, generator) -> [n, 2, 3], output to input coordinates, both in [-1, 1]
      field   draw(n, strength, generator, h, w) -> [n, h, w, 2], added to the sampling grid
      pixels  draw(images, strength, generator) -> images
    """

    kind: str
    draw: Callable[..., Tensor]
    default: float
    high: float  # the strongest worth searching


def _uniform(n: int, strength: float, generator: Generator) -> Tensor:
    return (torch.rand(n, generator=generator, device=generator.device) * 2 - 1) * strength


def _affine(xx, xy, yx, yy, tx=None, ty=None) -> Tensor:
    zero = torch.zeros_like(xx)
    rows = [xx, xy, zero if tx is None else tx, yx, yy, zero if ty is None else ty]
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def rotation(n: int, degrees: float, generator: Generator) -> Tensor:
    angle = _uniform(n, math.radians(degrees), generator)
    return _affine(angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def shift(n: int, share: float, generator: Generator) -> Tensor:
    """Up to `share` of the side in either direction."""
    one, zero = torch.ones(n, device=generator.device), torch.zeros(n, device=generator.device)
    return _affine(one, zero, zero, one, _uniform(n, 2 * share, generator), _uniform(n, 2 * share, generator))


def scale(n: int, share: float, generator: Generator) -> Tensor:
    """Between 1 / (1 + share) and 1 + share, the two axes alike."""
    factor = _uniform(n, math.log1p(share), generator).exp()
    return _affine(factor, torch.zeros_like(factor), torch.zeros_like(factor), factor)


def shear(n: int, slope: float, generator: Generator) -> Tensor:
    """Horizontal: a slant to the left or right."""
    slant = _uniform(n, slope, generator)
    return _affine(torch.ones_like(slant), slant, torch.zeros_like(slant), torch.ones_like(slant))


def elastic(n: int, strength: float, generator: Generator, h: int, w: int) -> Tensor:
    """Smooth random displacements from a 5x5 grid of control points, in units of half the side.

    After Simard et al., Best Practices for Convolutional Neural Networks, 2003.
    """
    control = _uniform(n * 2 * 25, strength, generator).view(n, 2, 5, 5)
    return F.interpolate(control, size=(h, w), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def erasing(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """With this probability, black out a rectangle of a fifth to two fifths of each side (arXiv:1708.04896)."""
    n, _, h, w = images.shape
    draw = torch.rand(5, n, 1, generator=generator, device=generator.device)
    height, width = (0.2 + 0.2 * draw[0]) * h, (0.2 + 0.2 * draw[1]) * w
    top, left = draw[2] * (h - height), draw[3] * (w - width)
    y, x = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
    rows = (y >= top) & (y < top + height) & (draw[4] < probability)
    columns = (x >= left) & (x < left + width)
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


AUGMENTS = {
    "rotation": Augment("affine", rotation, 12.0, 25.0),  # degrees
    "shift": Augment("affine", shift, 0.09, 0.15),  # share of the side
    "scale": Augment("affine", scale, 0.12, 0.25),  # share
    "shear": Augment("affine", shear, 0.15, 0.3),  # slope
    "elastic": Augment("field", elastic, 0.1, 0.2),  # half sides
    "erasing": Augment("pixels", erasing, 0.0, 0.3),  # probability
}


def augment(images: Tensor, strengths: Mapping[str, float], generator: Generator) -> Tensor:
    """Change each image of a batch [n, c, h, w] of floats in [0, 1] in its own way; outside the image is 0."""
    n, _, h, w = images.shape
    on = [(AUGMENTS[name], strength) for name, strength in strengths.items() if strength > 0]
    theta = None
    for a, strength in on:
        if a.kind == "affine":
            drawn = a.draw(n, strength, generator)
            theta = drawn if theta is None else _compose(theta, drawn)
    fields = [a.draw(n, strength, generator, h, w) for a, strength in on if a.kind == "field"]
    if theta is not None or fields:
        if theta is None:
            theta = torch.eye(2, 3, device=images.device).expand(n, 2, 3)
        grid = F.affine_grid(theta, [n, 1, h, w], align_corners=False)
        for displacement in fields:
            grid = grid + displacement
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    for a, strength in on:
        if a.kind == "pixels":
            images = a.draw(images, strength, generator)
    return images


def _compose(first: Tensor, second: Tensor) -> Tensor:
    """The affine map x -> first(second(x)), both [n, 2, 3]."""
    linear = first[:, :, :2] @ second[:, :, :2]
    offset = first[:, :, :2] @ second[:, :, 2:] + first[:, :, 2:]
    return torch.cat([linear, offset], dim=2)
