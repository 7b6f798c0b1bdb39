"""When to give a search up: its trials fail, one like the other."""

from collections import Counter

from trainable.errors import without_numbers

IN_A_ROW = 20  # failures without a success between them, after which a search ends
ALIKE = 3  # failures for the same reason, after which a search ends that has had no result yet
OUT_OF_MEMORY = "out of memory"
OF_THE_DRAW = ("FloatingPointError", OUT_OF_MEMORY)  # reasons that another configuration may not have


class Failures:
    """Counts the failures of a search.

    Args:
        alike: failures for one reason, after which there is no hope if no trial has had a result.
    """

    def __init__(self, alike: int = ALIKE):
        self.alike, self.in_a_row, self.proven = alike, 0, False
        self.reasons: Counter[str] = Counter()

    def result(self):
        """A trial has come to a rung."""
        self.proven = True

    def ended(self, state: str, reason: str):
        """A trial has ended; for a reason, where it failed."""
        if state != "failed":
            self.in_a_row = 0 if state in ("complete", "stopped") else self.in_a_row
            return
        self.in_a_row += 1
        if not reason.startswith(OF_THE_DRAW):
            self.reasons[without_numbers(reason)] += 1

    @property
    def hopeless(self) -> str:
        """Why to start no more; "" while there is hope. Trials that run may still change that."""
        if self.in_a_row >= IN_A_ROW:
            return f"{IN_A_ROW} trials in a row have failed"
        most = max(self.reasons.values(), default=0)
        alike = most >= self.alike and not self.proven
        return f"no trial has had a result, and {most} have failed alike" if alike else ""
