import itertools

import pytest
import torch

from trainable import checkpoint
from trainable.config import TrialConfig
from trainable.errors import BadInput
from trainable.fit import evaluate, fit
from trainable.optim import OPTIMIZERS

MORE = {"epochs": 3, "batch_size": 64, "engine": "fp32-nhwc"}


def step(run, times: int):
    metrics = None
    for metrics, state in itertools.islice(run, times):
        pass
    return metrics, state


@pytest.mark.parametrize(
    "config",
    [
        *(TrialConfig(optimizer=name, **MORE) for name in OPTIMIZERS),
        TrialConfig("convnet", {"dropout": 0.3}, average=0.0, accumulate=2, **MORE),
        TrialConfig("mobilenet_v3_small", {"dropout": 0.2}, **MORE),
        TrialConfig("vit", augment={"mixup": 0.5, "elastic": 0.1, "erasing": 0.5}, **{**MORE, "engine": "bf16-nhwc"}),
    ],
    ids=lambda config: f"{config.arch}-{config.optimizer}",
)
def test_a_training_goes_on_as_if_it_had_not_stopped(tiny, config):
    """In the middle of an epoch, with the same numbers to the last bit; evaluating in between changes nothing."""
    run = fit(config, tiny)
    _, state = step(run, 11)
    evaluate(state, tiny.val)
    begun = checkpoint.pack(state, spent=1.5)
    wanted, state = step(run, 7)
    torch.rand(3)  # another trial of the same process
    other = fit(config, tiny, begun=begun)
    got, resumed = step(other, 7)
    assert (got["step"], got["lr"], got["loss"].item()) == (wanted["step"], wanted["lr"], wanted["loss"].item())
    for mine, theirs in ((state.network, resumed.network), (state.best_network, resumed.best_network)):
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert evaluate(state, tiny.val)[0] == evaluate(resumed, tiny.val)[0]
    assert checkpoint.about(begun)["spent"] == 1.5


@pytest.mark.gpu
def test_a_training_goes_on_on_a_gpu(tiny):
    """The same images, weights and random numbers; the sums of a GPU may differ in the last digits."""
    config = TrialConfig(knobs={"dropout": 0.3}, epochs=6, batch_size=64)
    run = fit(config, tiny)
    _, state = step(run, 21)
    begun = checkpoint.pack(state)
    wanted, state = step(run, 9)
    got, resumed = step(fit(config, tiny, begun=begun), 9)
    assert got["loss"].item() == pytest.approx(wanted["loss"].item(), rel=1e-2)
    assert torch.equal(state.order, resumed.order)
    assert state.average.steps == resumed.average.steps


def test_what_does_not_fit_is_refused(tiny):
    config = TrialConfig(**MORE)
    begun = checkpoint.pack(step(fit(config, tiny), 1)[1])
    for wrong in (begun[: len(begun) // 2], b"", b"pickle", begun[:100]):
        with pytest.raises(BadInput):
            fit(config, tiny, begun=wrong)
    with pytest.raises(BadInput, match="does not fit"):
        fit(TrialConfig(knobs={"width": 40}, **MORE), tiny, begun=begun)


def test_a_batch_in_parts_learns_as_a_whole_one(tiny):
    """Without BatchNorm, and without noise, the gradients are the same but for rounding."""
    still = {"augment": {}, "knobs": {}, "average": 0.0, "seed": 1, **MORE}
    losses = []
    for parts in (1, 4):
        metrics, _ = step(fit(TrialConfig("vit", accumulate=parts, **still), tiny), 8)
        losses.append(metrics["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
