"""What every sweep is around its search: its folder, who listens to its record, and what is said of it."""

import platform
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from sweeps.flags import ROOT
from sweeps.search.progress import Progress
from sweeps.search.record import Record
from sweeps.show import summary, views
from sweeps.show.tracking import Tracker
from trainable import files
from trainable.datasets import load
from trainable.errors import BadInput

VERSIONS = ("ray", "torch", "torchvision", "optuna", "mlflow")


class Sweep:
    """A sweep from its arguments to its last words.

    It has the `console`, the `data`, the `folder` (not made before `recording`) and `about`, what sweep.json says; after
    `recording` also the tables `trials` and `curves`.

    Raises:
        BadInput: the data cannot be read, or the folder exists or cannot be made.
    """

    def __init__(self, args: Namespace):
        self.began = time.monotonic()
        self.args = args
        self.console = Console() if sys.stdout.isatty() else Console(width=120)
        self.data = load(args.dataset, image_size=args.image_size)
        self.folder = _new_folder(args)
        self.about = _about(args, self.data)
        images = f"{len(self.data.train):,} images to train, {len(self.data.val):,} val"
        self.say(f"{args.dataset} ({args.why}): {images}. Starting Ray.")

    def say(self, text: str):
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    @property
    def machines(self) -> tuple:
        """What `cluster` is asked for."""
        return self.args.address, self.args.cpus_per_trial, self.args.gpus_per_trial, self.args.concurrent

    @contextmanager
    def recording(self, places, ending, trials: int | None) -> Iterator[tuple[Record, Progress]]:
        """Make the folder; the record, which MLflow and the display mirror, is open inside. The tables are written after."""
        self.folder.mkdir()
        files.write_json(self.folder / "sweep.json", self.about)
        results = self.args.results
        mlflow = f"sqlite:///{results / 'mlflow.db'}", results / "mlflow-artifacts"
        self.tracker = Tracker(*mlflow, self.args.dataset, self.folder.name, _flat(self.about), warn=self.say)
        progress = Progress(self.console, places.slots, ending.seconds_left, ending.is_over, trials)
        record = Record(self.folder / "record.db", listeners=(progress, self.tracker))
        with progress:
            yield record, progress
        record.close()
        self.trials, self.curves = views.write_tables(self.folder)
        self.slots = places.slots

    def end(self) -> float:
        """Write into sweep.json how it ended. Returns the share of the places' time that was spent training."""
        busy = views.busy(self.trials, self.slots)
        self.about["ended"] = {"seconds": round(self.seconds, 1), "trials": len(self.trials), "cores_busy": busy}
        files.write_json(self.folder / "sweep.json", self.about)
        return busy

    def end_without(self, what: str) -> int:
        """The last words where no trial left a network; the exit status."""
        self.tracker.close({"trials": len(self.trials)}, [])
        self.say(f"{what}: {len(self.trials)} were tried. {summary.why_none(self.trials)}")
        return 1

    def last_words(self, written: dict[str, str], next_steps: list[str]):
        """What lies in the folder, and what to do next; in the browser first of all."""
        where = "" if self.args.results == ROOT / "results" else f" RESULTS={self.args.results}"
        steps = [f"make mlflow{where}    # all sweeps, in the browser", *next_steps]
        summary.next_commands(self.console, self.folder, [f"{name:<16}{what}" for name, what in written.items()], steps)


def _new_folder(args: Namespace) -> Path:
    folder = args.results / args.name
    if folder.exists():
        raise BadInput(f"{folder} exists; choose another --name")
    try:
        args.results.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise BadInput(f"--results {args.results}: {wrong.strerror}; choose a folder that can be written") from wrong
    return folder


def _about(args: Namespace, data) -> dict:
    images = {name: len(getattr(data, name)) for name in ("train", "val", "test", "unlabelled")}
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["python", f"sweeps/{Path(sys.argv[0]).name}", *sys.argv[1:]],
        "arguments": {name: value for name, value in vars(args).items() if name not in ("results", "why")},
        "data": {"fingerprint": data.fingerprint, "images": images},
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
    }


def _flat(about: dict) -> dict:
    """For MLflow: the arguments that were given a value, the data's fingerprint and the commit."""
    given = {name: value for name, value in about["arguments"].items() if value is not None}
    return {**given, "fingerprint": about["data"]["fingerprint"], "commit": about["commit"]}


def _commit() -> str | None:
    try:
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None  # no git here
    return git.stdout.strip() or None
