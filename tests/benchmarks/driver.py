"""What the driver itself costs a trial, and whether the ten-thousandth costs what the hundredth did.

    python tests/benchmarks/driver.py [--trials 10000] [--json FILE]

Trials that do nothing, two at a time, through the real search (TPE, ASHA, four rungs, the default space) and the real
record in a temporary folder (set TMPDIR to choose the disk). Results are made from a digest of the configuration, so
they are the same each time and there is nothing to learn: the search goes on trying every network, which is dearer
than when it has settled on one. No Ray, no training, no mirror: these have `overhead.py`.

ask            proposing a trial and recording it, milliseconds
CPU            of that, what the process computed: other work on the machine counts less
a trial        ask, and hearing all its results, with the record's commits
record         of a trial's time, what the record took; one write and fsync in the same folder is timed for comparison
memory         growth of the process after garbage collection, from the first tenth of the trials on
resume         opening the record and building the search from it
"""

import gc
import hashlib
import json
import os
import statistics
import tempfile
import time
from array import array
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import about, show, table_of

from sweeps.search.draw import SEARCHERS
from sweeps.search.record import Record
from sweeps.search.scheduler import Asha, rungs
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES
from trainable.errors import Parser, positive, run

BUDGETS = rungs(8.0, 4)
PLACES = 2
WIDTH = 200  # trials that a figure is of
BARS = {"ask_p99_ms": 10.0, "ratio": 1.3, "resume_s": 10.0}


class TimedRecord(Record):
    """Sums the seconds that its transactions take."""

    seconds, events = 0.0, 0

    @contextmanager
    def _event(self, *told):
        began = time.perf_counter()
        with super()._event(*told) as db:
            yield db
        self.seconds += time.perf_counter() - began
        self.events += 1


