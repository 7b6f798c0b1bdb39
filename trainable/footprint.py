"""How much of a GPU one training takes, measured: what decides how many share it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.autograd import DeviceType

from trainable.config import TrialConfig
from trainable.datasets.container import Dataset
from trainable.fit import evaluate, fit

CONTEXT = 0.6 * 2**30  # bytes of a GPU that every process takes for itself: CUDA's context and its kernels
WARM, MEASURED = 12, 20  # steps: the graph is captured in the first ones


@dataclass(frozen=True)
class Footprint:
    memory: float  # share of the GPU's memory at the highest
    busy: float  # share of the time in which the GPU computes, while nobody else uses it


def footprint(config: TrialConfig, data: Dataset, device: str = "cuda") -> Footprint:
    """Train `config` alone on an idle GPU for a few steps, evaluate once, and measure. Takes seconds."""
    torch.cuda.empty_cache()  # what an earlier training left
    torch.cuda.reset_peak_memory_stats(device)
    # The schedule is long enough whatever the batch: nothing of it is kept.
    steps = fit(replace(config, epochs=max(config.epochs, WARM + MEASURED)), data, device)
    for _ in range(WARM):
        _, state = next(steps)
    torch.cuda.synchronize(device)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.profiler.profile(activities=activities) as profile:
        begin.record()
        for _ in range(MEASURED):
            next(steps)
        end.record()
        torch.cuda.synchronize(device)
    # The device's own events only: an operator on the CPU carries the time of its kernels once more.
    kernels = (e for e in profile.key_averages() if e.device_type == DeviceType.CUDA and not e.is_user_annotation)
    computing = sum(event.self_device_time_total for event in kernels) / 1000
    if len(data.val):
        evaluate(state, data.val)
    total = torch.cuda.get_device_properties(device).total_memory
    return Footprint(
        memory=(torch.cuda.max_memory_reserved(device) + CONTEXT) / total,
        busy=min(1.0, computing / begin.elapsed_time(end)),
    )


def share(footprints: Sequence[Footprint]) -> float:
    """The share of a GPU to give every training of a kind: 1 / (how many at once).

    The most demanding one's memory has to fit that often; of time, trainings that each leave some of it idle share
    what there is, so the middle one decides.
    """
    busy = sorted(f.busy for f in footprints)[len(footprints) // 2]
    at_once = min(math.floor(1 / max(f.memory for f in footprints)), math.ceil(1 / max(busy, 0.05)))
    return math.floor(10_000 / max(1, at_once)) / 10_000  # Ray counts in ten-thousandths
