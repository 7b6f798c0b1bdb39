"""Search: what to try next, and who goes on. Optuna's study in memory, the record beside it; no Ray here."""

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import TrialState, create_trial

from sweeps.search.draw import distributions_of, draw_config, seed_of
from sweeps.search.hopeless import ALIKE, OUT_OF_MEMORY, Failures
from sweeps.search.job import Job, Running
from sweeps.search.memory import Memory, study_state
from sweeps.search.record import Record, read, rows
from sweeps.search.space import Space

FAR = 2.0  # times the worst value that goes on: beyond it, no starting point is good
DEATHS = 3  # of its process, after which a trial has failed
PARTS = 4  # in which a batch is computed that did not fit into memory
METRICS = ("val_loss", "val_error")
KEPT = ("budget", "val_loss", "val_error", "train_loss", "temperature", "parameters", "engine", "node_ip", "train_s", "eval_s")


class Search:
    """The policy of a sweep, fed with results and asked for trials.

    Where the record has trials already, the search goes on from them: those that were interrupted are the first that it
    asks to go on with, and it decides as one that was never cut off. Proposals depend on the seed, the trial's number and
    the results before it, on nothing else. A starting point that its space is sure of goes on, unless it is FAR off (LOG.md).

    Args:
        sampler: makes an Optuna sampler from a seed, an entry of SEARCHERS.
        metric: one of METRICS, to be minimised.
        rungs: budgets in epochs, ascending; the last is the whole training.
        trials: how many to start at most; None: no limit.
        refits: where this is no search, but trains configurations of one again: of which trial each is. Searches and
            refits of one record know nothing of each other.
        seed: of the first trial; each next one has one more. None: the space says.
        is_over: whether to start no more.
        again: numbers of trials to train again, though they have ended: their networks are lost.
        own_epochs: let the space set the epochs of each trial; `rungs` are then shares of these.
        alike: failures for one reason, after which it ends if no trial has had a result.
    """

    def __init__(
        self,
        space: Space,
        record: Record,
        *,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        scheduler,
        rungs: list[float],
        metric: str = "val_loss",
        trials: int | None = None,
        seed: int | None = 0,
        is_over: Callable[[], bool] = lambda: False,
        again: Iterable[int] = (),
        refits: Sequence[int] | None = None,
        own_epochs: bool = False,
        alike: int = ALIKE,
    ):
        self.space, self.record, self.sampler, self.scheduler = space, record, sampler, scheduler
        self.rungs, self.metric, self.trials, self.seed, self.is_over = rungs, metric, trials, seed, is_over
        self.memory, self.refits, self.own_epochs = Memory(), refits, own_epochs
        self.failures = Failures(alike)
        self._last_try = False
        self.study = optuna.create_study(storage=self.memory, direction="minimize")
        self.started = 0  # not len(study.trials): that counts what is enqueued
        self.next = 0  # number in the record
        self._places: dict[int, int] = {}  # in the study, by number
        self._running: dict[int, Running] = {}
        self._waiting: deque[int] = deque()  # of those, to be started again
        learned = rows(record.path, "learned")
        told = [row["data"] for row in learned if row["what"] == "told"]
        start = [row["data"] for row in learned if row["what"] == "start"] or list(space.start)
        self.sure = 0 if learned or refits is not None else space.sure
        self.elsewhere = len(told)  # trials of another sweep come first in the study
        for trial in told:
            values = {int(rung): value for rung, value in trial["values"].items()}
            self._add(trial, *study_state(trial["state"], [value for _, value in sorted(values.items())]), values)
        self._go_on(set(again))
        for point in start[self.started :]:
            self.study.enqueue_trial(point)

    def ask(self) -> Job | None:
        """The next trial to start, or None: none, or none yet (see `finished`).

        Raises:
            BadInput: the space returned something that is no TrialConfig.
        """
        if any(self._running[n].alone and n not in self._waiting for n in self._running):
            return None
        if self.is_over():
            if not self._lacks_a_network:
                return None
            self._last_try = True
        if self._waiting:
            return self._start_again(self._waiting.popleft())
        if not self._wants_more():
            return None
        # A sampler of its own for each trial, so that a resumed search draws what an uninterrupted one would.
        number, of = self.next, self.refits[self.started] if self.refits is not None else None
        self.study.sampler = self.sampler(seed_of(self.seed or 0, number))
        trial = self.study.ask()
        fixed = {} if self.seed is None else {"seed": self.seed + number}
        if not self.own_epochs:
            fixed["epochs"] = self.rungs[-1]
        config = draw_config(self.space, trial, **fixed).flat()
        self.started, self.next, self._places[number] = self.started + 1, number + 1, trial.number
        self._running[number] = Running(config, {}, starts=1)
        self.record.trial_started(number, config, trial.params, distributions_of(trial), of)
        return Job(number, config)

    @property
    def finished(self) -> bool:
        """Whether nothing runs, and nothing more will be started."""
        over = self.is_over() and not self._lacks_a_network
        return not self.active and (over or not (self._waiting or self._wants_more()))

    @property
    def _lacks_a_network(self) -> bool:
        """Return whether a search that is over starts one trial all the same: it had no time for a step of any."""
        return self.refits is None and not (self.failures.proven or self.active or self._last_try)

    @property
    def active(self) -> int:
        """How many trials run."""
        return len(self._running) - len(self._waiting)

    def beyond(self, places: int) -> frozenset[int]:
        """The trials that run though there are only so many places: those that were begun last."""
        return frozenset(sorted(self._running.keys() - self._waiting)[max(0, places) :])

    def arch(self, number: int) -> str:
        """Return the architecture of a trial that runs."""
        trial = self._running.get(number)
        return trial.config["arch"] if trial else "ended"

    def _wants_more(self) -> bool:
        return (self.trials is None or self.started < self.trials) and not self.failures.hopeless

    def hear(self, number: int, result: dict) -> bool:
        """Take a trial's result; whether it goes on.

        A result has `budget`, `val_loss`, `val_error`, `train_s`, `eval_s`, `interrupted` (before the rung's budget),
        `rung`, and `files` (their digests, as JSON); or `failed`, or `out_of_memory`, with the reason.
        """
        if number not in self._running or number in self._waiting:
            return False
        trial = self._running[number]
        trial.times = {name: result.get(name, 0.0) for name in ("train_s", "eval_s")}
        if "out_of_memory" in result:
            return self._retry_alone(number, f"{OUT_OF_MEMORY}: {result['out_of_memory']}")
        if "failed" in result:
            return self._end(number, "failed", result["failed"], result.get("trace", ""))
        if result["budget"] == 0:
            return self._end(number, "interrupted", "the search ended before it began")
        rung = result.get("rung", trial.rung)
        trial.rung = rung + 1
        metrics = {name: result[name] for name in KEPT if name in result}
        if not math.isfinite(metrics.get(self.metric, math.nan)):
            return self._end(number, "failed", f"its result has no {self.metric}, or none that is a number")
        self.failures.result()
        files = json.loads(result.get("files", "{}"))
        if result["interrupted"]:
            end = "interrupted", f"the search ended at {metrics['budget']:.2f} epochs"
            if rung in trial.known:
                return self._end(number, *end)
            self.record.rung(number, rung, metrics, files, partial=True, end=end)
            return self._tell(number, "interrupted", more=[(rung, metrics[self.metric])])
        if rung in trial.known:  # trained again, from an older state
            return self._again(number, rung, files)
        trial.known[rung] = metrics
        end = self._judge(number, rung, metrics[self.metric])
        self.record.rung(number, rung, metrics, files, end=end)
        self.memory.set_trial_intermediate_value(self._id(number), rung, metrics[self.metric])
        return end is None or self._tell(number, end[0])

    def lose(self, number: int, reason: str, *, memory: bool = False, machine: bool = False):
        """A trial's process died; it is started again from what it handed over, DEATHS times at most.

        `memory`: for want of it. `machine`: with its machine, which is not the trial's fault and is not counted.
        """
        if number not in self._running or number in self._waiting:
            return
        trial = self._running[number]
        trial.deaths += not (machine or memory)
        if memory:
            self._retry_alone(number, reason)
        elif trial.deaths >= DEATHS:
            self._end(number, "failed", f"{reason}, {DEATHS} times")
        else:
            self._restart(number, reason)

    def close(self, reason: str):
        """The search goes no further: what still runs or waits is interrupted; what was not started stays as it is."""
        for number, trial in list(self._running.items()):
            if trial.starts:
                self._end(number, "interrupted", reason)

    def _judge(self, number: int, rung: int, value: float) -> tuple[str, str] | None:
        """How a trial ends at this rung, (state, reason), or None."""
        if rung == len(self.rungs) - 1:
            return "complete", ""
        verdict = self.scheduler.judge(rung, value)
        go_on = verdict.go_on or (number < self.sure and value <= FAR * verdict.cut)
        return None if go_on else ("stopped", verdict.words(rung, value))

    def _again(self, number: int, rung: int, files: Mapping[str, str]) -> bool:
        trial = self._running[number]
        end = trial.ending if rung == max(trial.known) else None
        self.record.rung(number, rung, trial.known[rung], files or None, again=True, end=end)
        if end:
            del self._running[number]
        return end is None

    def _retry_alone(self, number: int, reason: str) -> bool:
        trial = self._running[number]
        if trial.alone:
            return self._end(number, "failed", f"{reason}; alone on its machine and with batches in {PARTS} parts, too")
        trial.alone = True
        trial.config = {**trial.config, "accumulate": PARTS}
        self._restart(number, f"{reason}; now alone, each batch in {PARTS} parts")
        return False

    def _restart(self, number: int, reason: str):
        self._running[number].why = reason
        self._waiting.append(number)

    def _start_again(self, number: int) -> Job:
        # Recorded now and not before: what it had is not given up for a start that may never come.
        trial = self._running[number]
        self.record.trial_restarted(number, trial.why, trial.config)
        trial.starts += 1
        return Job(number, trial.config, trial.starts - 1, trial.alone)

    def _end(self, number: int, state: str, reason: str, trace: str = "") -> bool:
        trial = self._running[number]
        if trial.ending:  # it had ended before; that it could not be trained again changes nothing of it
            state, reason = trial.ending
        self.record.trial_ended(number, state, reason, trial.times, trace)
        return self._tell(number, state, reason)

    def _tell(self, number: int, state: str, reason: str = "", more: Sequence[tuple[int, float]] = ()) -> bool:
        """The study hears how a trial ended. Always False: it does not go on."""
        trial = self._running.pop(number)
        if number in self._waiting:
            self._waiting.remove(number)
        if trial.ending:
            return False
        self.failures.ended(state, reason)
        for rung, value in more:
            self.memory.set_trial_intermediate_value(self._id(number), rung, value)
        values = [metrics[self.metric] for _, metrics in sorted(trial.known.items())] + [value for _, value in more]
        self.memory.set_trial_state_values(self._id(number), *study_state(state, values))
        return False

    def _id(self, number: int) -> int:
        return self.memory.get_trial_id_from_study_id_trial_number(self.study._study_id, self._places[number])

    def _add(self, trial: Mapping, state: TrialState, value: list[float] | None, values: dict[int, float]):
        """A trial that the study has not seen begin: its params and distributions, and its values by rung."""
        distributions = {name: json_to_distribution(d) for name, d in trial["distributions"].items()}
        self.study.add_trial(
            create_trial(
                state=state, params=trial["params"], distributions=distributions, values=value, intermediate_values=values
            )
        )

    def _go_on(self, again: set[int]):
        """Rebuild the study, the scheduler's rungs and the list of trials to go on with from the record."""
        trials, rungs = read(self.record.path)
        self.next = len(trials)
        trials = [trial for trial in trials if (trial["refits"] is None) == (self.refits is None)]
        known: dict[int, dict[int, dict]] = {trial["number"]: {} for trial in trials}
        for row in sorted(rungs, key=lambda row: row["seq"]):
            if row["number"] in known:
                self.failures.result()
            if not row["partial"] and row["number"] in known:
                known[row["number"]][row["rung"]] = row["metrics"]
                self._judge(row["number"], row["rung"], row["metrics"][self.metric])
        self.started = len(trials)
        for trial in trials:
            number, state = trial["number"], trial["state"]
            self._places[number] = self.elsewhere + len(self._places)
            mine = known[number]
            values = {rung: metrics[self.metric] for rung, metrics in sorted(mine.items())}
            ended = state not in ("running", "interrupted")
            told, value = study_state(state, list(values.values())) if ended else (TrialState.RUNNING, None)
            self._add(trial, told, value, values)
            if not ended or number in again:
                ending = (state, trial["reason"]) if ended else None
                self._running[number] = Running(trial["config"], mine, ending=ending)
                self._restart(number, "its network is lost or damaged" if ended else "the sweep is resumed")
