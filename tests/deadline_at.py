"""Run a sweep whose search comes to its deadline when its nth rung is recorded, however fast the machine is.

python tests/deadline_at.py N ARGUMENTS...
"""

import sys
from functools import wraps

from sweeps import arch_sweep
from sweeps.search.launch import Ending
from sweeps.search.record import Record
from trainable.errors import run


def deadline_at(nth: int):
    """Let no second be left from the `nth` recorded rung on."""
    record, left, recorded = Record.rung, Ending.seconds_left, []

    @wraps(record)
    def rung(*arguments, **more):
        record(*arguments, **more)
        recorded.append(arguments)

    Record.rung = rung
    Ending.seconds_left = lambda self: 0.0 if len(recorded) >= nth else left(self)


if __name__ == "__main__":
    deadline_at(int(sys.argv[1]))
    sys.argv = ["arch_sweep.py", *sys.argv[2:]]
    run(arch_sweep.main)
