"""The machines: connect to Ray, count the places where trials run."""

import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
import torch
import yaml

from trainable import engine
from trainable.config import TrialConfig
from trainable.datasets.container import Dataset
from trainable.errors import BadInput
from trainable.footprint import Footprint, footprint, share

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml").expanduser()  # where `ray up` leaves its configuration on the head
GPU_SHARE = 0.25  # of a GPU, for a trial, where nothing was measured


class Places:
    """Where trials run, each with so many processors and so much of a GPU. How many run at a time follows the machines.

    Args:
        machines: the resources of those that are there now.
        grow: the resources of those that an autoscaler would add for trials that wait.
        concurrent: trials at a time at most.

    Raises:
        BadInput: a trial asks for more than any machine has or will have.
    """

    def __init__(
        self,
        machines: Callable[[], list[dict]],
        cpus: int,
        gpus: float | None,
        concurrent: int | None,
        grow: Sequence[dict] = (),
    ):
        self.machines, self.grow, self.cpus, self.concurrent = machines, list(grow), cpus, concurrent
        nodes = [*machines(), *self.grow]
        most_cpus = max(int(node.get("CPU", 0)) for node in nodes)
        most_gpus = max(node.get("GPU", 0) for node in nodes)
        self.gpus = (GPU_SHARE if most_gpus else 0) if gpus is None else gpus
        if cpus > most_cpus:
            raise BadInput(f"--cpus-per-trial {cpus}: the largest machine has {most_cpus}; give at most that")
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
        self.slots, self.here = (min(count, self.concurrent or count) for count in (most, here))
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
    if address:
        _listens(address)
    else:
        here = [{"CPU": engine.cores(), "GPU": torch.cuda.device_count()}]
        Places(lambda: here, cpus, gpus, concurrent)  # complain before Ray's ten seconds
    try:
        ray.init(
            address=address or "local",
            **({} if address else {"num_cpus": here[0]["CPU"], "num_gpus": here[0]["GPU"], "include_dashboard": False}),
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as wrong:
        raise BadInput(
            f"no Ray cluster to work on at {address or 'this machine'}: {str(wrong).splitlines()[0]}; "
            "both sides need the same Ray and Python and, if it asks for a token, ~/.ray/auth_token and RAY_AUTH_MODE=token"
        ) from wrong
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong is in the record, and said in one line
    try:
        grow = autoscaled(BOOTSTRAP) if address else []
        if gpus is None and any(node.get("GPU", 0) >= 1 for node in [*machines(), *grow]):
            gpus = measure()
        yield Places(machines, cpus, gpus, concurrent, grow)
    finally:
        ray.shutdown()


def gpu_share(configs: Sequence[TrialConfig], data: Dataset, warn: Callable[[str], None]) -> float:
    """The share of a GPU that trials like these need, measured on one of the cluster's; see trainable/footprint.py.

    `warn` hears in one line of each that could not be measured.
    """
    # max_calls: its process ends with it, and so does its hold on the GPU.
    measured, failures = ray.get(ray.remote(num_gpus=1, max_calls=1)(_footprints).remote(list(configs), data))
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


def _listens(address: str):
    """Raises BadInput unless something answers at host:port; Ray itself would wait for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as wrong:
        raise BadInput(f"no Ray cluster answers at {address!r} ({wrong}); give HOST:PORT of its head, or auto") from wrong


def machines() -> list[dict]:
    """The resources of every machine of the cluster that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def autoscaled(config: Path) -> list[dict]:
    """The resources of the machines that `ray up` may start, from the configuration that it leaves on the head; none where
    there is no such file, as on any machine but a head."""
    try:
        about = yaml.safe_load(config.read_text())
        kinds = [(kind.get("resources", {}), kind.get("max_workers", 0)) for kind in about["available_node_types"].values()]
        most = int(about.get("max_workers", sum(count for _, count in kinds)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []
    return [resources for resources, count in kinds for _ in range(int(count))][:most]


def _fit(node: dict, cpus: int, gpus: float) -> int:
    """How many trials a machine holds. Shares of a GPU do not cross GPUs; more than one are whole."""
    by_cpu = int(node.get("CPU", 0)) // cpus
    if not gpus:
        return by_cpu
    count = node.get("GPU", 0)
    by_gpu = int(count) * int(1 / gpus + 1e-9) if gpus < 1 else int(count // gpus)
    return min(by_cpu, by_gpu)
