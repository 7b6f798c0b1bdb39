import optuna
import pytest
import torch
from torch import nn

from trainable.archs import ARCHS, build_network
from trainable.config import TrialConfig
from trainable.saved import Problem

GREY = Problem("d", (1, 28, 28), tuple("0123456789"), [0.13], [0.31])
COLOUR = Problem("d", (3, 40, 36), tuple("abc"), [0.5] * 3, [0.2] * 3)


def step(network: nn.Module, problem: Problem, n: int = 2):
    """One training step; returns the logits."""
    logits = network.train()(torch.rand(n, *problem.in_shape))
    logits.logsumexp(dim=1).sum().backward()
    return logits


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("problem", [GREY, COLOUR], ids=["grey", "colour"])
def test_trains(arch, problem):
    network = build_network(TrialConfig(arch=arch), problem)
    logits = step(network, problem)
    assert logits.shape == (2, len(problem.classes))
    assert torch.isfinite(logits).all()
    without = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without


@pytest.mark.parametrize("arch", ARCHS)
def test_space_draws_what_build_takes(arch):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    sizes = set()
    for _ in range(4):
        trial = study.ask()
        knobs = ARCHS[arch].space(trial)
        assert set(knobs) <= set(ARCHS[arch].DEFAULTS)
        assert all(name.startswith(f"{arch}.") for name in trial.params)
        # The same point again, as a search is replayed.
        assert ARCHS[arch].space(optuna.trial.FixedTrial(trial.params)) == knobs
        network = build_network(TrialConfig(arch=arch, knobs=knobs), GREY)
        sizes.add(sum(p.numel() for p in network.parameters()))
        with torch.inference_mode():
            assert network.eval()(torch.rand(1, 1, 28, 28)).shape == (1, 10)
    assert len(sizes) > 1 or arch != "convnet"


@pytest.mark.parametrize("arch", [name for name, arch in ARCHS.items() if "stem_stride" in arch.DEFAULTS])
def test_a_finer_stem_keeps_more_of_the_image(arch):
    sizes = []
    for stride in (4, 2, 1):
        shapes = []
        network = build_network(TrialConfig(arch=arch, knobs={"stem_stride": stride}), GREY).eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                module.register_forward_hook(lambda m, i, out, shapes=shapes: shapes.append(out.shape[-1]))
        with torch.inference_mode():
            network(torch.rand(1, 1, 28, 28))
        sizes.append(sum(shapes))
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("arch", [name for name, arch in ARCHS.items() if "stem_stride" in arch.DEFAULTS])
def test_running_statistics_follow_a_short_training(arch):
    """mnasnet comes with a momentum of 0.0003: after 30 steps its statistics would still be their initial values."""
    momenta = {m.momentum for m in build_network(TrialConfig(arch=arch), GREY).modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta <= {0.1}
