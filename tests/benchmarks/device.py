"""What a device does for training: images a second, seconds to a good network, and several trainings at once.

    python tests/benchmarks/device.py [--only speed|time|sharing] [--archs a,b] [--dataset NAME] [--json FILE]

The device is the first GPU, or the CPU where there is none. Every training is `trainable.fit.fit` with the default
recipe, batch 128 and one torch thread, as in a trial, in a process of its own; precision and layout are found by the
engine. A clock is read when the GPU has done all that it was given; in between the GPU works as in any training.

speed      one training alone, an architecture a family that the default space searches. It takes some steps (on a GPU
           until its step is captured), then WINDOWS windows follow each other, each of whole steps and at least
           --window seconds. On a GPU a second process measures the share of the time in which kernels run, under torch's
           profiler, which slows Python down, and the peak of the memory (what torch reserved for training, images and
           one evaluation, and what CUDA takes for every process): trainable/footprint.py.
time       seconds of training until val accuracy is first at or above a target, of a whole schedule of so many epochs.
           Seeds follow each other in one process, after a training that only warms up. The clock starts at the first
           step: building the network and copying the images are not counted, capturing the graph is. Evaluated every
           quarter of an epoch, so a time is known to a quarter of an epoch, and a lucky evaluation counts; the time that
           evaluating takes (measuring BatchNorm's statistics too) is not counted but stated. A median is of the seeds
           that reached the target.
sharing    1, 2, 4 and 8 trainings at once (on a CPU 1, 2 and one a core), started together: each warms up, waits for
           the others, measures its windows as above and goes on until all have measured. A GPU is shared as the driver
           does it: in slices of time, unless NVIDIA's MPS runs.

On a CPU the default takes some five minutes: three seeds of one short schedule.
"""

import json
import os
import signal
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from common import about, show, spread, table_of
from turns import FORK

from sweeps.search.space import OWN, SMALL_ZOO
from trainable import engine, footprint
from trainable.archs import ARCHS
from trainable.config import TrialConfig
from trainable.datasets import load
from trainable.errors import BadInput, Parser, lookup, positive, run
from trainable.fit import evaluate, fit

BATCH, ENDLESS = 128, 1e5  # images a step; epochs, more than anyone waits for
WINDOWS = 5
WARM = {"cuda": footprint.WARM, "cpu": 2}  # steps
EVERY = 0.25  # epochs
PATIENCE = 600  # seconds for the others to warm up
FAMILIES = {}  # family -> its first, the cheap one
for _arch in (*OWN, *SMALL_ZOO):
    FAMILIES.setdefault(ARCHS[_arch].family, _arch)
SHARING = ("convnet", "resnet18")  # one that leaves a GPU waiting for Python, one with more to compute


def endless(arch: str, seed: int = 0) -> TrialConfig:
    return TrialConfig(arch=arch, batch_size=BATCH, epochs=ENDLESS, seed=seed)


