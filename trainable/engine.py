"""How a network runs on this device: precision, memory layout, graph capture, threads."""

import contextlib
import copy
import hashlib
import json
import math
import os
import platform
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainable import files
from trainable.errors import lookup

PROBE_BATCH, PROBE_ROUNDS = 32, 3
WORTH = 0.93  # a setting must take less than this share of the preferred one's time to be taken instead
WARM_STEPS = 5  # before a graph is captured


@dataclass(frozen=True)
class Setting:
    bf16: bool
    channels_last: bool


# What is tried, the one that most often wins first.
SETTINGS = {
    "bf16-nhwc": Setting(True, True),
    "fp32-nhwc": Setting(False, True),
    "bf16-nchw": Setting(True, False),
    "fp32-nchw": Setting(False, False),
}


@dataclass(frozen=True)
class Plan:
    """Where and how a network runs. `setting` is a name of SETTINGS."""

    device: torch.device
    setting: str

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if SETTINGS[self.setting].channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=SETTINGS[self.setting].bf16)

    def place(self, network: nn.Module) -> nn.Module:
        return network.to(self.device, memory_format=self.layout)

    def floats(self, pixels: Tensor) -> Tensor:
        """uint8 [n, c, h, w] as floats in [0, 1]; `laid_out` comes after whatever changes them."""
        return pixels.to(self.device, torch.float32).div_(255)

    def laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=self.layout)


def plan(network: nn.Module, in_shape: tuple[int, int, int], device: str | None = None, setting: str = "auto") -> Plan:
    """How to run `network`, on `device` (default: the first GPU, else the CPU).

    `setting` is a name of SETTINGS, or "auto": the first of them on a GPU; on a CPU, where none wins everywhere, a probe
    of a few batches chooses the fastest. What it chose is remembered on this machine for networks made of the same
    kinds of layers, however wide and deep they are. bf16 is not taken where this CPU would compute wrong gradients with
    it: see `_bf16_is_wrong`.

    Raises:
        BadInput: an unknown setting.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type != "cpu" and setting == "auto":
        setting = next(iter(SETTINGS))
    if setting == "auto":
        signature = _signature(network, in_shape)
        if signature not in _remembered:
            path = memory() / f"{hashlib.sha256(signature.encode()).hexdigest()[:24]}.json"
            _remembered[signature] = _read(path) or _probe_and_write(network, in_shape, path, signature)
        setting = _remembered[signature]
    lookup(SETTINGS, setting, "engine setting")
    # A network trained elsewhere may be run where bf16 would be emulated.
    if SETTINGS[setting].bf16 and (not _has_bf16(where) or (where.type == "cpu" and _bf16_is_wrong(network, in_shape))):
        setting = setting.replace("bf16", "fp32")
    return Plan(where, setting)


@torch.no_grad()
def _bf16_is_wrong(network: nn.Module, in_shape: tuple[int, int, int]) -> bool:
    """Whether some convolution strides to maps one pixel wide, as the last layers may of images of a few pixels.

    There oneDNN leaves parts of the weights' gradient as the memory was before, and with AMX of the output too: measured
    with torch 2.14, kernels of 2 to 7 and strides of 2 to 4, padded or not; never where the new map is wider.
    """
    narrow = []

    def note(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor):
        if max(conv.kernel_size) > 1 and conv.stride[1] > 1 and output.shape[-1] == 1:
            narrow.append(conv)

    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, nn.Conv2d)]
    training = network.training
    first = next(network.parameters())
    network.eval()(torch.zeros(1, *in_shape, device=first.device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return bool(narrow)


_remembered: dict[str, str] = {}


def memory() -> Path:
    """The folder where probes are remembered: $XDG_CACHE_HOME/sweep-service, or ~/.cache/sweep-service."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "sweep-service"


