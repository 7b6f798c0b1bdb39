"""The flags that every kind of sweep has, and what follows from them."""

import argparse
import os
import re
from argparse import ArgumentTypeError, Namespace
from datetime import datetime
from math import inf
from pathlib import Path

from sweeps.layout import is_taken
from trainable.datasets import default_dataset, known
from trainable.errors import BadInput, Parser, as_path, listed, number, positive, short

ROOT = Path(__file__).resolve().parents[1]
LEAST = 10  # seconds of a time budget: Ray alone takes as many to start
LONGEST = 200  # bytes of a name: a file system takes 255, and copies get a number


def add_shared(p: Parser):
    """Which data, where it lies, on which machines."""
    p.add_argument("--name", help="the sweep's folder under --results (default: date and dataset)")
    p.add_argument("--dataset", help=f"{known()} (default: the competition's if it is in data/, else the sample)")
    p.add_argument("--image-size", type=positive(int, 1024), help="pixels a side to read images at (default: as they are)")
    p.add_argument("--results", type=as_path, help="where sweeps lie (default: results/ of the project)")
    p.add_argument("--seed", type=positive(int, 2**31, or_zero=True), default=0, help="of all that is drawn")
    p.add_argument("--concurrent", type=positive(int), help="trials at a time (default: fill the cluster)")
    p.add_argument("--cpus-per-trial", type=positive(int), default=1, help="processors, and threads, a trial")
    p.add_argument(
        "--gpus-per-trial",
        type=share_of_a_gpu,
        metavar="SHARE",
        help="share of a GPU, 0.01 to 1, or 0 for none (default: measured, where there is one)",
    )
    p.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS"),
        help="an existing Ray cluster, HOST:PORT of its head or auto (default: $RAY_ADDRESS, else start one here)",
    )
    p.add_argument("--step-timeout", metavar="10m", default="10m", help="without a step for so long, a trial is taken for hung")
    p.add_argument("--mlflow", metavar="URI", help="a server that mirrors the sweep (default: mlflow.db under --results)")
    p.set_defaults(why="asked for")


def share_of_a_gpu(text: str) -> float:
    """An argparse type: 0, or 0.01 to 1."""
    share = number(text)
    if share is not None and 1 < share < inf:
        raise argparse.ArgumentTypeError(f"{short(repr(text))}: a trial trains on one GPU at most; give 1, a share of one, or 0")
    if share is None or not (share == 0 or 0.01 <= share <= 1):
        raise argparse.ArgumentTypeError(f"{short(repr(text))} is not a share of a GPU; give 0.01 to 1, or 0")
    return share


def settle(args: Namespace, kind: str = ""):
    """Fill in the dataset (with `why` it), the name and the folder; raises BadInput for what cannot be meant."""
    if args.dataset is None:
        args.dataset, args.why = default_dataset()
    if args.name is None:
        args.name = f"{datetime.now():%Y-%m-%d-%H%M%S}-{kind}{re.sub(r'[^a-zA-Z0-9.-]+', '-', args.dataset)[:60]}"
        args.name = args.name.rstrip(".")  # of a path that ends with it
    check_new_name(args.name)
    args.results = results_folder(args.results)
    args.step_timeout = seconds("step-timeout", args.step_timeout)


def check_name(flag: str, name: str):
    """Raises BadInput for what can be no sweep's name."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        rule = "up to 100 letters, digits, '.', '_' or '-', beginning with a letter, digit or '_'"
        raise BadInput(f"--{flag} {short(repr(name))}: {rule}")


def check_new_name(name: str):
    """Raises BadInput for what can be no new sweep's name."""
    check_name("name", name)
    if (size := len(name.encode())) > LONGEST:
        raise BadInput(f"--name {short(repr(name))} has {size} bytes in UTF-8; give at most {LONGEST}")
    if name.endswith("."):
        raise BadInput(f"--name {short(repr(name))} ends with a dot; leave it out")
    if is_taken(name):
        own = "a file or folder of the project's own lies there"
        raise BadInput(f"--name {name!r}: {own}; choose another name")


def results_folder(given: Path | None) -> Path:
    """Where sweeps lie."""
    return (given or ROOT / "results").resolve()


def sweep_folder(given: str, results: Path, *holds: str) -> Path:
    """Of a sweep that is named, or pointed at as the folder that `holds` one of these files, record.db unless said; it need
    not be there. Raises BadInput for what can be neither."""
    try:
        as_path(given)
        as_path(str(results / given / "record.db"))
    except ArgumentTypeError as wrong:
        raise BadInput(f"{short(repr(given))} names no sweep: {wrong}") from wrong
    there = any(os.path.exists(f"{given}/{name}") for name in holds or ("record.db",))
    return (Path(given) if there else results / given).resolve()


def no_sweep(folder: Path, results: Path) -> BadInput:
    """That there is none in `folder`, and which there are."""
    holding = ("record.db", "ensemble.json")
    others = sorted({file.parent.name for name in holding for file in results.glob(f"*/{name}")})
    return BadInput(f"{short(folder, 200)} holds no sweep; there are: {listed(others, folder.name) or 'none'}")


def existing_sweep(given: str, results: Path, *holds: str) -> Path:
    """`sweep_folder`, which must hold one of these files. Raises BadInput."""
    folder = sweep_folder(given, results, *holds)
    if not any((folder / name).exists() for name in holds):
        raise no_sweep(folder, results)
    return folder


def budget(text: str) -> float:
    """A time budget in seconds; raises BadInput."""
    total = seconds("time-budget", text)
    if total < LEAST:
        raise BadInput(f"--time-budget {text} is too short to start Ray and train one step; give at least {LEAST}s")
    return total


def seconds(flag: str, text: str) -> float:
    """'90s', '30m', '1h30m' in seconds; raises BadInput."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    parts = re.findall(r"([^dhms]*)([dhms])", text)
    values = [number(value) for value, _ in parts]
    if not parts or None in values or "".join(map("".join, parts)) != text:
        raise BadInput(f"--{flag} {short(repr(text))} is not a time; write 90s, 30m or 1h30m")
    total = sum(value * units[unit] for value, (_, unit) in zip(values, parts, strict=True))
    if not 0 < total <= 365 * 86400:
        raise BadInput(f"--{flag} {short(repr(text))} should be above 0 and at most a year")
    return total
