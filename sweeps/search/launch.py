"""Run the search: Ray Tune between a Search and its trials, from the first trial to the end that was asked for."""

import itertools
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.search.cluster import Places
from sweeps.search.connect import SWEEPS, draining, largest_machine
from sweeps.search.hopeless import OUT_OF_MEMORY
from sweeps.search.keeper import THREADS, Keeper
from sweeps.search.searcher import Search
from trainable.datasets.container import Dataset
from trainable.errors import BadInput
from trainable.ray_trial import RayTrial

# Tune hands these to its trials, which do not need them, and Ray writes into a log what it hands over.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update({name for name in class_cache.ENV_VARS_TO_PROPAGATE if "AWS" in name})

KEEP = 12  # networks: more than an ensemble takes
CROWDED = 20.0  # seconds with more trials than places, after which the last begun give theirs up
SILENCE = 600.0  # seconds without a step, after which a trial is taken for hung
FIRST = 5.0  # times as many seconds where no trial has had a result: one has to be started
PATIENCE = 120.0  # seconds after the end of a search for the running trials to hand over what they have
ENDING = "Ending: the running trials hand over what they have. Ctrl-C again stops at once."
# In what Ray says of a process that died. Of any other it says that it may have been the kernel's OOM killer.
MACHINE_DIED = ("NodeDiedError", "node died", "node has died", "preempted", "Preempted")
DIED = ("ActorDiedError", "ActorUnavailableError", "actor died")
MEMORY_DIED = ("OutOfMemoryError", "running low on memory")


class Ending:
    """When the search ends: at the deadline, at the first Ctrl-C or SIGTERM, or at the last trial.

    The second signal raises KeyboardInterrupt.
    """

    def __init__(self, seconds: float | None):
        self.asked = threading.Event()
        self.finished = threading.Event()
        self.wake = threading.Event()  # whoever watches looks at once, not within a second
        self.at_once = False
        self.give(seconds)

    def give(self, seconds: float | None):
        """So long from now on; what was asked for by a signal stays asked."""
        self.deadline = None if seconds is None else time.monotonic() + seconds
        if getattr(self, "overdue", False):
            self.asked.clear()
        self.overdue = False

    def is_over(self) -> bool:
        return self.asked.is_set() or self.seconds_left() == 0

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @contextmanager
    def watching(
        self, search: Search, keeper, places: Places, tell: Callable[[dict], None], warn: Callable[[str], None], silence: float
    ) -> Iterator[None]:
        """Listen to signals, and look after machines and trials once a second: count the places, tell the keeper when the
        search is over, machines are to be taken away or places to be given to another sweep, pass on the trials' beats, say
        that the disk is full, end those that hang."""

        def heard(number, frame):
            if self.asked.is_set():
                self.at_once = True
                raise KeyboardInterrupt
            self.asked.set()
            self.wake.set()

        def watch():
            told, full, leave, fitted = None, "", (frozenset(), frozenset()), time.monotonic()
            while True:
                self.wake.wait(1.0)
                self.wake.clear()
                if self.finished.is_set():
                    return
                if self.is_over() and told is None:
                    if self.asked.is_set():
                        warn(ENDING)
                    keeper.end.remote()
                    told = time.monotonic()
                patience = PATIENCE if search.failures.proven else FIRST * PATIENCE
                if told and time.monotonic() - told > patience:
                    self.overdue = True
                    self.asked.set()
                    os.kill(os.getpid(), signal.SIGINT)  # wakes the main thread wherever it waits
                    return
                try:
                    if places.look():
                        warn(f"Machines or sweeps have come or gone: room for {places.here} trials at a time.")
                    beyond = search.beyond(places.slots)
                    fitted = fitted if beyond else time.monotonic()
                    crowded = time.monotonic() - fitted >= CROWDED
                    if (now := (draining(), beyond if crowded else frozenset())) != leave:
                        leave = now
                        keeper.leave.remote(*leave)
                    beats, wrong, late = ray.get(keeper.latest.remote(silence), timeout=10)
                except ray.exceptions.RayError:
                    continue  # a busy or lost keeper or head costs the display its news; a lost one fails the trials too
                tell(beats)
                if bool(wrong) != bool(full):
                    warn(f"{wrong}: the sweep waits for room, Ctrl-C ends it." if wrong else "There is room again.")
                full = wrong
                for number, (node, process) in late.items():
                    named = f"Trial {number} ({search.arch(number)})"
                    warn(f"{named} has made no step for {silence:.0f} seconds: its process is ended.")
                    there = NodeAffinitySchedulingStrategy(node, soft=False)
                    ray.remote(_end).options(num_cpus=0, scheduling_strategy=there).remote(process)

        self.finished.clear()
        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.finished.set()
            self.wake.set()
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
    losses: Mapping[int, float] | None = None,
    keep: int = KEEP,
    silence: float = SILENCE,
    views: int = 1,
    teachers: Mapping[int, np.ndarray] | None = None,
    tell: Callable[[dict], None] = lambda beats: None,
    warn: Callable[[str], None] = print,
    trainable=RayTrial,
) -> str | BadInput | None:
    """Run `search` to its end over the cluster; what the `keep` best trials hand over lies in `folder`/trials.

    `losses` are of the networks that lie there already. A trial that makes no step for `silence` seconds is taken for
    hung. A network that was trained on a fold says what it sees in so many `views`; where it learns from unlabelled images
    too, `teachers` says for each fold what they are, probs [n, classes]. Once a second `tell` is called with every running
    trial's latest beat, and `warn` with what the user should know, from another thread. Returns None, or in one line what
    broke it off: BadInput where that is the space.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    job = ray.get_runtime_context().get_job_id()
    named = {"name": f"{job}-{uuid.uuid4().hex}", "namespace": SWEEPS}  # who else works on this cluster counts these
    actor = ray.remote(Keeper).options(num_cpus=0, max_concurrency=THREADS, scheduling_strategy=here, **named)
    keeper = actor.remote(str(folder / "trials"), keep, losses)

    def forget(event: dict):
        if event["kind"] == "trial_ended" and event["state"] != "interrupted":
            keeper.forget.remote(event["number"])

    listeners = search.record.listeners
    search.record.listeners = (*listeners, forget)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(sys.maxsize)  # our searcher says how many; Tune would ask for one at a time
    searcher = TuneSearcher(search, places)
    shares = [budget / search.rungs[-1] for budget in search.rungs]
    shared = {"data": data, "keeper": keeper, "rungs": shares, "threads": places.cpus}
    each = {"CPU": places.cpus, "GPU": places.gpus}
    shared |= {"device": places.device, "views": views, "teachers": teachers}
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(trainable, **shared),
            lambda config: tune.PlacementGroupFactory([largest_machine() if config["alone"] else each]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=TuneScheduler(search),
            num_samples=-1,  # the search says when there are no more
            reuse_actors=True,  # a new process for each trial costs seconds
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            name=_unused(folder, "tune"),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the keeper has what matters
        ),
    )
    try:
        with ending.watching(search, keeper, places, tell, warn, silence):
            tuner.fit()
    except KeyboardInterrupt:
        if not ending.overdue:
            raise
        search.close("it did not end when the search did")
        return f"Some trials did not end within {PATIENCE:.0f} seconds of the search; --resume goes on from their last rung."
    except Exception as wrong:  # whatever Tune dies of: the networks that are there can still be combined
        search.close(f"the search broke off: {type(wrong).__name__}")
        return f"The search broke off: {type(wrong).__name__}: {wrong}"
    finally:
        search.record.listeners = listeners
    search.close("the search ended before it went on")
    if search.failures.hopeless:
        warn(f"The search stops: {search.failures.hopeless}.")
    return searcher.broken


def _end(process: int):
    os.kill(process, signal.SIGKILL)


def _name(trial) -> str:
    """Tune's name of a trial: one started again gets its own."""
    number, attempt = trial.config["number"], trial.config["attempt"]
    return f"trial_{number}{f'_{attempt}' if attempt else ''}"


