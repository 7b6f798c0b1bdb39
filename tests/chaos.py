"""Kill a sweep at random moments, resume it each time, and compare it with one that was never killed.

python tests/chaos.py
python tests/chaos.py --trials 6 --kills 2 --seed 3
python tests/chaos.py --trials 6 --driver-only     # at ten events of its life; nothing that it started may outlive it for long
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import mlflow
from rich.console import Console
from rich.table import Table
from running import belonging

from sweeps.search.draw import SEARCHERS
from sweeps.search.find_space import find_space
from sweeps.search.record import Record, read, rows
from sweeps.search.scheduler import Asha
from sweeps.search.searcher import Search
from trainable.errors import Parser, positive, run

ROOT = Path(__file__).resolve().parents[1]
FOLDS = 2  # that the one finalist is trained on; each is a trial of its own
MOMENTS = ("a rung", "a trial's start", "a rung", "its start", "a rung")  # that the killings come after, in turn
# Those of --driver-only, one after the other: a line that it says, a process that it starts, a row of its record, a file.
EVENTS = (
    ("it says that it starts Ray", "line", "Starting Ray"),
    ("Ray's first process runs", "process", "gcs_server"),
    ("the raylet runs", "process", "raylet/raylet"),
    ("the cluster is there", "line", "at a time on"),
    ("a trial's start", "rows", ("trials", "restarts")),
    ("a rung", "rows", ("rungs",)),
    ("the finalists' turn", "line", "Searched for"),
    ("a finalist's rung", "rows", ("rungs",)),
    ("the networks are combined", "line", "the best networks are combined"),
    ("the report is written", "file", "report.html"),
)
LONGEST = 10.0  # seconds that what a driver started may outlive it
MARK = "CHAOS"  # a variable of the environment of all that is started here
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
    p.add_argument("--driver-only", action="store_true", help=f"kill the driver alone, after each of {len(EVENTS)} events")
    p.add_argument("--folder", help="where to work (default: one that is removed at the end)")
    args = p.parse_args()
    os.environ[MARK] = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        return chaos(Path(args.folder or folder), args)


def chaos(folder: Path, args) -> int:
    (folder / "space.py").write_text(SPACE)
    if sweep(folder, "whole", args).wait() != 0:
        print(f"the sweep that is not killed ended with an error; see {folder / 'whole.log'}")
        return 1
    ended = [t["t_ended"] for t in rows(folder / "whole" / "record.db", "trials")]
    print(f"Not killed: its trials took {max(ended):.0f} s.", flush=True)
    table, wrong = kill_at_events(folder, args) if args.driver_only else (kill_at_random(folder, args, max(ended)), [])
    process = sweep(folder, "killed", args)
    process.wait()
    last = ["last", "not killed", *map(str, numbers(folder / "killed")), f"ended with status {process.returncode}"]
    table.add_row(*last[: len(table.columns)])
    Console(width=160).print(table)
    if process.returncode:
        print((folder / "killed.log").read_text())
        return 1
    wrong += differences(folder, args.trials)
    for line in wrong:
        print(f"WRONG: {line}")
    if not wrong:
        print(f"The same {args.trials} trials, rungs, decisions and numbers; nothing is left running, in no place.")
    return 1 if wrong else 0


def kill_at_random(folder: Path, args, seconds: float) -> Table:
    """Kill it at random moments of the `seconds` that its trials take: what came of it."""
    dice = random.Random(args.seed)
    table = Table(title=f"A sweep of {args.trials} trials, killed (-9) {args.kills} times and resumed", title_justify="left")
    for name in ("round", "killed", "trials", "rungs", "running", "what it did then"):
        table.add_column(name, justify="left" if name in ("killed", "what it did then") else "right")
    for kill in range(args.kills):
        process = sweep(folder, "killed", args)
        since = MOMENTS[kill % len(MOMENTS)]
        until(since, process, folder / "killed")
        # Soon enough for all the kills to find something to do.
        after = dice.uniform(0, 1.5 * seconds / args.kills)
        died = wait(process, after)
        os.kill(process.pid, signal.SIGKILL) if not died else None
        process.wait()
        when = f"{after:4.1f} s after {since}"
        table.add_row(str(kill + 1), "had ended" if died else when, *shown(folder), last_line(folder))
    return table


def kill_at_events(folder: Path, args) -> tuple[Table, list[str]]:
    """Kill the driver alone after each of the EVENTS: what came of it, and what is wrong."""
    table = Table(title=f"A sweep of {args.trials} trials, its driver alone killed (-9) and resumed", title_justify="left")
    for name in ("round", "killed when", "trials", "rungs", "running", "what it did then", "processes", "left after", "its logs"):
        table.add_column(name, justify="left" if name in ("killed when", "what it did then", "its logs") else "right")
    wrong = []
    for number, (event, kind, what) in enumerate(EVENTS, start=1):
        process = sweep(folder, "killed", args)
        came = until_event(kind, what, process, folder)
        there = belonging(process.pid, os.environ[MARK])
        process.kill()
        process.wait()
        if not came:
            wrong.append(f"it ended before {event}: {last_line(folder)}")
        took = seconds_until_none(process.pid)
        if took > LONGEST:
            left = ", ".join(line[:60] for line in belonging(process.pid, os.environ[MARK]).values())
            wrong.append(f"killed when {event}: {took:.0f} s later there were {left or 'none, but too late'}")
        logs = list((Path(tempfile.gettempdir()) / "ray").glob(f"session_*_{process.pid}"))
        if logs and any("guard.py" in line for line in there.values()):  # of one that has ended Ray itself they stay
            wrong.append(f"killed when {event}: {logs[0]} was left")
        about = str(len(there)), f"{took:.1f} s", "left" if logs else "removed"
        table.add_row(str(number), event, *shown(folder), last_line(folder), *about)
    return table, wrong


def until_event(kind: str, what, process: subprocess.Popen, folder: Path) -> bool:
    """Wait until this driver has come there; whether it had not ended before."""
    report = folder / "killed" / "report.html"
    changed = lambda: report.stat().st_mtime_ns if report.exists() else 0  # noqa: E731
    before = rows_in(folder / "killed", what) if kind == "rows" else 0
    written = changed()
    while process.poll() is None:
        if (
            (kind == "line" and what in (folder / "killed.log").read_text())
            or (kind == "process" and any(what in line for line in belonging(process.pid, os.environ[MARK]).values()))
            or (kind == "rows" and rows_in(folder / "killed", what) > before)
            or (kind == "file" and changed() != written)
        ):
            return True
        time.sleep(0.05)
    return False


def seconds_until_none(driver: int) -> float:
    """How long anything of a driver that was just killed is still there; more than LONGEST where that is too long."""
    began = time.monotonic()
    while (took := time.monotonic() - began) <= LONGEST + 5 and belonging(driver, os.environ[MARK]):
        time.sleep(0.05)
    return took


def shown(folder: Path) -> list[str]:
    return ["-" if count is None else str(count) for count in numbers(folder / "killed")]


def last_line(folder: Path) -> str:
    """The last thing that the killed sweep said."""
    return ((folder / "killed.log").read_text().splitlines() or ["nothing yet"])[-1].strip()[:60]


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
    before = rows_in(folder, tables)
    while tables and process.poll() is None and rows_in(folder, tables) == before:
        time.sleep(0.1)


def rows_in(folder: Path, tables: tuple[str, ...]) -> int:
    return sum(len(rows(folder / "record.db", table)) for table in tables) if numbers(folder)[0] is not None else 0


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
