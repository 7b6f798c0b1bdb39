"""Search architectures, optimisers, learning-rate schedules and augmentation together; combine the best.

python sweeps/arch_sweep.py                     the best in half an hour
python sweeps/arch_sweep.py --quick             a few minutes on two cores
python sweeps/arch_sweep.py --dataset digit-recognizer --time-budget 2h
"""

import platform
import re
import subprocess
import sys
import time
from argparse import Namespace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import combine
from sweeps.search import launch
from sweeps.search.find_space import find_space
from sweeps.search.progress import Progress
from sweeps.search.record import Record
from sweeps.search.scheduler import SCHEDULERS, rungs
from sweeps.search.searcher import METRICS, SEARCHERS, Search
from sweeps.search.space import SPACES
from sweeps.show import figures, summary, views
from sweeps.show.tracking import Tracker
from trainable import files
from trainable.datasets import DATASETS, default_dataset, load
from trainable.errors import BadInput, Parser, lookup, positive, run

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"dataset": "digits-sample", "space": "quick", "time_budget": "7m", "max_epochs": 10.0}
DEFAULTS = {"space": "default", "max_epochs": 10.0}
VERSIONS = ("ray", "torch", "torchvision", "optuna")
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


MIRRORED = ("ensemble.json", "submission.csv", "curves.png")


def main() -> int:
    began = time.monotonic()
    args = parse(sys.argv[1:])
    console = Console() if sys.stdout.isatty() else Console(width=120)
    data = load(args.dataset)
    space, budgets = find_space(args.space), rungs(args.max_epochs)
    say = lambda text: console.print(text, highlight=False, soft_wrap=True)  # noqa: E731

    ending = launch.Ending(None if args.time_budget is None else max(1.0, args.time_budget - (time.monotonic() - began)))
    with launch.cluster(args.address, args.cpus_per_trial, args.gpus_per_trial, args.concurrent) as places:
        folder, sweep = new_folder(args), about(args, data)
        files.write_json(folder / "sweep.json", sweep)
        say(f"Sweep {folder.name} on {args.dataset} ({args.why}): {len(data.train):,} images to train, {len(data.val):,} val.")
        say(f"{places.slots} trials at a time on {places.device}; compared at {', '.join(f'{b:g}' for b in budgets)} epochs.")
        uri = f"sqlite:///{args.results / 'mlflow.db'}"
        tracker = Tracker(uri, args.dataset, folder.name, flat_about(sweep), lambda line: say(f"[yellow]{line}[/yellow]"))
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
            launch.run_search(search, data, places, ending, folder)
        record.close()
        trials, curves = views.write_tables(folder)
        methods = [args.ensemble] if args.ensemble else list(ENSEMBLES)
        ensemble = combine(folder, data, methods, places.cpus, places.gpus)

    busy = views.busy(trials, places.slots) if len(trials) else 0.0
    sweep["ended"] = {"seconds": round(time.monotonic() - began, 1), "trials": len(trials), "cores_busy": busy}
    files.write_json(folder / "sweep.json", sweep)
    if ensemble is None:
        tracker.close({"trials": len(trials)}, [])
        reasons = trials["reason"].mode() if len(trials) else []
        say(f"No trial left a network: {len(trials)} were tried. Most often: {reasons[0] if len(reasons) else 'nothing ran'}.")
        return 1
    figures.write_curves(folder / "curves.png", trials, curves, len(data.val))
    tracker.close(sweep_metrics(ensemble, len(trials), busy), [folder / name for name in MIRRORED])
    console.print()
    summary.show(console, trials, ensemble, {"val": len(data.val)})
    say(f"{len(trials)} trials in {(time.monotonic() - began) / 60:.1f} minutes; cores busy training: {busy:.0%}.")
    summary.next_commands(console, folder, [f"{name:<16}{what}" for name, what in WRITTEN.items()], next_steps(args, ensemble))
    return 0


