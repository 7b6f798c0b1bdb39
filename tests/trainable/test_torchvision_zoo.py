import gc
import math

import optuna
import pytest
import torch
from torch import nn
from torchvision import models

from trainable import engine
from trainable.archs.torchvision_fit import LARGEST, ShapesOnly, shapes_of
from trainable.archs.torchvision_zoo import STEMS, WITH_DROPOUT, ZOO, auto_stem, fitted, layers, maxvit_tiny, smallest
from trainable.errors import BadInput

GREY, COLOUR = ((1, 28, 28), 10), ((3, 64, 64), 5)
# The cheapest of each family.
SMALL = {
    "alexnet": "alexnet",
    "convnext": "convnext_tiny",
    "densenet": "densenet121",
    "efficientnet": "efficientnet_b0",
    "googlenet": "googlenet",
    "inception": "inception_v3",
    "maxvit": "maxvit_t",
    "mnasnet": "mnasnet0_5",
    "mobilenetv2": "mobilenet_v2",
    "mobilenetv3": "mobilenet_v3_small",
    "regnet": "regnet_y_400mf",
    "resnet": "resnet18",
    "shufflenetv2": "shufflenet_v2_x0_5",
    "squeezenet": "squeezenet1_1",
    "swin_transformer": "swin_t",
    "vgg": "vgg11_bn",
    "vision_transformer": "vit_b_32",
}
LARGE = 100e6  # weights, above which nothing is computed: a smaller one of the family is trained
# The same number again and again, of a length that divides no layer's: torch's own initial values, 5.6e9 of them for
# all networks and drawn two or three times each, take minutes.
NOISE = torch.randn(999_983, generator=torch.Generator().manual_seed(0))


def build(name: str, in_shape=GREY[0], classes=GREY[1], **knobs) -> nn.Module:
    return ZOO[name].build({**ZOO[name].DEFAULTS, **knobs}, in_shape, classes)


def build_quickly(name: str, in_shape, classes) -> nn.Module:
    """What `build` builds, its matrices and kernels with values of the usual size from NOISE."""
    with ShapesOnly():
        network = build(name, in_shape, classes)
    for module in network.modules():
        for key, p in list(module.named_parameters(recurse=False)):
            if p.dim() > 1:
                values = NOISE.expand(-(-p.numel() // len(NOISE)), -1).reshape(-1)[: p.numel()].view(p.shape)
                values = values.mul_(math.sqrt(1 / p[0].numel())) if p.numel() > len(NOISE) else values / math.sqrt(p[0].numel())
            else:
                values = torch.full(p.shape, 0.0 if key == "bias" else 1.0)
            setattr(module, key, nn.Parameter(values))
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    return network


def check(network: nn.Module, in_shape, classes: int, setting="bf16-nhwc"):
    """A training step and an evaluation of one image, as the loop does them on a CPU."""
    # BatchNorm over two images of one pixel divides by next to nothing, layer after layer, until gradients overflow.
    images = torch.rand(16 if max(in_shape) < 28 else 2, *in_shape, generator=torch.Generator().manual_seed(0))
    plan = engine.plan(network, in_shape, "cpu", setting)
    plan.place(network).train()
    with plan.autocast():
        logits = network(plan.laid_out(images))
    assert logits.shape == (len(images), classes)
    nn.functional.cross_entropy(logits.float(), torch.arange(len(images)) % 2).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    torch.optim.SGD(network.parameters(), 1e-3).step()
    network.zero_grad()
    with torch.inference_mode(), plan.autocast():
        assert network.eval()(plan.laid_out(images[:1])).isfinite().all()


def test_every_network_has_an_entry():
    assert list(ZOO) == models.list_models(module=models)
    assert len(ZOO) == 80
    assert {arch.family for arch in ZOO.values()} == set(SMALL)
    assert ZOO["mobilenet_v3_small"].family == "mobilenetv3"


def check_shapes(name: str, in_shape, classes: int, **knobs):
    """A training step in which nothing is computed."""
    with ShapesOnly():
        network = build(name, in_shape, classes, **knobs).to("meta")
    logits = network.train()(torch.empty(2, *in_shape, device="meta"))
    assert logits.shape == (2, classes)
    logits.sum().backward()


@pytest.mark.full
@pytest.mark.long
@pytest.mark.parametrize("name", ZOO)
def test_trains(name):
    if sum(p.numel() for p in shapes_of(lambda: build(name)).parameters()) > LARGE:
        check_shapes(name, *GREY)
        return
    # Of large matrices and two images, bf16 would convert more than it multiplies.
    check(build_quickly(name, *GREY), *GREY, "fp32-nhwc")
    gc.collect()


@pytest.mark.full
@pytest.mark.long
@pytest.mark.parametrize("name", ZOO)
def test_trains_in_colour(name):
    if name in SMALL.values():
        check(build_quickly(name, *COLOUR), *COLOUR, "fp32-nhwc")
    else:
        check_shapes(name, *COLOUR)


# alexnet, vgg and vit draw too many initial values for two seconds; the others have too many layers.
SLOW = {"alexnet", "vgg", "vision_transformer", "convnext", "densenet", "googlenet", "inception", "maxvit"}


@pytest.mark.parametrize("name", [name for family, name in SMALL.items() if family not in SLOW])
def test_a_small_one_trains(name):
    check(build(name), *GREY)


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL.values())
def test_its_own_initial_values_train_in_fp32(name):
    network = build(name)
    logits = network.train()(torch.rand(2, 1, 28, 28))
    assert logits.abs().max() < 10
    logits.logsumexp(dim=1).sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.full
@pytest.mark.long
@pytest.mark.parametrize("in_shape", [(1, 8, 8), (3, 224, 224), (2, 8, 20)], ids=str)
@pytest.mark.parametrize("name", SMALL.values())
def test_sizes(name, in_shape):
    check(build_quickly(name, in_shape, 2), in_shape, 2)


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL.values())
def test_a_finer_stem_keeps_more_of_the_image(name):
    sizes = []
    for stride in (4, 2, 1):
        # 224 pixels, so that nothing but vit is stretched.
        network, widths = shapes_of(lambda stride=stride: build(name, (3, 224, 224), stem_stride=stride)), []
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                module.register_forward_hook(lambda m, i, out, widths=widths: widths.append(out.shape[-1]))
        network.eval()(torch.empty(1, 3, 224, 224, device="meta"))
        sizes.append(sum(widths))
    assert sizes[0] < sizes[1] < sizes[2]
    if name not in ("alexnet", "inception_v3", "squeezenet1_1"):  # these have layers without padding
        assert sizes[2] > 2 * sizes[0]


