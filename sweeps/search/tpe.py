"""Tpe: the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) over a Memory's few trials, in arrays.

The models are those of Optuna's TPESampler, which takes three times as long (LOG.md), most of it outside of arithmetic. One
difference: parameters that always come together, as a network's own knobs, are drawn together, not each by itself.
"""

import math

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr, ndtri

from sweeps.search.memory import merit

STARTUP = 10  # trials before the models are used
CANDIDATES = 24
EVEN = 25  # the last trials, which have full weight
ROOT = 0.5 * math.log(2 * math.pi)


class Tpe(BaseSampler):
    """An Optuna sampler that draws the parameters of one trial, of a study to be minimised."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.drawn: dict[str, object] = {}

    def infer_relative_search_space(self, study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        shown = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        ended = [t for t in shown if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        ended.sort(key=merit)
        if len(ended) < STARTUP:
            self.good, self.bad = [], []
            return {}
        good = min(math.ceil(0.1 * len(ended)), 25)
        self.good = sorted(ended[:good], key=lambda t: t.number)
        # What runs counts as bad: else it would be proposed again.
        self.bad = sorted(ended[good:] + [t for t in shown if t.state == TrialState.RUNNING], key=lambda t: t.number)
        return _common(ended)

    def sample_relative(self, study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict:
        self.taken = set(search_space)
        return self.draw(search_space) if search_space else {}

    def sample_independent(self, study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution):
        if param_name not in self.drawn:
            having = [t for t in self.good + self.bad if t.state != TrialState.RUNNING and param_name in t.distributions]
            space = {name: d for name, d in _common(having).items() if name not in self.taken and name not in trial.params}
            if space.get(param_name) != param_distribution:
                space = {param_name: param_distribution}
            self.drawn |= self.draw(space)
        return self.drawn.pop(param_name)

    def draw(self, space: dict[str, BaseDistribution]) -> dict:
        """The best of some candidates drawn from the good trials' model: likely there, unlikely among the bad."""
        good, bad = _Model(space, self.good), _Model(space, self.bad)
        numbers, choices = good.sample(self.rng)
        best = int(np.argmax(good.log(numbers, choices) - bad.log(numbers, choices)))
        found = {name: axis.value(numbers[best, i]) for i, (name, axis) in enumerate(good.axes.items())}
        return found | {name: space[name].choices[chosen[best]] for name, chosen in choices.items()}


def _common(trials: list[FrozenTrial]) -> dict[str, BaseDistribution]:
    """What can be drawn of the parameters that all these trials have."""
    if not trials:
        return {}
    first, *others = (t.distributions for t in trials)
    return {name: d for name, d in sorted(first.items()) if not d.single() and all(_same(other.get(name), d) for other in others)}


def _same(one: BaseDistribution | None, other: BaseDistribution) -> bool:
    return one is other or one == other  # a comparison takes ten times as long, and Memory has equal ones once


class _Axis:
    """A number's range as [0, 1], half a step further at both ends where it has steps."""

    def __init__(self, d):
        self.d, self.half = d, (d.step or 0) / 2
        ends = d.low - self.half, d.high + self.half
        self.low, self.high = (math.log(end) for end in ends) if d.log else ends

    def place(self, values: np.ndarray) -> np.ndarray:
        return ((np.log(values) if self.d.log else values) - self.low) / (self.high - self.low)

    def value(self, place: float):
        value = self.low + place * (self.high - self.low)
        value = math.exp(value) if self.d.log else value
        if self.half:
            value = self.d.low + round((value - self.d.low) / self.d.step) * self.d.step
        value = min(max(value, self.d.low), self.d.high)
        return int(value) if isinstance(self.d.low, int) else float(value)


class _Model:
    """A mixture of one kernel a trial, and a broad one: truncated normals, as wide as the neighbours are far, and choices."""

    def __init__(self, space: dict[str, BaseDistribution], trials: list[FrozenTrial]):
        params = [t.params for t in trials if all(_same(t.distributions.get(name), d) for name, d in space.items())]
        n = len(params)
        ramp = np.linspace(1 / n, 1, n - EVEN) if n > EVEN else []
        weights = np.concatenate([ramp, np.ones(min(n, EVEN) + 1)])
        self.weights = weights / weights.sum()
        self.axes = {name: _Axis(d) for name, d in space.items() if not isinstance(d, CategoricalDistribution)}
        self.middle = np.full((n + 1, len(self.axes)), 0.5)
        for i, (name, axis) in enumerate(self.axes.items()):
            self.middle[:n, i] = axis.place(np.array([p[name] for p in params], dtype=float))
        self.width = _widths(self.middle[:n])
        self.inside = np.log(ndtr((1 - self.middle) / self.width) - ndtr(-self.middle / self.width))
        self.choices = {}
        for name, d in space.items():
            if isinstance(d, CategoricalDistribution):
                table = np.full((n + 1, len(d.choices)), 1 / (n + 1))
                table[range(n), [d.choices.index(p[name]) for p in params]] += 1
                self.choices[name] = table / table.sum(1, keepdims=True)

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        kernel = rng.choice(len(self.weights), CANDIDATES, p=self.weights)
        middle, width = self.middle[kernel], self.width[kernel]
        low, high = ndtr(-middle / width), ndtr((1 - middle) / width)
        numbers = np.clip(middle + width * ndtri(low + rng.random(middle.shape) * (high - low)), 0, 1)
        for i, axis in enumerate(self.axes.values()):
            if axis.half:
                numbers[:, i] = axis.place(np.array([axis.value(x) for x in numbers[:, i]], dtype=float))
        choices = {}
        for name, table in self.choices.items():
            sums = table[kernel].cumsum(1)
            choices[name] = (sums[:, :-1] < rng.random((CANDIDATES, 1))).sum(1)
        return numbers, choices

    def log(self, numbers: np.ndarray, choices: dict[str, np.ndarray]) -> np.ndarray:
        """Log densities of candidates; where a number has steps, log probabilities."""
        far = (numbers[:, None] - self.middle) / self.width  # [candidates, kernels, axes]
        each = -0.5 * far**2 - np.log(self.width) - ROOT
        for i, axis in enumerate(self.axes.values()):
            if axis.half:
                values = np.array([axis.value(x) for x in numbers[:, i]], dtype=float)
                ends = (axis.place(values + side * axis.half)[:, None] for side in (-1, 1))
                left, right = (ndtr((end - self.middle[:, i]) / self.width[:, i]) for end in ends)
                each[:, :, i] = np.log(np.maximum(right - left, 1e-300))
        total = (each - self.inside).sum(2) + np.log(self.weights)
        for name, table in self.choices.items():
            total += np.log(table[:, choices[name]]).T
        top = total.max(1, keepdims=True)
        return np.log(np.exp(total - top).sum(1)) + top[:, 0]


def _widths(middle: np.ndarray) -> np.ndarray:
    """Of each kernel on each axis the distance to the farther neighbour, within limits; of the broad one 1."""
    n, axes = middle.shape
    widths = np.ones((n + 1, axes))
    if n:
        order = np.argsort(middle, 0)
        ends = np.concatenate([np.zeros((1, axes)), np.take_along_axis(middle, order, 0), np.ones((1, axes))])
        gaps = np.diff(ends, axis=0)
        far = np.maximum(gaps[:-1], gaps[1:])
        if n > 1:
            far[0], far[-1] = gaps[1], gaps[-2]
        np.put_along_axis(widths[:n], order, np.clip(far, 1 / min(100, n + 2), 1), 0)
    return widths
