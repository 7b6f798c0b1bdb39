"""What each part of the recipe brings: trainings of one network with one thing changed, compared image by image.

    python tests/benchmarks/ablation.py [--epochs 10] [--seeds 2] [--only "base,no elastic"] [--dataset NAME] [--json FILE]

The base is `TrialConfig()`: convnet and the default recipe. Every variant is trained on two thirds of the
labelled images, on one core, and judged on the others. `errors` and `loss` (calibrated) are means over the
seeds; `against base` is the difference in errors, seed by seed and image by image, with its standard error; `together` the
errors of the mean of all seeds; `time` one training's.
"""

import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch
from common import about, show, table_of
from tqdm import tqdm

from trainable import scores
from trainable.config import DEFAULT_AUGMENT, TrialConfig
from trainable.datasets import load
from trainable.datasets.container import of_fold
from trainable.errors import Parser, lookup, positive, run
from trainable.fit import evaluate, fit

FOLDS = 3
BASE = "base"
VARIANTS = {
    BASE: {},
    "no augmentation": {f"augment.{name}": 0.0 for name in DEFAULT_AUGMENT},
    "no elastic": {"augment.elastic": 0.0},
    "no averaged weights": {"average": 0.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "cosine": {"lr_schedule": "cosine"},
    "muon": {"optimizer": "muon"},
    "width 32": {"convnet.width": 32},
    "width 32, muon": {"convnet.width": 32, "optimizer": "muon"},
}
LENGTHS = {"half as long": 0.5, "twice as long": 2.0, "four times as long": 4.0}  # asked for by name


def train(job: tuple[str, int, float, str]) -> tuple[str, int, np.ndarray, float]:
    """One variant with one seed: its probabilities of the images held out, and the seconds that it took."""
    name, seed, epochs, dataset = job
    torch.set_num_threads(1)
    flat = {**TrialConfig(epochs=epochs * LENGTHS.get(name, 1.0), seed=seed).flat(), **VARIANTS.get(name, {})}
    config = TrialConfig.from_flat(flat)
    data = of_fold(load(dataset), FOLDS, 0)
    steps = fit(config, data, "cpu")
    began = time.monotonic()
    for _, state in steps:
        pass
    return name, seed, evaluate(state, data.val)[1], time.monotonic() - began


def compared(found: dict[str, dict[int, np.ndarray]], seconds: dict[str, list[float]], labels: np.ndarray) -> list[dict]:
    out = []
    for name, by_seed in found.items():
        wrong = np.stack([by_seed[seed].argmax(axis=1) != labels for seed in sorted(by_seed)]).astype(float)
        base = np.stack([found[BASE][seed].argmax(axis=1) != labels for seed in sorted(by_seed)])
        by_image = (wrong - base).mean(axis=0)
        out.append(
            {
                "variant": name,
                "errors": wrong.sum(axis=1).tolist(),
                "loss": [scores.cross_entropy(probs, labels) for probs in by_seed.values()],
                "against_base": float(by_image.sum()),
                "standard_error": float(by_image.std() * len(labels) ** 0.5),
                "together": scores.errors(np.mean(list(by_seed.values()), axis=0), labels),
                "seconds": seconds[name],
            }
        )
    return out


def main():
    p = Parser(prog="ablation.py", description=__doc__.split("\n")[0])
    p.add_argument("--epochs", type=positive(float, 1e4), default=10.0, help="of every training")
    p.add_argument("--seeds", type=positive(int, 1000), default=2)
    p.add_argument("--only", default=",".join(VARIANTS), help=f"with commas: {', '.join((*VARIANTS, *LENGTHS))}")
    p.add_argument("--dataset", default="digit-recognizer")
    p.add_argument("--workers", type=positive(int), default=2, help="trainings at a time, each on one core")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    names = [BASE, *(name for name in args.only.split(",") if name != BASE)]
    for name in names:
        lookup({**VARIANTS, **LENGTHS}, name, "variant")
    labels = of_fold(load(args.dataset), FOLDS, 0).val.labels
    jobs = [(name, seed, args.epochs, args.dataset) for name in names for seed in range(args.seeds)]
    found: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for name, seed, probs, took in tqdm(pool.imap_unordered(train, jobs), total=len(jobs), unit="training"):
            found[name][seed] = probs
            seconds[name].append(took)
    rows = compared(found, seconds, labels)
    figures = {
        **about(),
        "epochs": args.epochs,
        "seeds": args.seeds,
        "dataset": args.dataset,
        "images": len(labels),
        "variants": rows,
    }
    title = f"{args.epochs:g} epochs on two thirds, errors of {len(labels):,}, n = {args.seeds} seeds"
    table = table_of(title, "variant", "errors", "against base", "loss", "together", "time, s")
    for row in rows:
        against = "" if row["variant"] == BASE else f"{row['against_base']:+.1f} ± {row['standard_error']:.1f}"
        cells = f"{np.mean(row['errors']):.1f}", against, f"{np.mean(row['loss']):.4f}", str(row["together"])
        table.add_row(row["variant"], *cells, f"{np.mean(row['seconds']):.0f}")
    show(table)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    run(main)
