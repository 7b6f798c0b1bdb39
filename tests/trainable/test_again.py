"""Training a recorded trial again: what the comparison says."""

import platform

import pytest

from trainable.again import Comparison, Recorded
from trainable.config import TrialConfig


def compared(versions: dict[str, str], now: dict[str, float]) -> Comparison:
    """Return the comparison of a trial of one rung with a training that has these metrics there."""
    trial = Recorded(
        name="sweep-0",
        config=TrialConfig(),
        rungs=[{"budget": 1.0, "val_error": 0.5}],
        dataset="sample",
        image_size=None,
        data={},
        threads=1,
        versions=versions,
        commit=None,
    )
    comparison = Comparison(trial)
    comparison.now.append(now)
    return comparison


def test_nothing_to_compare_is_not_called_equal():
    verdict = compared({}, {"budget": 1.0}).verdict()
    assert "nothing could be compared" in verdict
    assert "to the last bit" in compared({}, {"val_error": 0.5}).verdict()


@pytest.mark.parametrize("name", ["", "no-such-package", "a\0b"])
def test_a_package_that_is_not_there(name):
    """Its version is absent, also where the record has a name that no package can have."""
    versions = {"python": platform.python_version(), name: "1.0"}
    verdict = compared(versions, {"val_error": 0.25}).verdict()
    assert "0.25" in verdict
    assert f"{name} absent (was 1.0)" in verdict
    assert "python" not in verdict, "it is the same"
