"""Run a sweep, and kill its process (-9) when it comes to a place for the nth time.

python tests/killed_at.py PLACE N ARGUMENTS...
"""

import os
import signal
import sys
from functools import wraps

from sweeps import arch_sweep, phases
from sweeps.choose import ensemble
from sweeps.search.progress import Progress
from sweeps.search.record import Record
from sweeps.search.searcher import Search
from trainable.errors import run


def at(nth: int, function):
    """`function`, at whose nth call this process is killed."""
    calls = 0

    @wraps(function)
    def called(*arguments, **more):
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)

    return called


class DiesAtCommit:
    """A connection whose nth commit finds all statements of its transaction executed, and is never made."""

    def __init__(self, db, nth: int):
        self.db, self.commit = db, at(nth, lambda: None)

    def execute(self, statement: str, *values):
        if statement == "COMMIT":
            self.commit()
        return self.db.execute(statement, *values)

    def __getattr__(self, name: str):
        return getattr(self.db, name)


def within_a_transaction(nth: int):
    init = Record.__init__

    def wrapped(self, *arguments, **more):
        init(self, *arguments, **more)
        self._db = DiesAtCommit(self._db, nth)

    Record.__init__ = wrapped


PLACES = {
    "before the first result": lambda nth: setattr(Search, "hear", at(nth, Search.hear)),
    "between a result and its record": lambda nth: setattr(Record, "rung", at(nth, Record.rung)),
    "while the record is written": within_a_transaction,
    "when the record has it and nobody knows": lambda nth: setattr(Progress, "__call__", at(nth, Progress.__call__)),
    "before the finalists": lambda nth: setattr(phases, "refits", at(nth, phases.refits)),
    "while combining": lambda nth: setattr(ensemble, "write_submission", at(nth, ensemble.write_submission)),
}

if __name__ == "__main__":
    PLACES[sys.argv[1]](int(sys.argv[2]))
    sys.argv = ["arch_sweep.py", *sys.argv[3:]]
    run(arch_sweep.main)
