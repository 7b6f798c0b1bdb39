"""What it costs a search to forget: TPE that sees all trials against ours, which sees a few, and random search.

    python tests/benchmarks/search_quality.py [--seeds 20] [--trials 300] [--settings 20,40] [--json FILE]

whole    Optuna's TPE as it ships, which sees every trial
B, R     our searcher, which sees the B best and the R last trials, for each pair in --settings
random   random search

Nothing is trained. The loss of a configuration is read off a surrogate: a smooth surface (kernel ridge regression) through
the logarithms of the losses that the trials of a recorded quick sweep had at the first rung. It is not the truth. There
are only some forty trials, most of them of one architecture and none of them repeated; how well the surface predicts a
trial that it has not seen is printed as R^2 (1: exactly, 0: no better than the mean; its width is chosen by the same
figure, which flatters it a little). Where nothing was tried it tends to the mean, it has no noise, and no trial is stopped
early. It shows whether one searcher finds the low places of one such surface sooner than another; not how much a sweep
gains by it. A run with the defaults takes about six minutes on one core.

All ways draw from the same space with the same seeds, so that their first ten trials are the same, and take turns. No
starting points. A figure is the lowest log loss found so far; differences are paired by seed; -0.1 is a loss 10 % lower.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from common import about, show, table_of

from sweeps.search import memory
from sweeps.search.draw import SEARCHERS, seed_of
from sweeps.search.space import SPACES
from trainable.augment import AUGMENTS
from trainable.errors import BadInput, Parser, positive, run
from trainable.optim import OPTIMIZERS

RECORD = Path(__file__).parents[2] / "results/records/2026-11-22-quick"
SPACE = SPACES["quick"]
AT = (50, 100, 300)  # trials
NAMES = ("arch", "optimizer", "batch_size", "lr_schedule", "clip", "average", "convnet.block", "convnet.pool", "convnet.head")
RANGES = {
    **{"warmup": (0.05, 0.3), "label_smoothing": (0.0, 0.15)},
    **{"convnet.width": (16, 32), "convnet.blocks": (1, 2), "convnet.dropout": (0.0, 0.4)},
    **{f"augment.{name}": (0.0, a.high) for name, a in AUGMENTS.items() if a.high},
}


def place(config: dict) -> dict[str, float]:
    """Where a flat configuration lies: numbers between 0 and 1, a name as a corner, all corners equally far apart."""
    optimizer = OPTIMIZERS[config["optimizer"]]
    logs = {"lr": (optimizer.low, optimizer.high), "weight_decay": (1e-5, 5e-2)}
    at = {name: np.log(config[name] / low) / np.log(high / low) for name, (low, high) in logs.items()}
    at |= {name: (config[name] - low) / (high - low) for name, (low, high) in RANGES.items() if _has(config, name)}
    return at | {f"{name}={_word(config[name])}": 0.5**0.5 for name in NAMES if _has(config, name)}


def _has(config: dict, name: str) -> bool:
    return name in config and not pd.isna(config[name])


def _word(value) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


class Surrogate:
    """A smooth surface through measured values; width and noise are those that best predict each value from the others."""

    def __init__(self, configs: list[dict], values: list[float]):
        places = [place(config) for config in configs]
        self.columns = {name: i for i, name in enumerate(sorted({name for at in places for name in at}))}
        self.points = np.array([self._row(at) for at in places])
        self.mean = float(np.mean(values))
        left = np.array(values) - self.mean
        error = np.inf
        for width in (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0):
            for noise in (0.01, 0.03, 0.1, 0.3):
                inverse = np.linalg.inv(self._near(self.points, width) + noise * np.eye(len(left)))
                missed = np.mean((inverse @ left / np.diag(inverse)) ** 2)  # each from all others
                if missed < error:
                    error, self.width, self.noise, self.weights = missed, width, noise, inverse @ left
        self.r2 = float(1 - error / np.var(left))

    def __call__(self, config: dict) -> float:
        return float(self.mean + self._near(self._row(place(config))[None], self.width)[0] @ self.weights)

    def _row(self, at: dict[str, float]) -> np.ndarray:
        row = np.zeros(len(self.columns))
        for name, value in at.items():
            if name in self.columns:  # of what was never tried nothing is known
                row[self.columns[name]] = value
        return row

    def _near(self, rows: np.ndarray, width: float) -> np.ndarray:
        squares = ((rows[:, None] - self.points[None]) ** 2).sum(-1)
        return np.exp(-squares / (2 * width**2))


def recorded(folder: Path) -> tuple[list[dict], list[float]]:
    """The configurations of a recorded sweep, and the logarithm of each one's loss at the first rung."""
    try:
        trials, curves = (pd.read_parquet(folder / f"{name}.parquet") for name in ("trials", "curves"))
        losses = curves[curves["rung"] == 0].set_index("trial")["val_loss"]
        rows = trials[trials["trial"].isin(losses.index)].to_dict("records")
        return rows, [float(np.log(losses[row["trial"]])) for row in rows]
    except (OSError, KeyError) as wrong:
        raise BadInput(f"{folder} is no recorded sweep: {wrong}") from wrong


