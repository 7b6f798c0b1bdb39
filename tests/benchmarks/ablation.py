"""What each part of the recipe brings: trainings of one network with one thing changed, compared image by image.

    python tests/benchmarks/ablation.py [--arch wide] [--epochs 10] [--seeds 2] [--only "no elastic,moments"]
                                        [--dataset NAME] [--json FILE]

The base is what the default search begins with on --arch, its images not aligned. Every variant is trained on two thirds of
the labelled images, on one core, and judged on the others. `errors` and `loss` (calibrated) are means over the seeds; `against
base` is the difference in errors, seed by seed and image by image, with its standard error; `beside base` the loss of the mean of
one of the base's networks and one of these, of another seed: what it brings an ensemble; `time` one training's.
"""

import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch
from common import about, show, table_of
from tqdm import tqdm

from sweeps.search.draw import replay
from sweeps.search.space import SPACES
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
    "slant": {"align": "slant"},
    "moments": {"align": "moments"},
    "no augmentation": {f"augment.{name}": 0.0 for name in DEFAULT_AUGMENT},
    "augmentation x 1.4": 1.4,
    "no elastic": {"augment.elastic": 0.0},
    "cutmix": {"augment.cutmix": 0.2},
    "mixup + cutmix + erasing": {"augment.mixup": 0.2, "augment.cutmix": 0.15, "augment.erasing": 0.15},
    "no averaged weights": {"average": 0.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "cosine": {"lr_schedule": "cosine"},
    "adamw": {"optimizer": "adamw"},
}
LENGTHS = {"half as long": 0.5, "twice as long": 2.0, "four times as long": 4.0}


def config_of(arch: str, name: str, seed: int, epochs: float) -> TrialConfig:
    """Of a variant; raises BadInput where the search does not begin with this architecture."""
    starts = {start["arch"]: start for start in reversed(SPACES["default"].start)}
    base = replay(SPACES["default"], lookup(starts, arch, "architecture"))[0].flat()
    changes = VARIANTS.get(name, {})
    if isinstance(changes, float):
        changes = {key: changes * value for key, value in base.items() if key.startswith("augment.")}
    more = {"align": "none", "epochs": epochs * LENGTHS.get(name, 1.0), "seed": seed}
    return TrialConfig.from_flat({**base, **more, **changes})


def train(job: tuple[str, int, TrialConfig, str]) -> tuple[str, int, np.ndarray, float]:
    """One variant with one seed: its probabilities of the images held out, and the seconds that it took."""
    name, seed, config, dataset = job
    torch.set_num_threads(1)
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
        pairs = [(found[BASE][i], by_seed[j]) for i in by_seed for j in by_seed if i != j]
        out.append(
            {
                "variant": name,
                "errors": wrong.sum(axis=1).tolist(),
                "loss": [scores.cross_entropy(probs, labels) for probs in by_seed.values()],
                "against_base": float(by_image.sum()),
                "standard_error": float(by_image.std() * len(labels) ** 0.5),
                "beside_base": [scores.calibrated_cross_entropy(np.mean(pair, axis=0), labels) for pair in pairs],
                "seconds": seconds[name],
            }
        )
    return out


def main():
    p = Parser(prog="ablation.py", description=__doc__.split("\n")[0])
    p.add_argument("--arch", default="wide", help="of our own families")
    p.add_argument("--epochs", type=positive(float, 1e4), default=10.0, help="of every training")
    p.add_argument("--seeds", type=positive(int, 1000), default=2)
    p.add_argument("--only", default=",".join((*VARIANTS, *LENGTHS)), help=f"with commas: {', '.join((*VARIANTS, *LENGTHS))}")
    p.add_argument("--dataset", default="digit-recognizer")
    p.add_argument("--workers", type=positive(int), default=2, help="trainings at a time, each on one core")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    names = [BASE, *(name for name in args.only.split(",") if name != BASE)]
    for name in names:
        lookup({**VARIANTS, **LENGTHS}, name, "variant")
    jobs = [
        (name, seed, config_of(args.arch, name, seed, args.epochs), args.dataset) for name in names for seed in range(args.seeds)
    ]
    labels = of_fold(load(args.dataset), FOLDS, 0).val.labels
    found: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for name, seed, probs, took in tqdm(pool.imap_unordered(train, jobs), total=len(jobs), unit="training"):
            found[name][seed] = probs
            seconds[name].append(took)
    rows = compared(found, seconds, labels)
    figures = {
        **about(),
        "arch": args.arch,
        "epochs": args.epochs,
        "seeds": args.seeds,
        "dataset": args.dataset,
        "images": len(labels),
        "variants": rows,
    }
    title = f"{args.arch}, {args.epochs:g} epochs on two thirds, errors of {len(labels):,}, n = {args.seeds} seeds"
    table = table_of(title, "variant", "errors", "against base", "loss", "beside base", "time, s")
    for row in rows:
        against = "" if row["variant"] == BASE else f"{row['against_base']:+.1f} ± {row['standard_error']:.1f}"
        beside = f"{np.mean(row['beside_base']):.4f}" if row["beside_base"] else "-"
        cells = f"{np.mean(row['errors']):.1f}", against, f"{np.mean(row['loss']):.4f}", beside
        table.add_row(row["variant"], *cells, f"{np.mean(row['seconds']):.0f}")
    show(table)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    run(main)