def now(device: str) -> float:
    """Seconds, when everything that the device was given is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def warmed(config: TrialConfig, data, device: str):
    """A training after its first steps, and its state."""
    torch.set_num_threads(1)
    steps = fit(config, data, device)
    for _ in range(WARM[device]):
        _, state = next(steps)
    return steps, state


def train(config: TrialConfig, data, device: str, window: float, ready, report: Connection):
    """In a process of its own: send (engine setting, images a second in each window), then train on until told to stop."""
    os.setpgrp()  # Ctrl-C is the parent's, which ends this
    batch = min(config.batch_size, len(data.train))
    try:
        steps, state = warmed(config, data, device)
        ready.wait(PATIENCE)
        began = last = now(device)
        speeds = []
        for n in range(WINDOWS):
            count = 0
            while not count or time.perf_counter() < began + (n + 1) * window:
                next(steps)
                count += 1
            last, before = now(device), last
            speeds.append(count * batch / (last - before))
        report.send((state.plan.setting, speeds))
        while not report.poll():  # or closed: nobody is left to train for
            next(steps)
    except (BadInput, FloatingPointError) as wrong:
        report.send(wrong)


def together(configs: list[TrialConfig], data, device: str, window: float) -> list[tuple[str, list[float]]]:
    """Trainings at once: what `train` says of each."""
    ready, processes, answers = FORK.Barrier(len(configs)), [], {}
    try:
        for config in configs:
            report, theirs = FORK.Pipe()
            processes.append(FORK.Process(target=train, args=(config, data, device, window, ready, theirs)))
            processes[-1].start()
            theirs.close()
            answers[report] = None
        while waiting := [report for report, answer in answers.items() if not answer]:
            for report in wait(waiting):
                try:
                    answers[report] = report.recv()
                except EOFError:
                    sys.exit(f"{configs[0].arch}: one of {len(configs)} trainings ended; what it said is above")
                if isinstance(answers[report], Exception):
                    raise answers[report]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return list(answers.values())


def alone(function, *args):
    """What `function` answers in a new process: what others left on the device is not measured with it."""
    with ProcessPoolExecutor(1, FORK) as pool:
        return pool.submit(function, *args).result()


def speed(data, device: str, args) -> dict:
    out = {}
    for arch in args.archs or FAMILIES.values():
        ((setting, speeds),) = together([endless(arch)], data, device, args.window)
        out[arch] = {"images_a_second": speeds, "setting": setting}
        if device == "cuda":
            out[arch] |= alone(gpu_use, endless(arch), data)
        print(f"{arch}: {statistics.median(speeds):,.0f} images a second", flush=True)
    return out


def gpu_use(config: TrialConfig, data) -> dict:
    torch.set_num_threads(1)
    found = footprint.footprint(config, data)
    total = torch.cuda.get_device_properties("cuda").total_memory
    return {"share_in_kernels": found.busy, "peak_gib": found.memory * total / 2**30}


def seconds_to_targets(data, device: str, args) -> dict:
    out = {}
    for arch in args.archs or ("convnet",):
        out[arch] = {}
        for epochs in args.epochs:
            configs = [TrialConfig(arch=arch, batch_size=BATCH, epochs=epochs, seed=seed) for seed in range(args.seeds)]
            out[arch][f"{epochs:g}"] = alone(follow_all, configs, data, device, args.targets)
            print(f"{arch}: {args.seeds} trainings of {epochs:g} epochs", flush=True)
    return out


def follow_all(configs: list[TrialConfig], data, device: str, targets: list[float]) -> list[dict]:
    _, state = warmed(endless(configs[0].arch), data, device)
    evaluate(state, data.val)
    return [follow(config, data, device, targets) for config in configs]


def follow(config: TrialConfig, data, device: str, targets: list[float]) -> dict:
    """One whole training: its seconds, those of evaluating, its last val error, the seconds to each target or None."""
    train_s, eval_s, error, due = 0.0, 0.0, None, EVERY
    reached = dict.fromkeys(f"{target:g}" for target in targets)
    steps = fit(config, data, device)
    began = now(device)
    with suppress(FloatingPointError):  # it diverged: what it did not reach it does not reach
        for _, state in steps:
            if state.step < state.steps_at(due):
                continue
            due += EVERY
            stopped = now(device)
            train_s += stopped - began
            error = evaluate(state, data.val)[0]["val_error"]
            for target in targets:
                # 1e-9: 1 - 0.99 is not 0.01.
                if error <= 1 - target / 100 + 1e-9 and reached[f"{target:g}"] is None:
                    reached[f"{target:g}"] = train_s
            began = now(device)
            eval_s += began - stopped
    return {"train_s": train_s, "eval_s": eval_s, "val_error": error, "reached_s": reached}


def sharing(data, device: str, args) -> dict:
    counts = (1, 2, 4, 8) if device == "cuda" else sorted({1, 2, engine.cores()})
    out = {}
    for arch in args.archs or SHARING:
        out[arch] = {}
        for n in counts:  # one first: it may have to find out how the network runs best
            found = together([endless(arch, seed) for seed in range(n)], data, device, args.window)
            each = [speeds for _, speeds in found]
            out[arch][str(n)] = {"together": [sum(speeds) for speeds in zip(*each, strict=True)], "each": each}
            print(f"{arch}, {n} at once: {statistics.median(out[arch][str(n)]['together']):,.0f} images a second", flush=True)
    return out


def show_speed(found: dict, where: str):
    title = f"Images a second in training, batch {BATCH}, one training alone, n windows ({where})"
    table = table_of(title, "network", "n", "median", "low-high", "engine", "in kernels", "peak GiB")
    for arch, row in found.items():
        speeds = row["images_a_second"]
        use = [f"{row['share_in_kernels']:.0%}", f"{row['peak_gib']:.1f}"] if "peak_gib" in row else ["-", "-"]
        table.add_row(arch, str(len(speeds)), f"{statistics.median(speeds):,.0f}", spread(speeds), row["setting"], *use)
    show(table)


def show_time(found: dict, where: str):
    title = f"Seconds of training to val accuracy, n seeds, evaluated every {EVERY} epochs ({where})"
    columns = ("schedule", "n", "whole", "evaluating", "mean val error", "target", "reached", "median s", "low-high")
    table = table_of(title, "network", *columns)
    for arch, schedules in found.items():
        for epochs, seeds in schedules.items():
            train_s, eval_s = (statistics.median(seed[key] for seed in seeds) for key in ("train_s", "eval_s"))
            errors = [seed["val_error"] for seed in seeds if seed["val_error"] is not None]
            error = f"{statistics.mean(errors):.2%}" if errors else "-"
            for target in seeds[0]["reached_s"]:
                times = [s for seed in seeds if (s := seed["reached_s"][target]) is not None]
                took = [f"{statistics.median(times):.2f}", spread(times, 2)] if times else ["-", "-"]
                whole = (f"{epochs} epochs", str(len(seeds)), f"{train_s:.2f} s", f"{eval_s:.2f} s", error)
                table.add_row(arch, *whole, f"{target} %", f"{len(times)} of {len(seeds)}", *took)
    show(table)


def show_sharing(found: dict, where: str):
    title = f"Images a second of trainings at once, batch {BATCH}, n windows ({where})"
    table = table_of(title, "network", "at once", "n", "together", "low-high", "times one", "each, low-high")
    for arch, counts in found.items():
        one = statistics.median(counts["1"]["together"])
        for n, row in counts.items():
            all_of_them, each = row["together"], [statistics.median(speeds) for speeds in row["each"]]
            middle = statistics.median(all_of_them)
            cells = (n, str(len(all_of_them)), f"{middle:,.0f}", spread(all_of_them), f"{middle / one:.2f}", spread(each))
            table.add_row(arch, *cells)
    show(table)


PARTS = {"speed": (speed, show_speed), "time": (seconds_to_targets, show_time), "sharing": (sharing, show_sharing)}


def main():
    p = Parser(prog="device.py", description=__doc__.split("\n")[0])
    p.add_argument("--only", metavar="PART", help="speed, time or sharing: see the head of the file (default: all)")
    p.add_argument("--archs", type=several(str), help="with commas (default: a network a family; convnet; convnet and resnet18)")
    p.add_argument("--dataset", default="digits-sample", help="to train on")
    p.add_argument("--window", type=positive(float), default=1.0, help=f"seconds, {WINDOWS} windows a figure")
    p.add_argument("--seeds", type=positive(int), help="trainings a schedule for time (default: 10 on a GPU, 3 on a CPU)")
    p.add_argument("--epochs", type=several(positive(float)), help="schedules for time (default: 4,12 on a GPU, 4 on a CPU)")
    p.add_argument("--targets", type=several(positive(float, 100)), default="99,99.5", help="val accuracies for time, percent")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    for arch in args.archs or ():
        lookup(ARCHS, arch, "architecture")
    parts = {args.only: lookup(PARTS, args.only, "part")} if args.only else PARTS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not to leave trainings behind
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.seeds = args.seeds or (10 if device == "cuda" else 3)
    args.epochs = args.epochs or ([4.0, 12.0] if device == "cuda" else [4.0])
    data = load(args.dataset)
    figures = {**about(), "dataset": data.name, "batch": BATCH, "repeats": WINDOWS, "window_s": args.window}
    if device == "cuda":
        figures["device"] = f"{engine.device_name(torch.device(device))}; {figures['device']}"
    for name, (measure, _) in parts.items():
        figures[name] = measure(data, device, args)
    for name, (_, table) in parts.items():
        table(figures[name], f"{data.name}; {figures['device']}")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def several(kind):
    """An argparse type: a list, with commas."""
    return lambda text: [kind(part) for part in text.split(",")]


if __name__ == "__main__":
    run(main)
