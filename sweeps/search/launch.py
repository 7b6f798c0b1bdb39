"""Run the search: Ray Tune between a Search and its trials, from the first trial to the end that was asked for."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.search.cluster import Places
from sweeps.search.keeper import Keeper
from sweeps.search.searcher import Search
from trainable.datasets.container import Dataset
from trainable.errors import BadInput
from trainable.ray_trial import RayTrial

PATIENCE = 120.0  # seconds after the end of a search for the running trials to hand over what they have


class Ending:
    """When the search ends: at the deadline, at the first Ctrl-C or SIGTERM, or at the last trial.

    The second signal raises KeyboardInterrupt.
    """

    def __init__(self, seconds: float | None):
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.asked = threading.Event()
        self.finished = threading.Event()
        self.overdue = self.at_once = False

    def is_over(self) -> bool:
        return self.asked.is_set() or self.seconds_left() == 0

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @contextmanager
    def watching(self, keeper, tell: Callable[[dict], None]) -> Iterator[None]:
        """Listen to signals, tell the keeper when the search is over, and pass on the trials' beats once a second."""

        def heard(number, frame):
            if self.asked.is_set():
                self.at_once = True
                raise KeyboardInterrupt
            self.asked.set()

        def watch():
            told = None
            while not self.finished.wait(1.0):
                if self.is_over() and told is None:
                    keeper.end.remote()
                    told = time.monotonic()
                if told and time.monotonic() - told > PATIENCE:
                    self.overdue = True
                    self.asked.set()
                    os.kill(os.getpid(), signal.SIGINT)  # wakes the main thread wherever it waits
                    return
                try:
                    tell(ray.get(keeper.latest.remote(), timeout=10))
                except ray.exceptions.RayError:
                    continue  # a busy or lost keeper costs the display its news; a lost one fails the trials too

        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.finished.set()
            thread.join(1)
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.at_once:  # the exception was swallowed where it was raised
            raise KeyboardInterrupt


def run_search(
    search: Search,
    data: Dataset,
    places: Places,
    ending: Ending,
    folder: Path,
    *,
    keep: int = 12,
    tell: Callable[[dict], None] = lambda beats: None,
    trainable=RayTrial,
) -> str | None:
    """Run `search` to its end over the cluster; what the `keep` best trials hand over lies in `folder`/trials.

    `tell` is called once a second with every trial's latest beat, from another thread. Returns None, or in one line
    what broke the search off.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    keeper = ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here).remote(str(folder / "trials"), keep)
    searcher = TuneSearcher(search)
    shared = {"data": data, "keeper": keeper, "rungs": search.rungs, "threads": places.cpus, "device": places.device}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, **shared), {"cpu": places.cpus, "gpu": places.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=TuneScheduler(search),
            num_samples=search.trials or -1,
            max_concurrent_trials=places.slots,  # without it, one trial at a time is asked for
            reuse_actors=True,  # a new process for each trial costs seconds
            trial_name_creator=lambda trial: f"trial_{trial.config['number']}",
            trial_dirname_creator=lambda trial: f"trial_{trial.config['number']}",
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            name="tune",
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the keeper has what matters
        ),
    )
    try:
        with ending.watching(keeper, tell):
            tuner.fit()
    except KeyboardInterrupt:
        if not ending.overdue:
            raise
        search.abandon("it did not end when the search did")
        return f"Some trials did not end within {PATIENCE:.0f} seconds of the search; what they had is lost."
    except Exception as wrong:  # whatever Tune dies of: the networks that are there can still be combined
        search.abandon(f"the search broke off: {type(wrong).__name__}")
        return f"The search broke off: {type(wrong).__name__}: {wrong}"
    return str(searcher.broken) if searcher.broken else None


class TuneSearcher(tune.search.Searcher):
    """Lets Tune ask a Search."""

    def __init__(self, search: Search):
        super().__init__()
        self.search = search
        self.broken: BadInput | None = None

    def suggest(self, trial_id: str) -> dict | str:
        try:
            asked = self.search.ask()
        except BadInput as wrong:  # raised by `run_search`: Tune would wrap it
            self.broken, asked = wrong, None
        return {"number": asked[0], "config": asked[1]} if asked else self.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False):
        pass  # the scheduler has heard it

    def save(self, checkpoint_path: str):
        pass  # the record is what a search is resumed from

    def restore(self, checkpoint_path: str):
        raise RuntimeError("a search is resumed from its record")

    def __getstate__(self) -> dict:
        return {}  # Tune pickles its searcher into its own files, which nothing here reads


class TuneScheduler(tune.schedulers.FIFOScheduler):
    """Lets Tune tell a Search what it hears. Tune tells its scheduler first, so the record is written first."""

    def __init__(self, search: Search):
        super().__init__()
        self.search = search

    def on_trial_result(self, tune_controller, trial, result: dict) -> str:
        return self.CONTINUE if self.search.hear(trial.config["number"], result) else self.STOP

    def on_trial_error(self, tune_controller, trial):
        self.search.lose(trial.config["number"], f"its process died: {_last_line(trial.error_file)}")

    def __getstate__(self) -> dict:
        return {}


def _last_line(path: str | None) -> str:
    try:
        return Path(path).read_text().strip().splitlines()[-1].strip()
    except (OSError, TypeError, IndexError):
        return "no reason given"
