"""What a report's charts are drawn from: tables, which the page has once as JSON, and the charts that there is something for."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.show import charts, views
from sweeps.show.importance import compared, importance

SHOWN = 8  # parameters in parallel coordinates
LINES = 200  # and trials
BARS = 15  # parameters whose importance is drawn
LEAST_LOSS = 1e-7  # nats an image
LARGEST = 24  # members whose diversity is drawn
NAMES = {"budget": "epochs", "val_error": "error", "val_loss": "loss"}  # of our columns, on the page
BOARD = ("trial", "family", "arch", "state", "epochs", "training", "error", "loss", "parameters", "ms", "seconds")
BOARD += ("optimizer", "lr", "lr_schedule", "reason")


class Drawn:
    """`tables` by name, and the `charts` that name them.

    Args:
        folder: of the sweep.
        about: what its sweep.json says.
        wrong: its `choose.mistakes.Mistakes`, or None.
    """

    def __init__(self, folder: Path, trials: pd.DataFrame, curves: pd.DataFrame, about: dict, wrong):
        self.folder, self.searched = folder, views.searched(trials)
        self.families = views.families(trials, curves)["family"].tolist()
        # An error of 0 has no logarithm: it is drawn as half an image.
        self.least = 0.5 / (about.get("data", {}).get("images", {}).get("val") or 1000)
        self.tables: dict = {"families": self.families}
        self.charts: dict = {}
        self._board()
        if self.searched["val_loss"].notna().any():
            self._curves(curves)
            self.tables["progress"] = anytime(folder.name, trials, curves)
            self.charts["progress"] = charts.progress()
            self._costs()
        if len(trials):
            self._timeline(trials)
        if (folder / "record.db").exists():
            self._parameters()
        if wrong:
            self._mistakes(wrong)

    @property
    def specs(self) -> dict:
        """The charts as Vega-Lite's JSON."""
        return {name: chart.to_dict(validate=False) for name, chart in self.charts.items()}

    def _board(self):
        board = self.searched.drop(columns="epochs").rename(columns=NAMES).reindex(columns=list(BOARD))
        complete = board["state"].eq("complete")
        fronts = {f"front_{of}": views.front(board[of].where(complete), board["error"]) for of in ("ms", "parameters")}
        self.tables["trials"] = board.assign(shown=board["error"].clip(lower=self.least), **fronts)
        self.states = [state for state in charts.SHAPES if board["state"].eq(state).any()]

    def _curves(self, curves: pd.DataFrame):
        mine = curves[curves["trial"].isin(self.searched["trial"])].rename(columns=NAMES)
        rungs = sorted({float(f"{budget:.2g}") for budget in mine.groupby("rung")["epochs"].median()})
        # Those cut off long before the first rung would take half of a logarithmic axis.
        mine = mine[mine["epochs"] > rungs[0] / 2][["trial", "rung", "epochs", "error", "loss"]]
        last = ~mine.duplicated("trial", keep="last")
        mine = mine.assign(shown=mine["error"].clip(lower=self.least), last=last)
        self.tables["curves"] = mine.join(self.searched.set_index("trial")[["family", "arch", "state"]], on="trial")
        self.charts["curves"] = charts.curves(self.families, self.states, rungs)

    def _costs(self):
        if self.searched["ms"].notna().any():
            self.charts["by_time"] = charts.pareto("ms", "ms an image, evaluated (logarithmic)", "~g", self.families, self.states)
        self.charts["by_size"] = charts.pareto("parameters", "parameters (logarithmic)", "~s", self.families, self.states)

    def _timeline(self, trials: pd.DataFrame):
        bars = views.lanes(trials)
        times = {"from": bars["t"] / 60, "to": (bars["t"] + bars["seconds"]) / 60}
        bars = bars.assign(finalist=bars["refits"].notna(), **times)
        self.tables["timeline"] = bars[["trial", "family", "arch", "state", "lane", "finalist", *times]]
        self.charts["timeline"] = charts.timeline(self.families, int(bars["lane"].max()))

    def _parameters(self):
        """Importance, a parameter against the loss, and parallel coordinates of the winning family, each at one budget."""
        there, epochs = compared(self.folder)
        there = there.assign(loss=_shown(there["loss"]))
        found = importance(there)
        if found.empty:
            return
        self.tables["compared"] = {"epochs": epochs, "trials": len(there)}
        known = found.dropna(subset=["importance"]).head(BARS)
        if len(known):
            self.tables["importance"] = known.rename(columns={"good values": "good"}).assign(rank=range(len(known)))
            self.charts["importance"] = charts.importance(len(known))
        names, kinds = found["parameter"].tolist(), _kinds(there)
        about = self.searched.set_index("trial")[["family", "arch"]]
        self.tables["parameters"] = [{"name": name, **kinds[name]} for name in names]
        self.tables["drawn"] = [
            {"trial": row.trial, "loss": row.loss, **about.loc[row.trial], "values": _by_place(row.params, names)}
            for row in there.itertuples()
        ]
        self.charts["drawn"] = charts.drawn(self.families)
        winner = self.families[0]
        mine, epochs = compared(self.folder, winner)
        found = importance(mine)
        of_all = found["parameter"][found["trials"] == len(mine)].head(SHOWN).tolist()
        if len(mine) >= 3 and len(of_all) >= 2:
            self.tables["winner"] = {"family": winner, "epochs": epochs, "trials": len(mine)}
            self.tables["parallel"] = _parallel(mine.nsmallest(LINES, "loss"), of_all, _kinds(mine))
            self.charts["parallel"] = charts.parallel()

    def _mistakes(self, wrong):
        if 1 < len(wrong.members) <= LARGEST:
            self.tables["diversity"] = wrong.diversity()
            self.charts["diversity"] = charts.diversity(len(wrong.members))
        if len(wrong.wrong):
            self.tables["confusion"] = wrong.confusion()
            self.charts["confusion"] = charts.confusion(list(wrong.data.classes))


