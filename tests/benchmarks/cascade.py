"""What a cascade costs: one network, the cascade that it begins, and the whole ensemble, in turn on the same images.

    python tests/benchmarks/cascade.py SWEEP [--images 2000] [--turns 5] [--json FILE]

Milliseconds an image on one core, of images in memory, in the batches that `sweeps/predict.py` takes; errors are those that
the sweep judged out of fold (or on val), shares passed on both there and in the images that are timed.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from common import about, show, spread, table_of

from sweeps.choose.model import FILE, Model
from sweeps.flags import results_folder, sweep_folder
from trainable.errors import BadInput, Parser, positive, run
from trainable.predict import answer, to_predict


def main():
    p = Parser(prog="cascade.py", description=__doc__.split("\n")[0])
    p.add_argument("sweep", help="its name under --results, or a folder with ensemble.json")
    p.add_argument("--results", help="where sweeps lie (default: results/ of the project)")
    p.add_argument("--images", type=positive(int), default=2000, help="how many are timed")
    p.add_argument("--turns", type=positive(int), default=5)
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    torch.set_num_threads(1)
    folder = sweep_folder(args.sweep, results_folder(args.results), FILE)
    model = Model(folder, "cpu")
    if model.first is None:
        raise BadInput(f"the ensemble of {folder.name} has one member; take a sweep with several")
    args.images, images = None, args.images
    args.dataset = args.split = None
    _, split = to_predict(args, model.networks)
    split = split.take(np.random.default_rng(0).permutation(len(split))[:images])
    shares = []
    ways = {
        "one network": lambda: answer(model.first, split, [0], "cpu", lambda n: None),
        "cascade": lambda: shares.append(float(model.cascade(split)[1].mean())),
        "ensemble": lambda: model(split),
    }
    times = {way: [] for way in ways}
    for turn in range(args.turns + 1):
        for way, predict in ways.items():
            began = time.perf_counter()
            predict()
            if turn:  # the first warms up
                times[way].append(1000 * (time.perf_counter() - began) / len(split))
    told = json.loads((folder / FILE).read_text())
    judged = {"one network": told["cascade"]["first_judged"], "cascade": told["cascade"]["judged"], "ensemble": told["judged"]}
    figures = {**about(), "sweep": folder.name, "images": len(split), "turns": args.turns, "ms": times, "judged": judged}
    figures |= {"share_judged": told["cascade"]["share_passed_on"], "share": shares[0], "networks": len(model.networks)}
    report(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def report(figures: dict):
    first = np.array(figures["ms"]["one network"])
    of = f"{figures['images']:,} images, {figures['networks']} networks"
    title = f"{of}, one core of {figures['device']}; n = {figures['turns']} turns"
    table = table_of(title, "", "errors", "of", "ms an image", "times one network")
    for way, times in figures["ms"].items():
        judged = figures["judged"][way]
        ratio = np.array(times) / first
        cells = f"{np.median(times):.3f} ({spread(times, 3)})", f"{np.median(ratio):.2f} ({spread(ratio, 2)})"
        table.add_row(way, str(judged["errors"]), f"{judged['images']:,}", *cells)
    show(table)
    print(f"passed on: {figures['share']:.2%} of these, {figures['share_judged']:.2%} of those that judge")


if __name__ == "__main__":
    run(main)
