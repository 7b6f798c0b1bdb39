import random

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.trial import TrialState, create_trial

from sweeps.search.memory import BEST, RECENT, Memory
from sweeps.search.tpe import Tpe, _Model

SPACE = {
    "a": FloatDistribution(0.0, 1.5),
    "b": FloatDistribution(1e-5, 5e-2, log=True),
    "c": IntDistribution(16, 32, step=8),
    "d": IntDistribution(1, 64, log=True),
    "e": CategoricalDistribution(["x", "y", "z"]),
    "f": FloatDistribution(0, 1, step=0.25),
}


def told(n: int) -> list:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for i in range(n):
        study.tell(study.ask(SPACE), i)
    return study.get_trials()


@pytest.mark.parametrize("n", [0, 1, 2, 7, 40])
@pytest.mark.filterwarnings("ignore")
def test_the_model_is_optunas(n):
    """Its densities, but for the ranges by which continuous numbers are scaled; and what is drawn from it."""
    trials = told(n)
    model = _Model(SPACE, trials)
    numbers, choices = model.sample(np.random.default_rng(0))
    sampler = optuna.samplers.TPESampler()
    observations = sampler._get_internal_repr(trials, SPACE, optuna.create_study())
    optunas = _ParzenEstimator(observations, SPACE, sampler._parzen_estimator_parameters)
    samples = {name: np.array([axis.value(x) for x in numbers[:, i]], float) for i, (name, axis) in enumerate(model.axes.items())}
    samples |= {name: chosen.astype(float) for name, chosen in choices.items()}
    scale = -np.log(1.5) - np.log(np.log(5e-2 / 1e-5))
    theirs = optunas.log_pdf({name: samples[name] for name in SPACE})
    # b has the density of its logarithm here, and of itself there
    assert theirs - model.log(numbers, choices) == pytest.approx(np.full(len(theirs), scale), abs=1e-6)
    many = np.concatenate([model.sample(np.random.default_rng(seed))[0] for seed in range(100)])
    other = optunas.sample(np.random.RandomState(0), 2400)
    for i, (name, axis) in enumerate(model.axes.items()):
        ours = np.array([axis.value(x) for x in many[:, i]])
        assert abs(ours.mean() - other[name].mean()) < 6 * other[name].std() / 2400**0.5


def branin_like(trial) -> float:
    """With a branch whose parameters are its own."""
    x = trial.suggest_float("x", -5, 10)
    if trial.suggest_categorical("kind", ["near", "far"]) == "near":
        return (x - 2) ** 2 + (trial.suggest_float("near.y", 0.01, 100, log=True) - 3) ** 2 / 10
    return 20 + (x - 2) ** 2 + trial.suggest_int("far.k", 0, 9)


def test_it_finds_better_than_chance():
    best = {}
    for name, make in (("ours", Tpe), ("random", lambda seed: optuna.samplers.RandomSampler(seed=seed))):
        found = []
        for run in range(5):
            study = optuna.create_study(storage=Memory())
            for number in range(60):
                study.sampler = make(1000 * run + number)
                trial = study.ask()
                value = branin_like(trial)
                study.tell(trial, value)
                assert trial.params.keys() in ({"x", "kind", "near.y"}, {"x", "kind", "far.k"})
            found.append(study.best_value)
        best[name] = np.log(found).mean()
    assert best["ours"] < best["random"] - 1


def test_a_resumed_memory_shows_what_an_uninterrupted_one_shows():
    dice, memory, live, values = random.Random(0), Memory(), [], {}
    study = optuna.create_study(storage=memory)
    for _ in range(400):
        live.append(study.ask()._trial_id)
        if len(live) > 5:
            ended = live.pop(dice.randrange(6))
            values[ended] = dice.random()
            memory.set_trial_state_values(ended, TrialState.COMPLETE, [values[ended]])
    again = optuna.create_study(storage=Memory())
    for i in range(400):
        again.add_trial(create_trial(state=TrialState.COMPLETE if i in values else TrialState.RUNNING, value=values.get(i)))
    shown = [t.number for t in study.get_trials(deepcopy=False)]
    assert shown == [t.number for t in again.get_trials(deepcopy=False)]
    assert BEST + RECENT - 15 < len(shown) <= BEST + RECENT + 5
    assert sorted(values, key=values.get)[:BEST] == sorted(
        set(sorted(values, key=values.get)[:BEST]) & set(shown), key=values.get
    )
