"""What every sweep is around its search: its folder, who listens to its record, and what is said of it."""

import platform
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from sweeps import stored, warm_start
from sweeps.flags import ROOT
from sweeps.lock import Lock
from sweeps.resume import Before, as_before, before, blamed
from sweeps.search.launch import KEEP, run_search
from sweeps.search.progress import Progress
from sweeps.search.record import Record, read, rows
from sweeps.search.searcher import Search
from sweeps.search.space import Space
from sweeps.show import logged, summary, tracking, views
from trainable import files
from trainable.again import commit
from trainable.datasets import load
from trainable.errors import BadInput, NoRoom, short

VERSIONS = ("ray", "torch", "torchvision", "optuna", "mlflow")


class Sweep:
    """A sweep from its arguments to its last words.

    It has the `console`, the `data`, the `folder` (not made before `recording`) and `about`, what sweep.json says; after
    `recording` also the tables `trials` and `curves`.

    Args:
        earlier: what there is of it, where it is resumed.
        imports: seconds from the command until here.

    Raises:
        BadInput: the data cannot be read, or are not those of the sweep that is resumed; the folder exists or cannot be
            made; another driver is at work.
    """

    def __init__(self, args: Namespace, earlier: Before | None = None, imports: float = 0.0):
        self.began, self.imports = time.monotonic(), imports
        self.args, self.earlier, self._waiting = args, earlier, False
        self.console = Console() if sys.stdout.isatty() else Console(width=120)
        if earlier:
            self.folder = earlier.folder
            Lock(self.folder / "lock").take()
        with blamed(earlier and earlier.record):
            self.data = load(args.dataset, image_size=args.image_size)
        if earlier:
            self.data = as_before(earlier, self.data)
        else:
            self.folder = _new_folder(args)
        # Read now, so that a name that is wrong is said before Ray is started.
        self.model = before(args.results / args.warm_start) if getattr(args, "warm_start", None) else None
        self.about = _about(args, self.data)
        given = " (given by the user: never trained on)" if self.data.val_given else ""
        images = f"{len(self.data.train):,} images to train, {len(self.data.val):,} val{given}"
        self.say(f"{args.dataset} ({args.why}): {images}. Starting Ray.")

    def say(self, text: str):
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def left(self, share: float = 1.0) -> float | None:
        """Seconds that are left of this share of the time budget; None: no limit, as an architecture table has none."""
        budget = getattr(self.args, "time_budget", None)
        if budget is None:
            return None
        spent = self.seconds + (self.earlier.seconds if self.earlier else 0.0)
        return max(0.0, share * budget - spent)

    @property
    def machines(self) -> tuple:
        """What `cluster` is asked for."""
        return self.args.address, self.args.cpus_per_trial, self.args.gpus_per_trial, self.args.concurrent

    @contextmanager
    def recording(self, places, ending, trials: int | None) -> Iterator[Record]:
        """Make the folder; the record, which MLflow and the display mirror, is open inside. The tables are written after."""
        if not self.earlier:
            self.folder.mkdir(exist_ok=True)
            Lock(self.folder / "lock").take()
        self.ending = ending
        record = Record(self.folder / "record.db", about=self.about, patience=self._wait_for_room, began=self.began)
        record.interrupt_all("the sweep was cut off")
        record.forget_phases()
        past = read(self.folder / "record.db")
        self.write_about()
        self.tracker = tracking.Tracker(
            *tracking.place(self.args.mlflow, self.args.results),
            self.args.dataset,
            self.folder.name,
            logged.parameters(self.about),
            self.say,
            past if self.earlier else None,
        )
        times = ending.seconds_left, ending.is_over
        epochs = getattr(self.args, "max_epochs", None)
        self.progress = Progress(self.console, lambda: places.mean, *times, trials, past, record.t, self.left, epochs)
        record.listeners = (self.progress, self.tracker)
        self.record, self.places = record, places
        with self.progress:
            yield record
        self.tables()

    def learn(self, space: Space):
        """From the sweep of --warm-start: what its trials tell the searcher goes into the record."""
        args = self.args
        learned = warm_start.learn(self.model, space, args.metric, args.max_epochs, self.data.fingerprint)
        self.record.learn(learned.told, learned.start)
        self.say(learned.words)

    def search(self, search: Search, places, ending, keep: int = KEEP, teachers=None) -> str | None:
        """Run it to its end; None, or in one line what broke it off."""
        if search.finished:
            return None
        mine = {t["number"] for t in read(self.record.path)[0] if (t["refits"] is None) == (search.refits is None)}
        losses = before(self.folder).losses()
        return run_search(
            search,
            self.data,
            places,
            ending,
            self.folder,
            losses={number: loss for number, loss in losses.items() if number in mine},
            keep=keep,
            silence=self.args.step_timeout,
            views=getattr(self.args, "views", 1),
            teachers=teachers,
            tell=self.progress.beat,
            warn=self.say,
        )

    def tables(self):
        """Write trials.parquet and curves.parquet from the record."""
        self.trials, self.curves = views.write_tables(self.folder)

    def write_about(self):
        stored.write_sealed(self.folder / stored.SWEEP, self.about)

    def phase_done(self, name: str, written: Iterable[str]):
        """What comes after the search is done, and left these files."""
        there = {file: self.folder / file for file in written}
        self.record.phase_done(name, {file: files.digest(path) for file, path in there.items() if path.is_file()})

    def _wait_for_room(self, wrong: str):
        """For a record that cannot be written: say so once, and wait; raises NoRoom when the search is ended meanwhile."""
        if self.ending.is_over():
            raise NoRoom(f"{wrong}; what was recorded is safe: make room, then --resume {self.folder.name}")
        if not self._waiting:
            self.say(f"{wrong}: the sweep waits, Ctrl-C ends it.")
        self._waiting = True
        time.sleep(2.0)

    def end(self) -> float:
        """Write into sweep.json how it ended, as of now. Returns the share of the places' time that was spent training.

        Called once before the report and MLflow's mirror, which show it, and once after them.
        """
        seconds = self.record.t + self.imports
        busy = views.busy(self.trials, self.places.mean, seconds)
        self.about["ended"] = {"seconds": round(seconds, 1), "trials": len(self.trials), "cores_busy": busy, "busy": views.BUSY}
        self.write_about()
        return busy

    def end_without(self, what: str) -> int:
        """The last words where no trial left a network; the exit status."""
        self.record.close()
        self.tracker.close({"trials": len(self.trials)}, [])
        self.say(f"{what}: {len(self.trials)} were tried. {summary.why_none(self.trials)}")
        return 1

    def last_words(self, written: dict[str, str], next_steps: list[str]):
        """What lies in the folder, and what to do next; in the browser first of all."""
        self.record.close()
        where = "" if self.args.results == ROOT / "results" else f" RESULTS={self.args.results}"
        steps = [f"make mlflow{where}    # all sweeps, in the browser", *next_steps]
        there = {name: what for name, what in written.items() if (self.folder / name).exists()}
        width = max(map(len, there), default=0) + 2
        summary.next_commands(self.console, self.folder, [f"{name:<{width}}{what}" for name, what in there.items()], steps)


