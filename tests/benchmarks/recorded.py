"""What a search should rank by, and what stopping and proposing save: read off recorded learning curves.

    python tests/benchmarks/recorded.py [--curves FILE] [--repeats 40] [--json FILE]

The curves are those of `record_curves.py`: a few hundred random configurations, each trained to the end and judged on the way;
their true error is known from 10,000 images that no search sees. Nothing is trained here.

Ranking: how well a figure at a budget predicts who is best in the end. `rank` is Spearman's correlation with the true loss;
`kept` the share of the truly best tenth that is among the best third by that figure, and so would go on; `regret` the true error
of the one that it would choose, above the best there is, in percent of the images. `two sets`: each configuration judged on one
of two sets of images, in turn, as with folds that rotate.

Searching: two workers draw configurations in some order and train them, as long as recorded, until a compute budget is spent;
`random` in any order and each to the end; `random, asha` in any order and stopped as our sweeps stop; `default` asks our
searcher, and takes the recorded configuration next to what it proposes. A figure is the mean true error of the best four so far
(by their loss on val: they would be the finalists), after so many trainings' worth of time; `needs` the share of the time that
it takes to come to what `random` has in the end. The same for other rungs, another share that goes on (1 of `eta`), and other
figures to compare and choose by, all in random order.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from common import about, show, table_of
from record_curves import BUDGETS, SPACE
from scipy.stats import spearmanr

from sweeps.search.draw import SEARCHERS, seed_of
from sweeps.search.memory import Memory
from sweeps.search.scheduler import Asha
from trainable.config import TrialConfig
from trainable.errors import BadInput, Parser, positive, run

CURVES = Path(__file__).with_name("curves.parquet")
FIGURES = {"loss": "loss, calibrated", "raw": "loss as it is", "error": "error", "views": "loss in other views, calibrated"}
RUNGS = (0.5, 2.0, 8.0)  # of ASHA here: four times as far each
STOPPING = {  # rungs, eta, figure
    "random": (RUNGS[-1:], 2, "a_loss"),
    "random, asha": (RUNGS, 2, "a_loss"),
    "eta 3": (RUNGS, 3, "a_loss"),
    "eta 4": (RUNGS, 4, "a_loss"),
    "rungs 2 and 8": ((2.0, 8.0), 2, "a_loss"),
    "rungs 1 and 8": ((1.0, 8.0), 2, "a_loss"),
    "rungs 0.25, 1, 4 and 8": ((0.25, 1.0, 4.0, 8.0), 2, "a_loss"),
    "rungs 0.25 to 8": (BUDGETS, 2, "a_loss"),
    "by error": (RUNGS, 2, "a_error"),
    "by loss as it is": (RUNGS, 2, "a_raw"),
    "by loss in other views": (RUNGS, 2, "a_views"),
}
WORKERS = 2
BEST = 4
AFTER = (5, 10, 20, 40)  # full trainings' worth of time


def curves(path: Path) -> pd.DataFrame:
    """Only configurations that were trained to the end."""
    try:
        table = pd.read_parquet(path)
        whole = table.groupby("config")["budget"].transform("size") == len(BUDGETS)
        return table[whole].sort_values(["config", "budget"])
    except (OSError, KeyError, ValueError) as wrong:
        raise BadInput(f"{path} holds no recorded curves ({wrong}); make them with record_curves.py") from wrong


def ranking(table: pd.DataFrame) -> list[dict]:
    end = table[table["budget"] == BUDGETS[-1]].set_index("config")
    true_loss, true_error = end["true_loss"], end["true_error"]
    best = set(true_loss.nsmallest(max(1, len(end) // 10)).index)
    out = []
    for budget in BUDGETS:
        at = table[table["budget"] == budget].set_index("config")
        for figure in FIGURES:
            in_turn = at[f"a_{figure}"].where(np.arange(len(at)) % 2 == 0, at[f"b_{figure}"])
            for sets, value in (("one set", at[f"a_{figure}"]), ("two sets", in_turn)):
                third = set(value.nsmallest(len(at) // 3).index)
                out.append(
                    {
                        "budget": budget,
                        "figure": figure,
                        "sets": sets,
                        "rank": float(spearmanr(value, true_loss).statistic),
                        "kept": len(best & third) / len(best),
                        "regret": float(true_error[value.idxmin()] - true_error.min()),
                    }
                )
    return out


class Simulation:
    """Configurations trained by WORKERS at a time, in simulated seconds."""

    def __init__(self, table: pd.DataFrame):
        self.rows = {number: rows.set_index("budget") for number, rows in table.groupby("config")}
        self.whole = float(table[table["budget"] == BUDGETS[-1]]["train_s"].mean())
        self.truth = {number: float(rows["true_error"].iloc[-1]) for number, rows in self.rows.items()}

    def run(self, order: Callable, rungs: tuple, eta: int, figure: str, seconds: float) -> list[tuple[float, float]]:
        """(when, mean true error of the best so far), at each training that ended; `order(told)` yields configurations."""
        asha = Asha(eta)
        free, found, whole = [0.0] * WORKERS, [], []
        told: list[tuple[int, dict[int, float], bool]] = []
        proposals = order(told)
        running: list[tuple[float, int, int, int]] = []  # when it comes to its next rung, worker, configuration, rung
        while True:
            for worker in range(WORKERS):
                if free[worker] is not None:
                    number = next(proposals, None)
                    if number is None or free[worker] >= seconds:
                        free[worker] = None
                        continue
                    running.append((free[worker] + self._seconds(number, rungs, 0), worker, number, 0))
                    free[worker] = None
            if not running:
                return found
            running.sort()
            now, worker, number, rung = running.pop(0)
            if now > seconds:
                continue
            value = float(self.rows[number].loc[rungs[rung], figure])
            last = rung == len(rungs) - 1
            if not last and asha.judge(rung, value).go_on:
                running.append((now + self._seconds(number, rungs, rung + 1), worker, number, rung + 1))
                continue
            values = {k: float(self.rows[number].loc[rungs[k], figure]) for k in range(rung + 1)}
            told.append((number, values, last))
            if last:
                whole.append((value, self.truth[number]))
                found.append((now, float(np.mean([truth for _, truth in sorted(whole)[:BEST]]))))
            free[worker] = now

    def _seconds(self, number: int, rungs: tuple, rung: int) -> float:
        at = self.rows[number]["train_s"]
        return float(at[rungs[rung]] - (at[rungs[rung - 1]] if rung else 0.0))


def random_order(numbers: list[int], seed: int) -> Callable:
    order = np.random.default_rng(seed).permutation(numbers)
    return lambda told: iter(order.tolist())


class Nearest:
    """Configurations as points, to find the recorded one next to another: a name as a corner, numbers by their rank."""

    def __init__(self, table: pd.DataFrame):
        ends = table[table["budget"] == BUDGETS[-1]].set_index("config")
        self.trials = {number: self._drawn(row.dropna().to_dict()) for number, row in ends.iterrows()}
        values: dict[str, list] = {}
        for trial in self.trials.values():
            for name, value in trial.params.items():
                values.setdefault(name, []).append(value)
        self.sorted = {name: np.sort(some) for name, some in values.items() if not isinstance(some[0], str)}
        self.points = {number: self.point(trial.params) for number, trial in self.trials.items()}

    @staticmethod
    def _drawn(flat: dict) -> optuna.trial.FixedTrial:
        """The trial that a recorded configuration would be drawn by."""
        # What the space has learned to draw since then has the default that it had.
        trial = optuna.trial.FixedTrial({**TrialConfig().flat(), **flat, f"{flat['optimizer']}.lr": flat["lr"]})
        SPACE.draw(trial)
        return trial

    def point(self, params: dict) -> dict[str, float]:
        out = {}
        for name, value in params.items():
            if name in self.sorted:
                out[name] = float(np.searchsorted(self.sorted[name], value) / len(self.sorted[name]))
            else:
                out[f"{name}={value}"] = 0.5**0.5 * (3 if name == "arch" else 1)  # another family is far
        return out

    def next_to(self, params: dict, left: set[int]) -> int:
        here = self.point(params)

        def far(number: int) -> float:
            there = self.points[number]
            return sum((here.get(k, 0.0) - there.get(k, 0.0)) ** 2 for k in here.keys() | there.keys())

        return min(left, key=far)


def proposed(nearest: Nearest, seed: int) -> Callable:
    def order(told: list) -> Iterator[int]:
        left, heard = set(nearest.trials), 0
        study = optuna.create_study(storage=Memory(), direction="minimize")
        while left:
            while heard < len(told):
                number, values, whole = told[heard]
                trial = nearest.trials[number]
                state = optuna.trial.TrialState.COMPLETE if whole else optuna.trial.TrialState.PRUNED
                study.add_trial(
                    optuna.trial.create_trial(
                        state=state, params=trial.params, distributions=trial.distributions,
                        values=[values[max(values)]] if whole else None, intermediate_values=values,
                    )
                )  # fmt: skip
                heard += 1
            study.sampler = SEARCHERS["tpe"](seed_of(seed, len(study.trials) + len(nearest.trials) - len(left)))
            trial = study.ask()
            SPACE.draw(trial)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            number = nearest.next_to(trial.params, left)
            left.remove(number)
            yield number

    return order


def searching(table: pd.DataFrame, repeats: int) -> dict:
    simulation, nearest = Simulation(table), Nearest(table)
    numbers = list(simulation.rows)
    most = min(max(AFTER), len(numbers) // 2) * simulation.whole / WORKERS
    default = STOPPING["random, asha"]
    ways = {"default": lambda seed: simulation.run(proposed(nearest, seed), *default, most)}
    for name, how in STOPPING.items():
        ways[name] = lambda seed, how=how: simulation.run(random_order(numbers, seed), *how, most)
    after = [n for n in AFTER if n * simulation.whole / WORKERS <= most]
    out = {"after": after, "found": {}, "needs": {}}
    paths = {way: [search(seed) for seed in range(repeats)] for way, search in ways.items()}
    goals = [_best_at(path, most) for path in paths["random"]]
    for way, found in paths.items():
        out["found"][way] = [[_best_at(path, n * simulation.whole / WORKERS) for n in after] for path in found]
        reached = [next((t for t, error in path if error <= goal), None) for path, goal in zip(found, goals, strict=True)]
        out["needs"][way] = [None if r is None else r / most for r in reached]
    return out


def _best_at(path: list[tuple[float, float]], when: float) -> float:
    """The true error of what one would take then; of nothing that of guessing."""
    return next((error for t, error in reversed(path) if t <= when), 0.9)


def main():
    p = Parser(prog="recorded.py", description=__doc__.split("\n")[0])
    p.add_argument("--curves", type=Path, default=CURVES)
    p.add_argument("--repeats", type=positive(int), default=40)
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    table = curves(args.curves)
    figures = {**about(), "configurations": int(table["config"].nunique()), "repeats": args.repeats}
    figures |= {"ranking": ranking(table), "searching": searching(table, args.repeats)}
    report(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def report(figures: dict):
    n = figures["configurations"]
    first = table_of(
        f"Ranking: what predicts the true loss, n = {n} configurations", "epochs", "figure", "sets", "rank", "kept", "regret, %"
    )
    for row in figures["ranking"]:
        cells = f"{row['rank']:.3f}", f"{row['kept']:.2f}", f"{100 * row['regret']:.2f}"
        first.add_row(f"{row['budget']:g}", FIGURES[row["figure"]], row["sets"], *cells)
    show(first)
    found, after = figures["searching"]["found"], figures["searching"]["after"]
    columns = [f"after {k}" for k in after]
    second = table_of(
        f"Searching: true error of the best four, %, mean ± standard error, n = {figures['repeats']}; trainings' worth of time",
        "search",
        *columns,
        "needs",
    )
    for way, errors in found.items():
        values = 100 * np.array(errors)
        spread = values.std(axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.zeros(len(after))
        needs = np.median([np.inf if share is None else share for share in figures["searching"]["needs"][way]])
        second.add_row(way, *(f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(axis=0), spread, strict=True)), f"{needs:.2f}")
    show(second)


if __name__ == "__main__":
    run(main)
