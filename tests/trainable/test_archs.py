"""Our own families; torchvision's networks have a file of their own."""

import sys

import optuna
import pytest
import torch
from torch import nn

from trainable.archs import ARCHS, build_network
from trainable.archs.torchvision_zoo import TorchvisionArch
from trainable.config import TrialConfig
from trainable.errors import BadInput
from trainable.saved import Problem

OURS = [name for name, arch in ARCHS.items() if not isinstance(arch, TorchvisionArch)]
GREY = Problem("d", (1, 28, 28), tuple("0123456789"), [0.13], [0.31], seen=())
COLOUR = Problem("d", (3, 40, 36), tuple("abc"), [0.5] * 3, [0.2] * 3, seen=())


def build(arch: str, in_shape=(1, 28, 28), classes: int = 10, **knobs) -> nn.Module:
    return ARCHS[arch].build({**ARCHS[arch].DEFAULTS, **knobs}, in_shape, classes)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("arch", OURS)
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("problem", [GREY, COLOUR], ids=["grey", "colour"])
def test_trains(arch, problem, bf16):
    network = build_network(TrialConfig(arch=arch), problem).train()
    images = torch.rand(2, *problem.in_shape).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = network(images)
    assert logits.shape == (2, len(problem.classes))
    assert torch.isfinite(logits).all()
    logits.float().logsumexp(dim=1).sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without


@pytest.mark.parametrize("arch", OURS)
def test_space_draws_what_build_takes(arch):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    sizes = set()
    for i in range(20):
        trial = study.ask()
        knobs = ARCHS[arch].space(trial)
        assert set(knobs) <= set(ARCHS[arch].DEFAULTS)
        assert all(name.startswith(f"{arch}.") for name in trial.params)
        # The same point again, as a search is replayed.
        assert ARCHS[arch].space(optuna.trial.FixedTrial(trial.params)) == knobs
        with torch.device("meta" if i > 2 else "cpu"):  # built, but without numbers
            network = build(arch, **knobs)
        if i <= 2:
            with torch.inference_mode():
                assert network.eval()(torch.rand(1, 1, 28, 28)).shape == (1, 10)
        sizes.add(parameters(network))
    assert len(sizes) > 1, "the space draws networks that differ"


# What a family refuses, and the advice that it gives.
REFUSED = {
    ("plain", 8): "need 21 pixels, not 8; a depth of 3 or a larger input_size would do",
    ("plain", 16): "need 21 pixels, not 16; a depth of 7 or a larger input_size would do",
    ("strided", 8): "nothing is left of images of 8 pixels; padding 'same', fewer stages or a larger input_size would do",
    ("wide", 8): "images of 8 pixels are too small; fewer groups or an input_size of 9 would do",
}


@pytest.mark.parametrize("arch", OURS)
@pytest.mark.parametrize("side", [8, 16, 64, 224])
def test_any_size_works_or_is_refused_with_advice(arch, side):
    # Shapes only where numbers would take seconds.
    with torch.device("meta" if side == 224 else "cpu"):
        if (arch, side) in REFUSED:
            with pytest.raises(BadInput, match=REFUSED[arch, side]):
                build(arch, (1, side, side))
        else:
            network = build(arch, (1, side, side)).eval()
            with torch.no_grad():
                assert network(torch.zeros(1, 1, side, side)).shape == (1, 10)


@pytest.mark.parametrize("arch", OURS)
def test_every_choice_of_every_name_builds(arch):
    """Names that no space draws together, or at all, take a step too."""
    choices = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = {}
    for _ in range(10):
        trial = choices.ask()
        ARCHS[arch].space(trial)
        for name, distribution in trial.distributions.items():
            if isinstance(distribution, optuna.distributions.CategoricalDistribution):
                seen[name.split(".")[1]] = distribution.choices
    for knob, values in seen.items():
        for value in values:
            network = build(arch, **{knob: value}).train()
            network(torch.rand(2, 1, 28, 28)).sum().backward()
            assert all(p.grad is not None for p in network.parameters())


def test_an_architecture_that_ends_its_process(monkeypatch):
    """It would end a whole sweep, with status 0 and without a word."""
    monkeypatch.setattr(ARCHS["convnet"], "build", lambda *_: sys.exit(0))
    with pytest.raises(BadInput, match=r"the architecture convnet calls exit\(0\) while it is built"):
        build_network(TrialConfig(), GREY)


def test_a_layer_that_sees_all_patches_sees_a_thousand_at_most():
    with pytest.raises(BadInput, match="makes 3136 patches, above 1024; a patch of 8 or a smaller input_size would do"):
        build("mixer", (1, 224, 224), mixing="mlp")
    build("mixer", (1, 224, 224), mixing="mlp", patch=8)


