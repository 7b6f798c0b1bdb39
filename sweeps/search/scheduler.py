"""SCHEDULERS: who goes on at a rung."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    go_on: bool
    reason: str


class Asha:
    """Stopping ASHA: at each rung the best 1/eta of all that ever reached it go on (Li et al., arXiv:1810.05934).

    While fewer than eta have reached a rung, there is nobody to compare with and everyone goes on. Lower is better.
    """

    def __init__(self, eta: int = 3):
        self.eta = eta
        self.seen: dict[int, list[float]] = {}

    def judge(self, rung: int, value: float) -> Verdict:
        seen = self.seen.setdefault(rung, [])
        better = sum(other < value for other in seen)
        seen.append(value)
        place = f"place {better + 1} of {len(seen)} at rung {rung + 1}"
        places = len(seen) // self.eta
        if not places or better < places:
            return Verdict(True, place)
        cut = sorted(seen)[places - 1]
        return Verdict(False, f"{place}, beyond the best {places}: {value:.4f} against {cut:.4f}")


class Never:
    """Every trial trains to the end."""

    def judge(self, rung: int, value: float) -> Verdict:
        return Verdict(True, "no trial is stopped")


SCHEDULERS = {"asha": Asha, "none": Never}


def rungs(max_epochs: float, count: int = 3, spacing: float = 4.0) -> list[float]:
    """The budgets, in epochs, at which trials are compared; the last is the whole training."""
    return [max_epochs / spacing**k for k in reversed(range(count))]
