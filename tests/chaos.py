"""Kill a sweep at random moments, resume it each time, and compare it with one that was never killed.

python tests/chaos.py
python tests/chaos.py --trials 6 --kills 2 --seed 3
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
from rich.console import Console
from rich.table import Table

from sweeps.search.draw import SEARCHERS
from sweeps.search.find_space import find_space
from sweeps.search.record import Record, read, rows
from sweeps.search.scheduler import Asha
from sweeps.search.searcher import Search
from trainable.errors import Parser, positive, run

ROOT = Path(__file__).resolve().parents[1]
FOLDS = 2  # that the one finalist is trained on; each is a trial of its own
MOMENTS = ("a rung", "a trial's start", "a rung", "its start", "a rung")  # that the killings come after, in turn
# Small, and the same numbers each time: one setting of the engine, one thread, one trial at a time.
SPACE = """
def draw(trial):
    return {
        "arch": "convnet",
        "convnet.width": trial.suggest_int("width", 8, 16, step=4),
        "lr": trial.suggest_float("lr", 1e-3, 2e-2, log=True),
        "optimizer": trial.suggest_categorical("optimizer", ["adamw", "sgd", "muon"]),
        "average": trial.suggest_categorical("average", [0.0, 0.99]),
        "engine": "fp32-nhwc",
    }
"""


def main() -> int:
    p = Parser(prog="chaos.py", description=__doc__.split("\n")[0])
    p.add_argument("--trials", type=positive(int), default=24)
    p.add_argument("--kills", type=positive(int), default=10)
    p.add_argument("--max-epochs", type=positive(float), default=2.0)
    p.add_argument("--seed", type=positive(int, 2**31, or_zero=True), default=0, help="of the moments")
    p.add_argument("--folder", help="where to work (default: one that is removed at the end)")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        return chaos(Path(args.folder or folder), args)


def chaos(folder: Path, args) -> int:
    (folder / "space.py").write_text(SPACE)
    dice = random.Random(args.seed)
    if sweep(folder, "whole", args).wait() != 0:
        print(f"the sweep that is not killed ended with an error; see {folder / 'whole.log'}")
        return 1
    ended = [t["t_ended"] for t in rows(folder / "whole" / "record.db", "trials")]
    print(f"Not killed: its trials took {max(ended):.0f} s.", flush=True)
    table = Table(title=f"A sweep of {args.trials} trials, killed (-9) {args.kills} times and resumed", title_justify="left")
    for name in ("round", "killed", "trials", "rungs", "running", "what it did then"):
        table.add_column(name, justify="left" if name in ("killed", "what it did then") else "right")
    for kill in range(args.kills):
        process = sweep(folder, "killed", args)
        since = MOMENTS[kill % len(MOMENTS)]
        until(since, process, folder / "killed")
        # Soon enough for all the kills to find something to do.
        after = dice.uniform(0, 1.5 * max(ended) / args.kills)
        died = wait(process, after)
        os.kill(process.pid, signal.SIGKILL) if not died else None
        process.wait()
        said = (folder / "killed.log").read_text().splitlines() or ["nothing yet"]
        counts = ["-" if count is None else str(count) for count in numbers(folder / "killed")]
        when = f"{after:4.1f} s after {since}"
        table.add_row(str(kill + 1), "had ended" if died else when, *counts, said[-1].strip()[:60])
    process = sweep(folder, "killed", args)
    process.wait()
    table.add_row("last", "not killed", *map(str, numbers(folder / "killed")), f"ended with status {process.returncode}")
    Console(width=130).print(table)
    if process.returncode:
        print((folder / "killed.log").read_text())
        return 1
    wrong = differences(folder, args.trials)
    for line in wrong:
        print(f"WRONG: {line}")
    if not wrong:
        print(f"The same {args.trials} trials, rungs, decisions and numbers; nothing is left running, in no place.")
    return 1 if wrong else 0


def sweep(folder: Path, name: str, args) -> subprocess.Popen:
    """Start it, or resume it where there is something to resume."""
    command = [sys.executable, str(ROOT / "sweeps" / "arch_sweep.py"), "--results", str(folder)]
    if (folder / name / "record.db").exists() and numbers(folder / name)[0] is not None:
        command += ["--resume", name]
    else:
        command += ["--name", name, "--dataset", "digits-sample", "--space", f"{folder / 'space.py'}:draw", "--concurrent", "1"]
        command += ["--trials", str(args.trials), "--max-epochs", str(args.max_epochs), "--finalists", "1", "--folds", str(FOLDS)]
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def wait(process: subprocess.Popen, seconds: float) -> bool:
    """Whether it ended by itself before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def until(since: str, process: subprocess.Popen, folder: Path):
    """Wait until this driver has come there, or has ended."""
    tables = {"its start": (), "a trial's start": ("trials", "restarts"), "a rung": ("rungs",)}[since]

    def count() -> int:
        return sum(len(rows(folder / "record.db", table)) for table in tables) if numbers(folder)[0] is not None else 0

    before = count()
    while tables and process.poll() is None and count() == before:
        time.sleep(0.1)


