"""Teach one network what the ensemble of a sweep says: better than one by itself, in one network's time.

python sweeps/distil.py SWEEP
python sweeps/distil.py SWEEP --trial 12 --epochs 60
"""

import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sweeps import stored
from sweeps.choose.combine import combined
from sweeps.choose.cost import measure
from sweeps.choose.members import Member, Network, out_of_fold, restore
from sweeps.choose.model import FILE
from sweeps.ensemble import data_of
from sweeps.flags import results_folder, sweep_folder
from sweeps.resume import before
from trainable import engine, files, saved, scores
from trainable.config import TrialConfig, as_epochs
from trainable.datasets import DATASETS
from trainable.datasets.container import of_fold
from trainable.errors import BadInput, Parser, as_path, positive, run
from trainable.fit import fit
from trainable.train import check_device, follow, free_folder

FOLD = 0  # left out: neither the teachers' networks of this fold nor the pupil see it
LONGER = 2.0  # times a finalist's epochs, where nobody says how many: who is taught this way is in no hurry


def main():
    args = parse()
    folder = sweep_folder(args.sweep, results_folder(args.results))
    data = data_of([folder])
    about, members = ensemble_of(folder, data)
    own = of_fold(data, len(members[0].networks), FOLD)
    config, alone = pupil(args, about, members)
    out = free_folder(args.out, folder / "distilled")
    teacher = Teacher([member.networks[FOLD] for member in members], about, args.device)
    steps = fit(config, own, args.device, teach=teacher)
    of = f"trial {alone.trial} {config.arch}, taught by {_networks(members)}"
    print(f"{of}: {len(own.train):,} images to train, {len(own.val):,} that none of them has seen.")
    began = time.monotonic()
    curve, state = follow(steps, config, own)
    report = {**curve[-1], "seconds": round(time.monotonic() - began, 3), "taught_by": [member.name for member in members]}
    try:
        for name, content in saved.pack(config, own, state, report).items():
            files.write(out / name, content)
    except OSError as wrong:
        raise BadInput(f"--out {out}: {wrong.strerror}; choose a folder that can be written") from wrong
    show(about, members, alone, round(report["val_error"] * len(own.val)), state, own, data)
    print(f"Saved in {out}: {saved.WEIGHTS}, {saved.CONFIG}.")
    if len(data.unlabelled) or len(data.test):
        dataset = before(folder).arguments["dataset"]
        own = "" if dataset in DATASETS else f" --dataset {dataset}"
        print(f"Next: python trainable/predict.py {out}{own}")


def parse() -> Namespace:
    p = Parser(prog="distil.py", description=__doc__.split("\n")[0])
    p.add_argument("sweep", metavar="SWEEP", help="its name under --results, or a folder; it has finalists")
    p.add_argument(
        "--trial", type=positive(int, or_zero=True), help="the finalist whose configuration is taught (default: the fastest)"
    )
    p.add_argument("--epochs", type=as_epochs, help=f"that it is trained (default: {LONGER:g} times the finalists')")
    p.add_argument("--device", help="cpu, cuda or cuda:1 (default: the first GPU, else the CPU)")
    p.add_argument("--threads", type=positive(int, 4096), help="on a CPU (default: all cores)")
    p.add_argument("--results", type=as_path, help="where sweeps lie (default: results/ of the project)")
    p.add_argument(
        "--out",
        type=as_path,
        help="the folder to save in (default: distilled in that of the sweep, with a number if it is taken)",
    )
    args = p.parse_args()
    if args.device is not None:
        check_device(args.device)
    torch.set_num_threads(args.threads or engine.cores())
    return args


def ensemble_of(folder: Path, data) -> tuple[dict, list[Member]]:
    """What ensemble.json says, and its members in that order; raises BadInput where they are no finalists."""
    if not (folder / FILE).exists():
        raise BadInput(f"{folder.name} has no {FILE} that can be read; combine it: sweeps/ensemble.py {folder.name}")
    about = stored.ensemble(folder)
    there = {_which(vars(member)): member for member in out_of_fold(folder, data)}
    if about["judged_on"]["split"] == "val" and not (there and data.val_given):
        raise BadInput(f"{folder.name} has no finalists, whose folds a pupil is judged on; take a sweep that has")
    missing = [told["trial"] for told in about["members"] if _which(told) not in there]
    if missing:
        raise BadInput(
            f"{folder / FILE} names finalist {missing[0]}, whose networks are gone; "
            f"train them again: arch_sweep.py --resume {folder.name}"
        )
    members = [there[_which(told)] for told in about["members"]]
    if len({len(member.networks) for member in members}) > 1:
        raise BadInput(f"the finalists of {folder.name} have different folds; combine some that have the same")
    return about, members


