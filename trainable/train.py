"""Train one network by itself, without Ray, and save it.

python trainable/train.py --arch resnet18 --epochs 0.2
python trainable/train.py --set convnet.width=32 --set lr=0.002 --set augment.rotation=15
python trainable/train.py --dataset folder:PATH --arch efficientnet_b0 --weights torchvision
"""

import itertools
import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from trainable import files, saved, scores
from trainable.again import COMPARED, Comparison, recorded
from trainable.archs import ARCHS
from trainable.config import ONLY_FINALISTS, TrialConfig, as_epochs
from trainable.datasets import DATASETS, default_dataset, known, load
from trainable.datasets.container import Dataset, all_labels, as_recorded, of_fold
from trainable.errors import BadInput, Parser, as_path, positive, run, short
from trainable.fit import State, evaluate, fit, predict, settle

ROOT = Path(__file__).resolve().parents[1]


def main():
    args = parse(sys.argv[1:])
    config = args.trial.config if args.trial else configure(args)
    data = load(args.dataset, image_size=args.image_size)
    if args.trial:
        if data.fingerprint != args.trial.data["fingerprint"]:
            raise BadInput(f"--trial: {data.name} is not what the sweep had: its fingerprint is another; bring the data back")
        data = as_recorded(data, args.trial.data)
    if config.unlabelled:
        raise BadInput(ONLY_FINALISTS)
    if config.folds and args.all_labels:
        raise BadInput("--all-labels leaves no fold to hold out; leave folds out")
    data = all_labels(data) if args.all_labels else of_fold(data, config.folds, config.fold)
    if args.threads:
        torch.set_num_threads(args.threads)
    comparison = Comparison(args.trial) if args.trial and args.trial.rungs else None
    if args.trial and not comparison:
        print(f"Trial {args.trial.name} ended before its first rung: there is nothing to compare with.")
    steps = fit(config, data, args.device)
    try:
        args.out.mkdir(parents=True, exist_ok=True)  # complain before the training, not after it
    except OSError as wrong:
        raise BadInput(f"--out {args.out}: {wrong.strerror}; choose a folder that can be written") from wrong
    print(f"{config.arch} on {data.name} ({args.why}): {len(data.train):,} images to train, {len(data.val):,} to choose (val).")

    began = time.monotonic()
    curve, state = follow(steps, config, data, comparison)
    seconds = time.monotonic() - began
    report = {**(curve[-1] if curve else {"budget": state.budget}), "seconds": round(seconds, 3)}
    if len(data.test):
        wrong = scores.errors(predict(state.best_network, data.test, state.plan), data.test.labels)
        report["test_error"] = wrong / len(data.test)
    for name, content in saved.pack(config, data, state, report).items():
        files.write(args.out / name, content)
    if args.plot and curve:
        plot(args.out / "curves.png", curve, f"{config.arch} on {data.name}")
    show(report, state, config, data)
    if comparison:
        compare(comparison)
    written = [saved.WEIGHTS, saved.CONFIG, *(["curves.png"] if args.plot and curve else [])]
    print(f"Saved in {args.out}: {', '.join(written)}.")
    if len(data.unlabelled) or len(data.test):
        own = "" if args.dataset in DATASETS else f" --dataset {args.dataset}"
        print(f"Next: python trainable/predict.py {args.out}{own}")


