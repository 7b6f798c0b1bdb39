"""Search architectures, optimisers, learning-rate schedules and augmentation together; combine the best.

python sweeps/arch_sweep.py                     the best in half an hour
python sweeps/arch_sweep.py --quick             a few minutes on two cores
python sweeps/arch_sweep.py --dataset digit-recognizer --time-budget 2h
"""

import sys
import time
from argparse import Namespace
from pathlib import Path

from rich.console import Console

from sweeps.arguments import about, new_folder, parse
from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import combine
from sweeps.flags import ROOT, flat_about
from sweeps.search.cluster import cluster, gpu_share
from sweeps.search.find_space import find_space
from sweeps.search.launch import Ending, run_search
from sweeps.search.progress import Progress
from sweeps.search.record import Record
from sweeps.search.scheduler import SCHEDULERS, rungs
from sweeps.search.searcher import SEARCHERS, Search, first_configs
from sweeps.show import figures, summary, views
from sweeps.show.tracking import Tracker
from trainable import files
from trainable.datasets import load
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
    began = time.monotonic()
    args = parse(sys.argv[1:])
    console = Console() if sys.stdout.isatty() else Console(width=120)

    def say(text: str):
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    data = load(args.dataset, image_size=args.image_size)
    space, budgets = find_space(args.space), rungs(args.max_epochs)
    folder, sweep = new_folder(args), about(args, data)
    say(f"{args.dataset} ({args.why}): {len(data.train):,} images to train, {len(data.val):,} val. Starting Ray.")
    ending = Ending(args.time_budget and max(1.0, args.time_budget - (time.monotonic() - began)))
    machines = args.address, args.cpus_per_trial, args.gpus_per_trial, args.concurrent
    with cluster(*machines, measure=lambda: gpu_share(first_configs(space), data, say)) as places:
        folder.mkdir()
        files.write_json(folder / "sweep.json", sweep)
        say(f"Sweep {folder.name}: {places.slots} trials at a time on {places.words}, compared at {_list(budgets)} epochs.")
        mlflow = f"sqlite:///{args.results / 'mlflow.db'}", args.results / "mlflow-artifacts"
        tracker = Tracker(*mlflow, args.dataset, folder.name, flat_about(sweep), warn=say)
        progress = Progress(console, places.slots, ending.seconds_left, ending.is_over, args.trials)
        record = Record(folder / "record.db", listeners=(progress, tracker))
        search = Search(
            space,
            record,
            sampler=SEARCHERS[args.searcher](args.seed),
            scheduler=SCHEDULERS[args.scheduler](),
            rungs=budgets,
            metric=args.metric,
            trials=args.trials,
            seed=args.seed,
            is_over=ending.is_over,
        )
        with progress:
            broken = run_search(search, data, places, ending, folder, tell=progress.beat)
        record.close()
        trials, curves = views.write_tables(folder)
        if broken:
            say(broken)
        say(f"Searched for {(time.monotonic() - began) / 60:.1f} minutes; now the best networks are combined.")
        methods = [args.ensemble] if args.ensemble else list(ENSEMBLES)
        ensemble = combine(folder, data, methods, places)

    busy = views.busy(trials, places.slots)
    sweep["ended"] = {"seconds": round(time.monotonic() - began, 1), "trials": len(trials), "cores_busy": busy}
    files.write_json(folder / "sweep.json", sweep)
    if ensemble is None:
        tracker.close({"trials": len(trials)}, [])
        say(f"No trial left a network: {len(trials)} were tried. {summary.why_none(trials)}")
        return 1
    figures.write_curves(folder / "curves.png", trials, curves, len(data.val))
    tracker.close(sweep_metrics(ensemble, len(trials), busy), [folder / name for name in MIRRORED])
    console.print()
    summary.show(console, trials, ensemble, {"val": len(data.val)})
    say(f"{len(trials)} trials in {(time.monotonic() - began) / 60:.1f} minutes; cores busy training: {busy:.0%}.")
    summary.next_commands(console, folder, [f"{name:<16}{what}" for name, what in WRITTEN.items()], next_steps(args, folder))
    return 1 if broken else 0


def _list(budgets: list[float]) -> str:
    return ", ".join(f"{b:g}" for b in budgets)


def sweep_metrics(ensemble: dict, trials: int, busy: float) -> dict[str, float]:
    of_test = {"test_error": ensemble["test"]["error"]} if ensemble["test"] else {}
    return {
        "val_error": ensemble["val"]["error"],
        "val_loss": ensemble["val"]["loss"],
        "best_single_val_error": ensemble["best_single"]["val"]["error"],
        **of_test,
        "trials": trials,
        "cores_busy": busy,
    }


def next_steps(args: Namespace, folder: Path) -> list[str]:
    where = "" if args.results == ROOT / "results" else f" RESULTS={args.results}"
    steps = [f"make mlflow{where}    # all sweeps, in the browser"]
    if args.dataset == "digit-recognizer":
        steps.append(f"kaggle competitions submit digit-recognizer -f {folder / 'submission.csv'} -m {folder.name}")
    elif args.dataset == "digits-sample":
        steps.append("python sweeps/arch_sweep.py --dataset digit-recognizer    # with digit-recognizer.zip in data/")
    return steps


if __name__ == "__main__":
    run(main)