def _new_folder(args: Namespace) -> Path:
    folder = args.results / args.name
    if folder.exists() and not _never_begun(folder):
        raise BadInput(f"{folder} exists; choose another --name, or go on with it: --resume {args.name}")
    try:
        args.results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.results, prefix="."):
            pass  # it can be written: better known before the search than after it
    except OSError as wrong:
        raise BadInput(f"--results {short(args.results)}: {wrong.strerror}; choose a folder that can be written") from wrong
    return folder


def _never_begun(folder: Path) -> bool:
    """Whether a driver ended before it had written anything there: nothing but a lock, and a record without a driver."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "lock" not in names or any(not name.startswith(("lock", "record.db")) for name in names):
        return False
    record = folder / "record.db"
    if not record.exists() or not record.stat().st_size:
        return True
    try:
        return not rows(record, "drivers")
    except BadInput:  # something else
        return False


def _about(args: Namespace, data) -> dict:
    images = {name: len(getattr(data, name)) for name in ("train", "val", "test", "unlabelled")}
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["python", f"sweeps/{Path(sys.argv[0]).name}", *sys.argv[1:]],
        "arguments": {name: value for name, value in vars(args).items() if name not in ("results", "why")},
        "data": {"fingerprint": data.fingerprint, "images": images, "val_given": data.val_given},
        "commit": commit(ROOT),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
    }
