"""Street View House Numbers, cropped digits: 32x32 pixels, colour, in MATLAB's files (without the extra ones)."""

from pathlib import Path

import numpy as np
from torchvision import datasets

from trainable.datasets.container import Dataset
from trainable.datasets.downloads import dataset, fetch


def load(data: Path) -> Dataset:
    """Raises BadInput if a file is damaged or cannot be downloaded."""
    return dataset(data, "svhn", [datasets.SVHN.split_list[split][2] for split in ("train", "test")], _read)


def _read(folder: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat  # 0.3 s that others need not pay

    arrays = {"classes": np.array(list("0123456789"))}
    for split in ("train", "test"):
        url, _, md5 = datasets.SVHN.split_list[split]
        content = loadmat(fetch(folder, [url], md5), variable_names=["X", "y"])
        arrays[f"{split}_images"] = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1))  # from [h, w, channels, n]
        arrays[f"{split}_labels"] = content["y"].ravel() % 10  # a zero is a 10 there
    return arrays
