"""Search architectures, optimisers, learning-rate schedules and augmentation together; combine the best.

python sweeps/arch_sweep.py                     the best in half an hour
python sweeps/arch_sweep.py --quick             a few minutes on two cores
python sweeps/arch_sweep.py --dataset digit-recognizer --time-budget 2h
"""

import sys
from argparse import Namespace
from pathlib import Path

from sweeps.arguments import parse
from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import combine
from sweeps.choose.finalists import Plan, make_plan, taught, teachers
from sweeps.flags import ROOT
from sweeps.resume import AFTER, Before, check_space
from sweeps.search.cluster import cluster, gpu_share
from sweeps.search.draw import SEARCHERS, first_configs
from sweeps.search.find_space import find_space
from sweeps.search.launch import Ending
from sweeps.search.refits import refits
from sweeps.search.scheduler import SCHEDULERS, rungs
from sweeps.search.searcher import Search
from sweeps.show import figures, summary
from sweeps.sweep import Sweep
from trainable.errors import run

WRITTEN = {
    "sweep.json": "what was asked, of which data, with which versions",
    "record.db": "the record: every trial, every rung",
    "trials.parquet": "a row a trial",
    "curves.parquet": "a row a rung",
    "curves.png": "the learning curves, and who was stopped where",
    "trials/": "the networks worth keeping, with their probabilities",
    "ensemble.json": "members, weights, scores",
    "submission.csv": "the predictions",
}
MIRRORED = ("ensemble.json", "submission.csv", "curves.png")  # in MLflow too


def main() -> int:
    args, earlier = parse(sys.argv[1:])
    space, budgets = find_space(args.space), rungs(args.max_epochs)
    if earlier:
        check_space(earlier, space)
        if nothing_left(args, earlier):
            enough = args.trials is not None and len(earlier.searched) >= args.trials
            more = f"--trials above {len(earlier.searched)}" if enough else "a longer --time-budget"
            print(f"Sweep {args.name} is done. To go on with it, give {more}.")
            return 0
    sweep = Sweep(args, earlier)
    ending = Ending(left(sweep, earlier, 1.0 if args.finalists == 0 else args.search_share))
    with cluster(*sweep.machines, measure=lambda: gpu_share(first_configs(space), sweep.data, sweep.say)) as places:
        where = f"{places.slots} trials at a time on {places.words}"
        sweep.say(f"Sweep {sweep.folder.name}: {where}, compared at {_list(budgets)} epochs.")
        if earlier:
            sweep.say(f"Going on after {earlier.seconds / 60:.1f} minutes: {earlier.words()}.")
        with sweep.recording(places, ending, args.trials) as record:
            if args.warm_start and not earlier:
                sweep.learn(space)
            lost = earlier.lost() if earlier else ()

            def search() -> str | None:
                search = Search(
                    space,
                    record,
                    sampler=SEARCHERS[args.searcher],
                    scheduler=SCHEDULERS[args.scheduler](),
                    rungs=budgets,
                    metric=args.metric,
                    trials=args.trials,
                    seed=args.seed,
                    is_over=ending.is_over,
                    again=lost,
                )
                return sweep.search(search, places, ending)

            def finalists() -> Plan:
                ending.give(left(sweep, earlier))
                seconds = ending.seconds_left()
                if args.use_unlabelled and seconds is not None:
                    seconds /= 2
                count = args.finalists, args.folds, args.max_epochs
                return make_plan(sweep.folder, sweep.data, *count, places.slots, seconds)

            def train_again(plan: Plan, teach=None) -> str | None:
                sweep.say(plan.words())
                final = refits(plan.jobs, plan.epochs, record, is_over=ending.is_over, again=lost)
                return sweep.search(final, places, ending, keep=len(final.refits), teachers=teach)

            broken = search()
            if not broken and not ending.asked.is_set() and args.finalists != 0:
                sweep.say(f"Searched for {record.t / 60:.1f} minutes.")
                plan = finalists()
                if plan.finalists:
                    broken = train_again(plan)
                    teach = teachers(plan, sweep.folder, sweep.data) if args.use_unlabelled else {}
                    if teach and not broken and not ending.is_over():
                        broken = train_again(taught(plan, sweep.data), teach)
                elif args.time_budget and args.trials is None:
                    sweep.say(f"{plan.words()} The search goes on.")
                    broken = search()
                else:
                    sweep.say(plan.words())
        if broken:
            sweep.say(broken)
        sweep.say(f"After {record.t / 60:.1f} minutes the best networks are combined.")
        methods = [args.ensemble] if args.ensemble else list(ENSEMBLES)
        ensemble = combine([sweep.folder], sweep.data, methods, places, sweep.say, args.max_latency)

    busy = sweep.end()
    if ensemble is None:
        return sweep.end_without("No trial left a network")
    trials, val = sweep.trials, len(sweep.data.val)
    figures.write_curves(sweep.folder / "curves.png", trials, sweep.curves, val)
    sweep.tracker.close(sweep_metrics(ensemble, len(trials), busy), [sweep.folder / name for name in MIRRORED])
    if not broken:
        sweep.phase_done("combine", MIRRORED)
    sweep.console.print()
    summary.show(sweep.console, trials, ensemble, val)
    sweep.say(f"{len(trials)} trials in {record.t / 60:.1f} minutes; cores busy training: {busy:.0%}.")
    cut = (trials["state"] == "interrupted").any()
    sweep.last_words(WRITTEN, next_steps(args, sweep.folder, cut))
    return 1 if broken else 0


