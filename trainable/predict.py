"""Write a submission from one or several saved networks: the mean of their probabilities.

python trainable/predict.py networks/convnet-0
python trainable/predict.py networks/a networks/b --views 8 --out submission.csv
python trainable/predict.py networks/mine --images PATH
"""

import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

from trainable import engine, saved, scores
from trainable.augment import can_view, view
from trainable.config import TrialConfig
from trainable.datasets import DATA, DATASETS, folder, known, load
from trainable.datasets.container import Dataset, Split
from trainable.datasets.leak import refuse_leak, refuse_seen
from trainable.errors import BadInput, Parser, as_path, positive, run
from trainable.fit import predict
from trainable.saved import Problem
from trainable.submission import write_submission
from trainable.train import check_device

SPLITS = ("unlabelled", "test", "val", "train")


@dataclass(frozen=True)
class Network:
    folder: Path
    network: nn.Module
    config: TrialConfig
    problem: Problem


def main():
    args = parse(sys.argv[1:])
    networks = [read(path) for path in args.networks]
    data, split = to_predict(args, networks, args.views)
    if args.threads:
        torch.set_num_threads(args.threads)
    began = time.monotonic()
    with tqdm(total=len(networks) * args.views * len(split), unit="image", unit_scale=True) as bar:
        probs = [answer(one, split, range(args.views), args.device, bar.update) for one in networks]
    seconds = time.monotonic() - began
    mean = np.mean(probs, axis=0)
    if len(networks) > 1 or (split.labels >= 0).all():
        show(networks, probs, mean, split, args.views)
    write(args.out, data, split, mean)
    print(f"{len(split):,} images in {seconds:.1f} s ({1000 * seconds / len(split):.2f} ms an image); wrote {args.out}.")


def parse(arguments: list[str]) -> Namespace:
    p = Parser(prog="predict.py", description=__doc__.split("\n")[0])
    p.add_argument(
        "networks", nargs="+", type=as_path, metavar="NETWORK", help="a folder that train.py or a sweep saved a network in"
    )
    p.add_argument(
        "--views",
        type=positive(int, 1000),
        default=1,
        help="see each image so often, each time but the first a little warped; compare on --split val first: it may not help",
    )
    add_shared(p)
    args = p.parse_args(arguments)
    settle(args)
    return args


def add_shared(p: Parser):
    """Which images, where, and the file to write: the flags of whatever predicts."""
    p.add_argument("--dataset", help=f"{known()} (default: the one that the first network was trained on, where that has a name)")
    p.add_argument("--split", help=f"which of its images: {', '.join(SPLITS)} (default: the first of these that it has)")
    p.add_argument("--images", type=as_path, metavar="FOLDER", help="predict every image in this folder, instead of a dataset")
    p.add_argument("--device", help="cpu, cuda or cuda:1 (default: the first GPU, else the CPU)")
    p.add_argument("--threads", type=positive(int, 4096), help="on a CPU (default: all cores)")
    p.add_argument("--out", type=as_path, default="submission.csv", help="the file to write")


def settle(args: Namespace):
    """Raises BadInput for what cannot be meant, or written."""
    if args.images and (args.dataset or args.split):
        raise BadInput("--images is a folder by itself; leave --dataset and --split out")
    if args.split is not None and args.split not in SPLITS:
        raise BadInput(f"unknown split {args.split!r}; known: {', '.join(SPLITS)}")
    if args.device is not None:
        check_device(args.device)
    args.out = args.out.resolve()
    if args.out.is_dir():
        raise BadInput(f"--out {args.out} is a folder; name a file")
    if not args.out.parent.is_dir():
        raise BadInput(f"--out {args.out}: there is no folder {args.out.parent}; name a file in a folder that is there")


def write(out: Path, data: Dataset, split: Split, probs: np.ndarray):
    try:
        write_submission(out, data, split, probs)
    except OSError as wrong:
        raise BadInput(f"--out {out}: {wrong.strerror}; name a file that can be written") from wrong


