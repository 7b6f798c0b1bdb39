"""Augmentation in batch, on the device: one warp with one interpolation, then changes of pixels, then mixing.

Every image gets its own transformation, drawn from a torch.Generator: the same generator gives the same images.

Coordinates are in half the longer side, (0, 0) in the middle. All that moves pixels is composed into one matrix an
image: a homography from output to input coordinates, and the displacements of CONTROL x CONTROL points. Their
product with a constant basis is the sampling grid.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

CONTROL = 5  # points a side of an elastic field


@dataclass(frozen=True)
class Augment:
    """One augmentation; a strength of 0 is off.

    `kind` says what `draw` makes of n images:
      homography  draw(n, strength, generator) -> [n, 3, 3], output to input coordinates
      field       draw(n, strength, generator) -> [n, CONTROL * CONTROL, 2], displacements (x, y) of the control points
      pixels      draw(images, strength, generator) -> images
      mix         draw(images, targets, strength, generator) -> (images, targets), targets [n, classes]
    """

    kind: str
    draw: Callable
    default: float
    high: float  # the strongest worth searching
    limit: float  # the strongest that can be meant


def _uniform(n: int, strength: float, generator: Generator, *shape: int) -> Tensor:
    return (torch.rand(n, *shape, generator=generator, device=generator.device) * 2 - 1) * strength


def _matrix(n: int, generator: Generator, entries: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """The identity [n, 3, 3] but for some entries, each [n]."""
    out = torch.eye(3, device=generator.device).repeat(n, 1, 1)
    for (row, column), values in entries.items():
        out[:, row, column] = values
    return out


def rotation(n: int, degrees: float, generator: Generator) -> Tensor:
    angle = _uniform(n, math.radians(degrees), generator)
    cos, sin = angle.cos(), angle.sin()
    return _matrix(n, generator, {(0, 0): cos, (0, 1): -sin, (1, 0): sin, (1, 1): cos})


def shift(n: int, share: float, generator: Generator) -> Tensor:
    """Up to `share` of the longer side in either direction."""
    by = _uniform(n, 2 * share, generator, 2)
    return _matrix(n, generator, {(0, 2): by[:, 0], (1, 2): by[:, 1]})


def scale(n: int, share: float, generator: Generator) -> Tensor:
    """Between 1 / (1 + share) and 1 + share, the two axes alike."""
    factor = _uniform(n, math.log1p(share), generator).exp()
    return _matrix(n, generator, {(0, 0): factor, (1, 1): factor})


def shear(n: int, slope: float, generator: Generator) -> Tensor:
    """Horizontal: a slant to the left or right."""
    return _matrix(n, generator, {(0, 1): _uniform(n, slope, generator)})


def perspective(n: int, slope: float, generator: Generator) -> Tensor:
    """Nearer at one side than at the other: the scale at an edge is between 1 / (1 + slope) and 1 / (1 - slope)."""
    by = _uniform(n, slope, generator, 2)
    return _matrix(n, generator, {(2, 0): by[:, 0], (2, 1): by[:, 1]})


def flip(n: int, probability: float, generator: Generator) -> Tensor:
    """Left to right."""
    draw = torch.rand(n, generator=generator, device=generator.device)
    return _matrix(n, generator, {(0, 0): 1 - 2 * (draw < probability).float()})


def elastic(n: int, strength: float, generator: Generator) -> Tensor:
    """Smooth random displacements, up to `strength` half sides (Simard et al., Best Practices for CNNs, 2003)."""
    return _uniform(n, strength, generator, CONTROL * CONTROL, 2)


def erasing(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """With this probability, black out a rectangle of a fifth to two fifths of each side (arXiv:1708.04896)."""
    draw = torch.rand(5, len(images), generator=generator, device=generator.device)
    inside = _rectangles(images, 0.2 + 0.2 * draw[0], 0.2 + 0.2 * draw[1], draw[2], draw[3])
    return images * ~(inside & (draw[4] < probability)[:, None, None, None])


def _rectangles(images: Tensor, height: Tensor, width: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Masks [n, 1, h, w] from shares of the sides, and from shares of the room that is left: [n] each, in [0, 1]."""
    h, w = images.shape[2:]
    y, x = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
    height, width = (height * h)[:, None], (width * w)[:, None]
    top, left = top[:, None] * (h - height), left[:, None] * (w - width)
    rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
    return rows[:, None, :, None] & columns[:, None, None, :]


