"""The file of predictions that a competition takes."""

import csv
import io
from pathlib import Path

import numpy as np

from trainable import files
from trainable.datasets.container import Dataset, Split


def write_submission(path: Path, data: Dataset, split: Split, probs: np.ndarray):
    """A row an image of `split`, in its order: its id and its most probable class, under the dataset's two columns.

    Args:
        probs: [len(split), classes].
    """
    buffer = io.StringIO()
    out = csv.writer(buffer, lineterminator="\n")
    out.writerow([data.id_column, data.label_column])
    out.writerows(zip(split.ids, (data.classes[label] for label in probs.argmax(axis=1)), strict=True))
    files.write(path, buffer.getvalue())