def read(path: Path | str, digests: Mapping[str, str] | None = None, named_in: str = "") -> Network:
    """A saved network, whose files have these digests where `named_in` names them; raises BadInput."""
    network, config, problem = saved.load(path, digests, named_in)
    return Network(Path(path), network, config, problem)


def to_predict(args: Namespace, networks: list[Network], views: int = 1, splits: Sequence[str] = SPLITS) -> tuple[Dataset, Split]:
    """The images, in the shape that the networks take: of the first of these `splits` that has some, unless one is asked for.

    Raises:
        BadInput: the networks differ in classes or shape, the data has other classes, or they must not meet.
    """
    first = networks[0].problem
    for other in networks[1:]:
        if other.problem.classes != first.classes or other.problem.in_shape != first.in_shape:
            raise BadInput(f"{other.folder} and {networks[0].folder} were trained for other classes or another shape of image")
    for one in networks:
        if views > 1 and not can_view(one.config.augment):
            raise BadInput(f"--views {views}: {one.folder} was trained without a warp, so its views would all be the same")
    channels, *size = first.in_shape
    taught = {name for one in networks for name in one.problem.seen}
    refuse_leak(taught)
    if args.images:
        return folder.loose(args.images, DATA, tuple(size), channels, first.classes)
    dataset = args.dataset or first.dataset
    if not args.dataset and dataset not in DATASETS:
        raise BadInput(
            f"{networks[0].folder} was trained on {dataset}; say --dataset folder:PATH or csv:PATH, or --images FOLDER"
        )
    data = load(dataset, image_size=tuple(size), channels=channels)
    refuse_leak(taught, data.name)
    if data.classes != first.classes:
        raise BadInput(f"{dataset} has the classes {_few(data.classes)}; {networks[0].folder} knows {_few(first.classes)}")
    name = args.split or next((name for name in splits if len(getattr(data, name))), None)
    if name is None:
        kinds = " nor ".join(splits)
        raise BadInput(f"{dataset} has no images to predict, neither {kinds}; give --images FOLDER")
    split = getattr(data, name)
    if not len(split):
        raise BadInput(f"{dataset} has no {name} images; it has {', '.join(n for n in SPLITS if len(getattr(data, n)))}")
    if (split.labels >= 0).all():
        refuse_seen(taught, data.name, name)
    return data, split


def _few(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")


def answer(one: Network, split: Split, views: Sequence[int], device: str | None, tell) -> np.ndarray:
    """Its calibrated probabilities, the mean over the views, of which 0 is each image as it is: float64 [n, classes]."""
    plan = engine.plan(one.network, one.problem.in_shape, device, one.config.engine)
    plan.place(one.network)
    total = 0.0
    for number in views:
        logits = predict(one.network, split, plan, lambda images, n=number: view(images, one.config.augment, n))
        total = total + scores.softmax(logits, one.problem.temperature)
        tell(len(split))
    return total / len(views)


def show(networks: list[Network], probs: list[np.ndarray], mean: np.ndarray, split: Split, views: int):
    """Each network and all together: the error where labels are known, else how often it says what all say together."""
    labelled = (split.labels >= 0).all()
    title = f"{len(split):,} images, {views} view{'s' * (views > 1)} each"
    table = Table("network", "arch", "errors" if labelled else "agrees with all", title=title, title_justify="left")
    for name, arch, own in [
        *((str(one.folder), one.config.arch, own) for one, own in zip(networks, probs, strict=True)),
        *([("all together", "", mean)] if len(networks) > 1 else []),
    ]:
        wrong = scores.errors(own, split.labels if labelled else mean.argmax(axis=1))
        table.add_row(name, arch, f"{wrong:,} ({wrong / len(split):.2%})" if labelled else f"{1 - wrong / len(split):.2%}")
    (Console() if sys.stdout.isatty() else Console(width=120)).print(table)


if __name__ == "__main__":
    run(main)