def parse(arguments: list[str]) -> Namespace:
    """Raises BadInput for what cannot be meant."""
    p = Parser(prog="arch_sweep.py", description=__doc__.split("\n")[0])
    p.add_argument("--name", help="the sweep's folder under --results (default: date and dataset)")
    p.add_argument("--dataset", help=f"{', '.join(DATASETS)} (default: the competition's if it is in data/, else the sample)")
    p.add_argument("--space", help=f"{', '.join(SPACES)} or FILE.py:function (default: {DEFAULTS['space']})")
    p.add_argument("--trials", type=positive(int), help="how many to start at most (default: as many as there is time for)")
    p.add_argument("--time-budget", metavar="30m", help="for the search, from the start (default: 30m, or none with --trials)")
    p.add_argument("--max-epochs", type=positive(float, 1e5), help=f"of a trial (default: {DEFAULTS['max_epochs']:g})")
    p.add_argument("--searcher", default="tpe", help=f"who proposes: {', '.join(SEARCHERS)}")
    p.add_argument("--scheduler", default="asha", help=f"who stops trials: {', '.join(SCHEDULERS)}")
    p.add_argument("--metric", default="val_loss", help=f"what is minimised: {', '.join(METRICS)}")
    p.add_argument("--ensemble", help=f"how networks are combined: {', '.join(ENSEMBLES)} (default: the best on val)")
    p.add_argument("--concurrent", type=positive(int), help="trials at a time (default: fill the cluster)")
    p.add_argument("--cpus-per-trial", type=positive(int), default=1, help="processors, and threads, a trial")
    p.add_argument(
        "--gpus-per-trial", type=positive(float), help=f"share of a GPU (default: {launch.GPU_SHARE} if there are any)"
    )
    p.add_argument("--address", help="an existing Ray cluster (default: start one here)")
    p.add_argument("--quick", action="store_true", help=f"a few minutes on two cores: {QUICK}".replace("'", ""))
    p.add_argument("--results", default=str(ROOT / "results"), help="where sweeps lie")
    p.add_argument("--seed", type=int, default=0, help="of the searcher and the trials")
    args = p.parse_args(arguments)
    preset = QUICK if args.quick else DEFAULTS
    args.why = "asked for" if args.dataset else "the quick sweep's"
    for name, value in preset.items():
        if getattr(args, name) is None and (name != "time_budget" or not args.trials):
            setattr(args, name, value)
    if args.dataset is None:
        args.dataset, args.why = default_dataset()
    if args.time_budget is None and not args.trials:
        args.time_budget = "30m"
    args.time_budget = args.time_budget and seconds(args.time_budget)
    for table, name in ((DATASETS, "dataset"), (SEARCHERS, "searcher"), (SCHEDULERS, "scheduler")):
        lookup(table, getattr(args, name), name)
    lookup(dict.fromkeys(METRICS), args.metric, "metric")
    if args.ensemble:
        lookup(ENSEMBLES, args.ensemble, "ensemble")
    if args.seed < 0:
        raise BadInput(f"--seed {args.seed}: a seed is 0 or more")
    if args.name is not None and not re.fullmatch(r"\w[\w.-]{0,99}", args.name):
        raise BadInput(f"--name {args.name!r}: up to 100 letters, digits, '.', '_' or '-', beginning with a letter or digit")
    args.results = Path(args.results).resolve()
    return args


def seconds(text: str) -> float:
    """'90s', '30m', '1h30m' in seconds; raises BadInput."""
    if not re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        raise BadInput(f"--time-budget {text!r} is not a time; write 90s, 30m or 1h30m")
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    total = sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", text))
    if not 0 < total <= 365 * 86400:
        raise BadInput(f"--time-budget {text!r} should be above 0 and at most a year")
    return total


def new_folder(args: Namespace) -> Path:
    """The sweep's folder, made; raises BadInput if it exists."""
    folder = args.results / (args.name or f"{datetime.now():%Y-%m-%d-%H%M%S}-{args.dataset}")
    try:
        folder.mkdir(parents=True)
    except FileExistsError as there:
        raise BadInput(f"{folder} exists; choose another --name") from there
    except OSError as wrong:
        raise BadInput(f"--results {args.results}: {wrong.strerror}; choose a folder that can be written") from wrong
    return folder


def about(args: Namespace, data) -> dict:
    """What sweep.json says."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    images = {name: len(getattr(data, name)) for name in ("train", "val", "test", "unlabelled")}
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["python", "sweeps/arch_sweep.py", *sys.argv[1:]],
        "arguments": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "data": {"fingerprint": data.fingerprint, "images": images},
        "commit": commit.stdout.strip() or None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
    }


def flat_about(sweep: dict) -> dict:
    """For MLflow: the arguments that were given a value, the data's fingerprint and the commit."""
    given = {name: value for name, value in sweep["arguments"].items() if value is not None}
    return {**given, "fingerprint": sweep["data"]["fingerprint"], "commit": sweep["commit"]}


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


def next_steps(args: Namespace, ensemble: dict) -> list[str]:
    steps = ["make mlflow                      # all sweeps, in the browser"]
    if args.dataset == "digit-recognizer":
        steps.append("kaggle competitions submit digit-recognizer -f <submission.csv above> -m sweep")
    else:
        steps.append("python sweeps/arch_sweep.py      # the competition: put digit-recognizer.zip into data/ first")
    return steps


if __name__ == "__main__":
    run(main)
