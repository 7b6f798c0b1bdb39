"""SEARCHERS, and how a configuration is drawn from a space."""

import warnings
from collections.abc import Mapping

import numpy as np
import optuna
from optuna.distributions import distribution_to_json

from sweeps.search.space import Space
from sweeps.search.tpe import Tpe
from sweeps.search.user_code import UserCode, UserFault
from trainable.config import TrialConfig
from trainable.errors import BadInput, short
from trainable.schema import SCALAR

optuna.logging.set_verbosity(optuna.logging.WARNING)

# Each makes an Optuna sampler from a seed.
SEARCHERS = {
    "tpe": Tpe,
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def draw_config(space: Space, trial: optuna.Trial, **fixed) -> TrialConfig:
    """Draw from a space; `fixed` are fields that are not its to choose.

    Raises:
        BadInput: the space raised, or returned something that is no TrialConfig.
    """
    try:
        drawn = space.draw(trial)
        if not isinstance(drawn, dict):
            raise BadInput(f"returned {type(drawn).__name__}, not a dict")
        config = TrialConfig.from_flat({**drawn, **fixed})
        _check_values(config, trial)
        return config
    except UserFault:
        raise
    except (Exception, SystemExit) as wrong:
        where = f" ({space.draw.where})" if isinstance(space.draw, UserCode) else ""
        raise BadInput(f"the space does not work: {type(wrong).__name__}: {wrong}{where}") from wrong


def _check_values(config: TrialConfig, trial: optuna.Trial):
    """Raises BadInput for what would not be the same when it is read from the record again."""
    choices = [
        (f"a choice of {name}", choice)
        for name, distribution in trial.distributions.items()
        for choice in getattr(distribution, "choices", ())
    ]
    for name, value in (*choices, *config.flat().items(), *trial.params.items()):
        if not SCALAR.fits(value):
            raise BadInput(f"{name} is {short(repr(value))}; it should be {SCALAR.words}")


def replay(space: Space, params: Mapping) -> tuple[TrialConfig, optuna.trial.FixedTrial]:
    """What the space makes of these parameters, and the trial that it drew them as.

    Raises:
        BadInput: it asks for one that is not among them, or could not have drawn a value.
    """
    fixed = optuna.trial.FixedTrial(dict(params))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values out of range, which are looked at here
        config = draw_config(space, fixed)
    for name, distribution in fixed.distributions.items():
        if not distribution._contains(distribution.to_internal_repr(fixed.params[name])):
            raise BadInput(f"the space does not draw {name} = {fixed.params[name]}")
    return config, fixed


def distributions_of(trial) -> dict[str, str]:
    """What each parameter of an Optuna trial was drawn from, as Optuna's JSON."""
    return {name: distribution_to_json(d) for name, d in trial.distributions.items()}


def first_configs(space: Space) -> list[TrialConfig]:
    """What a search would begin with: the space's starting points, or three draws where it has none."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in space.start:
        study.enqueue_trial(point)
    return [draw_config(space, study.ask()) for _ in space.start or range(3)]


def seed_of(seed: int, number: int) -> int:
    """Of the sampler that draws a trial: every trial its own."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
