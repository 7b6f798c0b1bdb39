"""Architectures side by side: trained under one recipe, then sized, scored and timed.

python sweeps/zoo.py                                         the eleven of torchvision that the project started from
python sweeps/zoo.py --archs convnet,resnet18 --epochs 1
python sweeps/zoo.py --archs all --set lr=0.002 --set resnet18.lr=0.001
python sweeps/zoo.py --time-budget 1h --vote resnet18,resnet34,mobilenet_v2
"""

import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, partial
from math import sqrt

from sweeps.began import BEGAN  # before what takes seconds to import

# isort: split

from torch import nn

from sweeps.choose.cost import BATCHES, epoch_seconds, size
from sweeps.choose.finalists import SLACK, makespan
from sweeps.choose.singles import judge, vote
from sweeps.flags import add_shared, budget, settle
from sweeps.search.cluster import cluster, gpu_share
from sweeps.search.draw import SEARCHERS
from sweeps.search.hopeless import IN_A_ROW
from sweeps.search.launch import Ending
from sweeps.search.scheduler import SCHEDULERS, rungs
from sweeps.search.searcher import Search
from sweeps.search.space import OWN, SMALL_ZOO, Space
from sweeps.show import figures, views, zoo_table
from sweeps.sweep import Sweep
from trainable.archs import ARCHS
from trainable.archs.torchvision_fit import LARGEST, shapes_of
from trainable.archs.torchvision_zoo import STEMS, ZOO
from trainable.config import TrialConfig, as_epochs
from trainable.errors import BadInput, Parser, lookup, run
from trainable.train import configure

# The rest is TrialConfig's.
RECIPE = ("lr=0.002", "clip=1")
# Of networks without BatchNorm: at twice this rate, or unclipped, squeezenet learns nothing for most of
# its training, or dies (LOG.md).
GENTLE = ("lr=0.001", "warmup=0.3")
TIME_BUDGET = "3h"
OF_FLAGS = {"arch": "archs", "epochs": "epochs", "seed": "seed"}  # fields of a TrialConfig
RUNGS = 4  # evaluations of a network while it trains
LEAST_EPOCHS = 1e-3  # a step at least is made of it
MOST_EPOCHS = 50.0  # where the time budget sets them
GROUPS = {
    "eleven": SMALL_ZOO,
    "own": OWN,
    "all": tuple(ARCHS),
}
WRITTEN = {
    "zoo.md": "the table",
    "zoo.parquet": "the same with every digit, and why a network is missing",
    "zoo.png": "error against time, with the Pareto front",
    "submissions/": "a file of predictions a network",
    "trials/": "the networks, with their probabilities",
    "trials.parquet": "a row a network",
    "curves.parquet": "a row a rung",
    "curves.png": "the learning curves",
    "sweep.json": "what was asked, of which data, with which versions",
    "record.db": "the record: every trial, every rung",
}
MIRRORED = ("zoo.md", "zoo.parquet", "zoo.png", "curves.png")  # in MLflow too


