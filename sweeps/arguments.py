"""What was asked of arch_sweep.py."""

import re
from argparse import Namespace

from sweeps.choose.combine import ENSEMBLES
from sweeps.flags import add_shared, settle
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import METRICS, SEARCHERS
from sweeps.search.space import SPACES
from trainable.errors import BadInput, Parser, lookup, positive

DEFAULTS = {"space": "default", "max_epochs": 10.0, "time_budget": "30m"}
QUICK = {**DEFAULTS, "dataset": "digits-sample", "space": "quick", "time_budget": "7m"}


def parse(arguments: list[str]) -> Namespace:
    """Raises BadInput for what cannot be meant."""
    p = Parser(prog="arch_sweep.py", description="Search, train, combine; write a submission.")
    p.add_argument("--space", help=f"{', '.join(SPACES)} or FILE.py:function (default: {DEFAULTS['space']})")
    p.add_argument("--trials", type=positive(int), help="how many to start at most (default: as many as there is time for)")
    p.add_argument(
        "--time-budget",
        metavar="30m",
        help=f"for the search, from the start (default: {DEFAULTS['time_budget']}, or none with --trials)",
    )
    p.add_argument("--max-epochs", type=positive(float, 1e5), help=f"of a trial (default: {DEFAULTS['max_epochs']:g})")
    p.add_argument("--searcher", default="tpe", help=f"who proposes: {', '.join(SEARCHERS)}")
    p.add_argument("--scheduler", default="asha", help=f"who stops trials: {', '.join(SCHEDULERS)}")
    p.add_argument("--metric", default="val_loss", help=f"what is minimised: {', '.join(METRICS)}")
    p.add_argument("--ensemble", help=f"how networks are combined: {', '.join(ENSEMBLES)} (default: the best on val)")
    p.add_argument("--quick", action="store_true", help="--dataset digits-sample --space quick --time-budget 7m, where not given")
    add_shared(p)
    args = p.parse_args(arguments)
    preset = QUICK if args.quick else DEFAULTS
    if args.quick and args.dataset is None:
        args.why = "the quick sweep's"
    for name, value in preset.items():
        if getattr(args, name) is None and (name != "time_budget" or not args.trials):
            setattr(args, name, value)
    settle(args)
    args.time_budget = None if args.time_budget is None else seconds(args.time_budget)
    for table, name in ((SEARCHERS, "searcher"), (SCHEDULERS, "scheduler")):
        lookup(table, getattr(args, name), name)
    lookup(dict.fromkeys(METRICS), args.metric, "metric")
    if args.ensemble:
        lookup(ENSEMBLES, args.ensemble, "ensemble")
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