def result(config: dict, rung: int) -> dict:
    """A loss that falls with the rung, from a digest of the configuration."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest()
    value = int.from_bytes(digest[:8], "big") / 2**64 + 1 / (rung + 1) + digest[8 + rung] / 1024
    files = dict.fromkeys(("model.safetensors", "probs.safetensors"), digest.hex())
    times = {"train_s": 1.0, "eval_s": 0.1, "temperature": 1.0, "interrupted": False, "files": json.dumps(files)}
    return {"budget": BUDGETS[rung], "val_loss": value, "val_error": value / 10, **times}


def search_of(record: Record, trials: int) -> Search:
    return Search(SPACES["default"], record, sampler=SEARCHERS["tpe"], scheduler=Asha(), rungs=BUDGETS, trials=trials)


def resident() -> int:
    """Bytes of memory that this process has, after garbage collection."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fsync_ms(folder: Path, n: int = 200) -> float:
    """Median milliseconds of writing 4 KiB to a file's end and waiting until the disk has them."""
    seconds = []
    with open(folder / "fsync", "wb", buffering=0) as file:
        for _ in range(n):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def sweep(search: Search, record: TimedRecord, trials: int) -> dict:
    """Milliseconds by trial, and by how much the memory grew."""
    ms = {name: array("d", bytes(8 * trials)) for name in ("ask", "ask_cpu", "trial", "record")}
    running: dict[int, tuple[dict, int]] = {}
    memory = 0

    def clocks() -> np.ndarray:
        return 1e3 * np.array([time.perf_counter(), time.process_time(), record.seconds])

    while not search.finished:
        while len(running) < PLACES and search.started < trials:
            if search.started == trials // 10:
                memory = resident()
            before = clocks()
            job = search.ask()
            wall, cpu, kept = clocks() - before
            ms["ask"][job.number], ms["ask_cpu"][job.number] = wall, cpu
            ms["trial"][job.number], ms["record"][job.number] = wall, kept
            running[job.number] = job.config, 0
        number = next(iter(running))
        config, rung = running.pop(number)
        heard = result(config, rung)
        before = clocks()
        goes_on = search.hear(number, heard)
        wall, _, kept = clocks() - before
        ms["trial"][number] += wall
        ms["record"][number] += kept
        if goes_on:
            running[number] = config, rung + 1  # behind the others
    return {**ms, "kib_a_trial": (resident() - memory) / 1024 / (trials - trials // 10)}


def windows(trials: int) -> list[tuple[int, int]]:
    """Around the hundredth trial and the thousandth, and the last. The first fifty find the search's memory not yet full."""
    last = max(trials - WIDTH, trials // 2), trials
    before = [(max(n - WIDTH // 2, 50), n + WIDTH // 2) for n in (100, 1000)]
    return [window for window in before if window[1] <= last[0]] + [last]


def of_window(found: dict, first: int, last: int) -> dict:
    """Figures of the trials from `first` to before `last`."""
    ask, cpu, whole, kept = (np.array(found[name][first:last]) for name in ("ask", "ask_cpu", "trial", "record"))
    return {
        "trials": [first, last],
        "ask_p50_ms": float(np.median(ask)),
        "ask_p99_ms": float(np.quantile(ask, 0.99)),
        "ask_p50_cpu_ms": float(np.median(cpu)),
        "ask_p99_cpu_ms": float(np.quantile(cpu, 0.99)),
        "trial_ms": float(whole.mean()),
        "record_ms": float(kept.mean()),
    }


def measure(trials: int, folder: Path) -> dict:
    record = TimedRecord(folder / "record.db")
    search = search_of(record, trials)
    began = time.monotonic()
    found = sweep(search, record, trials)
    seconds = time.monotonic() - began
    record.close()
    each = [of_window(found, *window) for window in windows(trials)]
    del search
    began = time.monotonic()
    again = Record(folder / "record.db")
    resumed = search_of(again, trials)
    resume = time.monotonic() - began
    assert resumed.started == trials, "not every trial is in the record"
    again.close()
    return {
        "windows": each,
        "ratio": each[-1]["trial_ms"] / each[0]["trial_ms"],
        "ask_p99_ms": each[-1]["ask_p99_ms"],
        "resume_s": resume,
        "kib_a_trial": found["kib_a_trial"],
        "record_share": sum(found["record"]) / sum(found["trial"]),
        "events_a_trial": record.events / trials,
        "fsync_ms": fsync_ms(folder),
        "seconds": seconds,
    }


def main():
    p = Parser(prog="driver.py", description=__doc__.split("\n")[0])
    p.add_argument("--trials", type=positive(int), default=10_000)
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    figures = {**about(), "n": args.trials}
    with tempfile.TemporaryDirectory(prefix="driver-") as folder:
        figures |= measure(args.trials, Path(folder))
    figures["met"] = {name: figures[name] <= bar for name, bar in BARS.items()}
    report(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def report(figures: dict):
    table = table_of(
        f"The driver's milliseconds a trial, n = {figures['n']:,} trials, two at a time ({figures['device']})",
        *("trials", "ask p50", "p99", "its CPU p50", "p99", "a trial", "of which record"),
    )
    for row in figures["windows"]:
        first, last = row["trials"]
        cells = (value for name, value in row.items() if name != "trials")
        table.add_row(f"{first:,} to {last - 1:,}", *(f"{value:.1f}" for value in cells))
    show(table)
    print(
        f"record: {100 * figures['record_share']:.0f} % of the driver's time, {figures['events_a_trial']:.1f} transactions a "
        f"trial; one fsync {figures['fsync_ms']:.2f} ms\n"
        f"memory: {figures['kib_a_trial']:.1f} KiB a trial; the whole sweep took {figures['seconds']:.0f} s; load before: "
        f"{figures['load_before']}"
    )
    words = {"ask_p99_ms": "ask p99 at the end, ms", "ratio": "a trial, end to beginning", "resume_s": "to resume, s"}
    for name, bar in BARS.items():
        print(f"{words[name]}: {figures[name]:.2f}, at most {bar:g}: {'met' if figures['met'][name] else 'MISSED'}")


if __name__ == "__main__":
    run(main)
