"""The shape a network asks for: arrays of images, resized and with as many channels."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from trainable import reading
from trainable.datasets.container import Dataset, Split
from trainable.errors import BadInput, check

SMALLEST, LARGEST = 4, 1024  # pixels a side
CHUNK = 64 << 20  # bytes of images: no copy of all of them is made on the way


def size_of(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """`image_size`, a side or (height, width), as (height, width); raises BadInput."""
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    for side in size:
        check("image size", side, SMALLEST, LARGEST, whole=True)
    return size


def check_channels(channels: int | None):
    if channels not in (None, 1, 3):
        raise BadInput(f"channels is {channels!r}; it should be 1 (grey) or 3 (colour)")


def reshape(data: Dataset, image_size: int | tuple[int, int] | None, channels: int | None) -> Dataset:
    """The dataset at another size or with other channels; None leaves them. Raises BadInput for what cannot be."""
    check_channels(channels)
    shape = (channels or data.in_shape[0], *(size_of(image_size) or data.in_shape[1:]))
    if shape == data.in_shape:
        return data
    splits = {name: getattr(data, name) for name in ("train", "val", "test", "unlabelled")}
    require_room(sum(map(len, splits.values())), shape, data.name)
    return replace(data, **{name: _split(split, shape) for name, split in splits.items()})


def require_room(images: int, shape: tuple[int, int, int], name: str):
    """Raises BadInput unless there is memory for so many images of this shape."""
    channels, height, width = shape
    what = f"{name}: {images:,} images of {width} x {height} pixels and {channels} channels"
    reading.require(images * math.prod(shape), what, "give a smaller --image-size, or take a machine with more memory")


def _split(split: Split, shape: tuple[int, int, int]) -> Split:
    out = np.empty((len(split), *shape), dtype=np.uint8)
    chunk = max(1, CHUNK // math.prod(shape))
    for start in range(0, len(split), chunk):
        images = recolour(split.images[start : start + chunk], shape[0])
        if images.shape[2:] != shape[1:]:
            images = functional.interpolate(
                torch.from_numpy(np.ascontiguousarray(images)), shape[1:], mode="bilinear", antialias=True
            ).numpy()
        out[start : start + chunk] = images
    return replace(split, images=out)


def recolour(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [n, 1 or 3, h, w] -> [n, channels, h, w]; grey is ITU-R 601's luma, as in PIL."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.broadcast_to(images, (len(images), 3, *images.shape[2:]))
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((np.einsum("nchw,c->nhw", images, weights) + 0x8000) >> 16).astype(np.uint8)[:, None]