def anytime(sweep: str, trials: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """When the search found a lower val loss than before: `minutes`, `best`, `trial`, `arch`, `sweep`."""
    archs = views.searched(trials).set_index("trial")["arch"]
    found = curves[curves["trial"].isin(archs.index)].sort_values("t")
    found = found[found["val_loss"] < found["val_loss"].cummin().shift(fill_value=math.inf)]
    arch = found["trial"].map(archs)
    return pd.DataFrame(
        {"minutes": found["t"] / 60, "best": _shown(found["val_loss"]), "trial": found["trial"], "arch": arch, "sweep": sweep}
    )


def _shown(losses: pd.Series) -> pd.Series:
    """Return losses as a logarithmic axis can show them: where every image is right the loss is 0."""
    return losses.astype(float).clip(lower=LEAST_LOSS)


def _by_place(params: dict, names: list[str]) -> dict[int, object]:
    """A trial's values by the parameter's place among the names: no name has to be a key in a browser."""
    return {names.index(name): value for name, value in params.items() if name in names}


def _kinds(table: pd.DataFrame) -> dict[str, dict]:
    """Describe how each parameter is drawn: a number (on a logarithmic axis?), or one of some names.

    A parameter that trials drew in both ways, as a resumed space may let them, is a name.
    """
    out: dict[str, dict] = {}
    for row in table.itertuples():
        for name, text in row.distributions.items():
            told = json.loads(text)["attributes"]
            if "choices" in told:
                out[name] = {"kind": "choice", "choices": list(map(str, told["choices"]))}
            else:
                out.setdefault(name, {"kind": "number", "log": told.get("log", False)})
    return out


def _parallel(table: pd.DataFrame, parameters: list[str], kinds: dict) -> pd.DataFrame:
    """A row a trial and parameter; `place` in [0, 1] is where its value lies among those tried."""
    out = []
    quantile = table["loss"].rank(pct=True)
    for rank, name in enumerate(parameters):
        values = table["params"].map(lambda params, name=name: params[name])
        if kinds[name]["kind"] == "choice":
            order = sorted(set(map(str, values)))
            scaled = values.map(lambda value, order=order: float(order.index(str(value))))
        else:
            scaled = np.log(values.astype(float)) if kinds[name]["log"] else values.astype(float)
        span = scaled.max() - scaled.min()
        place = (scaled - scaled.min()) / span if span else scaled * 0 + 0.5
        out += [
            {"trial": trial, "parameter": name, "rank": rank, "place": at, "value": str(value), "loss": loss, "quantile": q}
            for trial, at, value, loss, q in zip(table["trial"], place, values, table["loss"], quantile, strict=True)
        ]
    return pd.DataFrame(out)
