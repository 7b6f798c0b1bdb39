import pytest

from trainable.datasets import load
from trainable.errors import BadInput


def refused(name, data, says, **shape):
    """Reading the dataset is refused in one line that says so."""
    with pytest.raises(BadInput, match=says) as no:
        load(name, data, **shape)
    assert "\n" not in str(no.value)