def main(called: float | None = None) -> int:
    """Run the command, which was `called` at that time.monotonic; None: now."""
    called = time.monotonic() if called is None else called
    args = parse(sys.argv[1:])
    recipes = {arch: recipe(args, arch) for arch in args.archs}
    sweep = Sweep(args, imports=time.monotonic() - called)
    data, folder = sweep.data, sweep.folder
    sizes = {arch: size(config, data) for arch, config in recipes.items()}
    ending = Ending(sweep.left())
    with cluster(*sweep.machines, measure=lambda: gpu_share(list(recipes.values()), data, sweep.say)) as places:
        where = f"{places.slots} at a time on {places.words}"
        sweep.say(f"Zoo {folder.name}: {len(sizes)} networks, {where}.")
        recipes, order = plan(args, recipes, sizes, sweep, places)
        with sweep.recording(places, ending, len(sizes)) as record:
            search = Search(
                one_each({arch: recipes[arch] for arch in order}),
                record,
                sampler=SEARCHERS["random"],
                scheduler=SCHEDULERS["none"](),
                rungs=rungs(1.0, count=RUNGS, spacing=2),
                trials=len(recipes),
                seed=None,
                is_over=ending.is_over,
                own_epochs=True,
                alike=IN_A_ROW,  # of another architecture it may not be true
            )
            broken = sweep.search(search, places, ending, keep=len(recipes))
        if broken:
            sweep.say(str(broken))
        sweep.say(f"Trained for {sweep.seconds / 60:.1f} minutes; now every network predicts.")
        singles = judge(folder, data, places, sweep.say)

    busy = sweep.end()
    if not singles:
        return sweep.end_without("No network to tabulate")
    table = zoo_table.tabulate(sizes, sweep.trials, singles, BATCHES)
    voted = ballot(args.vote, {single["arch"] for single in singles}, sweep)
    title = f"{len(singles)} networks on {args.dataset}, {words_of_epochs(recipes)}"
    notes = zoo_table.words_of_vote(voted, len(data.val))
    zoo_table.write(folder, table, [f"# {title}", f"`{' '.join(sweep.about['command'])}`", words(data), *notes])
    figures.write_zoo(folder / "zoo.png", table, len(data.val), BATCHES)
    figures.write_curves(folder / "curves.png", sweep.trials, sweep.curves, len(data.val))
    best = {f"best_{name}": float(table[name].min()) for name in ("val_error", "val_loss")}
    best |= {f"vote_{name}": float(value) for name, value in voted.items() if name.startswith("val_")}
    metrics = {**best, "trials": len(sweep.trials), "cores_busy": busy}
    sweep.tracker.close(metrics, [folder / name for name in MIRRORED])
    sweep.console.print()
    zoo_table.show(sweep.console, table, title)
    for note in notes:
        sweep.say(note)
    busy = f"{sweep.end():.0%} ({views.BUSY})"
    sweep.say(f"{len(sweep.trials)} networks in {sweep.seconds / 60:.1f} minutes; cores busy training: {busy}.")
    sweep.last_words(WRITTEN, [f"python sweeps/arch_sweep.py --dataset {args.dataset}    # search for better ones"])
    return 1 if broken or (args.vote and not voted) else 0


def plan(
    args: Namespace, recipes: Mapping[str, TrialConfig], sizes: Mapping, sweep: Sweep, places
) -> tuple[dict[str, TrialConfig], list[str]]:
    """Return the recipes with the epochs that the time allows, and the order in which to train them.

    The slowest comes first, so that none is left to train alone at the end.
    """
    if args.epochs:
        return dict(recipes), sorted(recipes, key=lambda arch: -sizes[arch][1])
    sweep.say(f"Timing some steps of each, to share {args.time_budget / 60:.0f} minutes out.")
    measured = epoch_seconds(list(recipes.values()), sweep.data, places, sweep.say)
    times = {arch: seconds for arch, seconds in zip(recipes, measured, strict=True) if seconds}
    epochs = share_out(times, SLACK * sweep.left(), places.slots, evaluations(sweep.data))
    # One that could not be timed will fail as a trial, and be recorded, or fit after all.
    least = min(epochs.values(), default=1.0)
    given = {arch: replace(config, epochs=epochs.get(arch, least)) for arch, config in recipes.items()}
    sweep.say("Epochs: " + ", ".join(f"{arch} {config.epochs:g}" for arch, config in given.items()) + ".")
    return given, sorted(given, key=lambda arch: -times.get(arch, 0) * given[arch].epochs)


def share_out(times: Mapping[str, float], seconds: float, slots: int, extra: float) -> dict[str, float]:
    """Return the epochs of each network so that all are trained in time: longer where an epoch is cheap.

    A network's share of the time grows with the square root of what an epoch costs: ten times
    cheaper, it gets three times as many epochs. MOST_EPOCHS at most.

    Args:
        times: seconds of an epoch on one slot.
        seconds: for all of them.
        slots: networks trained at a time.
        extra: what evaluating and predicting cost, in epochs of the network.
    """

    def at(scale: float) -> dict[str, float]:
        return {arch: min(MOST_EPOCHS, scale / sqrt(cost)) for arch, cost in times.items()}

    def fits(scale: float) -> bool:
        jobs = [times[arch] * (epochs + extra) for arch, epochs in at(scale).items()]
        return makespan(sorted(jobs, reverse=True), slots) <= seconds

    low, high = 0.0, MOST_EPOCHS * sqrt(max(times.values(), default=1.0))
    if fits(high):
        low = high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return {arch: max(LEAST_EPOCHS, float(f"{epochs:.3g}")) for arch, epochs in at(low).items()}


def evaluations(data) -> float:
    """Return what the evaluations and predictions of a network cost, in epochs of its training.

    An image costs a third of what it costs in training: the forward pass alone.
    """
    images = RUNGS * len(data.val) + len(data.test) + len(data.unlabelled)
    return images / 3 / len(data.train)


def ballot(archs: Sequence[str], there: set[str], sweep: Sweep) -> dict:
    """Let `archs` vote; nothing where none are asked for, or one of them left no network, which is said."""
    missing = [arch for arch in archs if arch not in there]
    if missing:
        sweep.say(f"No vote: {', '.join(missing)} left no network.")
    return {} if missing or not archs else vote(sweep.folder, sweep.data, archs)


