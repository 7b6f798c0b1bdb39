"""The places where trials run: how many the machines have, and how much of a GPU each needs."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import ray
import torch
from ray._common.utils import get_default_ray_temp_dir

from sweeps.search.connect import BOOTSTRAP, autoscaled, connect, machines, sweeps_at_work
from sweeps.search.guard import Guard
from trainable import engine
from trainable.config import TrialConfig
from trainable.datasets.container import Dataset
from trainable.errors import BadInput
from trainable.footprint import Footprint, footprint, share

GPU_SHARE = 0.25  # of a GPU, for a trial, where nothing was measured


class Places:
    """Where trials run, each with so many processors and so much of a GPU. How many run at a time follows the machines.

    Args:
        machines: the resources of those that are there now.
        grow: the resources of those that an autoscaler would add for trials that wait.
        sweeps: how many share the machines, this one among them; all get the same.
        concurrent: trials at a time at most.

    Raises:
        BadInput: a trial asks for more than any machine has or will have, or for more than one GPU.
    """

    def __init__(
        self,
        machines: Callable[[], list[dict]],
        cpus: int,
        gpus: float | None,
        concurrent: int | None,
        grow: Sequence[dict] = (),
        sweeps: Callable[[], int] = lambda: 1,
    ):
        self.machines, self.grow, self.cpus, self.concurrent, self.sweeps = machines, list(grow), cpus, concurrent, sweeps
        nodes = [*machines(), *self.grow]
        most_cpus = max(int(node.get("CPU", 0)) for node in nodes)
        most_gpus = max(node.get("GPU", 0) for node in nodes)
        self.gpus = (GPU_SHARE if most_gpus else 0) if gpus is None else gpus
        if cpus > most_cpus:
            raise BadInput(f"--cpus-per-trial {cpus}: the largest machine has {most_cpus}; give at most that")
        if self.gpus > 1:  # of a sweep that was begun when this was taken, and is resumed
            raise BadInput(f"--gpus-per-trial {self.gpus:g}: a trial trains on one GPU at most; give 1, a share of one, or 0")
        if self.gpus > most_gpus:
            raise BadInput(f"--gpus-per-trial {self.gpus:g}: the largest machine has {most_gpus:g}; give at most that")
        self._began = self._looked = time.monotonic()
        self._room = 0.0  # so many trials for so many seconds
        self.here = 0
        self.look()
        if not self.slots:
            raise BadInput(f"no machine has {cpus} processors and {self.gpus:g} GPUs at once; ask for less a trial")

    def look(self) -> bool:
        """Count again; whether there are more or fewer than at the last look.

        `slots` is how many trials to ask for at a time, `here` for how many of them there is room now.
        """
        nodes = self.machines()
        here = sum(_fit(node, self.cpus, self.gpus) for node in nodes)
        most = max(here, sum(_fit(node, self.cpus, self.gpus) for node in self.grow))
        now, before = time.monotonic(), self.here
        self._room += (now - self._looked) * before
        self._looked = now
        sharing = max(1, self.sweeps())
        self.slots, self.here = (min(math.ceil(count / sharing), self.concurrent or count) for count in (most, here))
        return before != self.here

    @property
    def mean(self) -> float:
        """For how many trials there was room, on average over the time."""
        total = self._looked - self._began
        return self._room / total if total else float(self.here)

    @property
    def words(self) -> str:
        """For people."""
        what = (
            f"{sum(node.get('GPU', 0) for node in self.machines()):g} GPUs" if self.gpus else f"{self.here * self.cpus} CPU cores"
        )
        return what if self.here == self.slots else f"{what}, and room for {self.slots} when all machines are there"

    @property
    def device(self) -> str | None:
        """For torch: Ray hides the GPUs from nobody, so a trial without a share must be told."""
        return None if self.gpus else "cpu"


@contextmanager
def cluster(
    address: str | None,
    cpus: int,
    gpus: float | None,
    concurrent: int | None,
    measure: Callable[[], float] = lambda: GPU_SHARE,
) -> Iterator[Places]:
    """Connect to the Ray cluster at `address`, or start one on this machine, and count the places.

    `measure` is called for the share of a GPU to give a trial, once connected, where `gpus` is None and there are GPUs.

    Raises:
        BadInput: a trial asks for more than any machine has, or the address does not answer.
    """
    local, guard = {}, None
    if not address:
        here = [{"CPU": engine.cores(), "GPU": torch.cuda.device_count()}]
        Places(lambda: here, cpus, gpus, concurrent)  # complain before Ray's ten seconds
        local = {"num_cpus": here[0]["CPU"], "num_gpus": here[0]["GPU"], "include_dashboard": False}
        guard = Guard(get_default_ray_temp_dir())
    try:
        with guard.marking() if guard else nullcontext():
            connect(address or "local", **local)
        grow = autoscaled(BOOTSTRAP) if address else []
        if gpus is None and any(node.get("GPU", 0) >= 1 for node in [*machines(), *grow]):
            gpus = measure()
        yield Places(machines, cpus, gpus, concurrent, grow, sweeps_at_work)
    finally:
        ray.shutdown()
        if guard:
            guard.dismiss()


def gpu_share(configs: Sequence[TrialConfig], data: Dataset, warn: Callable[[str], None]) -> float:
    """The share of a GPU that trials like these need, measured on one of the cluster's; see trainable/footprint.py.

    Of each architecture the first is measured: that takes some three seconds. `warn` hears in one line of each that could
    not be measured.
    """
    firsts = list({config.arch: config for config in reversed(configs)}.values())
    # max_calls: its process ends with it, and so does its hold on the GPU.
    measured, failures = ray.get(ray.remote(num_gpus=1, max_calls=1)(_footprints).remote(firsts, data))
    for failure in failures:
        warn(f"No share of a GPU could be measured for {failure}")
    return share(measured) if measured else GPU_SHARE


def _footprints(configs: list[TrialConfig], data: Dataset) -> tuple[list[Footprint], list[str]]:
    """What could be measured, and who could not be, with the reason: as a trial it may fail by itself, and be recorded."""
    measured, failures = [], []
    for config in configs:
        try:
            measured.append(footprint(config, data))
        except Exception as wrong:
            reason = (str(wrong).splitlines() or [""])[0]
            failures.append(f"{config.arch}: {type(wrong).__name__}: {reason}")
    return measured, failures


def _fit(node: dict, cpus: int, gpus: float) -> int:
    """Return the number of trials that a machine holds. Shares of a GPU do not cross GPUs."""
    by_cpu = int(node.get("CPU", 0)) // cpus
    if not gpus:
        return by_cpu
    return min(by_cpu, int(node.get("GPU", 0)) * int(1 / gpus + 1e-9))