def _unused(folder: Path, name: str) -> str:
    """`name`, or with the first number for which nothing lies in `folder`."""
    names = (f"{name}{f'-{i}' if i > 1 else ''}" for i in itertools.count(1))
    return next(name for name in names if not (folder / name).exists())


class TuneSearcher(tune.search.Searcher):
    """Lets Tune ask a Search, for as many trials at a time as there are places."""

    def __init__(self, search: Search, places: Places):
        super().__init__()
        self.search, self.places = search, places
        self.broken: BadInput | None = None

    def suggest(self, trial_id: str) -> dict | str:
        if self.search.active >= self.places.slots:
            return None
        try:
            job = self.search.ask()
        except BadInput as wrong:  # raised by `run_search`: Tune would wrap it
            self.broken = wrong
            return self.FINISHED
        if job is None:  # finished, or none before a running trial has ended
            return self.FINISHED if self.search.finished else None
        return asdict(job)

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
        said = _last_line(trial.error_file)
        memory, machine = (any(word in said for word in words) for words in (MEMORY_DIED, MACHINE_DIED))
        dead = any(word in said for word in DIED)  # a paragraph of what may have been follows
        left = said.partition("Preempted: ")[2]  # why it left its place by itself
        reason = left or (f"{OUT_OF_MEMORY}: {said}" if memory else "its process died" + ("" if dead else f": {said}"))
        self.search.lose(trial.config["number"], reason, memory=memory, machine=machine)

    def __getstate__(self) -> dict:
        return {}


def _last_line(path: str | None) -> str:
    try:
        return Path(path).read_text().strip().splitlines()[-1].strip()
    except (OSError, TypeError, IndexError):
        return "no reason given"
