"""12,000 of the competition's 42,000 labelled digits, as PNGs in one Parquet file that comes with the project."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from trainable.datasets.container import Dataset, Split, cut, nothing
from trainable.errors import BadInput

FILE = "digits-sample.parquet"
VAL = 0.15


def load(data: Path) -> Dataset:
    try:
        table = pq.read_table(data / FILE, columns=["image", "label", "split"])
        images = np.stack([np.asarray(Image.open(io.BytesIO(png.as_py()))) for png in table["image"]])[:, None]
    except (OSError, pa.ArrowException) as wrong:
        raise BadInput(f"cannot read {data / FILE}: {wrong}; `git checkout` brings it back") from wrong
    labels = table["label"].to_numpy().astype(np.int64)
    everything = Split(images, labels, np.arange(1, len(labels) + 1))
    of_test = table["split"].to_numpy() == "test"
    train, val = cut(everything.take(np.flatnonzero(~of_test)), VAL, classes=10)
    test = everything.take(np.flatnonzero(of_test))
    return Dataset("digits-sample", tuple("0123456789"), train, val, test, unlabelled=nothing(test))
