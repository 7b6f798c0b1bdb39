"""Images a second in training: our loop against the one of torchvision's reference scripts.

    python tests/benchmarks/engine.py [--mode sweep|single] [--archs a,b] [--repeats 3] [--json FILE]

ours       `trainable.fit.fit`
reference  reference.py: the loop of torchvision's references/classification on the same images: a DataLoader with
           workers, torchvision's transforms v2 an image at a time, NCHW, fp32, AdamW, OneCycleLR, AveragedModel

Both have the same network from the same seed, batch 128, augmentation (common.py), optimiser, schedule, label smoothing,
average and torch threads, on the same cores:

sweep      a training a core, side by side, as in a sweep: one torch thread each; the reference one worker each. The
           figure is their sum: what the machine gets done. The headline: it is how a machine is used here, and neither
           side's threads wait for each other.
single     one training on all cores, as in train.py: a torch thread a core on either side; the reference has a worker
           a core besides. On a machine that has other work this measures the other work: threads wait for each other.

A network's processes are new; each takes some steps (ours chooses precision and layout before its first), then they
take turns: while one side runs, every process of the other is stopped by a signal, its queue of batches as it was. A turn
is a figure: the images between the first and last step that end in it. A ratio is of two neighbouring turns.

Outside is the share of our steps that is spent neither in the network's forward, nor in backward, nor in the optimiser's
step: data, augmentation, the loss, averaging, Python.

Loss is the validation loss of the network (not its average) at the end of a short training, from different seeds.
"""

import json
import math
import signal
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from common import about, show, spread, table_of
from reference import BATCH, recipe, reference
from turns import FORK, start, turn, warm

from sweeps.search.space import OWN, SMALL_ZOO
from trainable import engine
from trainable.archs import ARCHS
from trainable.datasets import load
from trainable.errors import BadInput, Parser, lookup, positive, run
from trainable.fit import fit

LOSS_LR = {"convnet": 4e-3, "squeezenet1_1": 1e-3}  # the networks whose loss is compared; without BatchNorm a lower rate
SIDES = ("ours", "reference")


def compare(arch: str, data, args) -> dict:
    """One network's figures, a list entry a turn."""
    cores = engine.cores()
    each = {"single": [(0, cores)], "sweep": [(seed, 1) for seed in range(cores)]}[args.mode]  # (seed, threads and workers)
    sides = {side: [] for side in SIDES}
    out = {"ours": [], "reference": [], "ratio": [], "outside": []}
    jobs = [(side, recipe(arch, epochs=1e4, seed=seed), data, count, count) for side in SIDES for seed, count in each]
    try:
        for some in (jobs[:1], jobs[1:]):  # the first of ours alone: it may have to find out how the network runs best
            started = []
            for job in some:
                started.append(start(*job))
                sides[job[0]].append(started[-1])
            warm(started)
        began = time.monotonic()
        for n in range(args.repeats):
            if n >= 2 and time.monotonic() > began + args.enough:
                break
            for side, trainings in sides.items():
                speed, outside = turn(trainings, args.seconds, args.steps)
                out[side].append(speed)
                if side == "ours":
                    out["outside"].append(outside)
            out["ratio"].append(out["ours"][-1] / out["reference"][-1])
    finally:
        for training in (t for trainings in sides.values() for t in trainings):
            training.signal(signal.SIGKILL)
            training.process.join()
    return out


