"""Training a recorded trial again: what the comparison says."""

import platform

import pytest

from trainable.again import Comparison, Recorded
from trainable.config import TrialConfig


@pytest.mark.parametrize("name", ["", "no-such-package", "a\0b"])
def test_a_package_that_is_not_there(name):
    trial = Recorded(
        name="sweep-0",
        config=TrialConfig(),
        rungs=[{"budget": 1.0, "val_error": 0.5}],
        dataset="sample",
        image_size=None,
        data={},
        threads=1,
        versions={"python": platform.python_version(), name: "1.0"},
        commit=None,
    )
    comparison = Comparison(trial)
    comparison.now.append({"val_error": 0.25})
    verdict = comparison.verdict()
    assert "0.25" in verdict
    assert f"{name} absent (was 1.0)" in verdict
    assert "python" not in verdict, "it is the same"
