"""Trainings in processes of their own that run in turns: all but those whose turn it is are stopped by a signal."""

import multiprocessing
import os
import signal
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

import torch
from reference import BATCH, reference

from trainable.config import TrialConfig
from trainable.fit import fit

WARM = 2  # steps before the first turn
FORK = multiprocessing.get_context("forkserver")  # each process a fork of one that has imported torch and run nothing
FORK.set_forkserver_preload(["torch", "torchvision", "trainable.fit"])


class Inside:
    """Counts the seconds in a network's forward, in backward and in an optimiser's step."""

    def __init__(self):
        self.seconds, self.calls = 0.0, 0

    def watch(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer):
        network.register_forward_pre_hook(self.begin)
        network.register_forward_hook(self.end)
        optimizer.register_step_pre_hook(self.begin)
        optimizer.register_step_post_hook(self.end)
        backward = torch.autograd.backward

        def timed(*args, **kwargs):
            self.begin()
            backward(*args, **kwargs)
            self.end()

        torch.autograd.backward = timed  # what Tensor.backward calls

    def begin(self, *_):
        self.began = time.perf_counter()

    def end(self, *_):
        self.seconds += time.perf_counter() - self.began
        self.calls += 1


def train(side: str, config: TrialConfig, data, threads: int, workers: int, report: Connection):
    """Train for ever, in a process of its own; after each step send when it ended and the seconds inside so far."""
    os.setpgrp()  # so that a signal reaches the workers too
    torch.set_num_threads(threads)
    inside = Inside()
    if side == "reference":
        for _ in reference(config, data, workers):
            report.send((time.monotonic(), 0.0))
    for metrics, state in fit(config, data, device="cpu"):
        report.send((time.monotonic(), inside.seconds))
        if state.step == 1:
            inside.watch(state.network, state.optimizer)
        assert inside.calls == 3 * (state.step - 1), "fit no longer calls what State holds: `outside` would be wrong"


@dataclass
class Training:
    """A process of `train`, stopped but for its turns."""

    process: multiprocessing.Process
    report: Connection
    steps: list[tuple[float, float]] = field(default_factory=list)  # of this turn: what it sent

    def signal(self, number: int):
        with suppress(ProcessLookupError):  # it ended by itself: `listen` says so
            os.killpg(self.process.pid, number)


def start(*job) -> Training:
    report, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=train, args=(*job, send))
    process.start()
    send.close()
    return Training(process, report)


def warm(trainings: list[Training]):
    """Let each take its first steps, then stop it."""
    while min(len(t.steps) for t in trainings) < WARM:
        listen(trainings)
    for training in trainings:
        training.signal(signal.SIGSTOP)


def listen(trainings: list[Training]):
    """Take in what is sent within the next tenth of a second."""
    for ready in wait([t.report for t in trainings], timeout=0.1):
        training = next(t for t in trainings if t.report is ready)
        try:
            training.steps.append(ready.recv())
        except EOFError:
            sys.exit("a training ended; what it said is above")


def turn(trainings: list[Training], seconds: float, steps: int) -> tuple[float, float]:
    """Let one side run for at least so long and so many whole steps: (images a second, share outside)."""
    for training in trainings:
        while training.report.poll():
            training.report.recv()  # of a step that ended as the last turn did
        training.steps = []
    began = time.monotonic()
    for training in trainings:
        training.signal(signal.SIGCONT)
    while time.monotonic() < began + seconds or min(len(t.steps) for t in trainings) <= steps:
        listen(trainings)
    for training in trainings:
        training.signal(signal.SIGSTOP)
    speed, outside = 0.0, []
    for training in trainings:
        (first, inside_first), (last, inside_last) = training.steps[0], training.steps[-1]
        speed += (len(training.steps) - 1) * BATCH / (last - first)
        outside.append(1 - (inside_last - inside_first) / (last - first))
    return speed, statistics.mean(outside)
