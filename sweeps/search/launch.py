"""Ray: connect, count the places, run the search."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Read by Ray when it is imported.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",  # the new one ignores verbose=0
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",  # they cost more than the results
    TUNE_DISABLE_STRICT_METRIC_CHECKING="1",  # a failed trial has no metric
    TUNE_DISABLE_SIGINT_HANDLER="1",  # ours also combines what there is
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # they are in the record
    TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S="3600",
)

import ray
import torch
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.search.keeper import Keeper
from sweeps.search.searcher import Search
from trainable import engine
from trainable.datasets.container import Dataset
from trainable.errors import BadInput
from trainable.ray_trial import RayTrial

GPU_SHARE = 0.25  # of a GPU, for a trial, where there are GPUs: networks this small leave most of one idle


@dataclass(frozen=True)
class Places:
    """Where trials run: `slots` at a time, each with so many processors and so much of a GPU."""

    slots: int
    cpus: int
    gpus: float
    words: str  # what they are, for people

    @property
    def device(self) -> str | None:
        """For torch: Ray hides the GPUs from nobody, so a trial without a share must be told."""
        return None if self.gpus else "cpu"


class Ending:
    """When the search ends: at the deadline, at the first Ctrl-C or SIGTERM, or at the last trial.

    The second signal raises KeyboardInterrupt.
    """

    def __init__(self, seconds: float | None):
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.asked = threading.Event()
        self.finished = threading.Event()

    def is_over(self) -> bool:
        return self.asked.is_set() or self.seconds_left() == 0

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @contextmanager
    def watching(self, keeper, tell: Callable[[dict], None]) -> Iterator[None]:
        """Listen to signals, tell the keeper when the search is over, and pass on the trials' beats once a second."""

        def heard(number, frame):
            if self.asked.is_set():
                raise KeyboardInterrupt
            self.asked.set()

        def watch():
            told = False
            while not self.finished.wait(1.0):
                if self.is_over() and not told:
                    keeper.end.remote()
                    told = True
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


@contextmanager
def cluster(address: str | None, cpus: int, gpus: float | None, concurrent: int | None) -> Iterator[Places]:
    """Connect to the Ray cluster at `address`, or start one on this machine, and count the places.

    Raises:
        BadInput: a trial asks for more than any machine has, or the address does not answer.
    """
    if address:
        _listens(address)
    else:
        here = [{"CPU": engine.cores(), "GPU": torch.cuda.device_count()}]
        _places(here, cpus, gpus, concurrent)  # complain before Ray's ten seconds
    try:
        ray.init(
            address=address or "local",
            **({} if address else {"num_cpus": here[0]["CPU"], "num_gpus": here[0]["GPU"], "include_dashboard": False}),
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as wrong:
        raise BadInput(f"no Ray cluster to work on at {address or 'this machine'}: {str(wrong).splitlines()[0]}") from wrong
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        yield _places([node["Resources"] for node in ray.nodes() if node["Alive"]], cpus, gpus, concurrent)
    finally:
        ray.shutdown()


def _listens(address: str):
    """Raises BadInput unless something answers at host:port; Ray itself would wait for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as wrong:
        raise BadInput(f"no Ray cluster answers at {address!r} ({wrong}); give HOST:PORT of its head, or auto") from wrong


def _places(nodes: list[dict], cpus: int, gpus: float | None, concurrent: int | None) -> Places:
    most_cpus = max(int(node.get("CPU", 0)) for node in nodes)
    most_gpus = max(node.get("GPU", 0) for node in nodes)
    if gpus is None:
        gpus = GPU_SHARE if most_gpus else 0
    if cpus > most_cpus:
        raise BadInput(f"--cpus-per-trial {cpus}: the largest machine has {most_cpus}; give at most that")
    if gpus > most_gpus:
        raise BadInput(f"--gpus-per-trial {gpus:g}: the largest machine has {most_gpus:g}; give at most that")
    slots = sum(_fit(node, cpus, gpus) for node in nodes)
    if not slots:
        raise BadInput(f"no machine has {cpus} processors and {gpus:g} GPUs at once; ask for less a trial")
    words = f"{sum(node.get('GPU', 0) for node in nodes):g} GPUs" if gpus else f"{slots * cpus} CPU cores"
    return Places(min(slots, concurrent or slots), cpus, gpus, words)


def _fit(node: dict, cpus: int, gpus: float) -> int:
    """How many trials a machine holds. Shares of a GPU do not cross GPUs; more than one are whole."""
    by_cpu = int(node.get("CPU", 0)) // cpus
    if not gpus:
        return by_cpu
    count = node.get("GPU", 0)
    by_gpu = int(count) * int(1 / gpus + 1e-9) if gpus < 1 else int(count // gpus)
    return min(by_cpu, by_gpu)


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
