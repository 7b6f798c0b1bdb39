import os
import tempfile

import numpy as np
import pytest
import torch

from trainable.datasets import Dataset, load
from trainable.datasets.container import nothing


def pytest_configure(config):
    """What the engine's probes find in these tests is kept for their time only."""
    config.own_cache = tempfile.TemporaryDirectory(prefix="sweep-service-")
    os.environ["XDG_CACHE_HOME"] = config.own_cache.name


def pytest_unconfigure(config):
    config.own_cache.cleanup()


@pytest.fixture(autouse=True)
def one_thread():
    """As in a trial on a CPU; and the same numbers on any machine of a kind."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sample() -> Dataset:
    return load("digits-sample")


@pytest.fixture(scope="session")
def tiny(sample) -> Dataset:
    """Real digits, few of them: 512 to train, 200 each to choose and to test."""
    few = [split.take(np.arange(n)) for split, n in ((sample.train, 512), (sample.val, 200), (sample.test, 200))]
    return Dataset("tiny", sample.classes, *few, unlabelled=nothing(sample.test))


def pytest_runtest_setup(item):
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("needs a GPU, and torch sees none")
