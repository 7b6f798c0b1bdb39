"""The keeper: an actor on the driver's node that takes in what trials hand over, and tells them when to end.

Trials on other machines need no shared folder: the files travel through Ray.
"""

import math
import shutil
from pathlib import Path

from trainable import files


class Keeper:
    """Keeps the files of the `best` trials with the lowest loss under `folder`/<number>/, and drops the others'."""

    def __init__(self, folder: str, best: int):
        self.folder, self.best = Path(folder), best
        self.losses: dict[int, float] = {}
        self.beats: dict[int, tuple[float, float, float]] = {}
        self.over = False

    def end(self):
        """The search is over: every trial ends at its next beat."""
        self.over = True

    def beat(self, number: int, budget: float, train_s: float, eval_s: float) -> bool:
        """A trial says how far it is; whether the search is over."""
        self.beats[number] = budget, train_s, eval_s
        return self.over

    def latest(self) -> dict[int, tuple[float, float, float]]:
        """Every trial's latest beat: epochs, seconds of training, seconds of evaluating."""
        return self.beats

    def wants(self, number: int, loss: float) -> bool:
        others = sorted(other for n, other in self.losses.items() if n != number)
        better_than_before = loss < self.losses.get(number, math.inf)
        return better_than_before and (len(others) < self.best or loss < others[self.best - 1])

    def keep(self, number: int, loss: float, contents: dict[str, bytes]) -> dict[str, str]:
        """Write a trial's files and return their SHA-256 by name."""
        digests = {name: files.write(self.folder / str(number) / name, data) for name, data in contents.items()}
        self.losses[number] = loss
        for worst in sorted(self.losses, key=self.losses.get)[self.best :]:
            del self.losses[worst]
            shutil.rmtree(self.folder / str(worst))
        return digests
