"""A sweep's ensemble, ready to predict images: `ensemble.json`, and the networks that it names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sweeps import stored
from sweeps.choose.cascade import passed_on
from sweeps.choose.combine import combined
from trainable.augment import can_view
from trainable.datasets.container import Split
from trainable.errors import BadInput
from trainable.predict import Network, answer, read
from trainable.schema import Damaged

FILE = stored.ENSEMBLE


class Model:
    """The ensemble that lies in `folder`, and the cascade before it.

    Args:
        folder: that `combine` wrote into.
        device: cpu, cuda or cuda:1; None: the first GPU, else the CPU.

    Raises:
        BadInput: there is none, it is damaged, or a network of it is gone or damaged.
    """

    def __init__(self, folder: Path, device: str | None = None):
        if not (folder / FILE).exists():
            mend = (
                "combine it: sweeps/ensemble.py"
                if (folder / "record.db").exists()
                else "name a sweep that has ended, or a folder with one"
            )
            raise BadInput(f"{folder} holds no {FILE} that can be read; {mend}")
        about = stored.ensemble(folder)
        loaded: dict[str, Network] = {}

        def network(path: str) -> Network:
            if path not in loaded:
                loaded[path] = read(folder / path, about["networks"].get(path), FILE)
            return loaded[path]

        self.device, self.method, self.temperature = device, about["method"], about["temperature"]
        self.members = [(member["view"], [network(path) for path in member["networks"]]) for member in about["members"]]
        self.weights = np.array([member["weight"] for member in about["members"]])
        cascade = about["cascade"]
        self.first = network(cascade["network"]) if cascade else None
        self.threshold = cascade["threshold"] if cascade else 0.0
        self.networks = list(loaded.values())
        first = self.networks[0].problem
        for other in self.networks:
            if (other.problem.classes, other.problem.in_shape) != (first.classes, first.in_shape):
                raise Damaged(
                    f"{folder / FILE} names {other.folder}, which knows other classes or another shape of image "
                    f"than {self.networks[0].folder}; {stored.COMBINE}"
                )
        for view, every in self.members:
            if view and not all(can_view(one.config.augment) for one in every):
                raise Damaged(
                    f"{folder / FILE}: view is {view}, and {every[0].folder} was trained without a warp; {stored.COMBINE}"
                )

    def __call__(self, split: Split, tell: Callable[[int], object] = lambda n: None, networks: int | None = None) -> np.ndarray:
        """Probabilities, float64 [n, classes]; `tell` hears how many images each network has done.

        `networks`: how many of each member are asked; None: all.
        """
        said = [
            np.mean([answer(network, split, [view], self.device, tell) for network in every[:networks]], axis=0)
            for view, every in self.members
        ]
        return combined(self.method, np.stack(said), self.weights, self.temperature)

    def cascade(self, split: Split, tell: Callable[[int], object] = lambda n: None) -> tuple[np.ndarray, np.ndarray]:
        """Likewise, but the ensemble, one network of each member, is asked only where the first network is unsure; and where
        that was, bool [n]. With one of each it was judged: of an image out of fold no more have not seen it.

        Raises:
            BadInput: the ensemble has one member, so that nothing was judged that could come before it.
        """
        if self.first is None:
            raise BadInput("this ensemble has one member: there is no cascade before it; leave --cascade out")
        probs = answer(self.first, split, [0], self.device, tell)
        unsure = passed_on(probs, self.threshold)
        if unsure.any():
            probs[unsure] = self(split.take(np.flatnonzero(unsure)), tell, networks=1)
        return probs, unsure