def numbers(folder: Path) -> tuple:
    """Trials, rungs, and trials that are recorded as running."""
    try:
        if not rows(folder / "record.db", "drivers"):
            return None, None, None
        trials, rungs = read(folder / "record.db")
    except Exception:  # none yet
        return None, None, None
    return len(trials), len(rungs), sum(t["state"] == "running" for t in trials)


def facts(folder: Path) -> dict:
    """What two sweeps that are the same have in common: all but the times."""
    trials, _ = read(folder / "record.db")
    timeless = lambda metrics: {k: v for k, v in metrics.items() if k not in ("train_s", "eval_s")}  # noqa: E731
    return {
        "trials": [(t["number"], t["refits"], t["config"], t["params"], t["state"], t["reason"]) for t in trials],
        "rungs": [(r["number"], r["rung"], timeless(r["metrics"])) for r in rows(folder / "record.db", "rungs", "seq")],
        "submission": (folder / "submission.csv").read_text(),
    }


def differences(folder: Path, trials: int) -> list[str]:
    """What is wrong with the killed sweep, in lines."""
    wrong = []
    whole, killed = facts(folder / "whole"), facts(folder / "killed")
    for what in whole:
        if whole[what] != killed[what]:
            pairs = [(a, b) for a, b in zip(whole[what], killed[what], strict=False) if a != b]
            wrong.append(f"{what} differ, at first: {pairs[0] if pairs else (len(whole[what]), len(killed[what]))}")
    all_told = trials + FOLDS
    if len(killed["trials"]) != all_told:
        wrong.append(f"{len(killed['trials'])} trials of {all_told}")
    record = Record(folder / "killed" / "record.db")
    study = Search(
        find_space(f"{folder / 'space.py'}:draw"), record, sampler=SEARCHERS["tpe"], scheduler=Asha(), rungs=[1.0], trials=trials
    ).study
    record.close()
    running = [t.number for t in study.get_trials(deepcopy=False) if not t.state.is_finished()]
    if running:
        wrong.append(f"the study has trials {running} running")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    runs = mlflow.search_runs(experiment_names=["digits-sample"], filter_string="tags.sweep = 'killed'")
    children = runs.dropna(subset=["tags.mlflow.parentRunId"])
    if (len(runs), len(children)) != (all_told + 1, all_told):
        wrong.append(
            f"MLflow has {len(runs)} runs, {len(children)} of them children; {all_told} of {all_told + 1} would be right"
        )
    if "RUNNING" in set(runs["status"]):
        wrong.append("MLflow has runs that are RUNNING")
    client = mlflow.MlflowClient()
    steps = [[m.step for m in client.get_metric_history(run, "val_loss")] for run in children["run_id"]]
    if sum(map(len, steps)) != len(killed["rungs"]) or any(len(set(s)) < len(s) for s in steps):
        wrong.append(f"MLflow has {sum(map(len, steps))} rungs of {len(killed['rungs'])}, or one twice")
    return wrong


if __name__ == "__main__":
    run(main)
