"""Image files into one array: anything that PIL opens, mixed sizes and modes, decoded by all cores."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from trainable.datasets.cache import cached, stamps
from trainable.datasets.container import naturally
from trainable.datasets.shape import SMALLEST, check_channels, size_of
from trainable.errors import BadInput

FORMAT = 2  # of the cache: count up when what is cached changes
SIDE = 96  # pixels: the largest chosen unasked; our families work at full size, and memory grows with its square
BAR = 2000  # images: a progress bar for more
# What PIL opens by calling another program, or only the header of.
OTHERS = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
EXTENSIONS = {e for e, f in Image.registered_extensions().items() if f in Image.OPEN and f not in OTHERS}
FORMATS = sorted(set(Image.OPEN) - OTHERS)
EXIF_ORIENTATION = 0x0112
GREY = {"1", "L", "LA", "La"}


def is_image(name: str) -> bool:
    """By its name alone; a hidden file is none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def read(
    data: Path,
    name: str,
    root: Path,
    files: dict[str, list[str]],
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
) -> dict[str, np.ndarray]:
    """Every split's images, uint8 [n, channels, height, width], kept in `data/.cache`.

    Without `image_size` (a side, or height and width) they have the size that all of train's have, if that is at
    most 96 x 96; else a square of the median of their shorter sides, at most 96. An image of another size is
    resized by its shorter side, antialiased, and cropped at its centre. Without `channels` there is one if all of
    train's files are grey, else three. Train alone decides: images to predict, added later, do not change the shape.
    16 bits become the upper 8, transparency becomes white, EXIF's rotation is applied, and the first of several
    frames is taken.

    Args:
        name: of the dataset, in the cache.
        files: split -> paths relative to `root`; "train" is among them unless both size and channels are given.

    Raises:
        BadInput: a file cannot be read or has a side below 4 pixels (the first is named and the others counted), or
            the size or the channels asked for cannot be.
    """
    size = size_of(image_size)
    check_channels(channels)
    try:
        listing = {split: stamps(root, names) for split, names in files.items()}
    except OSError as wrong:
        raise BadInput(f"{wrong.filename} cannot be used: {wrong.strerror}") from wrong
    key = (FORMAT, str(root.resolve()), listing, size, channels)
    return cached(data, name, key, partial(_decode_all, root, files, size, channels))


def _decode_all(root: Path, files: dict[str, list[str]], size, channels) -> dict[str, np.ndarray]:
    if size is None or channels is None:
        looks = [look for look, _ in _each(_look, root, files["train"], "looking at images") if look]
        heights, widths, greys = zip(*looks or [(SMALLEST, SMALLEST, True)], strict=True)
        size = size or _choose(np.array([heights, widths]))
        channels = channels or (1 if all(greys) else 3)
    arrays = {split: np.empty((len(names), channels, *size), dtype=np.uint8) for split, names in files.items()}
    slots = [image for array in arrays.values() for image in array]  # views
    names = [name for own in files.values() for name in own]
    results = _each(_decode, root, names, "reading images", slots)
    broken = sorted(((n, wrong) for n, (_, wrong) in zip(names, results, strict=True) if wrong), key=lambda b: naturally(b[0]))
    if broken:
        name, wrong = broken[0]
        others = f"; {len(broken) - 1} more cannot be used either" if len(broken) > 1 else ""
        raise BadInput(f"{root / name} cannot be used: {_reason(wrong)}{others}")
    return arrays


def _choose(sides: np.ndarray) -> tuple[int, int]:
    """(height, width) for images of heights sides[0] and widths sides[1]."""
    if (sides == sides[:, :1]).all() and sides.max() <= SIDE:
        return int(sides[0, 0]), int(sides[1, 0])
    side = min(SIDE, round(float(np.median(sides.min(axis=0)))))
    return side, side


def _each(work: Callable, root: Path, names: list[str], what: str, *more) -> list[tuple]:
    """What `work` returns for every file, and the exception it raised instead.

    In threads: PIL lets go of the interpreter's lock while it decodes.
    """

    def safely(name, *arguments):
        try:
            return work(root / name, *arguments), None
        except Exception as wrong:  # a broken file raises anything, from SyntaxError to OverflowError
            return None, wrong

    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(safely, names, *more), what, len(names), leave=False, disable=len(names) <= BAR))


def _reason(wrong: Exception) -> str:
    if isinstance(wrong, Image.UnidentifiedImageError):
        return "it is not an image, or is damaged"
    if isinstance(wrong, Image.DecompressionBombError):
        return f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels"
    return str(wrong).split("\n")[0] or type(wrong).__name__


@contextmanager
def _opened(path: Path):
    with Image.open(path, formats=FORMATS) as image:
        if min(image.size) < SMALLEST:
            raise ValueError(f"it is {image.width} x {image.height} pixels; each side needs at least {SMALLEST}")
        yield image


def _look(path: Path) -> tuple[int, int, bool]:
    """(height, width, whether it is grey), from the file's header."""
    with _opened(path) as image:
        width, height = image.size
        # Not image.getexif(): a PNG's decodes the whole file to find it.
        if Image.Image.getexif(image).get(EXIF_ORIENTATION, 1) >= 5:
            width, height = height, width
        grey = image.mode in GREY or image.mode.startswith("I")
        if image.mode == "P" and (palette := image.getpalette()):
            colours = np.array(palette).reshape(-1, 3)
            grey = bool((colours == colours[:, :1]).all())
        return height, width, grey


def decode(content: bytes, in_shape: tuple[int, int, int]) -> np.ndarray:
    """A file's content as an image, uint8 [channels, height, width], as `read` makes it; raises what PIL does, or ValueError."""
    out = np.empty(in_shape, dtype=np.uint8)
    _decode(io.BytesIO(content), out)
    return out


def _decode(path: Path | io.BytesIO, out: np.ndarray):
    """Read a file into `out`, uint8 [channels, height, width]."""
    channels, height, width = out.shape
    with _opened(path) as image:
        image.draft(None, (2 * max(height, width),) * 2)  # a large JPEG is decoded at half, quarter or eighth size
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        out[:] = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
