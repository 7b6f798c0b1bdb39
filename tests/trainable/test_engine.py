import copy
import json
import math
import os

import pytest
import torch
from torch import nn

from trainable import engine
from trainable.archs import build_network
from trainable.config import TrialConfig
from trainable.errors import BadInput
from trainable.footprint import Footprint, footprint, share

CPU = torch.device("cpu")


@pytest.fixture
def forgotten(monkeypatch, tmp_path):
    """As if nothing had ever been probed on this machine."""
    monkeypatch.setattr(engine, "_remembered", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sweep-service"


def small(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(width * 26 * 26, 10))


def test_the_probe_measures_every_setting_and_changes_nothing():
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    times = engine.probe(network, (1, 28, 28))
    assert set(times) == {name for name, s in engine.SETTINGS.items() if not s.bf16 or engine._has_bf16(CPU)}
    assert all(0 < seconds < math.inf for seconds in times.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ({"bf16-nhwc": 1.0, "fp32-nhwc": 2.0}, "bf16-nhwc"),
        ({"bf16-nhwc": 1.0, "fp32-nhwc": 0.97}, "bf16-nhwc"),  # so near is noise
        ({"bf16-nhwc": 1.0, "fp32-nhwc": 0.8, "fp32-nchw": 0.79}, "fp32-nhwc"),
        ({"bf16-nhwc": 4.0, "fp32-nhwc": 2.0, "bf16-nchw": 3.0, "fp32-nchw": 1.0}, "fp32-nchw"),
        ({"fp32-nhwc": 1.0, "fp32-nchw": 1.0}, "fp32-nhwc"),
    ],
)
def test_the_fastest_by_more_than_noise_is_taken(monkeypatch, forgotten, seconds, taken):
    monkeypatch.setattr(engine, "probe", lambda *a: dict(seconds))
    monkeypatch.setattr(engine, "_has_bf16", lambda device: True)  # whatever machine this is
    assert engine.plan(small(), (1, 28, 28), "cpu").setting == taken


def test_it_is_remembered_for_networks_of_the_same_kind(monkeypatch, forgotten):
    probed = []
    monkeypatch.setattr(engine, "probe", lambda network, *a: probed.append(network) or {"bf16-nhwc": 1.0, "fp32-nchw": 0.5})
    for width in (8, 16, 8):
        assert engine.plan(small(width), (1, 28, 28), "cpu").setting == "fp32-nchw"
    assert len(probed) == 1, "wider is the same kind"
    engine._remembered.clear()
    engine.plan(small(), (1, 28, 28), "cpu")
    assert len(probed) == 1, "another process reads what the first wrote"
    engine.plan(nn.Sequential(nn.Conv2d(1, 8, 5)), (1, 28, 28), "cpu")
    engine.plan(small(), (1, 32, 32), "cpu")
    assert len(probed) == 3
    (path,) = [p for p in forgotten.iterdir() if "'Linear'" in p.read_text() and "28" in p.read_text()]
    assert json.loads(path.read_text())["seconds"] == {"bf16-nhwc": 1.0, "fp32-nchw": 0.5}
    path.write_text('{"setting": "fp8"}')  # of another version, or cut short: measured again
    engine._remembered.clear()
    engine.plan(small(), (1, 28, 28), "cpu")
    assert len(probed) == 4


def test_a_home_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "_remembered", {})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert engine.plan(small(), (1, 28, 28), "cpu").setting in engine.SETTINGS


def test_a_setting_that_is_asked_for_is_taken(tiny):
    network = build_network(TrialConfig(), tiny)
    for setting, expected in engine.SETTINGS.items():
        plan = engine.plan(network, tiny.in_shape, "cpu", setting)
        assert plan.setting == (setting if engine._has_bf16(CPU) or not expected.bf16 else setting.replace("bf16", "fp32"))
        assert (plan.layout == torch.channels_last) == expected.channels_last
    with pytest.raises(BadInput, match="unknown engine setting 'fp8'; known: bf16-nhwc, fp32-nhwc"):
        engine.plan(network, tiny.in_shape, "cpu", "fp8")


