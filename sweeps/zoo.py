"""Architectures side by side: trained under one recipe, then sized, scored and timed.

python sweeps/zoo.py                                         the eleven of torchvision that the project started from
python sweeps/zoo.py --archs convnet,resnet18 --epochs 1
python sweeps/zoo.py --archs all --set lr=0.002 --set augment.rotation=15
"""

import sys
from argparse import Namespace

from sweeps.choose.cost import BATCHES, size
from sweeps.choose.singles import judge
from sweeps.flags import add_shared, settle
from sweeps.search.cluster import cluster, gpu_share
from sweeps.search.draw import SEARCHERS
from sweeps.search.launch import Ending
from sweeps.search.scheduler import SCHEDULERS, rungs
from sweeps.search.searcher import Search
from sweeps.search.space import OWN, SMALL_ZOO, Space
from sweeps.show import figures, zoo_table
from sweeps.sweep import Sweep
from trainable.archs import ARCHS
from trainable.config import TrialConfig
from trainable.errors import BadInput, Parser, lookup, positive, run
from trainable.train import configure

# At twice this rate, or unclipped, squeezenet dies. The rest is TrialConfig's.
RECIPE = ("lr=0.002", "clip=1")
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


def main() -> int:
    args = parse(sys.argv[1:])
    recipes = {arch: recipe(args, arch) for arch in args.archs}
    sweep = Sweep(args)
    data, folder = sweep.data, sweep.folder
    sizes = {arch: size(config, data) for arch, config in recipes.items()}
    slowest_first = sorted(recipes, key=lambda arch: -sizes[arch][1])  # so that none is left to train alone at the end
    ending = Ending(None)
    with cluster(*sweep.machines, measure=lambda: gpu_share(list(recipes.values()), data, sweep.say)) as places:
        where = f"{places.slots} at a time on {places.words}"
        sweep.say(f"Zoo {folder.name}: {len(sizes)} networks, {where}, {args.epochs:g} epochs each.")
        with sweep.recording(places, ending, len(sizes)) as record:
            search = Search(
                one_each({arch: recipes[arch] for arch in slowest_first}),
                record,
                sampler=SEARCHERS["random"],
                scheduler=SCHEDULERS["none"](),
                rungs=rungs(args.epochs, count=4, spacing=2),
                trials=len(recipes),
                seed=None,
                is_over=ending.is_over,
            )
            broken = sweep.search(search, places, ending, keep=len(recipes))
        if broken:
            sweep.say(broken)
        sweep.say(f"Trained for {sweep.seconds / 60:.1f} minutes; now every network predicts.")
        singles = judge(folder, data, places, sweep.say)

    busy = sweep.end()
    if not singles:
        return sweep.end_without("No network to tabulate")
    table = zoo_table.tabulate(sizes, sweep.trials, singles, BATCHES)
    title = f"{len(singles)} networks on {args.dataset}, one recipe, {args.epochs:g} epochs"
    zoo_table.write(folder, table, [f"# {title}", f"`{' '.join(sweep.about['command'])}`", words(data)])
    figures.write_zoo(folder / "zoo.png", table, len(data.val), BATCHES)
    figures.write_curves(folder / "curves.png", sweep.trials, sweep.curves, len(data.val))
    best = {f"best_{name}": float(table[name].min()) for name in ("val_error", "val_loss")}
    metrics = {**best, "trials": len(sweep.trials), "cores_busy": busy}
    sweep.tracker.close(metrics, [folder / name for name in MIRRORED])
    sweep.console.print()
    zoo_table.show(sweep.console, table, title)
    sweep.say(f"{len(sweep.trials)} networks in {sweep.seconds / 60:.1f} minutes; cores busy training: {busy:.0%}.")
    sweep.last_words(WRITTEN, [f"python sweeps/arch_sweep.py --dataset {args.dataset}    # search for better ones"])
    return 1 if broken else 0


def parse(arguments: list[str]) -> Namespace:
    """Raises BadInput for what cannot be meant."""
    p = Parser(prog="zoo.py", description=__doc__.split("\n")[0])
    p.add_argument("--archs", default="eleven", help=f"with commas between them: {', '.join(GROUPS)}, {', '.join(ARCHS)}")
    p.add_argument("--epochs", type=positive(float, 1e5), default=5.0, help="of each; fractions are allowed")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other field of a TrialConfig; repeatable")
    add_shared(p)
    args = p.parse_args(arguments)
    settle(args, kind="zoo-")
    known = {**GROUPS, **{arch: (arch,) for arch in ARCHS}}
    asked = [arch for name in args.archs.split(",") for arch in lookup(known, name.strip(), "architecture")]
    args.archs = list(dict.fromkeys(asked))  # each once
    return args


def recipe(args: Namespace, arch: str) -> TrialConfig:
    """The one recipe for this architecture; what is set for another one is not for it. Raises BadInput."""
    for pair in args.set:
        if (key := pair.partition("=")[0]) in ("arch", "epochs", "seed"):
            raise BadInput(f"--set {pair}: use --{'archs' if key == 'arch' else key} instead")
    others = tuple(f"{other}." for other in args.archs if other != arch)
    own = [pair for pair in args.set if not pair.startswith(others)]
    return configure(Namespace(arch=arch, epochs=args.epochs, seed=args.seed, weights="", set=[*RECIPE, *own]))


def one_each(recipes: dict[str, TrialConfig]) -> Space:
    """A space that begins with each of these once, in this order."""
    names = list(recipes)
    return Space(lambda trial: recipes[trial.suggest_categorical("arch", names)].flat(), tuple({"arch": a} for a in names))


def words(data) -> str:
    images = ", ".join(f"{len(getattr(data, name)):,} {name}" for name in ("train", "val", "test", "unlabelled"))
    return f"Images: {images}. Val was held out; test was never used to choose anything."


if __name__ == "__main__":
    run(main)
