"""SCHEDULERS: who goes on at a rung."""

import bisect
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    go_on: bool
    place: int  # from 1, among the `reached`
    reached: int  # how many trials have reached this rung so far, this one included
    places: int  # for how many of them there is room; 0: nobody is stopped yet
    cut: float | None = None  # the worst value that would have gone on

    def words(self, rung: int, value: float) -> str:
        at = f"place {self.place} of {self.reached} at rung {rung + 1}"
        return at if self.go_on else f"{at}, beyond the best {self.places}: {value:.4f} against {self.cut:.4f}"


class Asha:
    """Stopping ASHA: at each rung the best 1/eta of all that ever reached it go on (Li et al., arXiv:1810.05934).

    While fewer than eta have reached a rung, there is nobody to compare with and everyone goes on. Lower is better.
    """

    def __init__(self, eta: int = 2):
        self.eta = eta
        self.seen: dict[int, list[float]] = {}  # sorted

    def judge(self, rung: int, value: float) -> Verdict:
        seen = self.seen.setdefault(rung, [])
        better = bisect.bisect_left(seen, value)
        seen.insert(better, value)
        places = len(seen) // self.eta
        go_on = not places or better < places
        return Verdict(go_on, better + 1, len(seen), places, seen[places - 1] if places else None)


class Never:
    """Every trial trains to the end."""

    def judge(self, rung: int, value: float) -> Verdict:
        return Verdict(True, 1, 1, 0)


SCHEDULERS = {"asha": Asha, "none": Never}


def rungs(max_epochs: float, count: int = 3, spacing: float = 4.0) -> list[float]:
    """The budgets, in epochs, at which trials are compared; the last is the whole training."""
    return [max_epochs / spacing**k for k in reversed(range(count))]
