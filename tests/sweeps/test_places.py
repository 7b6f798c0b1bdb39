"""How many trials fit, without a cluster."""

import pytest
import ray
import torch

from sweeps.search import cluster as cluster_module
from sweeps.search.cluster import GPU_SHARE, Places, _footprints
from sweeps.search.connect import autoscaled, connect
from trainable.config import TrialConfig
from trainable.errors import BadInput

LAPTOP = [{"CPU": 8.0}]
MIXED = [{"CPU": 2.0}, {"CPU": 16.0, "GPU": 1.0}, {"CPU": 16.0, "GPU": 2.0}]


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "concurrent", "slots"),
    [
        (LAPTOP, 1, None, None, 8),
        (LAPTOP, 3, None, None, 2),
        (LAPTOP, 1, None, 5, 5),
        (LAPTOP, 1, None, 50, 8),
        (MIXED, 1, None, None, 4 + 8),  # a quarter of a GPU each
        (MIXED, 1, 0.3, None, 3 + 6),  # three to a GPU: a share does not cross GPUs
        (MIXED, 8, None, None, 2 + 2),  # the processors run out first
        (MIXED, 1, 1, None, 1 + 2),
        (MIXED, 1, 0, None, 2 + 16 + 16),
    ],
)
def test_slots(nodes, cpus, gpus, concurrent, slots):
    places = Places(lambda: nodes, cpus, gpus, concurrent)
    assert places.slots == slots
    assert places.gpus == (gpus if gpus is not None else (GPU_SHARE if nodes is MIXED else 0))
    assert (places.device == "cpu") == (places.gpus == 0), "without a share, no GPU is touched"


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "says"),
    [
        (LAPTOP, 9, None, "--cpus-per-trial 9: the largest machine has 8"),
        (LAPTOP, 1, 0.5, "--gpus-per-trial 0.5: the largest machine has 0"),
        (MIXED, 1, 2, "--gpus-per-trial 2: a trial trains on one GPU at most; give 1, a share of one, or 0"),
        (LAPTOP, 1, 2, "--gpus-per-trial 2: a trial trains on one GPU at most"),
        (LAPTOP, 1, 1, "--gpus-per-trial 1: the largest machine has 0"),
        ([{"CPU": 64.0}, {"CPU": 1.0, "GPU": 1.0}], 4, None, "no machine has 4 processors and 0.25 GPUs at once"),
    ],
)
def test_too_much(nodes, cpus, gpus, says):
    with pytest.raises(BadInput, match=says):
        Places(lambda: nodes, cpus, gpus, None)


def test_places_follow_the_machines(monkeypatch):
    now = 0.0
    monkeypatch.setattr(cluster_module.time, "monotonic", lambda: now)
    nodes = [{"CPU": 2.0}]
    places = Places(lambda: nodes, 1, None, None)
    assert (places.slots, places.here, places.mean, places.words) == (2, 2, 2, "2 CPU cores")
    assert not places.look()
    now = 10.0
    nodes.append({"CPU": 4.0})
    assert places.look()
    assert (places.slots, places.mean) == (6, 2)
    now = 20.0
    nodes.clear()
    assert places.look()
    assert (places.slots, places.here, places.mean) == (0, 0, 4)
    now = 40.0
    nodes.append({"CPU": 1.0})
    assert places.look()
    assert (places.slots, places.mean) == (1, 2)


def test_an_autoscaler_is_asked_for_all_that_it_may_start():
    grow = [{"CPU": 8.0, "GPU": 1.0}] * 3
    places = Places(lambda: [{"CPU": 0.0}], 1, None, None, grow)
    assert (places.slots, places.here, places.gpus) == (12, 0, GPU_SHARE)
    assert places.words == "0 GPUs, and room for 12 when all machines are there"
    assert Places(lambda: [{"CPU": 0.0}], 1, None, 5, grow).slots == 5
    assert Places(lambda: [{"CPU": 2.0}, *grow, *grow], 1, 1, None, grow).slots == 6, "what is there counts, if it is more"


def test_what_an_autoscaler_may_start(tmp_path):
    config = tmp_path / "ray_bootstrap_config.yaml"
    assert autoscaled(config) == []
    config.write_text("""
max_workers: 3
available_node_types:
    head: {resources: {CPU: 0}, max_workers: 0}
    gpu: {resources: {CPU: 8, GPU: 1}, max_workers: 2}
    large: {resources: {CPU: 32, GPU: 4}, max_workers: 2}
""")
    assert autoscaled(config) == [{"CPU": 8, "GPU": 1}] * 2 + [{"CPU": 32, "GPU": 4}]
    for broken in ("", "[", "available_node_types: 3", "available_node_types: {a: {max_workers: many}}"):
        config.write_text(broken)
        assert autoscaled(config) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_what_cannot_be_measured_on_a_gpu_is_named(tiny):
    measured, failures = _footprints([TrialConfig(), TrialConfig(arch="resnet18")], tiny)
    assert measured == []
    assert [failure.split(":")[0] for failure in failures] == ["convnet", "resnet18"]
    assert all(len(failure) > 20 and "\n" not in failure for failure in failures)


@pytest.mark.parametrize("tries", [2, 3])
def test_ray_that_starts_too_slowly_is_tried_again(monkeypatch, tries):
    """Three times in all; then it is said in one line."""
    said = "The current node timed out during startup. This could happen because of load."
    calls = []

    def init(**given):
        calls.append(given["address"])
        if len(calls) < tries or tries == 3:
            raise Exception(said)

    monkeypatch.setattr(ray, "init", init)
    if tries == 3:
        with pytest.raises(BadInput, match="Ray did not start on this machine"):
            connect("local")
    else:
        connect("local")
    assert calls == ["local"] * tries


def test_what_else_ray_raises_is_not_tried_again(monkeypatch):
    calls = []

    def init(**given):
        calls.append(given)
        raise Exception("something else")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(Exception, match="something else"):
        connect("local")
    assert len(calls) == 1