def parse(arguments: list[str]) -> Namespace:
    """Raises BadInput for what cannot be meant."""
    p = Parser(prog="zoo.py", description=__doc__.split("\n")[0])
    p.add_argument("--archs", default="eleven", help=f"with commas between them: {', '.join(GROUPS)}, {', '.join(ARCHS)}")
    p.add_argument(
        "--time-budget",
        metavar=TIME_BUDGET,
        help=f"for all of it; cheaper networks train for more epochs (default: {TIME_BUDGET}, or none with --epochs)",
    )
    p.add_argument("--epochs", type=as_epochs, help="of each, in place of a time budget; fractions are allowed")
    p.add_argument(
        "--stem",
        default="auto",
        help="of torchvision's networks: auto (finer on small images), published (for 224 pixels) or fine",
    )
    p.add_argument("--vote", default="", metavar="A,B,C", help="networks whose majority vote is scored and written, too")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other field of a TrialConfig, or ARCH.KEY=VALUE for one network; repeatable",
    )
    add_shared(p)
    args = p.parse_args(arguments)
    settle(args, kind="zoo-")
    lookup(STEMS, args.stem, "stem")
    if args.epochs and args.time_budget:
        raise BadInput("--epochs and --time-budget both say how long to train; give one of them")
    args.time_budget = None if args.epochs else budget(args.time_budget or TIME_BUDGET)
    known = {**GROUPS, **{arch: (arch,) for arch in ARCHS}}
    asked = [arch for name in args.archs.split(",") for arch in lookup(known, name.strip(), "architecture")]
    args.archs = list(dict.fromkeys(asked))  # each once
    among = dict.fromkeys(args.archs)
    args.vote = [name.strip() for name in args.vote.split(",") if name.strip()]
    for name in args.vote:
        lookup(among, name, "architecture to vote, among those of --archs")
    if len(args.vote) != len(set(args.vote)) or len(args.vote) == 1:
        raise BadInput(f"--vote {','.join(args.vote)}: give at least two networks, each once")
    return args


def recipe(args: Namespace, arch: str) -> TrialConfig:
    """Return the recipe of this architecture: what suits its kind, then what `--set` says.

    Raises:
        BadInput: a field that a flag of its own sets, an unknown one, or a value outside its range.
    """
    names = {field.name for field in fields(TrialConfig)}
    others = tuple(f"{other}." for other in args.archs if other != arch)
    own = []
    for pair in args.set:
        key = pair.partition("=")[0]
        name = key.removeprefix(f"{arch}.")
        if name in OF_FLAGS:
            raise BadInput(f"--set {pair}: use --{OF_FLAGS[name]} instead")
        if name in names:
            own.append(pair.removeprefix(f"{arch}."))
        elif not key.startswith(others):
            own.append(pair)
    kind = () if has_batchnorm(arch) else GENTLE
    stem = (f"{arch}.stem_stride={args.stem}",) if arch in ZOO else ()
    epochs = args.epochs or TrialConfig.epochs  # before `plan`
    more = {"epochs": epochs, "seed": args.seed, "weights": ""}
    return configure(Namespace(arch=arch, set=[*RECIPE, *kind, *stem, *own], **more))


@cache
def has_batchnorm(arch: str) -> bool:
    """Return whether a network normalises over batches, which lets it learn at higher rates."""
    knobs = ARCHS[arch].DEFAULTS
    network = shapes_of(lambda: ARCHS[arch].build(knobs, (3, LARGEST, LARGEST), 2))
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def one_each(recipes: dict[str, TrialConfig]) -> Space:
    """A space that begins with each of these once, in this order."""
    names = list(recipes)
    return Space(lambda trial: recipes[trial.suggest_categorical("arch", names)].flat(), tuple({"arch": a} for a in names))


def words_of_epochs(recipes: Mapping[str, TrialConfig]) -> str:
    """Say for how many epochs they train."""
    epochs = sorted({config.epochs for config in recipes.values()})
    return f"{epochs[0]:g} epochs each" if len(epochs) == 1 else f"{epochs[0]:g} to {epochs[-1]:g} epochs"


def words(data) -> str:
    images = ", ".join(f"{len(getattr(data, name)):,} {name}" for name in ("train", "val", "test", "unlabelled"))
    return f"Images: {images}. Val was held out; test was never used to choose anything."


if __name__ == "__main__":
    run(partial(main, BEGAN))
