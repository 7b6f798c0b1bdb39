"""12,000 of the competition's 42,000 labelled digits, as PNGs in one Parquet file that comes with the project."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from trainable import reading
from trainable.datasets import tables
from trainable.datasets.container import Dataset, Split, cut, nothing
from trainable.errors import BadInput

FILE = "digits-sample.parquet"
VAL = 0.15
SIDE = 28  # pixels


def load(data: Path) -> Dataset:
    try:
        table = tables.parquet(data / FILE, ["image", "label", "split"])
        reading.require(table.num_rows * SIDE * SIDE, data / FILE)
        images = np.stack([_image(png.as_py()) for png in table["image"]])[:, None]
    except (OSError, ValueError, TypeError, pa.ArrowException) as wrong:
        raise BadInput(f"cannot read {data / FILE}: {wrong}; `git checkout` brings it back") from wrong
    labels = table["label"].to_numpy().astype(np.int64)
    everything = Split(images, labels, np.arange(1, len(labels) + 1))
    of_test = table["split"].to_numpy() == "test"
    train, val = cut(everything.take(np.flatnonzero(~of_test)), VAL, classes=10)
    test = everything.take(np.flatnonzero(of_test))
    return Dataset("digits-sample", tuple("0123456789"), train, val, test, unlabelled=nothing(test))


def _image(png: bytes) -> np.ndarray:
    """uint8 [height, width]; raises ValueError for one of another size, before it is decoded."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if (image.mode, image.size) != ("L", (SIDE, SIDE)):
            raise ValueError(f"an image has {image.width} x {image.height} pixels, not {SIDE} x {SIDE} of grey")
        return np.asarray(image)
