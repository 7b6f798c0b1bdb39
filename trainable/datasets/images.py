"""Image files into one array: anything that PIL opens, mixed sizes and modes, decoded by all cores."""

import io
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from trainable import reading
from trainable.datasets.cache import cached, stamps
from trainable.datasets.container import naturally
from trainable.datasets.shape import SMALLEST, check_channels, require_room, size_of
from trainable.errors import BadInput

FORMAT = 2  # of the cache: count up when what is cached changes
SIDE = 96  # pixels: the largest chosen unasked; our families work at full size, and memory grows with its square
BAR = 2000  # images: a progress bar for more
# What PIL opens by calling another program, or only the header of; and those with a whole image of
# another format inside, whose size PIL does not tell before it decodes it: BLP, ICNS, ICO, IPTC.
OTHERS = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "BLP", "ICNS", "ICO", "IPTC"}
EXTENSIONS = {e for e, f in Image.registered_extensions().items() if f in Image.OPEN and f not in OTHERS}
FORMATS = sorted(set(Image.OPEN) - OTHERS)
EXIF_ORIENTATION = 0x0112
TILE_WIDTH, TILE_LENGTH = 0x0142, 0x0143
GREY = {"1", "L", "LA", "La"}
THREADS = min(32, (os.cpu_count() or 1) + 4)
METADATA = 64 << 20  # bytes of a file beside its pixels: as much text as PIL takes of a PNG
IN_FILE = 3  # bytes of memory for one of a file's text: PIL has it in blocks, as a whole, and decoded
PER_PIXEL = 20  # bytes of memory: PIL has 4 a pixel, and while it converts some copies
RAW = 16  # bytes of a file for a pixel, at most: four channels of 16 bits, and room for what does not compress


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
    require_room(sum(map(len, files.values())), (channels, *size), root.name)
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


class Memory:
    """Memory for decoding, free when it begins: small images get a share of half of it each, a large one waits to be alone.

    Args:
        threads: that decode at a time.
    """

    def __init__(self, threads: int):
        self.most = reading.free() // 2
        self.share = self.most // (2 * threads)
        self.alone = threading.RLock()

    @contextmanager
    def taken(self, needed: float) -> Iterator[None]:
        """Raises ValueError if an image needs more than there is."""
        if needed > self.most:
            raise ValueError(
                f"it would need {needed / 1e9:,.1f} GB of memory, and {self.most / 1e9:,.1f} GB are free for it; save it smaller"
            )
        with self.alone if needed > self.share else nullcontext():
            yield


def _each(work: Callable, root: Path, names: list[str], what: str, *more) -> list[tuple]:
    """What `work` returns for every file, and the exception it raised instead.

    In threads: PIL lets go of the interpreter's lock while it decodes.
    """

    memory = Memory(THREADS)

    def safely(name, *arguments):
        try:
            with reading.opened(root / name) as file:
                if reading.size_of(file) <= METADATA:
                    return work(file, memory, *arguments), None
                with memory.alone:
                    return work(Metered(file, memory.most // IN_FILE), memory, *arguments), None
        except Exception as wrong:  # a broken file raises anything, from SyntaxError to OverflowError
            return None, wrong

    with ThreadPoolExecutor(THREADS) as pool:
        return list(tqdm(pool.map(safely, names, *more), what, len(names), leave=False, disable=len(names) <= BAR))


def _reason(wrong: Exception) -> str:
    if isinstance(wrong, Image.UnidentifiedImageError):
        return "it is not an image, or is damaged"
    if isinstance(wrong, Image.DecompressionBombError):
        return f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels"
    if isinstance(wrong, OSError) and wrong.strerror:
        return wrong.strerror
    return str(wrong).split("\n")[0] or type(wrong).__name__


class Metered(io.BufferedReader):
    """A large file, of which no more is read than an image can need: METADATA, and what `more` adds for its pixels.

    Args:
        whole: bytes it may have where a decoder reads it whole, as WebP's does.
    """

    def __init__(self, file: BinaryIO, whole: int):
        super().__init__(file.raw)
        self.left, self.whole = METADATA, whole

    def more(self, size: int):
        self.left += size

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            if reading.size_of(self) > self.whole:
                raise ValueError(f"it is larger than {self.whole / 1e9:,.1f} GB, for which there is memory; save it smaller")
            return super().read(size)
        return self._counted(super().read(min(size, self.left + 1)))

    def readline(self, size: int | None = -1) -> bytes:
        return self._counted(super().readline(self.left + 1 if size is None or size < 0 else min(size, self.left + 1)))

    def _counted(self, content: bytes) -> bytes:
        self.left -= len(content)
        if self.left < 0:
            raise ValueError(f"it has more than {METADATA >> 20} MB beside its pixels, such as text; save it without")
        return content


@contextmanager
def _opened(file: BinaryIO):
    with Image.open(file, formats=FORMATS) as image:
        if min(image.size) < SMALLEST:
            raise ValueError(f"it is {image.width} x {image.height} pixels; each side needs at least {SMALLEST}")
        yield image


def _look(file: BinaryIO, memory: Memory) -> tuple[int, int, bool]:
    """(height, width, whether it is grey), from the file's header."""
    with _opened(file) as image:
        width, height = image.size
        # Not image.getexif(): a PNG's decodes the whole file to find it.
        if Image.Image.getexif(image).get(EXIF_ORIENTATION, 1) >= 5:
            width, height = height, width
        grey = image.mode in GREY or image.mode.startswith("I")
        if image.mode == "P":
            with _room(file, image, memory):  # its palette is decoded with its pixels
                colours = np.array(image.getpalette() or []).reshape(-1, 3)
            grey = bool(len(colours) and (colours == colours[:, :1]).all())
        return height, width, grey


def decode(content: bytes, in_shape: tuple[int, int, int]) -> np.ndarray:
    """A file's content as an image, uint8 [channels, height, width], as `read` makes it; raises what PIL does, or ValueError."""
    out = np.empty(in_shape, dtype=np.uint8)
    _decode(io.BytesIO(content), Memory(1), out)
    return out


def _tile(image: Image.Image) -> int:
    """The pixels of a TIFF's tile: it is decoded whole, and may be larger than the image."""
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag, 0) for tag in (TILE_WIDTH, TILE_LENGTH)]
    return math.prod(sides) if all(isinstance(side, int) for side in sides) else 0


@contextmanager
def _room(file: BinaryIO, image: Image.Image, memory: Memory) -> Iterator[None]:
    """Take the memory to decode an image. Raises ValueError if there is not as much."""
    pixels = max(math.prod(image.size), _tile(image))
    with memory.taken(PER_PIXEL * pixels):
        if isinstance(file, Metered):
            file.more(RAW * pixels)
        yield


def _decode(file: BinaryIO, memory: Memory, out: np.ndarray):
    """Read a file into `out`, uint8 [channels, height, width]."""
    channels, height, width = out.shape
    with _opened(file) as image, ExitStack() as stack:
        image.draft(None, (2 * max(height, width),) * 2)  # a large JPEG is decoded at half, quarter or eighth size
        stack.enter_context(_room(file, image, memory))
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
