"""What a sweep does with its time: the search, then the finalists."""

import time

from sweeps.choose.finalists import LONGER, Plan, make_plan, taught, teachers
from sweeps.search.draw import SEARCHERS
from sweeps.search.launch import Ending
from sweeps.search.record import Record
from sweeps.search.refits import refits
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import Search
from sweeps.search.space import Space
from sweeps.sweep import Sweep


class Phases:
    """Each returns None, or in one line what broke it off; what is done already is not done again."""

    def __init__(self, sweep: Sweep, record: Record, space: Space, budgets: list[float], places, ending: Ending):
        self.sweep, self.record, self.space, self.budgets = sweep, record, space, budgets
        self.places, self.ending, self.args = places, ending, sweep.args
        self.again = sweep.earlier.lost() if sweep.earlier else []
        self.hopeless = False  # whether the search was given up

    def search(self) -> str | None:
        args = self.args
        search = Search(
            self.space,
            self.record,
            sampler=SEARCHERS[args.searcher],
            scheduler=SCHEDULERS[args.scheduler](),
            rungs=self.budgets,
            metric=args.metric,
            trials=args.trials,
            seed=args.seed,
            is_over=self.ending.is_over,
            again=self.again,
        )
        broken = self.sweep.search(search, self.places, self.ending)
        self.hopeless = bool(search.failures.hopeless)
        return broken

    def finalists(self) -> str | None:
        """With the rest of the time. Where it is too short for one, the search has it."""
        args, sweep = self.args, self.sweep
        if self.ending.asked.is_set() or args.finalists == 0:
            return None
        sweep.say(f"Searched for {self.record.t / 60:.1f} minutes.")
        self.ending.give(sweep.left())
        seconds = self.ending.seconds_left()
        if args.use_unlabelled and seconds is not None:
            seconds /= 2
        plan, until = self._plan(seconds), time.monotonic() + (seconds or 0.0)
        if not plan.finalists and args.time_budget and args.trials is None and not self.hopeless:
            sweep.say(f"{plan.words()} The search goes on.")
            return self.search()
        broken, asked = self._train(plan), plan.jobs
        # What was planned may be done sooner than it should be: then there is time for more.
        while seconds is not None and plan.finalists and not broken and not self.ending.is_over():
            plan = self._plan(until - time.monotonic())
            if all(job in asked for job in plan.jobs):
                break
            broken, asked = self._train(plan), asked + plan.jobs
        teach = teachers(plan, sweep.folder, sweep.data) if args.use_unlabelled and plan.finalists else {}
        if teach and not broken and not self.ending.is_over():
            broken = self._train(taught(plan, sweep.data), teach)
        return broken

    def _plan(self, seconds: float | None) -> Plan:
        args, sweep = self.args, self.sweep
        epochs = [args.finalist_epochs] if args.finalist_epochs else [args.max_epochs * times for times in LONGER]
        slots, seeds = self.places.slots, args.finalist_seeds
        return make_plan(sweep.folder, sweep.data, args.finalists, args.folds, epochs, slots, seconds, seeds, args.last_fit)

    def _train(self, plan: Plan, teach=None) -> str | None:
        self.sweep.say(plan.words())
        if not plan.finalists:
            return None
        final = refits(plan.jobs, plan.epochs, self.record, is_over=self.ending.is_over, again=self.again)
        return self.sweep.search(final, self.places, self.ending, keep=len(final.refits), teachers=teach)