def _which(told: dict) -> tuple:
    return told["trial"], told["seed"], told["view"], bool(told["unlabelled"])


def pupil(args: Namespace, about: dict, members: list[Member]) -> tuple[TrialConfig, Member]:
    """The configuration that is taught, and the member that has it; raises BadInput where none has."""
    ms = [told["ms_per_image"] / len(told["networks"]) for told in about["members"]]
    alone = members[int(np.argmin(ms))]
    if args.trial is not None:
        alone = next((member for member in members if member.trial == args.trial), None)
        if alone is None:
            of = ", ".join(str(member.trial) for member in members)
            raise BadInput(f"--trial {args.trial} is no member of the ensemble; take one of {of}")
    config = saved.unpack(alone.networks[FOLD].saved_files)[1]
    epochs = args.epochs or LONGER * config.epochs
    return replace(config, epochs=epochs, unlabelled=0, label_smoothing=0.0), alone


class Teacher:
    """What some networks say of images together, as an ensemble weighs and sharpens them.

    Of the very images that the pupil sees, augmentation included: Beyer et al., Knowledge distillation: a good teacher is
    patient and consistent, arXiv:2106.05237.
    """

    def __init__(self, networks: list[Network], about: dict, device: str | None):
        self.temperature = about["temperature"]
        self.parts = []
        for network, told in zip(networks, about["members"], strict=True):
            module, plan, _ = restore(network.saved_files, torch.get_num_threads(), device)
            self.parts.append((told["weight"], module.eval(), plan, network.temperature))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities [n, classes] of floats in [0, 1], [n, channels, height, width]."""
        total = 0.0
        for weight, module, plan, temperature in self.parts:
            with plan.autocast():
                logits = module(plan.laid_out(images))
            total = total + weight * (logits.float() / temperature).softmax(dim=1)
        return (total.clamp(min=1e-7).log() / self.temperature).softmax(dim=1)


def _networks(members: list[Member]) -> str:
    return f"{len(members)} network{'s' * (len(members) > 1)}"


def show(about: dict, members: list[Member], alone: Member, errors: int, state, own, data):
    """The pupil, one that nobody taught, and the ensemble, on the images that none of their networks has seen."""
    by_one = [member.said(member.networks[FOLD], "val") for member in members]
    weight = np.array([told["weight"] for told in about["members"]])
    said = combined(about["method"], np.stack(by_one), weight, about["temperature"])
    modules = {member.name: restore(member.networks[FOLD].saved_files, torch.get_num_threads(), None) for member in members}
    ms = {name: measure(module, plan, own.in_shape, 0.3)["ms_128"] / 128 for name, (module, plan, _) in modules.items()}
    taught = measure(state.best_network, state.plan, own.in_shape, 0.3)["ms_128"] / 128
    rows = {
        "taught": (errors, taught),
        f"trial {alone.name} by itself": (scores.errors(by_one[members.index(alone)], own.val.labels), ms[alone.name]),
        f"ensemble, {_networks(members)}": (scores.errors(said, own.val.labels), sum(ms.values())),
    }
    judges = "validation images given by the user" if data.val_given else "images out of fold"
    title = f"On {len(own.val):,} {judges}; ms an image in batches of 128, {torch.get_num_threads()} thread(s)"
    table = Table(title=title, title_justify="left")
    for name in ("", "errors", "error", "95 % interval", "ms"):
        table.add_column(name, justify="left" if not name else "right")
    for name, (wrong, cost) in rows.items():
        low, high = scores.interval(wrong, len(own.val))
        table.add_row(name, str(wrong), f"{wrong / len(own.val):.2%}", f"{low:.2%} to {high:.2%}", f"{cost:.3g}")
    (Console() if sys.stdout.isatty() else Console(width=110)).print(table)


if __name__ == "__main__":
    run(main)
