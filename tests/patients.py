"""Images of patients whose label is a coin toss: what one learns of a patient says nothing of another."""

from pathlib import Path

import numpy as np
from PIL import Image

EACH = 20  # images of a patient


def patients(root: Path, train: int = 60, val: int = 60, test: int = 20, side: int = 12) -> str:
    """Write so many patients of each split as a dataset in folders, in each split as many of one class as of the other.

    Returns:
        Its name, as --dataset takes it.
    """
    rng = np.random.default_rng(0)
    for split, many in (("train", train), ("val", val), ("test", test)):
        for patient, label in enumerate(rng.permutation(np.arange(many) % 2)):
            folder = root / split / ("ill" if label else "well")
            folder.mkdir(parents=True, exist_ok=True)
            own = rng.integers(0, 256, (side, side))
            for image in range(EACH):
                pixels = np.clip(own + rng.normal(0, 20, own.shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{patient}-{image}.png")
    return f"folder:{root}"
