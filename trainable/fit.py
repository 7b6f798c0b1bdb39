"""The training loop, a generator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable import checkpoint, engine, scores
from trainable.align import ALIGNMENTS
from trainable.archs import build_network
from trainable.augment import augment, mix
from trainable.config import TrialConfig
from trainable.datasets.container import Dataset, Split
from trainable.datasets.leak import after_training, refuse_leak, refuse_seen
from trainable.optim import LR_SCHEDULES, Average, make_optimizer
from trainable.weights import start_from

CHECK_EVERY = 16  # steps between two looks at the loss on a GPU, where a look waits for the device
SETTLING = 1024  # images


@dataclass
class State:
    """A training under way. Borrowed until the next step: copy what you keep."""

    network: nn.Module
    average: Average | None
    optimizer: torch.optim.Optimizer
    plan: engine.Plan
    images: Tensor  # to train, uint8 on the device
    order: Tensor  # of the images in this epoch, int64
    generator: torch.Generator  # of the order and the augmentation
    steps_per_epoch: int
    total_steps: int
    seen: tuple[str, ...]  # the datasets that have taught these weights, those they started from included
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


def fit(
    config: TrialConfig,
    data: Dataset,
    device: str | None = None,
    begun: bytes | None = None,
    teach: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[dict, State]]:
    """Train `config` on `data.train`: an item after every optimiser step; not to ask for the next is to stop.

    The data are cut for the configuration's fold already (`of_fold`). The network is built, and the images lie on the
    device, before this returns. The metrics are `step`, `budget` (epochs), `lr` and `loss` (a 0-d tensor, so that a GPU
    need not be waited for).
    On a CPU the same configuration, seed, thread count and engine setting give the same numbers, also where the training
    goes on from `begun`, what checkpoint.pack made of an earlier State. `teach` says of a batch of images, as they are after
    the augmentation, what the network should: probabilities [n, classes], in place of the labels.

    Raises:
        BadInput: the weights to start from do not fit, or have seen what they must not; `begun` does not fit.
        FloatingPointError: the loss is NaN or infinite; the message says at which step.
    """
    torch.manual_seed(config.seed)
    network = build_network(config, data)
    told = checkpoint.about(begun) if begun is not None else {}
    taught = start_from(network, config.arch, config.weights, data) if config.weights and begun is None else ()
    refuse_leak(taught, data.name)
    if len(data.val):
        refuse_seen(taught, data.name, "val")
    plan = engine.plan(network, data.in_shape, device, told.get("engine", config.engine))
    plan.place(network)
    on_val = not len(data.val) or (config.folds > 0 and not data.val_given)
    # A batch larger than the data is all of the data.
    batch = min(config.batch_size, len(data.train))
    steps_per_epoch = len(data.train) // batch
    images = torch.from_numpy(data.train.images).to(plan.device)
    labels = torch.from_numpy(data.train.labels).to(plan.device)
    state = State(
        network=network,
        average=Average(network, config.average) if config.average else None,
        optimizer=make_optimizer(config.optimizer, network, config.lr, config.momentum, config.weight_decay),
        plan=plan,
        images=images,
        order=torch.arange(len(images), device=plan.device),
        generator=torch.Generator(plan.device).manual_seed(config.seed),
        steps_per_epoch=steps_per_epoch,
        total_steps=max(1, round(config.epochs * steps_per_epoch)),
        seen=tuple(told.get("seen", ())) or after_training(data.name, taught, on_val),
    )
    if begun is not None:
        checkpoint.unpack(begun, state)
    return _steps(config, state, labels, batch, len(data.classes), teach)


def _steps(config: TrialConfig, state: State, labels: Tensor, batch: int, classes: int, teach: Callable | None):
    network, optimizer, plan, images = state.network, state.optimizer, state.plan, state.images
    generator = state.generator
    lr_factor, maps = LR_SCHEDULES[config.lr_schedule], ALIGNMENTS[config.align]
    parameters = list(network.parameters())

    def learn(pixels: Tensor, targets: Tensor) -> Tensor:
        """Augmentation, forward and backward; leaves gradients and returns the loss."""
        x = plan.floats(pixels)
        x = augment(x, config.augment, generator, maps(x) if maps else None)
        x, targets = mix(x, targets, classes, config.augment, generator)
        targets = teach(x) if teach else targets
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for part, wanted in zip(x.chunk(config.accumulate), targets.chunk(config.accumulate), strict=True):
            with plan.autocast():
                logits = network(plan.laid_out(part))
            loss = F.cross_entropy(logits.float(), wanted, label_smoothing=config.label_smoothing) * (len(part) / len(x))
            loss.backward()
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    if plan.device.type == "cuda":
        learn = engine.Captured(learn, generator)
    network.train()
    for step in range(state.step, state.total_steps):
        position = step % state.steps_per_epoch
        if position == 0:
            state.order = torch.randperm(len(images), generator=generator, device=plan.device)
        chosen = state.order[position * batch : (position + 1) * batch]
        loss = learn(images[chosen], labels[chosen])
        if config.clip:
            nn.utils.clip_grad_norm_(parameters, config.clip)
        lr = config.lr * lr_factor((step + 1) / state.total_steps, config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        if state.average:
            state.average.update()
        state.step = step + 1
        last = state.step == state.total_steps
        if (plan.device.type == "cpu" or last or state.step % CHECK_EVERY == 0) and not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {state.step} (epoch {state.budget:.2f})")
        yield {"step": state.step, "budget": state.budget, "lr": lr, "loss": loss}, state


@torch.no_grad()
def settle(state: State):
    """Measure the BatchNorm statistics of the network to keep on SETTLING training images, not augmented.

    The running ones lag behind the weights, most in the first epochs, and are those of augmented images, which is
    not what the network will see. As in stochastic weight averaging (Izmailov et al., arXiv:1803.05407, 3.2); that
    the statistics should be those of test time: Touvron et al., arXiv:1906.06423. Changes nothing that training reads.
    """
    network = state.best_network
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    training, momenta = network.training, [m.momentum for m in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
        norm.train()
    # Their own draw: the images may lie sorted by class.
    chosen = torch.randperm(len(state.images), generator=torch.Generator().manual_seed(0))[:SETTLING].to(state.images.device)
    batch = min(256, _large_batch(state.images))
    for rows in chosen.chunk(-(-len(chosen) // batch)):  # equal parts: of a last one of one image there is no variance
        with state.plan.autocast():
            network(state.plan.laid_out(state.plan.floats(state.images[rows])))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(training)


def _large_batch(images: Tensor | np.ndarray) -> int:
    """How many images to evaluate at once: 512 of up to 64 pixels a side, fewer of larger ones for the memory's sake."""
    return max(16, min(512, 512 * 64 * 64 // (images.shape[2] * images.shape[3])))


@torch.inference_mode()
def predict(
    network: nn.Module,
    split: Split,
    plan: engine.Plan,
    change: Callable[[Tensor], Tensor] | None = None,
    beat: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """The network's logits for a split, float32 [n, classes]; leaves the network in the mode it was in.

    `change` is applied to each batch of images first: floats in [0, 1]. `beat` is called before each.
    """
    training = network.training
    network.eval()
    out = []
    batch = _large_batch(split.images)
    for start in range(0, len(split), batch):
        beat()
        images = plan.floats(torch.from_numpy(split.images[start : start + batch]))
        if change:
            images = change(images)
        with plan.autocast():
            out.append(network(plan.laid_out(images)).float().cpu())
    network.train(training)
    return torch.cat(out).numpy()


def mean_loss(losses: list[Tensor]) -> dict[str, float]:
    """The mean of some steps' losses as the metric `train_loss`; nothing of no steps."""
    return {"train_loss": torch.stack(losses).float().mean().item()} if losses else {}


def evaluate(state: State, split: Split, beat: Callable[[], object] = lambda: None) -> tuple[dict, np.ndarray]:
    """The present network, settled, on a labelled split: its metrics, and its calibrated probabilities [n, classes].

    The metrics are `budget` (epochs), `val_loss` (cross-entropy at the best temperature), `val_error` (share) and
    that `temperature`. `beat` is called now and then.

    Raises:
        FloatingPointError: the network answers NaN or infinity.
    """
    settle(state)
    logits = predict(state.best_network, split, state.plan, beat=beat)
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