def test_convnet_is_what_it_was():
    """Networks saved by earlier versions load, and their seeds begin with the weights they had."""
    torch.manual_seed(0)
    network = build("convnet")
    names = [f"{layer}.{i}.weight" for layer in ("0", "2", "3.0", "3.1", "5", "6.0", "6.1") for i in (0, 1)]
    assert [name for name in network.state_dict() if name.endswith(".weight")] == [*names, "10.weight"]
    assert parameters(network) == 261_298
    assert sum(p.double().abs().sum().item() for p in network.parameters()) == pytest.approx(5708.66914, abs=1e-3)


# Published: the sizes after each convolution, the channels, and what the linear layer reads (11,264, 10,240, 3,072).
@pytest.mark.parametrize(
    ("kernel", "sides", "channels", "features"),
    [
        (3, range(26, 7, -2), range(32, 177, 16), 11_264),
        (5, range(24, 7, -4), range(32, 161, 32), 10_240),
        (7, range(22, 3, -6), range(48, 193, 48), 3_072),
    ],
    ids=["M3", "M5", "M7"],
)
def test_plain_is_as_published(kernel, sides, channels, features):
    network = build("plain", kernel=kernel).eval()
    shapes = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape[1:])))
    with torch.inference_mode():
        network(torch.rand(1, 1, 28, 28))
    assert shapes == [(c, s, s) for c, s in zip(channels, sides, strict=True)]
    linear, last = network[-2:]
    assert (linear.in_features, linear.bias) == (features, None)
    assert isinstance(last, nn.BatchNorm1d)


def test_strided_is_as_published():
    """32C3-32C3-32C5S2-64C3-64C3-64C5S2-128C4: 28, 26, 24, 12, 10, 8, 4, 1 pixels."""
    network = build("strided").eval()
    shapes = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape[1:3])))
    with torch.inference_mode():
        network(torch.rand(1, 1, 28, 28))
    assert shapes == [(32, 26), (32, 24), (32, 12), (64, 10), (64, 8), (64, 4), (128, 1)]
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.4] * 3


def test_wide_begins_as_the_identity():
    """The second convolution of a group keeps its channels: it passes its input on."""
    convolution = [m for m in build("wide").modules() if isinstance(m, nn.Conv2d)][2]
    x = torch.rand(1, convolution.in_channels, 6, 6)
    with torch.inference_mode():
        torch.testing.assert_close(convolution(x), x)


def test_attention_of_few_and_of_many_tokens_is_the_same(monkeypatch):
    from trainable.archs import vit

    torch.manual_seed(0)
    network = build("vit").eval()
    x = torch.rand(2, 1, 28, 28)
    with torch.inference_mode():
        ours = network(x)
        monkeypatch.setattr(vit, "FEW", 0)
        torch.testing.assert_close(ours, network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "knobs", "says"),
    [
        ("convnet", {"width": 0}, "convnet.width is 0, outside 1 to 1024"),
        ("convnet", {"kernel": 4}, "convnet.kernel is 4; it should be odd"),
        ("convnet", {"stages": 5}, "convnet.stages is 5: images of 28 pixels cannot be halved so often"),
        ("convnet", {"norm": "layer"}, "unknown convnet.norm 'layer'; known: batch, group"),
        ("convnet", {"dropout": 1.0}, "convnet.dropout is 1, outside 0 to 0.95"),
        ("plain", {"kernel": 4}, "unknown plain.kernel 4; known: 3, 5, 7"),
        ("plain", {"depth": 14}, "plain.depth is 14: .* need 29 pixels, .* a depth of 13 or a larger input_size would do"),
        ("plain", {"width": 0.0}, "plain.width is 0, outside 0.05 to 16"),
        ("strided", {"width": 1.5}, "strided.width is 1.5, not a whole number"),
        ("strided", {"stages": 3}, "strided.stages is 3: nothing is left of images of 28 pixels; padding 'same'"),
        ("wide", {"groups": 5}, "wide.groups is 5: .*fewer groups or an input_size of 33 would do"),
        ("wide", {"scale": 0.0}, "wide.scale is 0, outside 0.0001 to 100"),
        ("vit", {"heads": 5}, "vit.dim is 96; it should be a multiple of 4 \\* heads = 20"),
        ("vit", {"patch": 7, "stem": "conv"}, "vit.patch is 7; with a conv stem, which halves the image, it should be even"),
        ("mixer", {"mixing": "fft"}, "unknown mixer.mixing 'fft'; known: "),
        ("mixer", {"depth": 0}, "mixer.depth is 0, outside 1 to 48"),
    ],
)
def test_knobs_out_of_range(arch, knobs, says):
    with pytest.raises(BadInput, match=f"^{says}"):
        build(arch, **knobs)
