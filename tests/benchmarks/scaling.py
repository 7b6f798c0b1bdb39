"""How many trials an hour, with 1 to 512 places to train at, and where the driver becomes the limit.

    python tests/benchmarks/scaling.py [--places 1,2,4] [--trials 20] [--json FILE]

A trial takes what the recorded curves of `record_curves.py` took on one core, rung by rung; what it reports is recorded, too.

measured    real Ray, a machine of one core a place (more than there are cores here): a trial sleeps for as long as it would
            train. The last row does not even sleep: as many reports a second as the driver can take.
simulated   the real search and the real record, asked and told as by so many places that train at full length. The driver
            hears one report at a time, each for as long as in the last row above; a place waits until it is served.

busy        the share of the places' time in which they train
driver      the share of its time in which the driver works: at 1 it is the limit
"""

import heapq
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import about, show, table_of
from ray.cluster_utils import Cluster
from recorded import CURVES, RUNGS, curves

from sweeps.search.cluster import Places, cluster
from sweeps.search.draw import SEARCHERS
from sweeps.search.launch import Ending, run_search
from sweeps.search.record import Record, read
from sweeps.search.scheduler import Asha
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES
from trainable.datasets import load
from trainable.errors import Parser, positive, run
from trainable.ray_trial import RayTrial

A_PLACE = 8  # trials, in a simulation
MANY = 10  # times as many trials where none sleeps

Curve = list[tuple[float, float]]  # for each rung: seconds since the one before, and the loss


def recorded() -> list[Curve]:
    out = []
    for _, rows in curves(CURVES).groupby("config"):
        at = rows.set_index("budget")
        ends = [float(at.loc[rung, "train_s"]) for rung in RUNGS]
        seconds = [end - before for before, end in zip([0.0, *ends], ends, strict=False)]
        out.append([(second, float(at.loc[rung, "a_loss"])) for second, rung in zip(seconds, RUNGS, strict=True)])
    return out


def report(loss: float, rung: int) -> dict:
    times = {"train_s": 0.0, "eval_s": 0.0, "interrupted": False}
    return {"budget": RUNGS[rung], "val_loss": loss, "val_error": loss / 10, **times}


def search_of(folder: Path, trials: int) -> Search:
    record = Record(folder / "record.db")
    return Search(SPACES["default"], record, sampler=SEARCHERS["tpe"], scheduler=Asha(), rungs=list(RUNGS), trials=trials)


@contextmanager
def machines(count: int) -> Iterator[Places]:
    """So many machines of one core each, and a head that trains nothing."""
    ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(count):
            ray.add_node(num_cpus=1)
        with cluster(ray.address, 1, 0, None) as places:
            yield places
    finally:
        ray.shutdown()


def measure(places: int, trials: int, known: list[Curve], sleep: bool = True) -> dict:
    """Trials on real Ray that sleep, or that only report."""

    class Sleeps(RayTrial):
        def step(self) -> dict:
            seconds, loss = known[self.number % len(known)][self.rung]
            if sleep:
                time.sleep(seconds)
            self.rung += 1
            return report(loss, self.rung - 1)

    with tempfile.TemporaryDirectory() as name, machines(places) as here:
        folder = Path(name)
        search, data = search_of(folder, trials), load("digits-sample")
        began = time.monotonic()
        broken = run_search(search, data, here, Ending(None), folder, trainable=Sleeps)
        seconds = time.monotonic() - began
        assert broken is None, broken
        rungs = read(folder / "record.db")[1]
    trained = sum(known[row["number"] % len(known)][row["rung"]][0] for row in rungs) if sleep else 0.0
    return {
        "places": places,
        "trials": trials,
        "seconds": seconds,
        "reports": len(rungs),
        "ms_a_report": 1e3 * seconds / len(rungs),
        "trials_an_hour": 3600 * trials / seconds,
        "busy": trained / places / seconds,
    }


def simulate(places: int, trials: int, known: list[Curve], cost: float) -> dict:
    """Until the last trial is asked for: what comes after is the end of a sweep, not its speed. `cost`: seconds a report."""
    with tempfile.TemporaryDirectory() as name:
        search = search_of(Path(name), trials)
        events: list[tuple[float, int, int, int]] = []  # when a report comes, in which order, of whom, of which rung
        order = itertools.count()
        driver = worked = trained = 0.0
        ended = 0

        def train(number: int, rung: int):
            nonlocal trained
            seconds = known[number % len(known)][rung][0]
            trained += seconds
            heapq.heappush(events, (driver + seconds, next(order), number, rung))

        for _ in range(places):
            driver += cost
            train(search.ask().number, 0)
        worked = driver
        while search.started < trials:
            when, _, number, rung = heapq.heappop(events)
            driver = max(driver, when) + cost
            worked += cost
            if search.hear(number, report(known[number % len(known)][rung][1], rung)):
                train(number, rung + 1)
            else:
                ended += 1
                train(search.ask().number, 0)
        ahead = sum(when - driver for when, *_ in events if when > driver)  # begun, and not yet trained
        search.record.close()
    return {
        "places": places,
        "trials": trials,
        "trials_an_hour": 3600 * ended / driver,
        "busy": (trained - ahead) / places / driver,
        "driver": worked / driver,
    }


def counts(text: str) -> list[int]:
    """As in 1,2,4."""
    return [positive(int)(part) for part in text.split(",")]


def main():
    p = Parser(prog="scaling.py", description=__doc__.split("\n")[0])
    p.add_argument("--places", type=counts, default=[1, 2, 4], help="to measure with")
    p.add_argument("--simulated", type=counts, default=[2**k for k in range(10)], help="to simulate")
    p.add_argument("--trials", type=positive(int), default=20, help="to measure, by place")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    known = recorded()
    figures = {**about(), "configurations": len(known), "measured": [], "simulated": []}
    for count in args.places:
        figures["measured"].append(measure(count, args.trials * count, known))
        print(f"measured with {count}", flush=True)
    figures["driver"] = measure(args.places[-1], MANY * args.trials, known, sleep=False)
    cost = figures["driver"]["ms_a_report"] / 1e3
    for count in args.simulated:
        figures["simulated"].append(simulate(count, A_PLACE * max(count, 25), known, cost))
        print(f"simulated with {count}", flush=True)
    show_figures(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def show_figures(figures: dict):
    driver = figures["driver"]
    rate = {"trials_an_hour": ",.1f", "of one place's": ".2f"}
    show_rows(
        f"Measured ({figures['device']})",
        figures["measured"],
        {"places": "d", "trials": "d", "reports": "d", "seconds": ".0f", **rate, "busy": ".0%"},
    )
    print(
        f"Without sleeping, {driver['places']} places: {driver['reports']} reports of {driver['trials']} trials in "
        f"{driver['seconds']:.0f} s, {driver['ms_a_report']:.0f} ms a report: at most "
        f"{3.6e6 / driver['ms_a_report'] * driver['trials'] / driver['reports']:,.0f} trials an hour.\n"
    )
    show_rows(
        f"Simulated, n = {figures['configurations']} recorded trainings",
        figures["simulated"],
        {"places": "d", "trials": "d", **rate, "busy": ".1%", "driver": ".1%"},
    )


def show_rows(title: str, rows: list[dict], columns: dict[str, str]):
    """`columns`: how each is written."""
    table = table_of(title, *(name.replace("_", " ") for name in columns))
    for row in rows:
        told = {**row, "of one place's": row["trials_an_hour"] / rows[0]["trials_an_hour"]}
        table.add_row(*(format(told[name], how) for name, how in columns.items()))
    show(table)


if __name__ == "__main__":
    run(main)