def parse(arguments: list[str]) -> Namespace:
    p = Parser(prog="train.py", description=__doc__.split("\n")[0])
    p.add_argument("--arch", default="convnet", help=f"one of: {', '.join(ARCHS)}")
    p.add_argument("--dataset", help=f"{known()} (default: the competition's if it is in data/, else the sample)")
    p.add_argument(
        "--image-size",
        type=positive(int, 1024),
        help="pixels a side, 4 to 1024, to read images at (default: as they are, or up to 96)",
    )
    p.add_argument("--epochs", type=as_epochs, default=8.0, help="the whole training; fractions are allowed")
    p.add_argument("--weights", default="", help="to start from: torchvision, or a folder or file of safetensors")
    p.add_argument("--all-labels", action="store_true", help="train on val too: nothing is left to judge the network by")
    p.add_argument(
        "--seed", type=positive(int, 2**31, or_zero=True), default=0, help="of the weights, the order and the augmentation"
    )
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other field of a TrialConfig (trainable/config.py) or knob of the architecture; repeatable",
    )
    p.add_argument("--trial", metavar="SWEEP/NUMBER", help="train that trial of a sweep again, and compare the numbers")
    p.add_argument("--device", help="cpu, cuda or cuda:1 (default: the first GPU, else the CPU)")
    p.add_argument("--threads", type=positive(int, 4096), help="on a CPU (default: all cores)")
    p.add_argument("--results", type=as_path, help="where sweeps lie, for --trial (default: results/ of the project)")
    p.add_argument("--plot", action="store_true", help="draw the learning curves into curves.png")
    p.add_argument(
        "--out",
        type=as_path,
        help="the folder to save in (default: networks/<arch>-<seed>, with a number where that is taken)",
    )
    args = p.parse_args(arguments)
    if args.plot and args.all_labels:
        raise BadInput("--plot draws the error on val, and --all-labels leaves no val; leave one of them out")
    args.why = "asked for"
    if args.trial is not None:
        again(args, arguments)
    if args.dataset is None:
        args.dataset, args.why = default_dataset()
    if args.device is not None:
        check_device(args.device)
    args.out = free_folder(args.out, ROOT / "networks" / f"{args.arch}-{args.seed}")
    return args


def again(args: Namespace, arguments: list[str]):
    """What is asked for is a trial's; raises BadInput where something else is asked for too."""
    own = ("--trial", "--out", "--device", "--threads", "--plot", "--results")
    other = [flag.partition("=")[0] for flag in arguments if flag.startswith("--") and flag.partition("=")[0] not in own]
    if other:
        raise BadInput(f"{other[0]}: --trial says what is trained; leave it out")
    args.trial = recorded(args.trial, args.results or ROOT / "results")
    args.dataset, args.image_size, args.why = args.trial.dataset, args.trial.image_size, f"trial {args.trial.name}"
    args.arch, args.seed = args.trial.config.arch, args.trial.config.seed
    args.threads = args.threads or args.trial.threads
    args.out = args.out or free_folder(None, ROOT / "networks" / args.trial.name)


def free_folder(asked: Path | None, default: Path) -> Path:
    """Where to save; raises BadInput where a network lies already. The default gets a number if it is taken."""
    if asked:
        folder = asked.resolve()
        if (folder / saved.CONFIG).exists():
            raise BadInput(f"--out {folder} holds a network already; choose another folder")
        return folder
    tries = (default.with_name(f"{default.name}{f'-{i}' if i else ''}") for i in itertools.count())
    return next(folder for folder in tries if not (folder / saved.CONFIG).exists())


def configure(args: Namespace) -> TrialConfig:
    """Raises BadInput for an unknown key or a value outside its range."""
    given = {"arch": args.arch, "epochs": args.epochs, "seed": args.seed, "weights": args.weights}
    flat = TrialConfig.from_flat(given).flat()
    for pair in args.set:
        key, equals, text = pair.partition("=")
        if not equals:
            raise BadInput(f"--set {short(pair)}: write KEY=VALUE, as in --set lr=0.002")
        if key in given:
            raise BadInput(f"--set {short(pair)}: use --{key} {short(text)} instead")
        flat[key] = _value(text)
    return TrialConfig.from_flat(flat)


def _value(text: str):
    """A value of --set: of JSON where it is that, else the text."""
    try:
        return json.loads(text) if text == text.strip() else text
    except (ValueError, RecursionError):
        return text


def check_device(name: str):
    """Raises BadInput unless torch can compute there."""
    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError("neither a CPU nor a GPU of CUDA's")
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as wrong:
        has = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise BadInput(f"--device {name} is not to be had here; this machine has {', '.join(['cpu', *has])}") from wrong