CHEAP = ("resnet18", "squeezenet1_1", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "regnet_y_400mf")


def last_side(name: str, side: int, stem_stride) -> int:
    """The side of the last feature map, seen at the layer that pools or classifies it."""
    network = shapes_of(lambda: build(name, (3, side, side), stem_stride=stem_stride))
    sides = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    network.eval()(torch.empty(1, 3, side, side, device="meta"))
    return sides[-1]


@pytest.mark.parametrize("name", CHEAP)
def test_auto_keeps_resolution_on_small_images(name):
    """The coarsest stem whose last map is no single pixel; as published where that is so."""
    assert last_side(name, 28, 4) == 1
    assert last_side(name, 28, "auto") == last_side(name, 28, 2) >= 2
    assert last_side(name, 224, "auto") == last_side(name, 224, "published") == last_side(name, 224, 4)
    assert last_side(name, 8, "auto") == last_side(name, 8, 1)
    assert last_side(name, 224, "fine") == last_side(name, 224, 2) > last_side(name, 224, 4)


@pytest.mark.full
@pytest.mark.long
@pytest.mark.parametrize("name", SMALL.values())
def test_every_family_takes_every_rule(name):
    for rule in STEMS:
        check_shapes(name, (1, 28, 28), 10, stem_stride=rule)
    assert auto_stem(ZOO[name], LARGEST) == 1, "as published for the images it was published for"


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v2", "mnasnet0_5", "densenet121", "googlenet"])
def test_a_grey_stem_responds_as_the_published_one(name):
    """To grey images, the first layer's response varies as much as the published network's, freshly initialised."""
    grey = torch.rand(16, 1, 40, 40)
    torch.manual_seed(0)
    ours, theirs = build(name, (1, 40, 40), stem_stride=4), models.get_model(name, weights=None)
    first = [next(m for m in network.modules() if isinstance(m, nn.Conv2d)) for network in (ours, theirs)]
    with torch.no_grad():
        spread = [
            conv(x).std(dim=(0, 2, 3)).square().mean().sqrt()
            for conv, x in zip(first, (grey, grey.repeat(1, 3, 1, 1)), strict=True)
        ]
    assert float(spread[0]) == pytest.approx(float(spread[1]), rel=0.35)


