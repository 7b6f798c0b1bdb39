"""The training loop, a generator."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from trainable import engine, scores
from trainable.archs import build_network
from trainable.augment import augment
from trainable.config import TrialConfig
from trainable.datasets.container import Dataset, Split
from trainable.optim import LR_SCHEDULES, Average, make_optimizer

CHECK_EVERY = 16  # steps between two looks at the loss on a GPU, where a look waits for the device


@dataclass
class State:
    """A training under way. Borrowed until the next step: copy what you keep."""

    network: nn.Module
    average: Average | None
    optimizer: torch.optim.Optimizer
    plan: engine.Plan
    steps_per_epoch: int
    total_steps: int
    step: int = 0

    @property
    def best_network(self) -> nn.Module:
        """The one to evaluate and keep: the averaged weights where there is an average."""
        return self.average.network if self.average else self.network

    @property
    def budget(self) -> float:
        """Epochs trained so far."""
        return self.step / self.steps_per_epoch

    def steps_at(self, budget: float) -> int:
        """The step at which `budget` epochs are done: at least 1, at most the last."""
        return min(max(1, round(budget * self.steps_per_epoch)), self.total_steps)


def fit(config: TrialConfig, data: Dataset, device: str | None = None) -> Iterator[tuple[dict, State]]:
    """Train `config` on `data.train`: an item after every optimiser step; not to ask for the next is to stop.

    The network is built, and the images lie on the device, before this returns. The metrics are `step`,
    `budget` (epochs), `lr` and `loss` (a 0-d tensor, so that a GPU need not be waited for).
    On a CPU the same configuration, seed and thread count give the same numbers.

    Raises:
        FloatingPointError: the loss is NaN or infinite; the message says at which step.
    """
    torch.manual_seed(config.seed)
    network = build_network(config, data)
    plan = engine.plan(network, device)
    plan.place(network)
    # A batch larger than the data is all of the data.
    batch = min(config.batch_size, len(data.train))
    steps_per_epoch = len(data.train) // batch
    state = State(
        network=network,
        average=Average(network, config.average) if config.average else None,
        optimizer=make_optimizer(config.optimizer, network, config.lr, config.momentum, config.weight_decay),
        plan=plan,
        steps_per_epoch=steps_per_epoch,
        total_steps=max(1, round(config.epochs * steps_per_epoch)),
    )
    images = torch.from_numpy(data.train.images).to(plan.device)
    labels = torch.from_numpy(data.train.labels).to(plan.device)
    return _steps(config, state, images, labels, batch)


def _steps(config: TrialConfig, state: State, images: torch.Tensor, labels: torch.Tensor, batch: int):
    device = state.plan.device
    generator = torch.Generator(device).manual_seed(config.seed)
    lr_factor = LR_SCHEDULES[config.lr_schedule]
    state.network.train()
    for step in range(state.total_steps):
        position = step % state.steps_per_epoch
        if position == 0:
            order = torch.randperm(len(images), generator=generator, device=device)
        chosen = order[position * batch : (position + 1) * batch]
        x = augment(images[chosen].float().div_(255), config.augment, generator)
        lr = config.lr * lr_factor((step + 1) / state.total_steps, config.warmup)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        with state.plan.autocast():
            logits = state.network(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=config.label_smoothing)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        if state.average:
            state.average.update()
        state.step = step + 1
        last = state.step == state.total_steps
        if (device.type == "cpu" or last or state.step % CHECK_EVERY == 0) and not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {state.step} (epoch {state.budget:.2f})")
        yield {"step": state.step, "budget": state.budget, "lr": lr, "loss": loss.detach()}, state


@torch.inference_mode()
def predict(network: nn.Module, split: Split, plan: engine.Plan, batch: int = 512) -> np.ndarray:
    """The network's logits for a split, float32 [n, classes]; leaves the network in the mode it was in."""
    training = network.training
    network.eval()
    out = []
    for start in range(0, len(split), batch):
        x = torch.from_numpy(split.images[start : start + batch]).to(plan.device).float().div_(255)
        with plan.autocast():
            out.append(network(x.contiguous(memory_format=torch.channels_last)).float().cpu())
    network.train(training)
    return torch.cat(out).numpy()


def evaluate(state: State, split: Split) -> tuple[dict, np.ndarray]:
    """The present network on a labelled split: its metrics, and its calibrated probabilities [n, classes].

    The metrics are `budget` (epochs), `val_loss` (cross-entropy at the best temperature), `val_error` (share) and
    that `temperature`.

    Raises:
        FloatingPointError: the network answers NaN or infinity.
    """
    logits = predict(state.best_network, split, state.plan)
    if not np.isfinite(logits).all():
        raise FloatingPointError(f"the network answers NaN or infinity after {state.budget:.2f} epochs")
    temperature = scores.best_temperature(logits, split.labels)
    probs = scores.softmax(logits, temperature)
    metrics = {
        "budget": state.budget,
        "val_loss": scores.cross_entropy(probs, split.labels),
        "val_error": scores.errors(probs, split.labels) / len(split),
        "temperature": temperature,
    }
    return metrics, probs
