"""The keeper: an actor on the driver's node that takes in what trials hand over, and tells them when to end.

Trials on other machines need no shared folder: the files travel through Ray. Under `folder`/<number>/ lie the network of a
trial that is among the best, and the state of a trial that may go on, whose name says what it must hold.
"""

import errno
import hashlib
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from trainable import files

THREADS = 8  # calls at once: while some wait for room on the disk, others are heard
AGAIN = 2.0  # seconds between two tries to write to a full disk
STATE = "state"  # state-<step>-<first 16 of the SHA-256>.safetensors


class Keeper:
    """Keeps the files of the `best` trials with the lowest loss, and the latest state of those that run.

    Args:
        losses: of the networks that lie there already, by trial.
    """

    def __init__(self, folder: str, best: int, losses: Mapping[int, float] | None = None):
        self.folder, self.best = Path(folder), best
        self.losses: dict[int, float] = dict(losses or {})
        self.beats: dict[int, tuple[float, float, float]] = {}
        self.heard: dict[int, tuple[float, tuple]] = {}  # when, and from which process
        self.over = False
        self.leaving: frozenset[str] = frozenset()  # nodes that are to be taken away
        self.yielding: frozenset[int] = frozenset()  # trials whose places other sweeps get
        self.full = ""  # what is wrong with the disk, while it is
        self.lock = threading.RLock()

    def end(self):
        """The search is over: every trial ends at its next beat."""
        self.over = True

    def leave(self, nodes: frozenset[str], trials: frozenset[int] = frozenset()):
        """Every trial on these nodes, and these trials, leave their places at their next beat."""
        self.leaving, self.yielding = nodes, trials

    def beat(self, number: int, budget: float, train_s: float, eval_s: float, process: tuple[str, int]) -> tuple[bool, str]:
        """A trial says how far it is, and where it runs (node and process id); whether the search is over, and why it is to
        leave its place, if it is."""
        with self.lock:
            self.beats[number] = budget, train_s, eval_s
            self.heard[number] = time.monotonic(), process
        taken, given = process[0] in self.leaving, number in self.yielding
        why = "its machine was taken away" if taken else "its place was given to another sweep" if given else ""
        return self.over, "" if self.over else why

    def rest(self, number: int):
        """A trial waits for its scheduler: it need not say anything."""
        with self.lock:
            self.heard.pop(number, None)

    def latest(self, silence: float = math.inf) -> tuple[dict[int, tuple[float, float, float]], str, dict[int, tuple]]:
        """The latest beat of every trial that runs (epochs, seconds of training, of evaluating); what is wrong with the
        disk; and the processes of trials that have said nothing for `silence` seconds, though the disk let them."""
        now = time.monotonic()
        with self.lock:
            late = {n: process for n, (at, process) in self.heard.items() if now - at > silence and not self.full}
            for number in late:
                del self.heard[number]
            return dict(self.beats), self.full, late

    def wants(self, number: int, loss: float) -> bool:
        with self.lock:
            others = sorted(other for n, other in self.losses.items() if n != number)
            better_than_before = loss < self.losses.get(number, math.inf)
            return better_than_before and (len(others) < self.best or loss < others[self.best - 1])

    def is_empty(self) -> bool:
        """Return whether no trial has left a network yet."""
        with self.lock:
            return not self.losses

    def keep(self, number: int, loss: float, contents: dict[str, bytes]) -> dict[str, str]:
        """Write the files of a trial's network and return their SHA-256 by name."""
        where = self.folder / str(number)
        digests = {name: self._write(where / name, data) for name, data in contents.items()}
        with self.lock:
            self.losses[number] = loss
            for worst in sorted(self.losses, key=self.losses.get)[self.best :]:
                del self.losses[worst]
                for name in contents:
                    (self.folder / str(worst) / name).unlink(missing_ok=True)
                _remove_if_empty(self.folder / str(worst))
        return digests

    def hold(self, number: int, step: int, content: bytes):
        """Write the state from which a trial could go on, in place of an older one."""
        where = self.folder / str(number)
        name = f"{STATE}-{step}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        self._write(where / name, content)
        for other in where.glob(f"{STATE}-*"):
            if other.name != name:
                other.unlink(missing_ok=True)

    def state(self, number: int) -> bytes | None:
        """The latest state of a trial that is whole."""
        for path in sorted((self.folder / str(number)).glob(f"{STATE}-*-*.safetensors"), key=_step, reverse=True):
            if not path.is_file():
                continue
            content = path.read_bytes()
            if path.stem.endswith(hashlib.sha256(content).hexdigest()[:16]):
                return content
        return None

    def forget(self, number: int):
        """A trial has ended: its state is needed no more, and it says nothing more."""
        with self.lock:
            self.beats.pop(number, None)
            self.heard.pop(number, None)
        for path in (self.folder / str(number)).glob(f"{STATE}-*"):
            path.unlink(missing_ok=True)
        _remove_if_empty(self.folder / str(number))

    def _write(self, path: Path, content: bytes) -> str:
        """Its SHA-256. Tries again while the disk is full; a search that is over waits no longer."""
        while True:
            try:
                digest = files.write(path, content)
            except OSError as wrong:
                if wrong.errno not in (errno.ENOSPC, errno.EDQUOT) or self.over:
                    raise
                self.full = f"{self.folder.parent} cannot be written ({wrong.strerror})"
                time.sleep(AGAIN)
            else:
                self.full = ""
                return digest


def _step(path: Path) -> int:
    step = path.name.split("-")[1]
    return int(step) if step.isdigit() else -1


def _remove_if_empty(folder: Path):
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
