import os
import sys
import tempfile

import browser
import numpy as np
import pytest
import torch

from trainable import errors
from trainable.datasets import Dataset, load
from trainable.datasets.container import nothing


def pytest_configure(config):
    """What the engine's probes find in these tests is kept for their time only."""
    config.own_cache = tempfile.TemporaryDirectory(prefix="sweep-service-")
    os.environ["XDG_CACHE_HOME"] = config.own_cache.name


def pytest_collection_modifyitems(items):
    """Real sweeps first: no worker is left with a long test when the other has nothing more to do."""
    items.sort(key=lambda item: "full" not in item.keywords or item.path.parent.name == "trainable")


def pytest_unconfigure(config):
    config.own_cache.cleanup()


# A machine has these or it has not. Every other reason to skip a test is something to install.
GIVEN = ("needs a GPU", "needs a machine without a GPU", "needs root", "needs several hosts")


@pytest.fixture(autouse=True)
def one_thread():
    """As in a trial on a CPU; and the same numbers on any machine of a kind."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_left_running():
    """A test that fails in the middle of a sweep leaves the machine to the next."""
    yield
    if "running" in sys.modules:  # imported only where sweeps are run: it takes seconds
        sys.modules["running"].kill_all()


@pytest.fixture
def command(monkeypatch, capsys):
    """command(main, *arguments) -> (status, what it wrote to stdout, to stderr)."""

    def command(main, *arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{main.__module__.split('.')[-1]}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            errors.run(main)
        return end.value.code, *capsys.readouterr()

    return command


@pytest.fixture
def refuses(command):
    """refuses(main, *arguments) -> the one line it wrote to stderr; it must end with status 2."""

    def refuses(main, *arguments) -> str:
        status, _, said = command(main, *arguments)
        assert status == 2, said
        assert said.count("\n") == 1, said
        assert "Traceback" not in said
        return said

    return refuses


@pytest.fixture
def root(tmp_path):
    """Where a test's own images lie."""
    return tmp_path / "my flowers!"


@pytest.fixture
def data(tmp_path):
    """In place of the project's data/."""
    return tmp_path / "data"


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
    if "browser" in item.keywords and browser.CHROMIUM is None:
        pytest.skip("needs a browser: apt-get install chromium")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI nothing is skipped but what the machine cannot give: what can be installed there and is not is an error."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(GIVEN):
            report.outcome, report.longrepr = "failed", f"skipped in CI: {reason}"
    return report
