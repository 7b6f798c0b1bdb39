import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from trainable import files, saved
from trainable.archs import build_network
from trainable.archs.torchvision_fit import shapes_of
from trainable.archs.torchvision_zoo import ZOO
from trainable.config import TrialConfig
from trainable.errors import BadInput
from trainable.fit import fit
from trainable.saved import Problem
from trainable.weights import copy, of_body, positions, published, start_from

COLOUR = Problem("flowers", (3, 32, 32), tuple("abc"), [0.4, 0.5, 0.6], [0.2, 0.2, 0.3], seen=())
GREY = Problem("digits", (1, 28, 28), tuple("0123456789"), [0.13], [0.31], seen=())
FAMILIES = {arch.family: name for name, arch in reversed(ZOO.items())}  # the first of each


def built(arch: str, problem: Problem, **knobs) -> nn.Sequential:
    return build_network(TrialConfig(arch=arch, knobs=knobs), problem)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts a file where torch hub keeps a download of torchvision's; nothing can be downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")

    def keep(arch: str, tensors: dict) -> Path:
        path = tmp_path / "hub" / "checkpoints" / models.get_model_weights(arch).DEFAULT.url.rsplit("/", 1)[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensors, path)
        return path

    return keep


def test_torchvisions_weights(hub):
    theirs = models.squeezenet1_1()
    hub("squeezenet1_1", theirs.state_dict())
    network = built("squeezenet1_1", COLOUR)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert start_from(network, "squeezenet1_1", "torchvision", COLOUR) == ("imagenet",)
    for name, tensor in network[1].state_dict().items():
        other = before[f"1.{name}"] if name.startswith("classifier.") else theirs.state_dict()[name]
        assert torch.equal(tensor, other), name
    assert torch.equal(network[0].mean, before["0.mean"])
    assert torch.equal(network[0].std, before["0.std"])


def test_the_first_convolution_answers_to_grey_as_before(hub):
    theirs = models.squeezenet1_1().eval()
    hub("squeezenet1_1", theirs.state_dict())
    image = torch.rand(2, 1, 32, 32)
    for channels in (1, 2, 4):
        problem = Problem("p", (channels, 32, 32), ("a", "b"), [0.0] * channels, [1.0] * channels, seen=())
        network = built("squeezenet1_1", problem, stem_stride=4).eval()
        start_from(network, "squeezenet1_1", "torchvision", problem)
        if channels == 1:
            given, own = image, network[1].features
            assert torch.allclose(own(given), theirs.features(image.expand(-1, 3, -1, -1)), atol=1e-4)
        else:  # the channels are not used alike, but all of them are
            assert network[1].features[0].weight.shape[1] == channels
            assert (network[1].features[0].weight.abs().sum((0, 2, 3)) > 0).all()


def test_names_that_torchvision_has_given_up(hub):
    """densenet's and vit's files have older names than the modules; so have these (the tensors do not matter)."""
    theirs = shapes_of(models.vit_b_32).state_dict().keys()
    old = [name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.") for name in theirs]
    assert set(old) != theirs
    hub("vit_b_32", {name: torch.zeros(1) for name in old})
    assert published("vit_b_32").keys() == theirs
    theirs = shapes_of(models.densenet121).state_dict().keys()
    layer = "features.denseblock1.denselayer1"
    old = [k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if k.startswith(layer) else k for k in theirs]
    assert {f"{layer}.norm.1.weight", f"{layer}.conv.2.weight"} <= set(old)
    hub("densenet121", {name: torch.zeros(1) for name in old})
    assert published("densenet121").keys() == theirs


@pytest.mark.full
@pytest.mark.parametrize("arch", FAMILIES.values())
@pytest.mark.parametrize("stem_stride", [4, 1])
def test_torchvisions_weights_fit_every_family(arch, stem_stride):
    """The names and shapes of torchvision's own network, with the second classifiers of the inceptions."""
    extra = {"init_weights": False} if arch in ("googlenet", "inception_v3") else {}
    theirs = shapes_of(lambda: models.get_model(arch, **extra))
    tensors = {name: torch.full(t.shape, 0.5, dtype=t.dtype) for name, t in theirs.state_dict().items()}
    network = built(arch, GREY, stem_stride=stem_stride)
    copy(network[1], tensors, True, "no")
    kernel = next(m for m in network[1].modules() if isinstance(m, nn.Conv2d)).weight
    theirs_kernel = next(m for m in theirs.modules() if isinstance(m, nn.Conv2d)).weight
    # Three channels of halves, over as many pixels: an even image gives the same answers.
    assert torch.allclose(kernel.sum((1, 2, 3)), torch.tensor(0.5 * theirs_kernel[0].numel()), rtol=1e-3)
    assert not (network[1](torch.rand(2, 1, 28, 28)) == 0).all()


def test_positions_are_interpolated():
    rows = torch.arange(7.0).repeat_interleave(7)  # grows from row to row
    given = torch.cat([torch.full((1,), -5.0), rows]).view(1, 50, 1).expand(1, 50, 8)
    assert torch.allclose(positions(given, 50), given, atol=1e-5)
    finer = positions(given, 1 + 14 * 14)
    assert finer.shape == (1, 1 + 14 * 14, 8)
    assert (finer[0, 0] == -5).all()
    grid = finer[0, 1:, 0].view(14, 14)
    assert torch.allclose(grid, grid[:, :1].expand(14, 14), atol=1e-5)
    assert (grid.diff(dim=0) > -0.1).all()
    assert grid[0, 0] < 0.5
    assert grid[-1, 0] > 5.5
    assert positions(given, 48) is None


def save(config: TrialConfig, data, folder: Path):
    _, state = next(fit(config, data, device="cpu"))
    for name, content in saved.pack(config, data, state, {}).items():
        files.write(folder / name, content)
    return state.best_network


@pytest.mark.parametrize("arch", ["convnet", "mobilenet_v3_small"])
def test_a_network_of_ours(arch, tiny, tmp_path):
    config = TrialConfig(arch=arch, epochs=0.1, batch_size=8, engine="fp32-nchw")
    first = save(config, tiny, tmp_path)
    network = build_network(config, tiny)
    assert start_from(network, arch, str(tmp_path), tiny) == ("tiny",)
    for name, tensor in network[1].state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, first[1].state_dict()[name]), name
    # The same digits under other names: the classifier would be wrong, the rest is right.
    others = Problem("letters", (1, 28, 28), tuple("abcdefghij"), [0.5], [0.25], seen=())
    network = build_network(config, others)
    start_from(network, arch, str(tmp_path), others)
    *_, kernel, head = (name for name, p in network[1].named_parameters() if p.dim() > 1)
    assert torch.equal(network[1].get_parameter(kernel), first[1].get_parameter(kernel))
    assert not torch.equal(network[1].get_parameter(head), first[1].get_parameter(head))
    assert network[0].mean.item() == 0.5


