"""ALIGNMENTS: how images are brought into one frame before a network sees them, from their own moments.

Networks that see differently aligned images err on different ones: an ensemble gains more by that than by other seeds (LOG.md).
Deskewing digits: LeCun et al., Gradient-based learning applied to document recognition, 1998, section III; normalising their
width, for the members of an ensemble: Ciresan, Meier and Schmidhuber, arXiv:1202.2745.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainable.augment import basis, warp

SPREAD = 0.27  # half sides: the horizontal standard deviation to come near
NEARER = 0.7  # how near: 1 would make a one as wide as a zero
NARROWEST, WIDEST = 0.55, 1.6  # that a width is divided by
STEEPEST = 1.0  # lean, to the side per row
LEAST = 1e-6  # mass, variance: of an image without anything on it


def slant(images: Tensor) -> Tensor:
    """Sheared so that it does not lean: the horizontal middle is the same in every row, as far as one line goes."""
    return _aligned(images, 0.0)


def moments(images: Tensor) -> Tensor:
    """Likewise, and made wider or narrower towards one horizontal spread."""
    return _aligned(images, NEARER)


# Each makes of images [n, c, h, w] the maps [n, 3, 3] from output to input coordinates.
ALIGNMENTS: dict[str, Callable[[Tensor], Tensor] | None] = {"none": None, "slant": slant, "moments": moments}


def align(images: Tensor, how: str) -> Tensor:
    """Images [n, c, h, w] of floats in [0, 1], aligned by an entry of ALIGNMENTS."""
    if how == "none":
        return images
    with torch.autocast(images.device.type, enabled=False):  # positions in bf16 would be half a pixel off
        return warp(images, ALIGNMENTS[how](images))


def _aligned(images: Tensor, nearer: float) -> Tensor:
    """The maps; what weighs is how far a pixel is from the border's mean."""
    grey = images.mean(dim=1)
    border = torch.cat([grey[:, 0], grey[:, -1], grey[:, 1:-1, 0], grey[:, 1:-1, -1]], dim=1).mean(dim=1)
    mass = (grey - border[:, None, None]).abs().flatten(1)
    mass = mass / mass.sum(dim=1, keepdim=True).clamp(min=LEAST)
    x, y, _ = basis(*grey.shape[1:], str(images.device))[0]
    x0, y0 = mass @ x, mass @ y
    xx, xy, yy = mass @ x**2 - x0**2, mass @ (x * y) - x0 * y0, mass @ y**2 - y0**2
    lean = (xy / yy.clamp(min=LEAST)).clamp(-STEEPEST, STEEPEST)
    spread = (xx - lean * xy).clamp(min=LEAST).sqrt()  # of what is upright
    narrower = (spread / SPREAD).pow(nearer).clamp(NARROWEST, WIDEST)
    out = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    out[:, 0, 0], out[:, 0, 1], out[:, 0, 2] = narrower, lean, x0 - narrower * x0 - lean * y0  # the middle stays
    return out
