"""Search: what to try next, and who goes on. Optuna's study in memory, the record beside it; no Ray here."""

import json
from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from sweeps.search.record import Record
from sweeps.search.space import Space
from trainable.config import TrialConfig
from trainable.errors import BadInput

optuna.logging.set_verbosity(optuna.logging.WARNING)

# Each makes an Optuna sampler from a seed.
SEARCHERS = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}

HOPELESS = 20  # failures without a success between them, after which a search ends
METRICS = ("val_loss", "val_error")


def draw_config(space: Space, trial: optuna.Trial, **fixed) -> TrialConfig:
    """Draw from a space; `fixed` are fields that are not its to choose.

    Raises:
        BadInput: the space raised, or returned something that is no TrialConfig.
    """
    try:
        drawn = space.draw(trial)
        if not isinstance(drawn, dict):
            raise BadInput(f"returned {type(drawn).__name__}, not a dict")
        return TrialConfig.from_flat({**drawn, **fixed})
    except Exception as wrong:
        raise BadInput(f"the space does not work: {type(wrong).__name__}: {wrong}") from wrong


def first_configs(space: Space) -> list[TrialConfig]:
    """What a search would begin with: the space's starting points, or three draws where it has none."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in space.start:
        study.enqueue_trial(point)
    return [draw_config(space, study.ask()) for _ in space.start or range(3)]


class Search:
    """The policy of a sweep, fed with results and asked for trials.

    Args:
        metric: one of METRICS, to be minimised.
        rungs: budgets in epochs, ascending; the last is the whole training.
        trials: how many to start at most; None: no limit.
        seed: of the first trial; each next one has one more. None: the space says.
        is_over: whether to start no more.
    """

    def __init__(
        self,
        space: Space,
        record: Record,
        *,
        sampler: optuna.samplers.BaseSampler,
        scheduler,
        rungs: list[float],
        metric: str = "val_loss",
        trials: int | None = None,
        seed: int | None = 0,
        is_over: Callable[[], bool] = lambda: False,
    ):
        self.space, self.record, self.scheduler = space, record, scheduler
        self.rungs, self.metric, self.trials, self.seed, self.is_over = rungs, metric, trials, seed, is_over
        self.study = optuna.create_study(sampler=sampler, direction="minimize")
        for point in space.start:
            self.study.enqueue_trial(point)
        self.started = 0  # not len(study.trials): that counts what is enqueued
        self.failures = 0  # since the last trial that did not fail
        self._asked: dict[int, optuna.Trial] = {}
        self._times: dict[int, dict] = {}

    def ask(self) -> tuple[int, dict] | None:
        """The next trial's number and flat configuration, or None: no more are wanted.

        Raises:
            BadInput: the space returned something that is no TrialConfig.
        """
        if self.is_over() or self.started == self.trials or self.failures >= HOPELESS:
            return None
        trial = self.study.ask()
        seed = {} if self.seed is None else {"seed": self.seed + trial.number}
        config = draw_config(self.space, trial, epochs=self.rungs[-1], **seed).flat()
        self.started += 1
        self._asked[trial.number] = trial
        self.record.trial_started(trial.number, config, trial.params)
        return trial.number, config

    def hear(self, number: int, result: dict) -> bool:
        """Take a trial's result; whether it goes on."""
        if number not in self._asked:
            return False  # lost before, and started again by Tune: it has ended for us
        trial = self._asked[number]
        self._times[number] = {name: result.get(name, 0.0) for name in ("train_s", "eval_s")}
        if "failed" in result:
            return self._end(number, "failed", result["failed"])
        if result["budget"] == 0:
            return self._end(number, "interrupted", "the search ended before it began")
        rung = len(trial.storage.get_trial(trial._trial_id).intermediate_values)
        kept = ("budget", "val_loss", "val_error", "train_loss", "temperature", "parameters", "engine", "train_s", "eval_s")
        metrics = {name: result[name] for name in kept if name in result}
        self.record.rung(number, rung, metrics, json.loads(result.get("files", "{}")))
        trial.report(metrics[self.metric], rung)
        if result["interrupted"]:
            return self._end(number, "interrupted", f"the search ended at {metrics['budget']:.2f} epochs")
        if rung == len(self.rungs) - 1:
            return self._end(number, "complete", "", metrics[self.metric])
        verdict = self.scheduler.judge(rung, metrics[self.metric])
        return verdict.go_on or self._end(number, "stopped", verdict.reason)

    def lose(self, number: int, reason: str):
        """A trial's process died."""
        if number in self._asked:
            self._end(number, "failed", reason)

    def abandon(self, reason: str):
        """The search cannot go on: end what is still running."""
        for number in list(self._asked):
            self._end(number, "interrupted", reason)

    def _end(self, number: int, state: str, reason: str, value: float | None = None) -> bool:
        trial = self._asked.pop(number)
        self.record.trial_ended(number, state, reason, **self._times.pop(number, {}))
        self.failures = self.failures + 1 if state == "failed" else 0
        # A stopped trial keeps its values by rung, so the sampler compares like with like; one that never
        # reported has nothing to compare.
        if state == "complete":
            self.study.tell(trial, value)
        elif trial.storage.get_trial(trial._trial_id).intermediate_values and state != "failed":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, state=TrialState.FAIL)
        return False