@pytest.mark.full
@pytest.mark.long
@pytest.mark.parametrize("stem_stride", [2, 1])
@pytest.mark.parametrize("name", [*SMALL.values(), "resnet50", "vit_h_14"])
def test_a_finer_stem_trains(name, stem_stride):
    check_shapes(name, (1, 8, 8), 10, stem_stride=stem_stride)
    if name not in ("vit_h_14", "vit_b_32"):  # minutes, for the second at stride 1
        check(build(name, (1, 20, 16), stem_stride=stem_stride), (1, 20, 16), 10)


def stretched(network: nn.Module) -> tuple[int, int] | None:
    return next((hook.size for hook in network._forward_pre_hooks.values()), None)


def test_small_images_are_stretched_where_they_must_be():
    assert stretched(shapes_of(lambda: build("resnet18"))) is None
    assert stretched(shapes_of(lambda: build("resnet18", (1, 8, 8)))) is None
    assert stretched(shapes_of(lambda: build("vgg11", stem_stride=4))) == (32, 32)
    assert stretched(shapes_of(lambda: build("vgg11", (1, 16, 20), stem_stride=4))) == (32, 40)
    assert stretched(shapes_of(lambda: build("vgg11", stem_stride=2))) is None
    assert stretched(shapes_of(lambda: build("vit_b_16"))) == (112, 112)
    assert stretched(shapes_of(lambda: build("vit_b_16", (3, 224, 224)))) is None
    assert stretched(shapes_of(lambda: build("maxvit_t"))) == (128, 128)
    assert stretched(shapes_of(lambda: build("maxvit_t", (3, 224, 200)))) == (224, 224)


def test_vit_has_as_many_patches_as_the_knob_says():
    tokens = [shapes_of(lambda s=s: build("vit_b_16", stem_stride=s)).encoder.pos_embedding.shape[1] - 1 for s in (4, 2, 1)]
    assert tokens == [7 * 7, 14 * 14, 28 * 28]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "squeezenet1_0", "mnasnet1_0", "efficientnet_b3"])
def test_a_network_is_torchvisions_but_for_its_ends(name):
    ours, theirs = (
        {key: tensor.shape for key, tensor in network.state_dict().items()}
        for network in (shapes_of(lambda: build(name)), shapes_of(lambda: models.get_model(name, num_classes=10)))
    )
    assert list(ours) == list(theirs)
    different = [key for key in ours if ours[key] != theirs[key]]
    assert len(different) == 1  # the first convolution
    assert ours[different[0]][1] == 1


def test_maxvit_is_torchvisions():
    ours, theirs = shapes_of(lambda: maxvit_tiny(224, 1000)), shapes_of(models.maxvit_t)
    assert {k: t.shape for k, t in ours.state_dict().items()} == {k: t.shape for k, t in theirs.state_dict().items()}
    assert str(ours) == str(theirs)


@pytest.mark.full
def test_dropout_is_where_the_published_network_has_one():
    for name, arch in ZOO.items():
        network = shapes_of(lambda name=name: fitted(name, 1, 2))
        published = any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
        assert published == (arch.family in WITH_DROPOUT) == ("dropout" in arch.DEFAULTS)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "googlenet"])
def test_dropout_is_a_knob(name):
    network = shapes_of(lambda: build(name, dropout=0.35))
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.35}


@pytest.mark.parametrize("knobs", [{"stem_stride": 3}, {"dropout": 1.5}])
def test_a_knob_out_of_range_is_refused_in_one_line(knobs):
    with pytest.raises(BadInput, match=f"alexnet.{next(iter(knobs))}") as wrong:
        build("alexnet", **knobs)
    assert "\n" not in str(wrong.value)


def test_the_space_of_every_network_draws_its_knobs():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for name, arch in ZOO.items():
        trial = study.ask()
        assert arch.space(trial).keys() == arch.DEFAULTS.keys()
        assert trial.params.keys() == {f"{name}.{knob}" for knob in arch.DEFAULTS}


def test_short_trainings_begin_well():
    """Small logits, and running statistics that follow: mnasnet's momentum of 0.0003 would leave them at their start."""
    network = build("mnasnet0_5")
    assert {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}
    assert network.classifier[-1].weight.std() < 0.02


def test_a_seed_gives_a_network_whether_or_not_it_is_the_first():
    smallest.cache_clear()
    layers.cache_clear()
    first, second = (torch.manual_seed(3) and build("swin_t", stem_stride=2).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