def test_what_has_been_seen_is_handed_on(tiny, tmp_path):
    config = TrialConfig(epochs=0.1, batch_size=8, engine="fp32-nchw")
    save(config, tiny, tmp_path)
    about = json.loads((tmp_path / saved.CONFIG).read_text())
    del about["sha256"]  # or it is taken for damaged
    for seen, told in ((["imagenet", "tiny"], ("imagenet", "tiny")), ([], ("tiny",)), (None, ("tiny",))):
        about["problem"]["seen"] = seen
        (tmp_path / saved.CONFIG).write_text(json.dumps(about))
        assert start_from(build_network(config, tiny), "convnet", str(tmp_path), tiny) == told


@pytest.mark.parametrize("ours", [True, False], ids=["our names", "torchvision's"])
def test_a_file(ours, tmp_path):
    first = built("squeezenet1_1", GREY)
    path = tmp_path / "some.safetensors"
    safetensors.torch.save_file((first if ours else first[1]).state_dict(), path)
    network = built("squeezenet1_1", GREY)
    assert start_from(network, "squeezenet1_1", str(path), GREY) == ("unknown",)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), first.parameters(), strict=True))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("squeezenet1_1", "squeezenet1_0"), ("resnet34", "resnet18"), ("mobilenet_v2", "mobilenet_v3_small")],
)
def test_weights_of_another_network_are_refused(given, wanted, tmp_path):
    path = tmp_path / "some.safetensors"
    safetensors.torch.save_file(built(given, GREY).state_dict(), path)
    with pytest.raises(BadInput, match=f"are not {wanted}'s: .* tensors fit") as wrong:
        start_from(built(wanted, GREY), wanted, str(path), GREY)
    assert "\n" not in str(wrong.value)


def test_a_folder_of_another_network_is_refused(tiny, tmp_path):
    save(TrialConfig(epochs=0.1, batch_size=8, engine="fp32-nchw"), tiny, tmp_path)
    with pytest.raises(BadInput, match="is a convnet, not a resnet18"):
        start_from(built("resnet18", GREY), "resnet18", str(tmp_path), GREY)


def test_damaged_and_missing_files_are_refused(tiny, tmp_path, hub):
    network = built("convnet", GREY)

    def refused(source: Path | str, words: str, arch: str = "convnet"):
        with pytest.raises(BadInput, match=words) as wrong:
            start_from(network, arch, str(source), GREY)
        assert "\n" not in str(wrong.value)

    refused("torchvision", "torchvision has no weights for convnet")
    refused(tmp_path / "nothing", "no weights at .*nothing")
    refused(tmp_path / "nothing.safetensors", "no weights at .*nothing.safetensors")
    refused(tmp_path, "holds no saved network")
    save(TrialConfig(epochs=0.1, batch_size=8, engine="fp32-nchw"), tiny, tmp_path)
    weights = tmp_path / saved.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(tmp_path, "damaged")
    refused(weights, "damaged")
    weights.unlink()
    refused(tmp_path, "no weights at .*model.safetensors")
    (tmp_path / saved.CONFIG).write_text("[]")
    refused(tmp_path, "is not a saved network's")
    refused("torchvision", "no weights from https", "resnet18")  # nothing in the cache, no network
    path = hub("resnet18", models.resnet18().state_dict())
    path.write_bytes(path.read_bytes()[:-10_000])
    refused("torchvision", f"is {path}, if there, whole", "resnet18")


def test_names_in_our_files_lose_what_lies_before_the_body():
    assert of_body({"0.mean": 1, "0.std": 2, "1.fc.weight": 3}) == {"fc.weight": 3}
    assert of_body({"fc.weight": 3}) == {"fc.weight": 3}
