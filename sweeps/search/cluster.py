"""The machines: connect to Ray, count the places where trials run."""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray
import torch

from trainable import engine
from trainable.config import TrialConfig
from trainable.datasets.container import Dataset
from trainable.errors import BadInput
from trainable.footprint import Footprint, footprint, share

GPU_SHARE = 0.25  # of a GPU, for a trial, where nothing was measured


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
        _places(here, cpus, gpus, concurrent)  # complain before Ray's ten seconds
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
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if gpus is None and any(node.get("GPU", 0) >= 1 for node in nodes):
            gpus = measure()
        yield _places(nodes, cpus, gpus, concurrent)
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
