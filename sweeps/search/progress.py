"""What a sweep shows while it runs: one calm display in a terminal, plain lines elsewhere."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SAY_EVERY = 30.0  # seconds between two lines, where nothing else is said


class Progress:
    """A listener of the record, used as a context manager while the search runs.

    Args:
        seconds_left: until the deadline; None where there is none.
        is_over: whether the search is ending.
        trials: how many are wanted; None: as many as there is time for.
    """

    def __init__(self, console: Console, slots: int, seconds_left: Callable, is_over: Callable, trials: int | None):
        self.console, self.slots, self.seconds_left, self.is_over, self.trials = console, slots, seconds_left, is_over, trials
        self.began = time.monotonic()
        self.span = seconds_left()
        self.states: dict[int, str] = {}
        self.archs: dict[int, str] = {}
        self.times: dict[int, tuple[float, float]] = {}  # of each trial: training, evaluating
        self.heard: float | None = None
        self.first: float | None = None
        self.best: dict | None = None
        self.lock = threading.Lock()
        self.closed = threading.Event()

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live = Live(get_renderable=self._display, console=self.console, refresh_per_second=2)
            self.live.start()
        else:
            self.live = None
            threading.Thread(target=self._say_often, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.closed.set()
        if self.live:
            self.live.stop()

    def __call__(self, event: dict):
        number, now = event["number"], time.monotonic()
        with self.lock:
            if event["kind"] == "trial_started":
                self.first = self.first or now
                self.states[number], self.archs[number] = "running", event["config"]["arch"]
            elif event["kind"] == "rung":
                metrics = event["metrics"]
                self.heard = now
                self.times[number] = metrics["train_s"], metrics["eval_s"]
                if self.best is None or metrics["val_loss"] < self.best["val_loss"]:
                    self.best = {**metrics, "trial": number, "arch": self.archs[number]}
            else:
                self.states[number] = event["state"]
        if event["kind"] == "trial_ended" and not self.live:
            reason = f": {event['reason']}" if event["reason"] else ""
            self._say(f"trial {number} ({self.archs[number]}) {event['state']}{reason}")

    def line(self) -> str:
        """Everything in one line."""
        return " · ".join(part for part in (self._counts(), self._best(), self._clock()) if part)

    def _counts(self) -> str:
        counts = Counter(self.states.values())
        return ", ".join(f"{counts[s]} {s}" for s in ("running", "complete", "stopped", "interrupted", "failed") if counts[s])

    def _best(self) -> str:
        if not self.best:
            return "no result yet"
        b = self.best
        return f"best {b['val_error']:.2%} val error: trial {b['trial']} {b['arch']} at {b['budget']:.1f} epochs"

    def _clock(self) -> str:
        passed = f"{_minutes(time.monotonic() - self.began)} gone"
        left = self.seconds_left()
        return passed if left is None else f"{passed}, {_minutes(left)} left"

    def _time_went(self) -> str:
        """Of the places' time up to the last result; a trial under way counts up to its last rung."""
        if not self.heard or self.heard <= self.first:
            return "starting the first trials"
        train, evaluate = (sum(column) for column in zip(*self.times.values(), strict=True))
        spent = max(self.slots * (self.heard - self.first), train + evaluate)
        rest = 1 - (train + evaluate) / spent
        return f"training {train / spent:.0%}, evaluating {evaluate / spent:.0%}, under way or else {rest:.0%}"

    def _display(self) -> Group:
        with self.lock:
            grid = Table.grid(padding=(0, 2))
            grid.add_row("trials", self._counts() or "none yet")
            grid.add_row("best", self._best())
            grid.add_row("time", self._time_went())
            grid.add_row("", self._clock())
            ended = sum(state != "running" for state in self.states.values())
        left = self.seconds_left()
        shares = [1 - left / self.span] if self.span else []
        shares += [ended / self.trials] if self.trials else []
        bar = ProgressBar(total=1.0, completed=max(shares, default=0.0), width=60)
        note = (
            "ending: the running trials hand over what they have"
            if self.is_over()
            else "Ctrl-C ends the search and combines what there is"
        )
        return Group(bar, grid, Text(note, style="dim"))

    def _say(self, text: str):
        self.console.print(f"{_minutes(time.monotonic() - self.began):>7}  {text}", highlight=False, soft_wrap=True)

    def _say_often(self):
        while not self.closed.wait(SAY_EVERY):
            with self.lock:
                line = self.line()
            self._say(line)


def _minutes(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))).removeprefix("0:")
