"""How many trials fit, without a cluster."""

import pytest
import torch

from sweeps.search.cluster import GPU_SHARE, _footprints, _places
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
        (MIXED, 1, 2, None, 0 + 1),
        (MIXED, 1, 0, None, 2 + 16 + 16),
    ],
)
def test_slots(nodes, cpus, gpus, concurrent, slots):
    places = _places(nodes, cpus, gpus, concurrent)
    assert places.slots == slots
    assert places.gpus == (gpus if gpus is not None else (GPU_SHARE if nodes is MIXED else 0))
    assert (places.device == "cpu") == (places.gpus == 0), "without a share, no GPU is touched"


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "says"),
    [
        (LAPTOP, 9, None, "--cpus-per-trial 9: the largest machine has 8"),
        (LAPTOP, 1, 0.5, "--gpus-per-trial 0.5: the largest machine has 0"),
        (MIXED, 1, 3, "--gpus-per-trial 3: the largest machine has 2"),
        ([{"CPU": 64.0}, {"CPU": 1.0, "GPU": 1.0}], 4, None, "no machine has 4 processors and 0.25 GPUs at once"),
    ],
)
def test_too_much(nodes, cpus, gpus, says):
    with pytest.raises(BadInput, match=says):
        _places(nodes, cpus, gpus, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_what_cannot_be_measured_on_a_gpu_is_named(tiny):
    measured, failures = _footprints([TrialConfig(), TrialConfig(arch="resnet18")], tiny)
    assert measured == []
    assert [failure.split(":")[0] for failure in failures] == ["convnet", "resnet18"]
    assert all(len(failure) > 20 and "\n" not in failure for failure in failures)
