import optuna
import pytest

from sweeps.search.space import SPACES
from trainable.archs import ARCHS
from trainable.config import TrialConfig
from trainable.errors import BadInput


@pytest.mark.parametrize("arch", ARCHS)
def test_flat_round_trip(arch):
    config = TrialConfig(arch=arch, knobs=ARCHS[arch].DEFAULTS, augment={"rotation": 3.0})
    flat = config.flat()
    assert all(isinstance(value, str | int | float) for value in flat.values())
    assert TrialConfig.from_flat(flat) == config


def test_what_is_absent():
    """In a flat dict it has the default; in an augmentation given as a whole it is off."""
    one = TrialConfig.from_flat({"augment.rotation": 3.0, "convnet.width": 8})
    assert one.augment == {**TrialConfig().augment, "rotation": 3.0}
    assert one.knobs == {**ARCHS["convnet"].DEFAULTS, "width": 8}
    none = TrialConfig(augment={})
    assert set(none.augment.values()) == {0.0}
    assert TrialConfig.from_flat(none.flat()) == none
    assert TrialConfig.from_flat({}) == TrialConfig()


@pytest.mark.parametrize("space", SPACES)
def test_drawn_configurations_round_trip(space):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        config = TrialConfig.from_flat(SPACES[space].draw(study.ask()))
        assert TrialConfig.from_flat(config.flat()) == config


@pytest.mark.parametrize(
    ("flat", "says"),
    [
        ({"archh": "convnet"}, "unknown key 'archh'.*known: arch, .* and .* more; did you mean arch"),
        ({"resnet18.stem_stride": 2}, "unknown key 'resnet18.stem_stride'"),
        ({"arch": "vgg99"}, "unknown architecture 'vgg99'; known: vgg19, .* and .* more"),
        ({"optimizer": "sgdd"}, "unknown optimizer 'sgdd'; known: .*adamw"),
        ({"lr_schedule": "zigzag"}, "unknown lr_schedule 'zigzag'; known: constant"),
        ({"augment.blur": 1.0}, "unknown key 'augment.blur'.*known: augment.flip, .* and .* more"),
        ({"augment.rotation": 400.0}, "augment.rotation is 400, outside 0 to 180"),
        ({"lr": -1.0}, "lr is -1, outside 0 to 1000"),
        ({"lr": float("nan")}, "lr is nan, not a number"),
        ({"epochs": "many"}, "epochs is 'many', not a number"),
        ({"batch_size": 0}, "batch_size is 0, outside 2"),
        ({"batch_size": 2.5}, "batch_size is 2.5, not a whole number"),
    ],
)
def test_bad_configurations(flat, says):
    with pytest.raises(BadInput, match=says):
        TrialConfig.from_flat(flat)
