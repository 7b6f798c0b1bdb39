"""What a searcher remembers: the trials that its next proposal can depend on, so that the ten-thousandth costs what the
hundredth did."""

import bisect

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

BEST, RECENT = 20, 40


class Memory(InMemoryStorage):
    """Optuna's storage in memory, of one study to be minimised, that shows the BEST trials, the RECENT last, and all that run.

    TPE models the best tenth of what it sees against the rest, and gives older trials less weight the more there are
    (Bergstra et al., NeurIPS 2011). LOG.md has what forgetting costs. Equal distributions are one object.
    """

    def __init__(self):
        super().__init__()
        self._best: list[tuple[tuple, int]] = []  # (merit, trial id), lowest first
        self._recent: list[int] = []  # trial ids; not in the order they ended, which a resumed search does not know
        self._live: set[int] = set()
        self._known: dict[tuple[str, BaseDistribution], BaseDistribution] = {}

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        trial = self.get_trial(trial_id)  # the very object that is kept
        trial.distributions = {name: self._one(name, d) for name, d in trial.distributions.items()}
        self._live.add(trial_id)
        self._note(trial_id)
        return trial_id

    def set_trial_param(self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution):
        super().set_trial_param(trial_id, param_name, param_value_internal, self._one(param_name, distribution))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values=None) -> bool:
        changed = super().set_trial_state_values(trial_id, state, values)
        self._note(trial_id)
        return changed

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states=None) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,):
            return super().get_all_trials(study_id, deepcopy, states)
        trials = [self.get_trial(trial_id) for trial_id in sorted(self._shown())]
        return [trial for trial in trials if states is None or trial.state in states]

    def _shown(self) -> set[int]:
        return {trial_id for _, trial_id in self._best} | set(self._recent) | self._live

    def _one(self, name: str, distribution: BaseDistribution) -> BaseDistribution:
        return self._known.setdefault((name, distribution), distribution)

    def _note(self, trial_id: int):
        trial = self.get_trial(trial_id)
        if not trial.state.is_finished():
            return
        self._live.discard(trial_id)
        if trial.state == TrialState.FAIL:
            return
        bisect.insort(self._recent, trial_id)
        bisect.insort(self._best, (merit(trial), trial_id))
        left = {*self._recent[:-RECENT], *(trial_id for _, trial_id in self._best[BEST:])}
        del self._recent[:-RECENT], self._best[BEST:]
        for gone in left - self._shown():  # it will not be shown again: what fills the memory is dropped
            trial = self.get_trial(gone)
            trial.params, trial.distributions, trial.system_attrs = {}, {}, {}


def merit(trial: FrozenTrial) -> tuple:
    """As TPE ranks: those that trained to the end by their value, then the others by how far they came and their value."""
    if trial.state == TrialState.COMPLETE:
        return 0, 0, trial.value
    step, value = max(trial.intermediate_values.items(), default=(-1, 0.0))
    return 1, -step, value


def study_state(state: str, values: list[float]) -> tuple[TrialState, list[float] | None]:
    """How a trial's end is told to the study: its state, and its value.

    A stopped trial keeps its values by rung, so the sampler compares like with like; one that never reported has
    nothing to compare.
    """
    if state == "complete":
        return TrialState.COMPLETE, values[-1:]
    return (TrialState.PRUNED if values and state != "failed" else TrialState.FAIL), None
