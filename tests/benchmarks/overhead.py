"""What a trial costs beside its training: trials that do nothing, through our whole path and through a stock sweep.

    python tests/benchmarks/overhead.py [--trials 100] [--json FILE]

ours    the searcher, ASHA, the record, the mirror in MLflow and the actors as a sweep uses them, from the call to the
        last line in MLflow's database
stock   a Tune function trainable with OptunaSearch and ASHAScheduler on the same space, all else as Ray ships it, and
        no MLflow; the function imports torch and torchvision, as one that trains has to
bare    the same, but the function imports nothing

One after the other in one run: ours, stock, bare, ours. Each way has a process and a Ray of its own, whose start is
not counted; two trials at a time; three reports a trial at most.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trainable import engine
from trainable.errors import Parser, lookup, positive, run

PLACES, EPOCHS = 2, 8.0
ORDER = ("ours", "stock", "bare", "ours")


def curve(config: dict, rung: int) -> float:
    """A loss that falls with the rung and depends on the configuration."""
    return abs(config["weight_decay"] - 0.01) + 1.0 / (rung + 1)


def ours(trials: int, folder: Path) -> float:
    from sweeps.search.cluster import cluster
    from sweeps.search.draw import SEARCHERS
    from sweeps.search.launch import Ending, run_search
    from sweeps.search.record import Record
    from sweeps.search.scheduler import Asha, rungs
    from sweeps.search.searcher import Search
    from sweeps.search.space import SPACES
    from sweeps.show.tracking import Tracker
    from trainable.datasets import load
    from trainable.ray_trial import RayTrial

    class Nothing(RayTrial):
        """A trial that reports and does not train."""

        def step(self) -> dict:
            value, budget = curve(self.flat, self.rung), self.rungs[self.rung]
            self.rung += 1
            return {"budget": budget, "val_loss": value, "val_error": value, "train_s": 0.0, "eval_s": 0.0, "interrupted": False}

    data = load("digits-sample")
    with cluster(None, 1, 0, PLACES) as places:
        began = time.monotonic()
        tracker = Tracker(f"sqlite:///{folder / 'mlflow.db'}", folder, "overhead", "ours", {}, sys.exit)
        record = Record(folder / "record.db", (tracker,))
        sampler, scheduler = SEARCHERS["tpe"], Asha()
        search = Search(SPACES["quick"], record, sampler=sampler, scheduler=scheduler, rungs=rungs(EPOCHS), trials=trials)
        run_search(search, data, places, Ending(None), folder, trainable=Nothing)
        record.close()
        tracker.close({}, [], patience=600)
        assert search.started == trials, "not every trial ran"
        return time.monotonic() - began


def stock_space(trial):
    from sweeps.search.space import SPACES

    SPACES["quick"].draw(trial)


def stock(trials: int, folder: Path, imports: bool = True) -> float:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(config):
        if imports:
            import torch
            import torchvision  # noqa: F401

            torch.set_num_threads(1)
        for rung in range(3):
            tune.report({"val_loss": abs(config["weight_decay"] - 0.01) + 1.0 / (rung + 1)})

    ray.init(num_cpus=PLACES)
    began = time.monotonic()
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(stock_space, metric="val_loss", mode="min"),
            scheduler=ASHAScheduler(metric="val_loss", mode="min", max_t=3, reduction_factor=3),
            num_samples=trials,
            max_concurrent_trials=PLACES,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), name="stock"),
    )
    results = tuner.fit()
    assert len(results) - results.num_errors == trials, "not every trial ran"
    return time.monotonic() - began


def bare(trials: int, folder: Path) -> float:
    return stock(trials, folder, imports=False)


def main():
    p = Parser(prog="overhead.py", description=__doc__.split("\n")[0])
    p.add_argument("--trials", type=positive(int), default=100, help="each way")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    p.add_argument("--way", help="only this one, here, and print its seconds")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.way:
            ways = {"ours": ours, "stock": stock, "bare": bare}
            print(f"seconds: {lookup(ways, args.way, 'way')(args.trials, Path(scratch))}")
            return
        seconds = {way: [] for way in ORDER}
        for way in ORDER:
            command = [sys.executable, __file__, "--way", way, "--trials", str(args.trials)]
            # A stock function trainable runs in a new process; it finds the project's space as the driver does.
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
            if done.returncode:
                sys.exit(f"{way} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            seconds[way].append(float(done.stdout.rsplit("seconds: ", 1)[1]) / args.trials)
            print(f"{way}: {args.trials} trials, {seconds[way][-1]:.3f} s each", flush=True)
    device = f"{platform.machine()}, {engine.cores()} cores"
    show(seconds, args.trials, device)
    if args.json:
        ratios = {way: mean(seconds[way]) / mean(seconds["ours"]) for way in seconds}
        Path(args.json).write_text(
            json.dumps({"seconds_a_trial": seconds, "trials": args.trials, "ratios": ratios, "device": device})
        )


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def show(seconds: dict[str, list[float]], trials: int, device: str):
    table = Table(title=f"Wall time of a trial that does nothing, {PLACES} at a time ({device})", title_justify="left")
    for column in ("way", "trials a run", "runs", "mean s a trial", "lowest", "highest", "times ours"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, values in seconds.items():
        spread = [f"{v:.3f}" for v in (mean(values), min(values), max(values))]
        table.add_row(way, str(trials), str(len(values)), *spread, f"{mean(values) / mean(seconds['ours']):.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    run(main)