def _signature(network: nn.Module, in_shape: tuple[int, int, int]) -> str:
    """What decides which setting is fastest: the CPU, the images, and the kinds of layers; not their number or width."""
    kinds = {
        (type(m).__name__, m.kernel_size, m.stride, min(m.groups, 2))
        if isinstance(m, nn.Conv2d)
        else (type(m).__name__, getattr(m, "size", None))  # of what resizes
        for m in network.modules()
    }
    device = device_name(torch.device("cpu"))
    return repr((device, torch.__version__, torch.get_num_threads(), tuple(in_shape), sorted(kinds, key=repr)))


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _read(path: Path) -> str | None:
    try:
        setting = json.loads(path.read_text())["setting"]
        return setting if setting in SETTINGS else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _probe_and_write(network: nn.Module, in_shape, path: Path, signature: str) -> str:
    times = probe(network, in_shape)
    # The first that none beats by much: on a busy machine a small difference is noise, and a choice that
    # flips from day to day would change numbers for nothing.
    setting = next(name for name in times if times[name] * WORTH <= min(times.values()))
    with contextlib.suppress(OSError):  # no home that can be written: the probe is run again in the next process
        files.write_json(path, {"setting": setting, "seconds": times, "for": signature})
    return setting


def probe(network: nn.Module, in_shape: tuple[int, int, int]) -> dict[str, float]:
    """Seconds of a forward and backward pass on PROBE_BATCH images under each setting that this CPU supports."""
    cpu = torch.device("cpu")
    times = {name: math.inf for name, s in SETTINGS.items() if not s.bf16 or _has_bf16(cpu)}
    probed = copy.deepcopy(network).train()
    with torch.random.fork_rng([]):
        images = torch.rand(PROBE_BATCH, *in_shape)
        for turn in range(PROBE_ROUNDS + 1):
            for name in times:
                if turn > 1 and times[name] > 1.5 * min(times.values()):
                    continue  # far behind: it will not win
                plan = Plan(cpu, name)
                plan.place(probed)
                began = time.perf_counter()
                with plan.autocast():
                    logits = probed(plan.laid_out(images))
                logits.float().logsumexp(dim=1).sum().backward()
                if turn:  # the first turn only warms up
                    times[name] = min(times[name], time.perf_counter() - began)
                probed.zero_grad()
    return times


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


class Captured:
    """`function` of GPU tensors as a CUDA graph: its kernels are launched at once, without Python between them.

    The first calls run as they are, on a stream of their own, as torch's notes on graph capture ask for; then one is
    captured and every later one replayed. What cannot be captured goes on as it is. The function must not depend on
    anything on the Python side that changes between calls; its tensors' shapes stay the same.
    """

    def __init__(self, function: Callable[..., Tensor], generator: torch.Generator):
        self.function, self.generator = function, generator
        self.calls, self.graph = 0, None
        self.stream = torch.cuda.Stream(generator.device)

    def __call__(self, *inputs: Tensor) -> Tensor:
        with torch.cuda.device(self.generator.device):
            self.calls += 1
            if self.calls == WARM_STEPS + 1:
                self._capture(inputs)
            if self.graph:
                for mine, given in zip(self.inputs, inputs, strict=True):
                    mine.copy_(given)
                self.graph.replay()
                return self.result.clone()  # the next replay overwrites it
            current = torch.cuda.current_stream()
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                result = self.function(*inputs)
            current.wait_stream(self.stream)
            return result

    def _capture(self, inputs: tuple[Tensor, ...]):
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        graph.register_generator_state(self.generator)
        self.inputs = [given.clone() for given in inputs]
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.result = self.function(*self.inputs)
        except RuntimeError as wrong:  # something waits for the device, or allocates outside
            torch.cuda.set_stream(before)  # a capture that fails does not leave its own
            torch.cuda.synchronize()
            del self.inputs
            warnings.warn(f"this network trains without a CUDA graph, more slowly: {str(wrong).splitlines()[0]}", stacklevel=2)
        else:
            self.graph = graph


def cores() -> int:
    """The processors this process may use: its affinity, or its container's quota if that is less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return count
