"""Predict images with the ensemble of a sweep.

python sweeps/predict.py SWEEP --images new-images/
python sweeps/predict.py SWEEP --cascade            # its dataset's images to predict, in a fraction of the time
"""

import time

import torch
from tqdm import tqdm

from sweeps.choose.model import FILE, Model
from sweeps.flags import results_folder, sweep_folder
from trainable import scores
from trainable.errors import BadInput, Parser, as_path, run
from trainable.predict import add_shared, settle, to_predict, write

SEEN = ("train", "val")  # by the networks of finalists
UNSEEN = ("unlabelled", "test")


def main():
    p = Parser(prog="predict.py", description=__doc__.split("\n")[0])
    p.add_argument("sweep", metavar="SWEEP", help=f"its name under --results, or a folder with {FILE}")
    p.add_argument("--results", type=as_path, help="where sweeps lie (default: results/ of the project)")
    p.add_argument("--cascade", action="store_true", help="ask the ensemble only where one fast network is unsure")
    add_shared(p)
    args = p.parse_args()
    settle(args)
    if args.split in SEEN:
        raise BadInput(f"--split {args.split}: the ensemble was trained on it or chosen by it; give unlabelled or test")
    folder = sweep_folder(args.sweep, results_folder(args.results), FILE)
    model = Model(folder, args.device)
    data, split = to_predict(args, model.networks, splits=UNSEEN)
    if args.threads:
        torch.set_num_threads(args.threads)
    began, passed = time.monotonic(), ""
    asked = None if args.cascade else sum(len(networks) for _, networks in model.members) * len(split)
    with tqdm(total=asked, unit="image", unit_scale=True, delay=1) as bar:  # an image counts for every network
        if args.cascade:
            probs, unsure = model.cascade(split, bar.update)
            passed = f"; {unsure.mean():.2%} of them passed on to the ensemble"
        else:
            probs = model(split, bar.update)
    seconds = time.monotonic() - began
    write(args.out, data, split, probs)
    if (split.labels >= 0).all():
        wrong = scores.errors(probs, split.labels)
        print(f"{wrong:,} errors of {len(split):,} ({wrong / len(split):.2%}).")
    each = f"{1000 * seconds / len(split):.2f} ms an image, start included"
    print(f"{len(split):,} images in {seconds:.1f} s ({each}){passed}; wrote {args.out}.")


if __name__ == "__main__":
    run(main)
