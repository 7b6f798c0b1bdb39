"""Finalists: the best configurations of a search, trained again on folds, so that every labelled image is judged by a
network that has not seen it; on folds of train alone where the user gave a val, which then judges."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import exp, isfinite, log, log2
from pathlib import Path

import numpy as np

from sweeps.choose.combine import LEAST_LOSS, grow, right_class
from sweeps.choose.members import LAST, SEED, Member, find, out_of_fold, unheard
from sweeps.search.record import read
from trainable.datasets.container import Dataset, in_folds

MOST = 8  # finalists, where nobody says how many: each next one adds less
FEW = 3  # where there is no time budget to fill
LONGER = (1.0, 1.5, 2.0)  # times the epochs of the search, where nobody says how many
FOLDS = (5, 6, 4, 3)  # where nobody says how many; the first where there is no limit
BY_EPOCHS, BY_IMAGES = 0.96, 0.88  # what remains of a loss with twice the epochs, or twice the images (LOG.md)
TRUE = 0.5  # of the logarithm of two good trials' losses on val; the rest is luck (LOG.md)
EARLY = 0.2  # of the longest training: what is seen before says next to nothing of the end (LOG.md)
HIGHEST = -log(1e-7)  # loss: a probability counts as at least so much
SLACK = 0.9  # of the time that is left may be planned: estimates err


@dataclass(frozen=True)
class Finalist:
    """A configuration to be trained on every fold."""

    trial: int  # of the search, whose configuration it is
    arch: str
    config: dict  # flat, without a fold
    an_epoch: float  # seconds for all images that are in folds, on one place, as the search measured it
    seed: int = 0  # which of those that it is trained with


@dataclass(frozen=True)
class Plan:
    finalists: tuple[Finalist, ...]
    folds: int
    epochs: float
    seconds: float  # that it should take
    last: bool = False  # whether each is trained once more in the end, on nearly all labels, to answer for all folds
    unlabelled: bool = False  # whether they learn from unlabelled images too
    why: str = ""  # there are no finalists

    @property
    def times(self) -> list[float]:
        """Seconds of each of the `jobs`."""
        an_epoch = {finalist.trial: finalist.an_epoch for finalist in self.finalists}
        return [an_epoch[of] * self.epochs * (config["folds"] - 1) / config["folds"] for of, config in self.jobs]

    @property
    def jobs(self) -> list[tuple[int, dict]]:
        """The networks to train: of which trial, and the flat configuration; all folds of one after the other."""
        more = {"epochs": self.epochs, "unlabelled": int(self.unlabelled)}
        seeded = [(f.trial, {**f.config, **more, "seed": f.config["seed"] + f.seed * SEED}) for f in self.finalists]
        folds = [(of, {**config, "folds": self.folds, "fold": fold}) for of, config in seeded for fold in range(self.folds)]
        return folds + [(of, {**config, "folds": LAST, "fold": 0}) for of, config in seeded if self.last]

    def words(self) -> str:
        if not self.finalists:
            return f"No finalists: {self.why}."
        names = ", ".join(f"{f.trial} {f.arch}{f' (seed {f.seed})' if f.seed else ''}" for f in self.finalists)
        many = f"{len(self.finalists)} finalists" if len(self.finalists) > 1 else "1 finalist"
        also = " and all unlabelled images, with the labels that the others of the fold gave them," if self.unlabelled else ""
        last = f" (and once more on all but the {LAST}th part)" if self.last else ""
        return (
            f"{many} (trials {names}), each trained on {self.folds} folds{last}{also} for {self.epochs:.3g} epochs: "
            f"{len(self.jobs)} networks, about {self.seconds / 60:.0f} minutes."
        )


def make_plan(
    folder: Path,
    data: Dataset,
    count: int | None,
    folds: int | None,
    epochs: Sequence[float],
    slots: int,
    seconds: float | None,
    seeds: int | None = 1,
    last: bool = False,
) -> Plan:
    """Which configurations to train again, so that it is done in time.

    The choice of configurations, epochs and folds that is done in time and promises the lowest cross-entropy: what each is
    worth, less what they bring each other, longer trainings and more images; then whoever else there is time for, and these
    again with other seeds, the best first. Never for fewer epochs than in the search: half of them are worth less than what
    the search has (LOG.md).

    Args:
        folder: of a sweep that has been searched.
        count: of finalists at most; None: as many as there is time for, MOST at most.
        folds: None: one of FOLDS. Folds and epochs that were begun are done first; without a limit there are no others.
        epochs: that each network may be trained for, the least first.
        slots: networks trained at a time.
        seconds: that are left; None: no limit.
        seeds: with how many each is trained on every fold; None: as many as there is time for.
        last: whether each is trained once more on nearly all labels.
    """
    images = len(in_folds(data))
    cuts = [some for some in ((folds,) if folds else FOLDS) if some <= images]
    nothing = Plan((), cuts[0] if cuts else images, epochs[0], 0.0)
    if count == 0:
        return replace(nothing, why="none were asked for")
    if not cuts:
        return replace(nothing, why=f"there are {images} labelled images, fewer than folds")
    last = last and images >= LAST
    taken = pick(find(folder, unheard), data.val.labels, count or (FEW if seconds is None else MOST))
    if not taken:
        return replace(nothing, why="no trial left a network")
    trials, rungs = read(folder / "record.db")
    configs = {trial["number"]: trial["config"] for trial in trials}
    done = _finished(trials)
    options = list(product(epochs, cuts))
    binding = ("running", "interrupted") if seconds is not None else ("running", "interrupted", "complete")
    candidates = {member.trial for member in taken}
    begun = [t["config"] for t in trials if t["refits"] in candidates and t["state"] in binding]
    bound = {(round(config["epochs"], 6), config["folds"]) for config in begun if not config.get("unlabelled")}
    options = [(budget, some) for budget, some in options if (round(budget, 6), some) in bound] or options
    labelled = images / len(data.train)
    finalists = []
    for member in taken:
        an_epoch = labelled * (member.metrics["train_s"] + member.metrics["eval_s"]) / member.metrics["budget"]
        finalists.append(Finalist(member.trial, member.arch, configs[member.trial], an_epoch))

    def plan(chosen: Iterable[int], budget: float, some: int, more: Iterable[tuple[int, int]] = ()) -> Plan:
        """`more`: seeds, and of whom."""
        seeded = [*product(range(seeds or 1), chosen), *more]
        return _timed(Plan(tuple(replace(finalists[i], seed=seed) for seed, i in seeded), some, budget, 0.0, last), done, slots)

    if seconds is None:
        return plan(range(len(taken)), *options[0])
    most = SLACK * seconds
    promised = promises(taken, data.val.labels, worth(taken, rungs))
    order = sorted(promised, key=lambda chosen: (-len(chosen) if count else 0, promised[chosen]))
    found = []
    for budget, some in options:
        fits = next((chosen for chosen in order if plan(chosen, budget, some).seconds <= most), None)
        if fits:
            share = labelled * (some - 1) / some  # that a network learns from, to those of the search's
            remains = BY_EPOCHS ** log2(budget / epochs[0]) * BY_IMAGES ** log2(share)
            found.append((-len(fits) if count else 0, promised[fits] * remains, fits, (budget, some)))
    if found:
        *_, chosen, option = min(found)
        for i in range(len(taken)):  # the time that is still left
            larger = tuple(sorted({*chosen, i}))
            chosen = larger if plan(larger, *option).seconds <= most else chosen
        more = []
        for seeded in () if seeds else product(range(1, MOST), chosen):
            if plan(chosen, *option, [*more, seeded]).seconds <= most:
                more.append(seeded)
        return plan(chosen, *option, more)
    least = min((plan([i], *option) for i in range(len(taken)) for option in options), key=lambda plan: plan.seconds)
    why = f"one alone would need {least.seconds / 60:.1f} minutes for {least.folds} folds of {least.epochs:g} epochs, "
    return replace(nothing, why=f"{why}and {seconds / 60:.1f} are left")


def worth(members: Sequence[Member], rungs: Sequence[dict]) -> list[float]:
    """What each one's loss will be, to that of the middle one of those that were trained furthest.

    By its last result, also between two rungs, and what those had had by then: between two of their results, on a straight line
    in logarithms. But only a part of a difference, TRUE of its logarithm: the best of many on one val is lucky. `rungs` as in
    the record.
    """
    curves: dict[int, list[tuple[float, float]]] = {member.trial: [] for member in members}
    for row in sorted(rungs, key=lambda row: row["rung"]):
        if row["number"] in curves:
            metrics = row["metrics"]
            curves[row["number"]].append((log(round(metrics["budget"], 6)), _log_of_loss(metrics["val_loss"])))
    furthest = max((curve[-1][0] for curve in curves.values() if curve), default=None)
    whole = [np.array(curve).T for curve in curves.values() if curve and curve[-1][0] == furthest]

    def of(curve: list[tuple[float, float]]) -> float:
        if not curve:
            return 1.0
        at, loss = curve[-1]
        return exp(TRUE * (loss - float(np.median([np.interp(at, *other) for other in whole]))))

    return [of(curves[member.trial]) for member in members]


def _log_of_loss(loss: float) -> float:
    """The logarithm of a cross-entropy; one that is no number is the highest that there is."""
    return log(min(max(loss, LEAST_LOSS), HIGHEST) if isfinite(loss) else HIGHEST)


def promises(members: Sequence[Member], labels: np.ndarray, worths: Sequence[float]) -> dict[tuple[int, ...], float]:
    """Of every choice of members: what they are worth in the mean, times what remains of a loss when they are together.

    That is measured on val where all were trained to the end; where not, what usually remains (LOG.md): what has learned
    little differs much.
    """
    right = right_class(np.stack([member.val for member in members]), labels)
    alone, worths = np.maximum(-np.log(right).mean(axis=1), LEAST_LOSS), np.array(worths)
    trained = [round(member.metrics["budget"], 6) for member in members]
    out = {}
    for size in range(1, len(right) + 1):
        for chosen in map(list, combinations(range(len(right)), size)):
            remains = 0.7 + 0.3 / size
            if all(trained[i] == max(trained) for i in chosen):
                together = max(-np.log(right[chosen].mean(axis=0)).mean(), LEAST_LOSS)
                remains = together / alone[chosen].mean()
            out[tuple(chosen)] = float(remains * worths[chosen].mean())
    return out


def _timed(plan: Plan, done: set[tuple], slots: int) -> Plan:
    """With the time that its networks will take that are not `done`."""
    todo = [seconds for (of, config), seconds in zip(plan.jobs, plan.times, strict=True) if _key(of, config) not in done]
    return replace(plan, seconds=makespan(todo, slots))


def taught(plan: Plan, data: Dataset) -> Plan:
    """The same finalists once more, now with unlabelled images, in as many steps."""
    labelled = len(in_folds(data)) * (plan.folds - 1) / plan.folds
    epochs = plan.epochs * labelled / (labelled + len(data.unlabelled))
    return replace(plan, epochs=epochs, unlabelled=True)


def teachers(plan: Plan, folder: Path, data: Dataset) -> dict[int, np.ndarray]:
    """What the finalists' networks of each fold say of the unlabelled images together, probs [n, classes] by fold.

    They have not seen the images that judge the fold's network, so who learns from them can still be judged on these. Empty
    where a finalist is not trained on every fold.
    """
    wanted = {finalist.trial for finalist in plan.finalists}
    there = [member for member in out_of_fold(folder, data, unheard) if member.trial in wanted]
    # Those of other folds, from an earlier plan, have seen images that judge this plan's networks.
    of_plan = [member for member in there if len(member.networks) == plan.folds]
    members = [member for member in of_plan if not member.view and not member.unlabelled]
    if {member.trial for member in members} < wanted:
        return {}
    said = lambda fold: [member.networks[fold].probs["unlabelled"] for member in members]  # noqa: E731
    return {fold: np.mean(said(fold), axis=0) for fold in range(plan.folds)}


def pick(members: Sequence[Member], labels: np.ndarray, count: int) -> list[Member]:
    """Good and different: the best first, then again and again the one whose mean with those taken has the lowest
    cross-entropy on val. Those that were trained furthest come before all others; those that were stopped EARLY are left out.
    """
    furthest = max((round(m.metrics["budget"], 6) for m in members), default=0)
    members = [m for m in members if m.metrics["budget"] >= EARLY * furthest]
    whole = [m for m in members if round(m.metrics["budget"], 6) == furthest]
    order = grow(np.stack([m.val for m in whole]), labels) if whole else []
    taken = [whole[i] for i in order[:count]]
    rest = [m for m in members if m not in taken]
    return taken + rest[: max(0, count - len(taken))]


def makespan(seconds: Sequence[float], slots: int) -> float:
    """How long jobs take that are started in this order, each on the first of `slots` that is free."""
    free = [0.0] * slots
    for job in seconds:
        free[free.index(min(free))] += job
    return max(free)


def _finished(trials: Sequence[dict]) -> set[tuple]:
    """The keys of the networks that have been trained again on labelled images."""
    again = [t for t in trials if t["refits"] is not None and t["state"] == "complete"]
    return {_key(t["refits"], t["config"]) for t in again if not t["config"].get("unlabelled")}


def _key(of: int, config: dict) -> tuple:
    """Of which trial, epochs, folds, fold, seed."""
    return of, round(config["epochs"], 6), config["folds"], config["fold"], config["seed"]
