"""What is searched, and what is tried first."""

import optuna
import pytest

from sweeps.search.draw import draw_config, first_configs
from sweeps.search.find_space import find_space
from sweeps.search.space import SPACES
from trainable.archs import ARCHS
from trainable.errors import BadInput


def test_every_space_is_sure_of_its_first_starts():
    assert {name: space.sure for name, space in SPACES.items()} == {"default": 5, "all": 5, "quick": 0}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.filterwarnings("error")
def test_starting_points_lie_in_their_space(name):
    configs = first_configs(SPACES[name])
    assert len(configs) == len(SPACES[name].start)
    drawn = [(config.arch, config.align) for config in configs]
    assert len(set(drawn)) == len(drawn)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    families = {ARCHS[draw_config(SPACES[name], study.ask()).arch].family for _ in range(300)}
    assert {ARCHS[config.arch].family for config in configs} == families
    assert {(config.lr, config.clip) for config in configs} == {(4e-3, 1.0)}
    assert {config.optimizer for config in configs} <= {"adamw", "muon"}


def test_find_space(tmp_path):
    assert find_space("quick") is SPACES["quick"]
    with pytest.raises(BadInput, match="unknown space 'large'; known: default, all, quick"):
        find_space("large")
    mine = tmp_path / "mine.py"
    mine.write_text("def tiny(trial):\n    return {'lr': trial.suggest_float('lr', 1e-3, 1e-2)}\n")
    space = find_space(f"{mine}:tiny")
    assert space.draw(optuna.trial.FixedTrial({"lr": 0.005})) == {"lr": 0.005}
    with pytest.raises(BadInput, match=r"say which function in it, as in .*mine.py:draw"):
        find_space(str(mine))
    with pytest.raises(BadInput, match="has no function huge"):
        find_space(f"{mine}:huge")
    with pytest.raises(BadInput, match=r"no file .*nowhere.py"):
        find_space(f"{tmp_path}/nowhere.py:tiny")
    mine.write_text("import nonsense_that_is_not_installed\n")
    with pytest.raises(BadInput, match="does not run: ModuleNotFoundError"):
        find_space(f"{mine}:tiny")


@pytest.mark.parametrize("name", SPACES)
def test_a_parameter_has_one_range_wherever_it_is_drawn(name):
    """One name with two ranges crashes TPE or merges silently."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    ranges = {}
    for _ in range(150):
        trial = study.ask()
        config = SPACES[name].draw(trial)
        for parameter, distribution in trial.distributions.items():
            assert ranges.setdefault(parameter, distribution) == distribution
        assert SPACES[name].draw(optuna.trial.FixedTrial(trial.params)) == config, "a point can be replayed"
