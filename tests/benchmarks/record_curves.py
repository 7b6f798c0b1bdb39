"""Train many random configurations and keep their learning curves, for benchmarks that replay them.

    python tests/benchmarks/record_curves.py --out curves.parquet [--configs 440] [--workers 2]

Each is drawn from the space of our own families (those above 20 million multiplications left out), trained on 5,000 labelled
images of the competition's, and judged at six budgets on two sets of 2,000 others. In the end its true error is measured on
10,000 more, which no search would see. Goes on where it was cut off.

Columns: `config` (number), `budget` (epochs), `train_s`; for the sets a and b, `<set>_loss` (cross-entropy at the best
temperature), `<set>_raw` (at temperature 1), `<set>_error` (share), `<set>_views` (calibrated loss of another view);
`true_loss` and `true_error` (share) of the last budget's network; then the configuration.
"""

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch

from sweeps.choose.cost import size
from sweeps.search.draw import draw_config
from sweeps.search.space import OWN, space_of
from trainable import scores
from trainable.archs import ARCHS
from trainable.augment import view
from trainable.config import DEFAULT_AUGMENT, TrialConfig
from trainable.datasets import load
from trainable.datasets.container import Dataset, Split, all_labels, nothing
from trainable.errors import BadInput, Parser, positive, run
from trainable.fit import fit, predict, settle

SPACE = space_of({name: ARCHS[name].space for name in OWN})
LARGEST = 20e6  # multiplications for an image
BUDGETS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
TRAIN, SET, TRUE = 5000, 2000, 10_000


def splits(data: Dataset) -> tuple[Dataset, dict[str, Split]]:
    """The images to train on, and the sets a, b and true."""
    pool = all_labels(data).train
    order = np.random.default_rng(0).permutation(len(pool))
    parts = np.split(order, np.cumsum([TRAIN, SET, SET, TRUE]))[:4]
    train, a, b, true = (pool.take(rows) for rows in parts)
    return replace(data, train=train, val=nothing(train), unlabelled=nothing(train)), {"a": a, "b": b, "true": true}


def drawn(number: int, data: Dataset) -> TrialConfig | None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    config = draw_config(SPACE, study.ask(), epochs=BUDGETS[-1], seed=number)
    try:
        return config if size(config, data)[1] <= LARGEST else None
    except BadInput:
        return None  # images too small for it


def judge(state, split: Split, name: str, views: bool) -> dict:
    network = state.best_network

    def losses(change=None) -> tuple[float, np.ndarray]:
        logits = predict(network, split, state.plan, change)
        probs = scores.softmax(logits, scores.best_temperature(logits, split.labels))
        return scores.cross_entropy(probs, split.labels), logits

    loss, logits = losses()
    out = {f"{name}_loss": loss, f"{name}_error": scores.errors(logits, split.labels) / len(split)}
    if views:
        out[f"{name}_raw"] = scores.cross_entropy(scores.softmax(logits), split.labels)
        out[f"{name}_views"] = losses(lambda images: view(images, DEFAULT_AUGMENT, 1))[0]
    return out


def curve(job: tuple[int, Path]):
    """Train one and write its curve; nothing if it cannot be built."""
    number, folder = job
    torch.set_num_threads(1)
    data, judged = splits(load("digit-recognizer"))
    config = drawn(number, data)
    rows, seconds = [], 0.0
    try:
        training = fit(config, data, "cpu") if config else ()  # which may look for the fastest engine first
        began = time.monotonic()
        due = list(BUDGETS)
        for _, state in training:
            if state.step < state.steps_at(due[0]):
                continue
            seconds += time.monotonic() - began
            settle(state)
            row = {"config": number, "budget": due.pop(0), "train_s": seconds}
            row |= judge(state, judged["a"], "a", True) | judge(state, judged["b"], "b", True)
            if not due:
                row |= judge(state, judged["true"], "true", False)
            rows.append(row)
            began = time.monotonic()
    except (FloatingPointError, ValueError) as wrong:
        print(f"{number}: {wrong}", flush=True)
    flat = config.flat() if config else {}
    (folder / f"{number}.json").write_text(json.dumps([{**row, **flat} for row in rows], default=float))


def main():
    p = Parser(prog="record_curves.py", description=__doc__.split("\n")[0])
    p.add_argument("--out", type=Path, required=True, help="the Parquet file; parts lie beside it until all are there")
    p.add_argument("--configs", type=positive(int), default=440, help="how many are drawn at most")
    p.add_argument("--workers", type=positive(int), default=2)
    args = p.parse_args()
    parts = args.out.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    todo = [(n, parts) for n in range(args.configs) if not (parts / f"{n}.json").exists()]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        began = time.monotonic()
        for done, _ in enumerate(pool.imap_unordered(curve, todo), 1):
            left = (time.monotonic() - began) / done * (len(todo) - done)
            print(f"{done} of {len(todo)} done, {left / 60:.0f} minutes left", flush=True)
    rows = [row for n in range(args.configs) for row in json.loads((parts / f"{n}.json").read_text())]
    table = pd.DataFrame(rows)
    table.to_parquet(args.out, index=False)
    print(f"{table['config'].nunique()} configurations of {args.configs} drawn, {len(table)} rows: {args.out}")


if __name__ == "__main__":
    run(main)