def mixup(images: Tensor, targets: Tensor, probability: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """With this probability, blend an image with the one before it, by a share drawn from [0, 1] (arXiv:1710.09412)."""
    draw = torch.rand(2, len(images), generator=generator, device=generator.device)
    share = draw[0] * (draw[1] < probability)
    return images.lerp(images.roll(1, 0), share[:, None, None, None]), targets.lerp(targets.roll(1, 0), share[:, None])


def cutmix(images: Tensor, targets: Tensor, probability: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """With this probability, paste a rectangle of the image before it, of a share drawn from [0, 1] (arXiv:1905.04899)."""
    draw = torch.rand(4, len(images), generator=generator, device=generator.device)
    side = draw[0].sqrt()
    inside = _rectangles(images, side, side, draw[1], draw[2]) & (draw[3] < probability)[:, None, None, None]
    share = inside.flatten(1).float().mean(dim=1, keepdim=True)
    return torch.where(inside, images.roll(1, 0), images), targets.lerp(targets.roll(1, 0), share)


AUGMENTS = {
    "rotation": Augment("homography", rotation, 12.0, 25.0, 180.0),  # degrees
    "shift": Augment("homography", shift, 0.09, 0.15, 0.5),  # share of the side
    "scale": Augment("homography", scale, 0.12, 0.25, 1.0),  # share
    "shear": Augment("homography", shear, 0.15, 0.3, 1.0),  # slope
    "perspective": Augment("homography", perspective, 0.0, 0.2, 0.45),  # slope
    "flip": Augment("homography", flip, 0.0, 0.0, 1.0),  # probability; not searched: digits have a left and a right
    "elastic": Augment("field", elastic, 0.1, 0.2, 0.5),  # half sides
    "erasing": Augment("pixels", erasing, 0.0, 0.3, 1.0),  # probability
    "mixup": Augment("mix", mixup, 0.0, 0.3, 1.0),  # probability
    "cutmix": Augment("mix", cutmix, 0.0, 0.3, 1.0),  # probability
}


def augment(images: Tensor, strengths: Mapping[str, float], generator: Generator, homography: Tensor | None = None) -> Tensor:
    """Change each image of a batch [n, c, h, w] of floats in [0, 1] in its own way; outside the image is 0.

    All but mixing, for which see `mix`. `homography`: by which each image is mapped first, [n, 3, 3], in the same interpolation.
    """
    n = len(images)
    on = [(AUGMENTS[name], strength) for name, strength in strengths.items() if strength > 0]
    field = None
    for a, strength in on:
        if a.kind == "homography":
            drawn = a.draw(n, strength, generator)
            homography = drawn if homography is None else homography @ drawn
        if a.kind == "field":
            field = a.draw(n, strength, generator)
    if homography is not None or field is not None:
        images = warp(images, homography, field, projective=strengths.get("perspective", 0) > 0)
    for a, strength in on:
        if a.kind == "pixels":
            images = a.draw(images, strength, generator)
    return images


def mix(images: Tensor, labels: Tensor, classes: int, strengths: Mapping[str, float], generator: Generator):
    """Mix images with each other. Returns them and their targets: the labels [n], or [n, classes] where any is mixed."""
    targets = labels
    for name, strength in strengths.items():
        if AUGMENTS[name].kind == "mix" and strength > 0:
            if targets.ndim == 1:
                targets = F.one_hot(labels, classes).to(images.dtype)
            images, targets = AUGMENTS[name].draw(images, targets, strength, generator)
    return images, targets


def warp(images: Tensor, homography: Tensor | None, field: Tensor | None = None, projective: bool = False) -> Tensor:
    """Images [n, c, h, w], each mapped by its homography [n, 3, 3] and displaced by its field, in one interpolation."""
    grid = _grid(homography, field, projective, *images.shape[2:], images.device)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _grid(homography: Tensor | None, field: Tensor | None, projective: bool, h: int, w: int, device) -> Tensor:
    """What grid_sample takes, [n, h, w, 2]. Without perspective it is one matrix product."""
    points, smooth, longer = basis(h, w, str(device))
    if homography is None:
        homography = torch.eye(3, device=device).expand(len(field), 3, 3)
    if projective:
        mapped = homography @ points
        grid = mapped[:, :2] / mapped[:, 2:]
        grid = grid if field is None else grid + field.mT @ smooth
    else:
        maps = homography[:, :2] if field is None else torch.cat([homography[:, :2], field.mT], dim=2)
        every = points if field is None else torch.cat([points, smooth])
        grid = (maps.flatten(0, 1) @ every).view(-1, 2, h * w)  # one large product is faster than n small ones
    return (grid * longer).view(-1, 2, h, w).permute(0, 2, 3, 1)


@cache  # a captured graph goes on reading what was here
def basis(h: int, w: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of every pixel: (x, y, 1) [3, h * w], its bicubic weights of the control points, and what the sides are divided by."""
    longer = max(h, w)
    y = (torch.arange(h, device=device) * 2 + 1 - h) / longer
    x = (torch.arange(w, device=device) * 2 + 1 - w) / longer
    points = torch.stack([x.repeat(h), y.repeat_interleave(w), torch.ones(h * w, device=device)])
    each = torch.eye(CONTROL * CONTROL, device=device).view(-1, 1, CONTROL, CONTROL)
    smooth = F.interpolate(each, size=(h, w), mode="bicubic", align_corners=True).flatten(1)
    return points, smooth, torch.tensor([[longer / w], [longer / h]], device=device)


VIEW = 0.5  # of the strengths that a network was trained with


def can_view(strengths: Mapping[str, float]) -> bool:
    """Whether `view` has anything to draw from."""
    return any(strength > 0 and AUGMENTS[name].kind in ("homography", "field") for name, strength in strengths.items())


def view(images: Tensor, strengths: Mapping[str, float], number: int) -> Tensor:
    """The images as seen at test time: number 0 as they are, the others through warps of half the strengths.

    What a network was trained to overlook is what it may be shown. The same number gives the same view.
    """
    if not number:
        return images
    warps = {name: s * VIEW for name, s in strengths.items() if AUGMENTS[name].kind in ("homography", "field")}
    return augment(images, warps, Generator(images.device).manual_seed(number))
