import dataclasses

import numpy as np
import pytest
import torch

from trainable.archs import ARCHS
from trainable.archs.torchvision_zoo import ZOO
from trainable.config import TrialConfig
from trainable.fit import evaluate, fit, predict, settle
from trainable.optim import OPTIMIZERS

# Ours, and some of torchvision's: all of those are built and trained in test_torchvision_zoo.py.
SOME = [*(name for name in ARCHS if name not in ZOO), "resnet18", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0"]
SMALL = TrialConfig(knobs={"width": 8}, epochs=2, batch_size=64)


def losses(config: TrialConfig, data, steps: int | None = None) -> list[float]:
    out = []
    for metrics, _ in fit(config, data, device="cpu"):
        out.append(metrics["loss"].item())
        if len(out) == steps:
            break
    return out


def test_same_seed_same_numbers(tiny):
    config = dataclasses.replace(SMALL, knobs={"width": 8, "dropout": 0.3}, augment={"erasing": 0.3, "elastic": 0.1})
    runs = []
    for _ in range(2):
        for _, state in fit(config, tiny, device="cpu"):
            pass
        runs.append(evaluate(state, tiny.val))
    (first, probs), (second, again) = runs
    assert first == second
    assert np.array_equal(probs, again)
    assert losses(config, tiny, 3) != losses(dataclasses.replace(config, seed=1), tiny, 3)


def test_pinned_numbers(tiny):
    """A change of the loop that changes what is learned shows here. fp32: bf16 differs between machines."""
    config = dataclasses.replace(SMALL, arch="mobilenet_v3_small", knobs={"stem_stride": 4}, epochs=0.5, engine="fp32-nhwc")
    assert losses(config, tiny) == pytest.approx([2.2999, 2.4218, 2.3361, 2.3252], abs=0.01)


def test_it_learns(tiny):
    for _, state in fit(dataclasses.replace(SMALL, epochs=12, augment={}), tiny, device="cpu"):
        pass
    metrics, probs = evaluate(state, tiny.val)
    assert metrics["val_error"] < 0.25
    assert metrics["val_error"] == (probs.argmax(1) != tiny.val.labels).mean()


def test_it_learns_what_it_is_taught_and_not_the_labels(tiny):
    def teach(images: torch.Tensor) -> torch.Tensor:
        """1 where there is much ink, else 0: of the very images that the network is shown."""
        return torch.nn.functional.one_hot((images.mean(dim=(1, 2, 3)) > 0.13).long(), 10).float()

    config = dataclasses.replace(SMALL, epochs=12, label_smoothing=0.0, augment={"shift": 0.05})
    for _, state in fit(config, tiny, device="cpu", teach=teach):
        pass
    _, probs = evaluate(state, tiny.val)
    wanted = teach(torch.from_numpy(tiny.val.images) / 255).argmax(dim=1).numpy()
    assert 0.2 < wanted.mean() < 0.8
    assert (probs.argmax(axis=1) == wanted).mean() > 0.85
    assert (probs.argmax(axis=1) == tiny.val.labels).mean() < 0.3


@pytest.mark.parametrize("arch", SOME)
def test_every_architecture_trains(arch, tiny):
    config = TrialConfig(arch=arch, epochs=1, batch_size=16)
    for metrics, state in fit(config, tiny, device="cpu"):
        if state.step == 2:
            break
    assert torch.isfinite(metrics["loss"])
    assert predict(state.best_network, tiny.val.take(np.arange(8)), state.plan).shape == (8, 10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_trains(name, tiny):
    config = dataclasses.replace(SMALL, optimizer=name, lr=OPTIMIZERS[name].low, epochs=3, augment={})
    seen = losses(config, tiny)
    assert np.mean(seen[-4:]) < np.mean(seen[:4])


def test_settled_statistics_are_those_of_the_images_as_they_are(tiny):
    """After a few steps the running statistics are still far away; and the training goes on as if nobody had looked."""
    run = fit(SMALL, tiny, device="cpu")
    for _, state in run:
        if state.step == 3:
            break
    first = state.best_network[1][0]  # the stem: convolution, BatchNorm, activation
    lagging = first[1].running_mean.clone()
    state.network.train()
    settle(state)
    with torch.inference_mode():
        everything = state.plan.laid_out(torch.from_numpy(tiny.train.images).float() / 255)
        maps = first[0](state.best_network[0](everything))
    assert torch.allclose(first[1].running_mean, maps.mean(dim=(0, 2, 3)), atol=0.02)
    assert torch.allclose(first[1].running_var, maps.var(dim=(0, 2, 3)), rtol=0.1)
    assert (lagging - first[1].running_mean).abs().max() > 0.02
    assert state.network.training
    assert {m.momentum for m in state.best_network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}
    after = [metrics["loss"].item() for metrics, _ in run]
    assert after == losses(SMALL, tiny)[3:]


def test_an_item_a_step_and_fractions_of_an_epoch(tiny):
    budgets = [(m["step"], m["budget"]) for m, _ in fit(dataclasses.replace(SMALL, epochs=1.5), tiny, device="cpu")]
    assert budgets == [(i, i / 8) for i in range(1, 13)]
    run = fit(SMALL, tiny, device="cpu")
    _, state = next(run)
    assert [state.steps_at(b) for b in (0.0001, 0.25, 1, 2, 99)] == [1, 2, 8, 16, 16]


def test_stopping_early_does_not_change_what_came_before(tiny):
    assert losses(SMALL, tiny, steps=3) == losses(SMALL, tiny)[:3]


def test_each_image_once_an_epoch(tiny):
    """Labels are unique: the loss of a network that always answers the same shows which images it saw."""
    seen = []
    numbered = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, images=_numbered(512)))
    run = fit(dataclasses.replace(SMALL, augment={}, epochs=1), numbered, device="cpu")
    for _, state in run:
        if state.step == 1:
            state.network.register_forward_pre_hook(lambda m, x: seen.extend(_numbers(x[0])))
    assert len(seen) == len(set(seen)) == 512 - 64


def _numbered(n: int) -> np.ndarray:
    images = np.zeros((n, 1, 28, 28), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) % 256, np.arange(n) // 256
    return images


def _numbers(x: torch.Tensor) -> list[int]:
    pixels = (x[:, 0, 0, :2] * 255).round().int()
    return (pixels[:, 0] + 256 * pixels[:, 1]).tolist()


def test_a_loss_that_is_not_a_number_ends_it(tiny):
    config = dataclasses.replace(SMALL, optimizer="sgd", lr=1000.0, lr_schedule="constant", arch="squeezenet1_1", knobs={})
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\.\d\d\)"):
        losses(config, tiny)


def test_a_batch_larger_than_the_data(tiny):
    assert len(losses(dataclasses.replace(SMALL, batch_size=4096, epochs=2), tiny)) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("arch", SOME)
def test_on_a_gpu(arch, tiny):
    for metrics, state in fit(TrialConfig(arch=arch, epochs=2), tiny):
        assert metrics["loss"].device.type == "cuda"
    assert evaluate(state, tiny.val)[1].shape == (200, 10)
