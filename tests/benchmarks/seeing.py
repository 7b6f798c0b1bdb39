"""What it takes to look: to write a sweep's page, its study and its tables, and to open the page; and what Tune's own files cost.

    python tests/benchmarks/seeing.py [--trials 1000] [--repeats 5] [--json FILE]

The sweeps are played (tests/played.py): the real search and the real record, told curves that nobody trained. To open is to load
the page from the disk and to draw every chart, in chromium without a network. Tune's files (JSON, CSV and TensorBoard's events,
by trial) are measured by the driver's time for a report with and without them, in pairs, on trials that do nothing.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import about, show, spread, table_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser import CHROMIUM, report
from played import play
from scaling import measure, recorded

from sweeps.report import write_report
from sweeps.show import page, study, views
from trainable.errors import Parser, positive, run

WITHOUT = "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def opening(path: Path) -> float:
    """From asking for the page to its last chart; the browser runs already."""
    with report(path) as (shown, _):
        began = time.monotonic()
        shown.reload()
        shown.wait_for_function("document.body.dataset.drawn", timeout=60_000)
        return time.monotonic() - began


def tunes_files(trials: int, repeats: int) -> list[dict[str, float]]:
    """Milliseconds a report, with and without, in turn."""
    known, out = recorded(), []
    for _ in range(repeats):
        found = {}
        for name, value in (("without", "1"), ("with", "0")):
            os.environ[WITHOUT] = value
            found[name] = measure(2, trials, known, sleep=False)["ms_a_report"]
        out.append(found)
    return out


def main():
    p = Parser(prog="seeing.py", description=__doc__.split("\n")[0])
    p.add_argument("--trials", type=positive(int), default=1000)
    p.add_argument("--repeats", type=positive(int), default=5)
    p.add_argument("--tune-trials", type=positive(int), default=200)
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    figures = {**about(), "trials": args.trials, "repeats": args.repeats}
    with tempfile.TemporaryDirectory() as temporary:
        folder = play(Path(temporary) / "played", args.trials)
        write_report(folder)  # Vega's script is put together once and kept
        works = {
            "write report.html": lambda: write_report(folder),
            "write study.db": lambda: study.write(folder),
            "write trials.parquet and curves.parquet": lambda: views.write_tables(folder),
        }
        figures["seconds"] = {name: [seconds(work) for _ in range(args.repeats)] for name, work in works.items()}
        if CHROMIUM:
            figures["seconds"]["open report.html"] = [opening(folder / page.FILE) for _ in range(args.repeats)]
        figures["megabytes"] = (folder / page.FILE).stat().st_size / 1e6
    figures["tune_ms_a_report"] = tunes_files(args.tune_trials, args.repeats)
    show_figures(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def show_figures(figures: dict):
    table = table_of(f"A sweep of {figures['trials']:,} trials ({figures['device']})", "what", "median s", "s", "n")
    for name, values in figures["seconds"].items():
        table.add_row(name, f"{statistics.median(values):.2f}", spread(values, 2), str(len(values)))
    show(table)
    print(f"report.html: {figures['megabytes']:.2f} MB.")
    pairs = figures["tune_ms_a_report"]
    more = [pair["with"] - pair["without"] for pair in pairs]
    print(
        f"Tune's own files cost the driver {statistics.median(more):.1f} ms a report ({spread(more, 1)}, n = {len(more)}); "
        f"without them a report takes {statistics.median(pair['without'] for pair in pairs):.1f} ms."
    )


if __name__ == "__main__":
    run(main)
