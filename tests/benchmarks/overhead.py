"""What a trial costs beside its training: trials that do nothing, through our whole path and through a stock sweep.

    python tests/benchmarks/overhead.py [--trials 100] [--json FILE]

Ours is the searcher, ASHA, the record, MLflow and the actors as a sweep uses them, from the call to the last line in
MLflow's database. The stock sweep is a Tune function trainable with OptunaSearch and ASHAScheduler on the same space,
with no MLflow. In one run, on one Ray, two trials at a time: ours, stock, ours.
"""

import json
import logging
import platform
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sweeps.search import launch  # before Ray: it sets what Ray reads
from sweeps.search.record import Record
from sweeps.search.scheduler import Asha, rungs
from sweeps.search.searcher import SEARCHERS, Search
from sweeps.search.space import SPACES
from sweeps.show.tracking import Tracker
from trainable.datasets import load
from trainable.errors import Parser, positive, run
from trainable.ray_trial import RayTrial

PLACES, ETA, EPOCHS = 2, 3, 8.0


def curve(config: dict, rung: int) -> float:
    """A loss that falls with the rung and depends on the configuration."""
    return abs(config["weight_decay"] - 0.01) + 1.0 / (rung + 1)


class Nothing(RayTrial):
    """A trial that reports and does not train."""

    def step(self) -> dict:
        value = curve(self.flat, self.rung)
        self.rung += 1
        budget = self.rungs[self.rung - 1]
        return {"budget": budget, "val_loss": value, "val_error": value, "train_s": 0.0, "eval_s": 0.0, "interrupted": False}


def ours(trials: int, folder: Path) -> float:
    data = load("digits-sample")
    began = time.monotonic()
    places = launch.Places(PLACES, 1, 0, "CPU")
    tracker = Tracker(f"sqlite:///{folder / 'mlflow.db'}", "overhead", folder.name, {}, lambda line: sys.exit(line))
    record = Record(folder / "record.db", (tracker,))
    search = Search(SPACES["quick"], record, sampler=SEARCHERS["tpe"](0), scheduler=Asha(ETA), rungs=rungs(EPOCHS), trials=trials)
    launch.run_search(search, data, places, launch.Ending(None), folder, trainable=Nothing)
    record.close()
    tracker.close({}, [], patience=600)
    assert len(search.study.trials) == trials, "not every trial ran"
    return time.monotonic() - began


def stock_space(trial):
    SPACES["quick"].draw(trial)


def stock(trials: int, folder: Path) -> float:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(config):
        for rung in range(3):
            tune.report({"val_loss": curve(config, rung)})

    began = time.monotonic()
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(stock_space, metric="val_loss", mode="min"),
            scheduler=ASHAScheduler(metric="val_loss", mode="min", max_t=3, reduction_factor=ETA),
            num_samples=trials,
            max_concurrent_trials=PLACES,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), name="stock", verbose=0),
    )
    results = tuner.fit()
    assert len(results) - results.num_errors == trials, "not every trial ran"
    return time.monotonic() - began


def main():
    p = Parser(prog="overhead.py", description=__doc__.split("\n")[0])
    p.add_argument("--trials", type=positive(int), default=100, help="each way")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    seconds = {"ours": [], "stock": []}
    with tempfile.TemporaryDirectory() as scratch, launch.cluster(None, 1, 0, PLACES):
        logging.getLogger("ray").setLevel(logging.ERROR)
        for i, (name, way) in enumerate((("ours", ours), ("stock", stock), ("ours", ours))):
            folder = Path(scratch) / f"{name}{i}"
            folder.mkdir()
            seconds[name].append(way(args.trials, folder) / args.trials)
            print(f"{name}: {args.trials} trials, {seconds[name][-1]:.3f} s each", flush=True)
    device = f"{platform.machine()}, {launch.engine.cores()} cores, {PLACES} trials at a time"
    table = Table(title=f"Wall time a trial that does nothing ({device})")
    for column in ("way", "trials", "runs", "mean s a trial", "lowest", "highest"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, values in seconds.items():
        mean = sum(values) / len(values)
        table.add_row(name, str(args.trials), str(len(values)), f"{mean:.3f}", f"{min(values):.3f}", f"{max(values):.3f}")
    ratio = sum(seconds["stock"]) / len(seconds["stock"]) / (sum(seconds["ours"]) / len(seconds["ours"]))
    Console(width=100).print(table)
    print(f"stock / ours: {ratio:.1f}")
    if args.json:
        Path(args.json).write_text(
            json.dumps({"seconds_a_trial": seconds, "trials": args.trials, "ratio": ratio, "device": device})
        )


if __name__ == "__main__":
    run(main)