@pytest.mark.parametrize(("side", "wrong"), [(1, True), (2, True), (3, True), (4, True), (5, False), (28, False)])
def test_bf16_is_not_taken_where_it_computes_what_is_wrong(side, wrong):
    """Of 4 pixels, the first convolution makes 2, of which the second makes 1 in steps of 2."""
    network = nn.Sequential(nn.Conv2d(1, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3, 2, 1), nn.Flatten())
    before = copy.deepcopy(network.state_dict())
    setting = engine.plan(network, (1, side, side), "cpu", "bf16-nhwc").setting
    assert setting == ("fp32-nhwc" if wrong or not engine._has_bf16(torch.device("cpu")) else "bf16-nhwc")
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_without_bf16_a_network_runs_in_fp32(monkeypatch):
    monkeypatch.setattr(engine, "_has_bf16", lambda device: False)
    assert engine.plan(small(), (1, 28, 28), "cpu", "bf16-nhwc").setting == "fp32-nhwc"
    assert set(engine.probe(small(), (1, 28, 28))) == {"fp32-nhwc", "fp32-nchw"}


@pytest.mark.parametrize(
    ("footprints", "at_once"),
    [
        ([Footprint(0.02, 0.3)], 4),
        ([Footprint(0.02, 1.0)], 1),
        ([Footprint(0.02, 0.01)], 20),
        ([Footprint(0.4, 0.1)], 2),  # memory decides
        ([Footprint(0.02, 0.2), Footprint(0.02, 0.5), Footprint(0.9, 0.9)], 1),  # the largest has to fit
        ([Footprint(0.02, 0.2), Footprint(0.02, 0.5), Footprint(0.1, 0.9)], 2),  # the middle one decides about time
    ],
)
def test_share_of_a_gpu(footprints, at_once):
    assert share(footprints) == pytest.approx(1 / at_once, abs=1e-4)


@pytest.mark.parametrize(("content", "count"), [("150000 100000", 1), ("max 100000", None), ("9900000 100000", None)])
def test_cores_are_those_this_process_may_use(monkeypatch, content, count):
    monkeypatch.setattr(engine.Path, "read_text", lambda path: content)
    assert engine.cores() == (count or len(os.sched_getaffinity(0)))


@pytest.mark.gpu
def test_a_captured_step_trains_as_one_that_is_not(tiny, monkeypatch):
    """With the same seed the losses of ten steps agree, before and after the capture; later the sums of a GPU drift apart."""
    from trainable.fit import fit

    config = TrialConfig(epochs=4, batch_size=64, engine="fp32-nhwc", augment={})
    captured = [metrics["loss"].item() for metrics, _ in fit(config, tiny)][:10]
    monkeypatch.setattr(engine, "Captured", lambda function, generator: function)
    plain = [metrics["loss"].item() for metrics, _ in fit(config, tiny)][:10]
    assert captured == pytest.approx(plain, rel=0.02)


@pytest.mark.gpu
def test_what_cannot_be_captured_runs_as_it_is():
    def waits(x: torch.Tensor) -> torch.Tensor:
        return x * x.sum().item()  # waits for the device, which a graph cannot

    step = engine.Captured(waits, torch.Generator("cuda").manual_seed(0))
    threes = torch.full((2,), 3.0, device="cuda")
    before = [step(threes).tolist() for _ in range(engine.WARM_STEPS)]
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        then = step(threes)
    assert [*before, then.tolist(), step(threes).tolist()] == [[18.0, 18.0]] * (engine.WARM_STEPS + 2)
    assert step.graph is None


@pytest.mark.gpu
def test_footprint(tiny):
    measured = footprint(TrialConfig(batch_size=64), tiny)
    assert 0 < measured.memory < 0.5
    assert 0 < measured.busy <= 1