def loss_after(side: str, arch: str, seed: int, steps: int, data) -> float:
    """The validation loss after a training of `steps` steps, evaluated alike on both sides: fp32, no calibration."""
    torch.set_num_threads(1)
    config = recipe(arch, epochs=steps / (len(data.train) // BATCH), lr=LOSS_LR[arch], seed=seed)
    if side == "ours":
        for _, state in fit(config, data, device="cpu"):
            network = state.network
    else:
        for network in reference(config, data, workers=0):
            pass
    network.eval()
    with torch.inference_mode():
        parts = torch.from_numpy(data.val.images).float().div(255).split(500)
        logits = torch.cat([network(x).float() for x in parts])
    return float(F.cross_entropy(logits, torch.from_numpy(data.val.labels)))


def losses(archs: list[str], data, seeds: int, steps: int) -> dict:
    jobs = [(side, arch, seed) for arch in archs for seed in range(seeds) for side in SIDES]
    with ProcessPoolExecutor(engine.cores(), FORK, max_tasks_per_child=1) as pool:
        answers = [pool.submit(loss_after, side, arch, seed, steps, data) for side, arch, seed in jobs]
        answers = [answer.result() for answer in answers]
    out = {}
    for arch in archs:
        found = {s: [a for a, (side, name, _) in zip(answers, jobs, strict=True) if (side, name) == (s, arch)] for s in SIDES}
        means = {side: statistics.mean(values) for side, values in found.items()}
        error = math.sqrt(sum(statistics.variance(values) / seeds for values in found.values()))
        difference = means["ours"] - means["reference"]
        # Two standard errors: about 1 in 20 comparisons of equals would exceed it.
        found |= {"difference": difference, "standard_error": error, "within_noise": abs(difference) <= 2 * error}
        out[arch] = found
    return out


def main():
    p = Parser(prog="engine.py", description=__doc__.split("\n")[0])
    p.add_argument("--mode", default="sweep", help="sweep or single: see the head of the file")
    p.add_argument("--archs", default=",".join((*SMALL_ZOO, *OWN)), help="names, with commas (default: the eleven and ours)")
    p.add_argument("--repeats", type=positive(int), default=3, help="turns a side")
    p.add_argument("--seconds", type=positive(float), default=2.0, help="a turn at least")
    p.add_argument("--steps", type=positive(int), default=3, help="a turn at least")
    p.add_argument("--enough", type=positive(float), default=20.0, help="seconds after which two turns a side will do")
    p.add_argument("--seeds", type=positive(int, or_zero=True), default=4, help="trainings a side for the loss; 0: no loss")
    p.add_argument("--loss-steps", type=positive(int), default=60, help="of each of these trainings")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    lookup({"single": 1, "sweep": 1}, args.mode, "mode")
    archs = [lookup(ARCHS, name, "architecture") and name for name in args.archs.split(",")]
    if args.seeds == 1:
        raise BadInput("--seeds is 1; a spread needs at least 2")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not to leave stopped processes behind
    figures = {"mode": args.mode, **about(), "batch": BATCH, "repeats": args.repeats, "images_a_second": {}}
    data = load("digits-sample")
    for arch in archs:
        figures["images_a_second"][arch] = found = compare(arch, data, args)
        print(f"{arch}: {statistics.median(found['ratio']):.2f} times the reference", flush=True)
    ratios = {arch: statistics.median(found["ratio"]) for arch, found in figures["images_a_second"].items()}
    outside = [statistics.median(found["outside"]) for arch, found in figures["images_a_second"].items() if arch in OWN]
    figures |= {
        "ratio_geometric_mean": statistics.geometric_mean(ratios.values()),
        "ratio_lowest": min(ratios.values()),
        "slowest": min(ratios, key=ratios.get),
        "outside_median_of_own_families": statistics.median(outside) if outside else None,
    }
    show_speed(figures)
    compared = [arch for arch in archs if arch in LOSS_LR] if args.seeds else []
    figures["loss"] = losses(compared, data, args.seeds, args.loss_steps)
    figures["loss_steps"] = args.loss_steps
    if compared:
        show_loss(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def show_speed(figures: dict):
    cores = engine.cores()
    how = {"single": f"one training, {cores} threads", "sweep": f"{cores} trainings of one thread, side by side"}[figures["mode"]]
    title = f"Images a second in training: {how}, batch {BATCH}, n turns a side ({figures['device']})"
    table = table_of(title, "network", "n", "ours", "low-high", "reference", "low-high", "ratio", "low-high", "outside %")
    for arch, found in figures["images_a_second"].items():
        cells = [arch, str(len(found["ratio"]))]
        for key, digits in (("ours", 0), ("reference", 0), ("ratio", 2)):
            cells += [f"{statistics.median(found[key]):,.{digits}f}", spread(found[key], digits)]
        table.add_row(*cells, f"{100 * statistics.median(found['outside']):.1f}")
    show(table)
    print(f"geometric mean of the ratios: {figures['ratio_geometric_mean']:.2f}")
    print(f"lowest ratio: {figures['ratio_lowest']:.2f} ({figures['slowest']})")
    if (outside := figures["outside_median_of_own_families"]) is not None:
        print(f"outside forward, backward and optimiser, our median family: {outside:.1%} of a step")


def show_loss(figures: dict):
    title = f"Validation loss after {figures['loss_steps']} steps ({figures['device']})"
    table = table_of(
        title, "network", "n a side", "ours", "low-high", "reference", "low-high", "difference", "its standard error"
    )
    for arch, found in figures["loss"].items():
        cells = [arch, str(len(found["ours"]))]
        for side in SIDES:
            cells += [f"{statistics.mean(found[side]):.4f}", spread(found[side], 4)]
        noise = "within noise" if found["within_noise"] else "beyond noise"
        table.add_row(*cells, f"{found['difference']:+.4f}, {noise}", f"{found['standard_error']:.4f}")
    show(table)


if __name__ == "__main__":
    run(main)
