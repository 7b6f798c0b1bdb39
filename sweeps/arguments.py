"""What was asked of arch_sweep.py."""

from argparse import Namespace
from pathlib import Path

from sweeps.choose.combine import ENSEMBLES
from sweeps.flags import add_shared, budget, check_name, results_folder, seconds, settle, sweep_folder
from sweeps.resume import Before, before, blamed, merged
from sweeps.search.draw import SEARCHERS
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import METRICS
from sweeps.search.space import SPACES
from trainable.config import as_epochs
from trainable.errors import BadInput, Parser, lookup, positive

HOME = "digit-recognizer"
SHARE = 0.4  # of the time budget
DEFAULTS = {"space": "default", "max_epochs": 10.0, "time_budget": "30m"}
QUICK = {**DEFAULTS, "dataset": "digits-sample", "space": "quick", "time_budget": "7m"}


def parse(arguments: list[str]) -> tuple[Namespace, Before | None]:
    """What was asked, and what there is of the sweep already where one is resumed.

    Raises:
        BadInput: what cannot be meant.
    """
    p = _parser()
    args = p.parse_args(arguments)
    if args.resume is not None:
        return _resumed(args, _given(p, arguments))
    if args.download:
        if args.dataset not in (None, HOME):
            raise BadInput(f"--download brings {HOME}; python sweeps/download.py SLUG brings others")
        args.dataset, args.why = HOME, "downloaded"
    preset = QUICK if args.quick else DEFAULTS
    if args.quick and args.dataset is None:
        args.why = "the quick sweep's"
    for name, value in preset.items():
        if getattr(args, name) is None and (name != "time_budget" or not args.trials):
            setattr(args, name, value)
    settle(args)
    _check(args)
    if args.warm_start is not None:
        check_name("warm-start", args.warm_start)
    return args, None


def _parser() -> Parser:
    p = Parser(prog="arch_sweep.py", description="Search, train, combine; write a submission.")
    p.add_argument("--space", help=f"{', '.join(SPACES)} or FILE.py:function (default: {DEFAULTS['space']})")
    p.add_argument("--trials", type=positive(int), help="how many to start at most (default: as many as there is time for)")
    p.add_argument(
        "--time-budget",
        metavar="30m",
        help=f"for all of it, from the start (default: {DEFAULTS['time_budget']}, or none with --trials)",
    )
    p.add_argument("--max-epochs", type=as_epochs, help=f"of a trial (default: {DEFAULTS['max_epochs']:g})")
    p.add_argument("--searcher", default="tpe", help=f"who proposes: {', '.join(SEARCHERS)}")
    p.add_argument("--scheduler", default="asha", help=f"who stops trials: {', '.join(SCHEDULERS)}")
    p.add_argument("--metric", default="val_loss", help=f"what is minimised: {', '.join(METRICS)}")
    p.add_argument(
        "--finalists",
        type=positive(int, 1000, or_zero=True),
        help="configurations that are trained again on folds after the search (default: as many as there is time for)",
    )
    p.add_argument(
        "--finalist-epochs",
        type=as_epochs,
        help="of a finalist (default: as many as a trial's, or up to twice as many where there is time)",
    )
    p.add_argument(
        "--finalist-seeds",
        type=positive(int, 1000),
        help="that each finalist is trained with, on every fold (default: as many as there is time for)",
    )
    p.add_argument(
        "--last-fit",
        action="store_true",
        help="train each finalist once more in the end, on nearly all labels; it then answers for the networks of its folds",
    )
    p.add_argument(
        "--folds",
        type=positive(int, 1000),
        help="that each finalist is trained and judged on (default: 3 to 6, as leaves no place idle)",
    )
    p.add_argument(
        "--views",
        type=positive(int, 100),
        default=1,
        help="in which a finalist sees each image, each but the first a little warped: more members to choose from",
    )
    p.add_argument(
        "--use-unlabelled",
        action="store_true",
        help="finalists learn once more, from unlabelled images too, with the labels that the first ones give them",
    )
    p.add_argument("--search-share", type=positive(float, 1.0), default=SHARE, help="of the time budget, for the search")
    p.add_argument("--ensemble", help=f"how networks are combined: {', '.join(ENSEMBLES)} (default: the best out of fold)")
    p.add_argument("--max-latency", type=positive(float, 1e6), metavar="MS", help="milliseconds an image that it may take")
    p.add_argument("--download", action="store_true", help=f"get {HOME}'s data from Kaggle first, unless they are in data/")
    p.add_argument("--submit", action="store_true", help="send the predictions in the end, if better ones were not sent before")
    p.add_argument("--quick", action="store_true", help="--dataset digits-sample --space quick --time-budget 7m, where not given")
    p.add_argument(
        "--resume",
        metavar="NAME",
        help="go on with that sweep (a name or a folder), whatever ended it; more --trials or time may be given",
    )
    p.add_argument("--warm-start", metavar="NAME", help="begin a new sweep that learns from the trials of that one")
    add_shared(p)
    return p


def _given(p: Parser, arguments: list[str]) -> dict:
    """The flags that were written, and their values."""
    absent = object()
    given = p.parse_args(arguments, Namespace(**{action.dest: absent for action in p._actions}))
    return {name: value for name, value in vars(given).items() if value is not absent and name != "why"}


def _resumed(args: Namespace, given: dict) -> tuple[Namespace, Before]:
    folder = sweep_folder(args.resume, results_folder(args.results))
    check_name("resume", folder.name)
    args.results, args.resume = folder.parent, folder.name
    for name in ("time_budget", "step_timeout"):
        if given.get(name):
            given[name] = seconds(name.replace("_", "-"), given[name])
    if given.get("space"):
        given["space"] = _absolute(given["space"])
    earlier = before(args.results / args.resume)
    args = merged(args, given, earlier)
    if "trials" in given and args.trials < len(earlier.searched):
        raise BadInput(f"--trials {args.trials}: sweep {args.name} has {len(earlier.searched)} already; give more")
    if "trials" in given and "time_budget" not in given and args.time_budget and args.time_budget <= earlier.seconds:
        args.time_budget = None  # who asks for more trials does not mean the time that is used up
    with blamed(earlier.record):
        _check(args)
    return args, earlier


def _check(args: Namespace):
    args.space = _absolute(args.space)
    if isinstance(args.time_budget, str):
        args.time_budget = budget(args.time_budget)
    for table, name in ((SEARCHERS, "searcher"), (SCHEDULERS, "scheduler")):
        lookup(table, getattr(args, name), name)
    lookup(dict.fromkeys(METRICS), args.metric, "metric")
    if args.folds == 1:
        raise BadInput("--folds is 1, which would leave nothing to train on; give at least 2")
    if args.ensemble is not None:
        lookup(ENSEMBLES, args.ensemble, "ensemble")


def _absolute(space: str) -> str:
    """A file's space wherever it is called from later."""
    path, colon, function = space.rpartition(":")
    return f"{Path(path).resolve()}:{function}" if colon and Path(path).is_file() else space
