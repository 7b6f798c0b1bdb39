"""What a sweep shows while it runs: one calm display in a terminal, plain lines elsewhere."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.search.record import STATES
from trainable.errors import short, without_numbers

SAY_EVERY = 30.0  # seconds between two lines, where nothing else is said
SHOWN = 8  # running trials that the display has a line for
STEPS = "▁▂▃▄▅▆▇█"
REASON = 60, 160  # characters of a reason that are shown: at least, and at most, as the line has room
BEFORE = 50  # characters before it
KNOWN = 3  # trials that must have ended before their pace says when the rest will have


class Progress:
    """A listener of the record, used as a context manager while the search runs.

    Args:
        room: for how many trials there was, on average.
        seconds_left: until the deadline; None where there is none.
        is_over: whether the search is ending.
        trials: how many are wanted; None: as many as there is time for.
        past: the trials and rungs that the record has already.
        spent: seconds that earlier drivers worked.
        all_left: until the deadline of the whole sweep; None where there is none.
        epochs: that a trial trains at most.
    """

    def __init__(
        self,
        console: Console,
        room: Callable[[], float],
        seconds_left: Callable,
        is_over: Callable,
        trials: int | None,
        past: tuple[list[dict], list[dict]] = ((), ()),
        spent: float = 0.0,
        all_left: Callable[[], float | None] = lambda: None,
        epochs: float | None = None,
    ):
        self.all_left, self.epochs = all_left, epochs
        self.losses: dict[int, list[float]] = {}  # at the rungs
        self.console, self.room, self.seconds_left, self.is_over, self.trials = console, room, seconds_left, is_over, trials
        self.began = time.monotonic() - spent
        self.span = seconds_left()
        self.states: dict[int, str] = {}
        self.failed: dict[str, int] = {}  # the first trial that failed for a reason
        self.archs: dict[int, str] = {}
        self.beats: dict[int, tuple[float, float, float]] = {}  # epochs, seconds of training, of evaluating
        self.reached: dict[int, float] = {}  # epochs, of trials that were begun before
        # Seconds of training and evaluating under earlier drivers, by trial.
        self.before: dict[int, tuple[float, float]] = {}
        self.machines: dict[int, str] = {}  # where each came to its last rung
        self.first = self.heard = None
        self.best: dict | None = None
        self.lock = threading.Lock()
        self.closed = threading.Event()
        for trial in past[0]:
            self.states[trial["number"]], self.archs[trial["number"]] = trial["state"], trial["config"]["arch"]
        for rung in past[1]:
            self._compare(rung["number"], rung["metrics"])
            self.reached[rung["number"]] = rung["metrics"]["budget"]
            self.before[rung["number"]] = rung["metrics"]["train_s"], rung["metrics"]["eval_s"]
        self.counts = Counter(self.states.values())
        self.running = {number for number, state in self.states.items() if state == "running"}
        self.ended_before = self._ended()

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
        number = event["number"]
        with self.lock:
            if event["kind"] == "trial_started":
                self.first = self.first or time.monotonic()
                self.archs[number] = event["config"]["arch"]
                self._is(number, "running")
            elif event["kind"] == "trial_restarted":
                self.first = self.first or time.monotonic()
                self._is(number, "running")
            elif event["kind"] == "rung":
                metrics = event["metrics"]
                self.beats[number] = metrics["budget"], metrics["train_s"], metrics["eval_s"]
                self._compare(number, metrics)
            else:
                self._is(number, event["state"])
        if event["kind"] in ("trial_ended", "trial_restarted") and not self.live:
            state = event.get("state", "goes on")
            self._say(f"trial {number} ({self.archs[number]}) {state}{self._why(number, state, event['reason'])}")

    def _why(self, number: int, state: str, reason: str) -> str:
        """The reason, shortened; of a failure like an earlier one, which one that was."""
        if not reason:
            return ""
        first = self.failed.setdefault(without_numbers(reason), number) if state == "failed" else number
        least, most = REASON
        room = min(most, max(least, self.console.width - BEFORE))
        return f": {short(reason, room)}" if first == number else f", as trial {first} did"

    def _is(self, number: int, state: str):
        """A trial is in this state now."""
        before = self.states.get(number)
        self.counts[before] -= before is not None
        self.counts[state] += 1
        self.states[number] = state
        (self.running.add if state == "running" else self.running.discard)(number)

    def _compare(self, number: int, metrics: dict):
        self.machines[number] = metrics.get("node_ip", "")
        self.losses.setdefault(number, []).append(metrics["val_loss"])
        if self.best is None or metrics["val_loss"] < self.best["val_loss"]:
            self.best = {**metrics, "trial": number, "arch": self.archs[number]}

    def beat(self, beats: dict[int, tuple[float, float, float]]):
        """Every trial's latest beat: epochs, seconds of training, seconds of evaluating."""
        with self.lock:
            self.heard = time.monotonic()
            # The last rung may be newer than the last beat before it.
            self.beats |= {n: beat for n, beat in beats.items() if sum(beat[1:]) >= sum(self.beats.get(n, (0, 0, 0))[1:])}

    def line(self) -> str:
        """Everything in one line."""
        return " · ".join(part for part in (self._counts(), self._now(), self._best(), self._clock(), self._ends()) if part)

    def _now(self) -> str:
        """The running trials; no more of them than fit a line."""
        running = sorted(self.running)
        shown = [f"{number} {self.archs[number]} {self._epochs(number):.1f}" for number in running[:3]]
        more = f" and {len(running) - 3} more" if len(running) > 3 else ""
        return f"now {', '.join(shown)} epochs{more}" if running else ""

    def _epochs(self, number: int) -> float:
        return self.beats[number][0] if number in self.beats else self.reached.get(number, 0.0)

    def _counts(self) -> str:
        return ", ".join(f"{self.counts[s]} {s}" for s in STATES if self.counts[s])

    def _best(self) -> str:
        if not self.best:
            return "no result yet"
        b = self.best
        loss = f"best val loss {b['val_loss']:.4f} ({b['val_error']:.2%} error)"
        return f"{loss}: trial {b['trial']} {b['arch']} at {b['budget']:.3g} epochs"

    def _clock(self) -> str:
        passed = f"{_minutes(time.monotonic() - self.began)} gone"
        left = self.seconds_left()
        return passed if left is None else f"{passed}, {_minutes(left)} left"

    def _ended(self) -> int:
        """Return how many trials have ended; interrupted ones go on in a resumed sweep."""
        return sum(self.counts[state] for state in ("complete", "stopped", "failed"))

    def _ends(self) -> str:
        """When, at this rate; nothing where that is not known."""
        left, ended = self.seconds_left(), self._ended()
        if self.trials and self.first and (now := ended - self.ended_before) >= KNOWN:
            rest = (time.monotonic() - self.first) / now * max(0, self.trials - ended)
            left = rest if left is None else min(left, rest)
        told = [f"this ends about {_hour(left)}"] if left is not None else []
        every = self.all_left()
        if every is not None and (left is None or every - left > 60):
            told.append(f"the whole sweep by {_hour(every)}")
        return ", ".join(told)

    def _line_of(self, number: int) -> str:
        """A running trial: how far it is, its loss at the rungs that it has passed, and on a cluster where that was."""
        most = f" of {self.epochs:g}" if self.epochs else ""
        losses = self.losses.get(number, [])
        told = f"  loss {_spark(losses)} {losses[-1]:.4f}" if losses else ""
        where = f"  on {self.machines[number]}" if losses and len(set(self.machines.values())) > 1 else ""
        return f"{number:>4} {self.archs[number]:<20} {self._epochs(number):5.1f}{most} epochs{told}{where}"

    def _time_went(self) -> str:
        """Of the places' time since the first trial began."""
        before = {number: self.before.get(number, (0.0, 0.0)) for number in self.beats}
        train = sum(beat[1] - before[number][0] for number, beat in self.beats.items())
        evaluate = sum(beat[2] - before[number][1] for number, beat in self.beats.items())
        if not self.heard or not train:
            return "starting the trials"
        spent = max(self.room() * (self.heard - self.first), train + evaluate)
        rest = 1 - (train + evaluate) / spent
        return f"training {train / spent:.0%}, evaluating {evaluate / spent:.0%}, else {rest:.0%}"

    def _display(self) -> Group:
        with self.lock:
            grid = Table.grid(padding=(0, 2))
            bar = ProgressBar(total=1.0, width=56)
            grid.add_row("", bar)
            grid.add_row("trials", self._counts() or "none yet")
            running = sorted(self.running)
            for i, number in enumerate(running[:SHOWN]):
                grid.add_row("" if i else "now", Text(self._line_of(number), no_wrap=True))
            if len(running) > SHOWN:
                grid.add_row("", f"     and {len(running) - SHOWN} more")
            grid.add_row("best", self._best().removeprefix("best "))
            grid.add_row("time", f"{self._clock()}; {self._time_went()}")
            grid.add_row("then", self._ends()) if self._ends() else None
            ended = len(self.states) - len(self.running)
        left = self.seconds_left()
        shares = [1 - left / self.span] if self.span else []
        shares += [ended / self.trials] if self.trials else []
        bar.update(max(shares, default=0.0))
        note = (
            "ending: the running trials hand over what they have"
            if self.is_over()
            else "Ctrl-C ends the search and takes what there is"
        )
        return Group(grid, Text(note, style="dim"))

    def _say(self, text: str):
        self.console.print(f"{_minutes(time.monotonic() - self.began):>7}  {text}", markup=False, highlight=False, soft_wrap=True)

    def _say_often(self):
        while not self.closed.wait(SAY_EVERY):
            with self.lock:
                line = self.line()
            self._say(line)


def _hour(seconds: float) -> str:
    """The time of day in so many seconds."""
    return f"{datetime.now() + timedelta(seconds=seconds):%H:%M}"


def _spark(losses: list[float]) -> str:
    """Falling losses as bars, on a logarithmic scale from the lowest to the highest of them."""
    logs = [math.log(max(loss, 1e-9)) for loss in losses]
    span = (max(logs) - min(logs)) or 1.0
    return "".join(STEPS[round((len(STEPS) - 1) * (value - min(logs)) / span)] for value in logs)


def _minutes(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))).removeprefix("0:")
