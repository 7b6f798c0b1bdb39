"""Cost of a network: parameters, multiplications, an epoch, and milliseconds a prediction."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import ray
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sweeps.choose.members import Network, restore
from trainable import engine
from trainable.archs import build_network
from trainable.archs.torchvision_fit import shapes_of
from trainable.config import TrialConfig
from trainable.datasets.container import Dataset
from trainable.fit import fit
from trainable.footprint import WARM as WARM_STEPS

BATCHES = (1, 128)  # images at a time: one that waits for its answer, and many
WARM = 3  # runs before the first that counts
LEAST, MOST, SECONDS = 9, 1000, 2.0  # runs that count, and for how long
TIMED_STEPS = 3  # of a training; the median counts


def size(config: TrialConfig, data) -> tuple[int, int]:
    """Parameters, and the multiply-accumulates of convolutions and matrix products for one image.

    Nothing is computed: the network has shapes and no values. `data` is anything with in_shape, classes, mean
    and std.

    Raises:
        BadInput: a knob that cannot be, or images too small for this network.
    """
    network = shapes_of(lambda: build_network(config, data)).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, *data.in_shape, device="meta"))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def epoch_seconds(configs: Sequence[TrialConfig], data: Dataset, places, warn: Callable[[str], None]) -> list[float | None]:
    """Measure how long an epoch of each training takes on one slot, with every slot busy.

    Args:
        places: has the cpus, gpus and device of a trial.
        warn: hears in one line of each that could not be measured.

    Returns:
        Seconds, in the order of `configs`; None for one that could not be measured.
    """
    # max_calls: a process ends with its measurement, and so does its hold on a GPU.
    each = {"num_cpus": places.cpus, "num_gpus": places.gpus, "max_calls": 1 if places.gpus else 0}
    task = ray.remote(**each)(_epoch_seconds)
    shared = ray.put(data)
    running = [task.remote(config, shared, places.cpus, places.device) for config in configs]
    return [_timed(result, config.arch, warn, None) for config, result in zip(configs, running, strict=True)]


def _epoch_seconds(config: TrialConfig, data: Dataset, threads: int, device: str | None) -> float:
    torch.set_num_threads(threads)
    # Small data has few steps an epoch, and every step is needed.
    steps = fit(replace(config, epochs=max(config.epochs, 2.0 + WARM_STEPS + TIMED_STEPS)), data, device)
    _, state = next(steps)
    if state.plan.device.type == "cuda":
        for _ in range(WARM_STEPS):  # until its graph is captured
            next(steps)
    times = []
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        metrics, state = next(steps)
        metrics["loss"].item()  # a GPU has finished the step
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * state.steps_per_epoch


def latencies(networks: list[Network], places, warn: Callable[[str], None], seconds: float = SECONDS) -> list[dict]:
    """Time each network on one place, with nothing else of ours running; `places` has a trial's cpus, gpus and device.
    Without places: in this process, on one thread.

    Args:
        seconds: for which the runs of each batch size go on, LEAST of them at least.

    Returns:
        For each what `measure` returns; nothing for one that could not be timed, which `warn` hears in one line.
    """
    if places is None:
        return [_measure_saved(network.saved_files, 1, None, seconds) for network in networks]
    task = ray.remote(_measure_saved).options(num_cpus=places.cpus, num_gpus=places.gpus)
    out = []
    for network in networks:  # one after the other: the next begins when the last has ended
        result = task.remote(network.saved_files, places.cpus, places.device, seconds)
        out.append(_timed(result, network.arch, warn, {}))
    return out


def _timed(result: ray.ObjectRef, arch: str, warn: Callable[[str], None], otherwise):
    """Return what a measurement on a slot found; `otherwise` where it failed, which `warn` hears."""
    try:
        return ray.get(result)
    except ray.exceptions.RayError as wrong:
        warn(f"{arch} could not be timed: {str(wrong).strip().splitlines()[-1]}")
        return otherwise


def _measure_saved(contents: dict, threads: int, device: str | None, seconds: float) -> dict:
    network, plan, problem = restore(contents, threads, device)
    return measure(network, plan, problem.in_shape, seconds)


@torch.inference_mode()
def measure(network: nn.Module, plan: engine.Plan, in_shape: tuple[int, int, int], seconds: float = SECONDS) -> dict:
    """How long a network takes for images that lie on the device already.

    Returns:
        For each batch size b of BATCHES `ms_<b>` and `ms_<b>_p90`, the median and the 90th percentile in milliseconds
        a batch, of `runs_<b>` runs after the warm-up; and `threads`, `device` and `setting` (of the engine).
    """
    plan.place(network).eval()
    out = {"threads": torch.get_num_threads(), "device": engine.device_name(plan.device), "setting": plan.setting}
    for batch in BATCHES:
        images = plan.laid_out(torch.rand(batch, *in_shape, device=plan.device))
        for _ in range(WARM):
            _milliseconds(network, plan, images)
        times, until = [], time.monotonic() + seconds
        while len(times) < LEAST or (len(times) < MOST and time.monotonic() < until):
            times.append(_milliseconds(network, plan, images))
        median, p90 = np.percentile(times, [50, 90])
        out |= {f"ms_{batch}": float(median), f"ms_{batch}_p90": float(p90), f"runs_{batch}": len(times)}
    return out


def _milliseconds(network: nn.Module, plan: engine.Plan, images: torch.Tensor) -> float:
    began = time.perf_counter()
    with plan.autocast():
        network(images)
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)
    return 1000 * (time.perf_counter() - began)
