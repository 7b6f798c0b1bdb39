"""Is the error that a sweep shows for its ensemble honest? And what does each part of it bring?

    python tests/benchmarks/nested.py SWEEP... [--splits 10] [--json FILE]

From the stored probabilities of a sweep with finalists; nothing is trained. In each split a random fifth of the labelled images
is put aside before anything is chosen. On the rest the ensemble is chosen and judged as a sweep does it (`choose`: each method
weighed by four fifths and judged on the last); then it says what the images put aside are. `shown` is what the sweep would
show, `true` what came; `inside` how many of the splits have the true error in the shown one's 95 % interval, widened by the
chance of the images put aside. A second table judges each method, and mean and greedy without further views.
"""

import json
from pathlib import Path

import numpy as np
from common import about, show, table_of

from sweeps.choose.combine import ENSEMBLES, choose, combined, judge
from sweeps.choose.ensemble import candidates
from sweeps.choose.kept import JUDGED
from sweeps.ensemble import HOLDS, data_of
from sweeps.flags import results_folder, sweep_folder
from trainable import scores
from trainable.errors import BadInput, Parser, positive, run


def split_once(probs: np.ndarray, labels: np.ndarray, seed: int) -> dict:
    aside = np.random.default_rng(seed).permutation(len(labels))[: len(labels) // 5]
    rest = np.setdiff1d(np.arange(len(labels)), aside)
    taken, _ = choose(probs[:, rest], labels[rest], ENSEMBLES)
    said = combined(taken.method, probs[:, aside], taken.weights, taken.temperature)
    single = min(range(len(probs)), key=lambda i: scores.errors(probs[i, rest], labels[rest]))
    shown, true = taken.errors / len(rest), scores.errors(said, labels[aside]) / len(aside)
    # Two counts of the same rate: the spread of their difference.
    spread = 1.96 * (shown * (1 - shown) * (1 / len(rest) + 1 / len(aside))) ** 0.5
    return {
        "method": taken.method,
        "shown": shown,
        "true": true,
        "inside": bool(abs(true - shown) <= spread),
        "single_shown": scores.errors(probs[single, rest], labels[rest]) / len(rest),
        "single_true": scores.errors(probs[single, aside], labels[aside]) / len(aside),
    }


def parts(members: list, probs: np.ndarray, labels: np.ndarray) -> list[dict]:
    """Each method on all members, on those in the plain view, and the best finalist alone."""
    plain = np.array([member.view == 0 for member in members])
    out = []
    for name, some in (("all", np.ones(len(members), bool)), ("plain view only", plain)):
        if name != "all" and plain.all():
            continue
        for method in ENSEMBLES:
            found = judge(method, probs[some], labels)
            out.append({"members": name, "method": method, "errors": found.errors, "loss": found.loss})
    return out


def main():
    p = Parser(prog="nested.py", description=__doc__.split("\n")[0])
    p.add_argument("sweeps", nargs="+", metavar="SWEEP", help="names under --results, or folders")
    p.add_argument("--results", help="where sweeps lie (default: results/ of the project)")
    p.add_argument("--splits", type=positive(int), default=10)
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    results = results_folder(args.results)
    folders = [sweep_folder(name, results, *HOLDS) for name in args.sweeps]
    members, labels, split = candidates(folders, data_of(folders))
    if split != JUDGED:
        raise BadInput(f"{folders[0].name} has no finalists; take a sweep that has")
    probs = np.stack([member.val for member in members])
    splits = [split_once(probs, labels, seed) for seed in range(args.splits)]
    figures = {
        **about(),
        "sweeps": [folder.name for folder in folders],
        "images": len(labels),
        "members": [m.name for m in members],
    }
    figures |= {"splits": splits, "parts": parts(members, probs, labels)}
    report(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def report(figures: dict):
    splits, images = figures["splits"], figures["images"]
    table = table_of(
        f"A fifth of {images:,} images put aside, n = {len(splits)} splits: error, %", "what", "shown", "true", "true - shown"
    )
    for name, prefix in (("ensemble", ""), ("best finalist alone", "single_")):
        shown, true = (np.array([100 * s[prefix + what] for s in splits]) for what in ("shown", "true"))
        error = (true - shown).std(ddof=1) / len(splits) ** 0.5 if len(splits) > 1 else 0.0
        table.add_row(name, f"{shown.mean():.3f}", f"{true.mean():.3f}", f"{(true - shown).mean():+.3f} ± {error:.3f}")
    show(table)
    inside = sum(s["inside"] for s in splits)
    print(f"inside the interval: {inside} of {len(splits)}; chosen: {', '.join(sorted({s['method'] for s in splits}))}")
    table = table_of(
        f"Judged on all {images:,} images, each on a fifth that it was not weighed by",
        "members",
        "method",
        "errors",
        "error, %",
        "loss",
    )
    for row in figures["parts"]:
        table.add_row(
            row["members"], row["method"], str(row["errors"]), f"{100 * row['errors'] / images:.3f}", f"{row['loss']:.5f}"
        )
    show(table)


if __name__ == "__main__":
    run(main)
