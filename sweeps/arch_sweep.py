"""Search architectures, optimisers, learning-rate schedules and augmentation together; combine the best.

python sweeps/arch_sweep.py                     the best in half an hour
python sweeps/arch_sweep.py --quick             a few minutes on two cores
python sweeps/arch_sweep.py --dataset digit-recognizer --time-budget 2h
"""

import sys
import time
from argparse import Namespace
from functools import partial

from sweeps.began import BEGAN  # before what takes seconds to import

# isort: split

from sweeps import submit
from sweeps.arguments import parse
from sweeps.choose import kept
from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import combine
from sweeps.choose.package import package
from sweeps.download import download
from sweeps.flags import ROOT
from sweeps.phases import Phases
from sweeps.resume import AFTER, LIMITS, Before, blamed, check_space
from sweeps.search.cluster import cluster, gpu_share
from sweeps.search.draw import first_configs
from sweeps.search.find_space import find_space
from sweeps.search.launch import Ending
from sweeps.search.scheduler import rungs
from sweeps.show import figures, logged, study, summary, tracking, views
from sweeps.sweep import Sweep
from trainable.datasets import Dataset, load
from trainable.datasets.container import in_folds
from trainable.errors import BadInput, run

WRITTEN = {
    "report.html": "all of it to look at, in a browser",
    "submission.csv": "the predictions",
    "trials/": "the networks worth keeping, with their probabilities",
}
DONE = ("ensemble.json", "submission.csv", "curves.png", kept.FILE)


def main(called: float | None = None) -> int:
    """Run the command, which was `called` at that time.monotonic; None: now."""
    called = time.monotonic() if called is None else called
    args, earlier = parse(sys.argv[1:])
    with blamed(earlier and earlier.record):
        space, budgets = find_space(args.space), rungs(args.max_epochs)
    if earlier:
        check_space(earlier, space)
        if nothing_left(args, earlier):
            enough = args.trials is not None and len(earlier.searched) >= args.trials
            more = f"--trials above {len(earlier.searched)}" if enough else "a longer --time-budget"
            print(f"Sweep {args.name} is done. To go on with it, give {more}.")
            if args.submit:
                data = load(args.dataset, image_size=args.image_size)
                submit.automatic(earlier.folder, args.results, data, submit.say)
            return 0
    if args.download and (status := download(args.dataset)):
        return status
    sweep = Sweep(args, earlier, time.monotonic() - called)
    check_folds(args.folds, sweep.data)
    if args.submit:
        submit.ready(sweep.data)
    ending = Ending(sweep.left(1.0 if args.finalists == 0 else args.search_share))
    with cluster(*sweep.machines, measure=lambda: gpu_share(first_configs(space), sweep.data, sweep.say)) as places:
        where = f"{places.slots} trials at a time on {places.words}"
        sweep.say(f"Sweep {sweep.folder.name}: {where}, compared at {_list(budgets)} epochs.")
        if earlier:
            sweep.say(f"Going on after {earlier.seconds / 60:.1f} minutes: {earlier.words()}.")
        with sweep.recording(places, ending, args.trials) as record:
            if args.warm_start and not earlier:
                sweep.learn(space)
            phases = Phases(sweep, record, space, budgets, places, ending)
            broken = phases.search() or phases.finalists()
        if broken:
            sweep.say(str(broken))
        sweep.say(f"After {record.t / 60:.1f} minutes the best networks are combined.")
        methods = [args.ensemble] if args.ensemble else list(ENSEMBLES)
        ensemble = combine([sweep.folder], sweep.data, methods, places, sweep.say, args.max_latency)

    busy = sweep.end()
    report(sweep)
    if ensemble is None:
        status = sweep.end_without("No trial left a network")
        return _status(broken) or status
    trials, val = sweep.trials, len(sweep.data.val)
    searched = views.searched(trials)
    figures.write_curves(sweep.folder / "curves.png", searched, sweep.curves, val)
    there = [path for name in tracking.FILES if (path := sweep.folder / name).exists()]
    sweep.tracker.close(logged.metrics(ensemble, len(trials), busy), there, lambda to: package(sweep.folder, to))
    if not broken and not ending.asked.is_set():
        sweep.phase_done("combine", [name for name in DONE if (sweep.folder / name).exists()])
    sweep.console.print()
    summary.show(sweep.console, trials, sweep.curves, ensemble, val)
    again = f" and {len(trials) - len(searched)} networks of finalists" if len(trials) > len(searched) else ""
    busy = f"{sweep.end():.0%} ({views.BUSY})"
    sweep.say(f"{len(searched)} trials{again} in {record.t / 60:.1f} minutes; cores busy training: {busy}.")
    if little := summary.how_little(trials, args.max_epochs):
        sweep.say(little)
    cut = (trials["state"] == "interrupted").any()
    sweep.last_words(WRITTEN, next_steps(args, sweep, cut))
    if args.submit:
        submit.automatic(sweep.folder, args.results, sweep.data, sweep.say)
    return _status(broken)


def check_folds(folds: int | None, data: Dataset):
    """Raises BadInput where there are fewer images than folds: better said before the search than after it."""
    if folds and folds > (there := len(in_folds(data))):
        raise BadInput(f"--folds {folds}: there are {there} labelled images to cut into folds; give at most {there}")


def _status(broken: str | BadInput | None) -> int:
    """The exit status; raises BadInput where the user's own space broke the search off."""
    if isinstance(broken, BadInput):
        raise broken
    return 1 if broken else 0


def report(sweep: Sweep):
    """Write report.html and study.db. What goes wrong there is said, and takes nothing from the sweep, which is done."""
    from sweeps.report import write_report  # here: the search need not wait for the libraries of its charts

    try:
        study.write(sweep.folder, sweep.args.metric)
        write_report(sweep.folder, data=sweep.data)
    except Exception as wrong:
        sweep.say(
            f"No report.html or study.db: {type(wrong).__name__}: {wrong}; python sweeps/mirror.py {sweep.folder} tries again."
        )


def nothing_left(args: Namespace, earlier: Before) -> bool:
    """Whether a sweep that is resumed was done to its end, and nothing more is asked for."""
    if not earlier.done("combine") or earlier.lost():
        return False
    was = {**vars(args), **earlier.arguments}
    more = [name for name in LIMITS if was[name] is not None and (vars(args)[name] is None or vars(args)[name] > was[name])]
    return not more and all(vars(args)[name] == was[name] for name in AFTER)


def _list(budgets: list[float]) -> str:
    return ", ".join(f"{b:g}" for b in budgets)


def next_steps(args: Namespace, sweep: Sweep, cut: bool) -> list[str]:
    """Commands; `cut`: trials were interrupted."""
    folder, competition = sweep.folder, sweep.data.competition
    own = "" if args.results == ROOT / "results" else f" --results {args.results}"
    more = " --time-budget 2h" if args.time_budget else ""
    go_on = [f"python sweeps/arch_sweep.py --resume {folder.name}{own}{more}    # go on"] if cut else []
    if competition and not args.submit:
        go_on.append(f"python sweeps/submit.py {folder.name}{own}    # check it, send it, wait for the score")
        go_on.append(
            f"kaggle competitions submit {competition.slug} -f {folder / 'submission.csv'} -m {folder.name}    # by hand"
        )
    if args.dataset == "digits-sample":
        go_on.append("python sweeps/arch_sweep.py --download    # the competition's data; needs a Kaggle account")
    return go_on


if __name__ == "__main__":
    run(partial(main, BEGAN))