def left(sweep: Sweep, earlier: Before | None, share: float = 1.0) -> float | None:
    """Seconds of this share of the time budget that are left; None: no limit."""
    budget = sweep.args.time_budget
    spent = sweep.seconds + (earlier.seconds if earlier else 0.0)
    return None if budget is None else max(0.0, share * budget - spent)


def nothing_left(args: Namespace, earlier: Before) -> bool:
    """Whether a sweep that is resumed has been searched and combined to its end."""
    if not earlier.done("combine") or earlier.lost():
        return False
    if any(vars(args)[name] != earlier.arguments.get(name, vars(args)[name]) for name in AFTER):
        return False
    if args.time_budget and earlier.seconds >= args.time_budget:
        return True
    cut = any(trial["state"] in ("running", "interrupted") for trial in earlier.trials)
    return not cut and args.trials is not None and len(earlier.searched) >= args.trials


def _list(budgets: list[float]) -> str:
    return ", ".join(f"{b:g}" for b in budgets)


def sweep_metrics(ensemble: dict, trials: int, busy: float) -> dict[str, float]:
    of_test = {"test_error": ensemble["test"]["error"]} if ensemble["test"] else {}
    return {
        "error": ensemble["judged"]["error"],
        "loss": ensemble["judged"]["loss"],
        "best_single_error": ensemble["best_single"]["judged"]["error"],
        **of_test,
        "trials": trials,
        "cores_busy": busy,
    }


def next_steps(args: Namespace, folder: Path, cut: bool) -> list[str]:
    """Commands; `cut`: trials were interrupted."""
    own = "" if args.results == ROOT / "results" else f" --results {args.results}"
    more = " --time-budget 2h" if args.time_budget else ""
    go_on = [f"python sweeps/arch_sweep.py --resume {folder.name}{own}{more}    # go on"] if cut else []
    return go_on + competition(args, folder)


def competition(args: Namespace, folder: Path) -> list[str]:
    if args.dataset == "digit-recognizer":
        return [f"kaggle competitions submit digit-recognizer -f {folder / 'submission.csv'} -m {folder.name}"]
    if args.dataset == "digits-sample":
        return ["python sweeps/arch_sweep.py --dataset digit-recognizer    # with digit-recognizer.zip in data/"]
    return []


if __name__ == "__main__":
    run(main)