def follow(steps, config: TrialConfig, data: Dataset, comparison: Comparison | None = None) -> tuple[list[dict], State]:
    """Train to the end under a progress bar; the metrics after every epoch (none without val), and the state.

    With a `comparison` it is over, and evaluated, where the trial was.
    """
    curve, losses = [], []
    form = "{l_bar}{bar}| {n:.2f}/{total:g} epochs [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=config.epochs, unit="epoch", bar_format=form) as bar:
        began = time.monotonic()
        for metrics, state in steps:
            losses.append(metrics["loss"])
            if comparison and comparison.see(metrics, state, data):
                return comparison.now, state
            bar.update(min(round(metrics["budget"], 3), config.epochs) - bar.n)  # whole batches may end later
            if state.step % 10 == 0:
                speed = state.step * len(data.train) / state.steps_per_epoch / (time.monotonic() - began)
                bar.set_postfix_str(f"loss {metrics['loss']:.3f}, {speed:,.0f} images/s", refresh=False)
            if not comparison and (state.step == state.total_steps or state.step % state.steps_per_epoch == 0):
                train_loss = torch.stack(losses).mean().item()
                losses.clear()
                if len(data.val):
                    curve.append({**evaluate(state, data.val)[0], "train_loss": train_loss})
                    bar.write("epoch {budget:6.2f}  val error {val_error:.2%}  val loss {val_loss:.4f}".format(**curve[-1]))
    if not len(data.val):
        settle(state)
    return curve, state


def show(report: dict, state: State, config: TrialConfig, data: Dataset):
    table = Table(title=f"{config.arch}, {report['budget']:.3g} epochs", title_justify="left", show_header=False)
    parameters = sum(p.numel() for p in state.network.parameters())
    images = state.step * min(config.batch_size, len(data.train))
    rows = {}
    for name, split, what in (("val", data.val, "used to choose"), ("test", data.test, "never used to choose")):
        if f"{name}_error" in report:
            wrong = round(report[f"{name}_error"] * len(split))
            low, high = scores.interval(wrong, len(split))
            rows[f"{name} error"] = (
                f"{wrong / len(split):.2%} ({wrong:,} of {len(split):,}; 95 % interval {low:.2%} to {high:.2%}; {what})"
            )
    rows |= {
        "parameters": f"{parameters:,}",
        "engine": f"{state.plan.setting} on {state.plan.device}, {torch.get_num_threads()} thread(s)",
        "time": f"{report['seconds'] / 60:.1f} minutes, {images / max(report['seconds'], 1e-3):,.0f} images a second",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    (Console() if sys.stdout.isatty() else Console(width=110)).print(table)


def compare(comparison: Comparison):
    """The numbers of the record beside those of now."""
    table = Table(title=f"Trial {comparison.trial.name}: recorded, and now", title_justify="left")
    table.add_column("epochs", justify="right")
    for name in COMPARED:
        for when in ("then", "now"):
            table.add_column(f"{name} {when}", justify="right")
    for then, now in zip(comparison.trial.rungs, comparison.now, strict=True):
        cells = (f"{side[name]:.6f}" if name in side else "-" for name in COMPARED for side in (then, now))
        table.add_row(f"{then['budget']:.2f}", *cells)
    (Console() if sys.stdout.isatty() else Console(width=110)).print(table)
    print(comparison.verdict())


def plot(path: Path, curve: list[dict], title: str):
    """Val error and both losses, by epoch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = [point["budget"] for point in curve]
    left.plot(epochs, [100 * point["val_error"] for point in curve], marker=".")
    left.set(xlabel="epochs", ylabel="val error, %", yscale="log", title=title)
    for name, label in (("train_loss", "train (augmented, smoothed labels)"), ("val_loss", "val (calibrated)")):
        right.plot(epochs, [point[name] for point in curve], marker=".", label=label)
    right.set(xlabel="epochs", ylabel="cross-entropy", yscale="log")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run(main)
