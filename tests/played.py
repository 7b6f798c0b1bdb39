"""A sweep of many trials that nobody trained: the real search and the real record, told curves that look like real ones."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sweeps.search.draw import SEARCHERS
from sweeps.search.record import Record
from sweeps.search.scheduler import Asha
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES, Space

RUNGS = [0.6, 2.5, 10.0]
ARGUMENTS = {"dataset": "digits-sample", "image_size": None, "metric": "val_loss", "scheduler": "asha", "seed": 0}
IMAGES = {"train": 8500, "val": 1500, "test": 2000, "unlabelled": 0}


def play(
    folder: Path,
    trials: int,
    space: Space | None = None,
    places: int = 8,
    loss: Callable[[dict], float] | None = None,
) -> Path:
    """Its folder, with a record and sweep.json. One trial in forty fails. `loss` says of a configuration where its curve ends."""
    folder.mkdir(parents=True)
    about = {"arguments": ARGUMENTS, "data": {"fingerprint": "x", "images": IMAGES}, "commit": "abc1234"}
    record = Record(folder / "record.db", about=about)
    record._db.execute("PRAGMA synchronous=OFF")  # a power cut is of no interest here
    more = {"sampler": SEARCHERS["random"], "scheduler": Asha(), "rungs": RUNGS, "trials": trials, "seed": 0}
    search = Search(space or SPACES["default"], record, **more)
    rng, running, floor = np.random.default_rng(0), {}, {}
    while not search.finished or running:
        while len(running) < places and (job := search.ask()) is not None:
            running[job.number], floor[job.number] = 0, loss(job.config) if loss else float(rng.lognormal(-4.0, 0.6))
        number = int(rng.choice(list(running)))
        rung = running[number]
        if rung == 0 and rng.random() < 1 / 40:
            search.hear(number, {"failed": f"FloatingPointError: the loss is nan at step {rng.integers(1000)}", "train_s": 1.0})
            del running[number]
            continue
        running[number] += 1
        if not search.hear(number, _result(number, rung, floor[number], rng)):
            del running[number]
    record.close()
    ended = {"seconds": _spread(folder / "record.db", places), "trials": trials, "cores_busy": 0.9}
    (folder / "sweep.json").write_text(json.dumps({**about, "ended": ended}))
    return folder


def _spread(path: Path, places: int) -> float:
    """As if each had taken its time, on so many places; the seconds of all."""
    free = [0.0] * places
    with sqlite3.connect(path) as db:
        for number, took in db.execute("SELECT number, train_s + eval_s + 0.5 FROM trials ORDER BY number").fetchall():
            place = free.index(min(free))
            begins, free[place] = free[place], free[place] + took
            db.execute("UPDATE trials SET t = ?, t_ended = ? WHERE number = ?", (begins, free[place], number))
            for (rung,) in db.execute("SELECT rung FROM rungs WHERE number = ?", (number,)).fetchall():
                at = begins + took * RUNGS[rung] / RUNGS[-1]
                db.execute("UPDATE rungs SET t = ? WHERE number = ? AND rung = ?", (min(at, free[place]), number, rung))
    return max(free)


def _result(number: int, rung: int, floor: float, rng) -> dict:
    loss = floor * (1 + 3 / (1 + RUNGS[rung]) ** 1.5) * float(rng.lognormal(0, 0.05))
    return {
        "budget": RUNGS[rung],
        "val_loss": loss,
        "val_error": min(1.0, round(1500 * loss / 3.2) / 1500),
        "train_loss": 2 * loss,
        "temperature": 1.0,
        "parameters": int(10 ** rng.uniform(4.5, 6.5)) if rung == 0 else 100_000,
        "engine": "fp32-nhwc",
        "train_s": 4 * RUNGS[rung],
        "eval_s": 0.4 * (rung + 1),
        "interrupted": False,
        "rung": rung,
        "files": "{}",
    }