def search(way: str, loss: Callable[[dict], float], seed: int, trials: int) -> tuple[list[float], float]:
    """The lowest value found so far after each trial, and the median milliseconds of proposing one at the end."""
    storage = optuna.storages.InMemoryStorage()
    sampler = {"whole": lambda seed: optuna.samplers.TPESampler(seed=seed), "random": SEARCHERS["random"]}.get(way)
    if sampler is None:
        memory.BEST, memory.RECENT = map(int, way.split(","))
        storage, sampler = memory.Memory(), SEARCHERS["tpe"]
    study = optuna.create_study(storage=storage, direction="minimize")
    values, ms = [], []
    for number in range(trials):
        study.sampler = sampler(seed_of(seed, number))
        began = time.perf_counter()
        trial = study.ask()
        config = SPACE.draw(trial)
        ms.append(1e3 * (time.perf_counter() - began))
        values.append(loss(config))
        study.tell(trial, values[-1])
    return np.minimum.accumulate(values).tolist(), float(np.median(ms[-50:]))


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)


def settings(text: str) -> list[str]:
    """--settings: pairs of whole numbers."""
    pairs = text.split()
    try:
        if pairs and all(len([positive(int)(n) for n in pair.split(",")]) == 2 for pair in pairs):
            return pairs
    except Exception as wrong:
        raise BadInput(f"--settings: {wrong}") from wrong
    raise BadInput(f"--settings: {text!r} is not pairs of whole numbers, as in '20,40 10,20'")


def main():
    p = Parser(prog="search_quality.py", description=__doc__.split("\n")[0])
    p.add_argument("--seeds", type=positive(int), default=20)
    p.add_argument("--trials", type=positive(int), default=300)
    p.add_argument("--settings", default=f"{memory.BEST},{memory.RECENT}", help="pairs 'best,recent', apart by spaces")
    p.add_argument("--record", type=Path, default=RECORD, help="folder of a recorded quick sweep")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    if args.seeds < 2:
        raise BadInput("--seeds is 1; a standard error needs 2 at least")
    configs, values = recorded(args.record)
    loss = Surrogate(configs, values)
    ways = ["whole", *settings(args.settings), "random"]
    at = [n for n in AT if n <= args.trials] or [args.trials]
    found = {way: [] for way in ways}
    took = {way: [] for way in ways}
    for seed in range(args.seeds):
        for way in ways:
            best, ms = search(way, loss, seed, args.trials)
            found[way].append([best[n - 1] for n in at])
            took[way].append(ms)
    surrogate = {"trials": len(values), "r2": loss.r2, "width": loss.width, "noise": loss.noise, "lowest": min(values)}
    figures = {**about(), "seeds": args.seeds, "trials": args.trials, "at": at, "record": args.record.name}
    figures |= {"surrogate": surrogate, "found": found, "ask_ms": {way: float(np.median(ms)) for way, ms in took.items()}}
    figures["against_whole"] = {
        way: [mean_and_error([a[i] - b[i] for a, b in zip(found[way], found["whole"], strict=True)]) for i in range(len(at))]
        for way in ways[1:]
    }
    report(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def report(figures: dict):
    title = f"Lowest log loss on the surrogate, n = {figures['seeds']} seeds, mean; difference to whole ± standard error"
    columns = [f"after {n}" for n in figures["at"]]
    table = table_of(title, "sees", *(name for column in columns for name in (column, "difference")), "ask, ms, at the end")
    for way, rows in figures["found"].items():
        cells = []
        for i, value in enumerate(np.mean(rows, axis=0)):
            mean, error = figures["against_whole"].get(way, [(0, 0)] * len(rows[0]))[i]
            cells += [f"{value:.3f}", "" if way == "whole" else f"{mean:+.3f} ± {error:.3f}"]
        table.add_row(way, *cells, f"{figures['ask_ms'][way]:.1f}")
    show(table)
    s = figures["surrogate"]
    print(
        f"surrogate of {s['trials']} trials of {figures['record']}: R^2 {s['r2']:.2f} on trials left out; lowest recorded log "
        f"loss {s['lowest']:.3f} ({figures['device']})"
    )


if __name__ == "__main__":
    run(main)
