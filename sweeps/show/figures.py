"""Pictures of a sweep."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from trainable import files

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Where a point's name may stand, in points from it, and how it is aligned there.
SIDES = ((0, 5, "center", "bottom"), (0, -5, "center", "top"), (6, 0, "left", "center"), (-6, 0, "right", "center"))
MARKERS = {"complete": "o", "stopped": "x", "interrupted": "|", "failed": "v"}


def write_curves(path: Path, trials: pd.DataFrame, curves: pd.DataFrame, images: int):
    """The val error by epoch of every one of these trials, a colour a family; how a trial ended is the mark at its end.

    Args:
        images: of val. An error of 0 is drawn as half an image.
    """
    curves = curves[curves["trial"].isin(trials["trial"])]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    families = trials.sort_values("val_error")["family"].unique()
    colours = {family: COLOURS[i % len(COLOURS)] for i, family in enumerate(families)}
    for (_, trial), colour in zip(trials.iterrows(), trials["family"].map(colours), strict=True):
        curve = curves[curves["trial"] == trial["trial"]]
        if len(curve):
            error = curve["val_error"].clip(lower=0.5 / images)
            axes.plot(curve["budget"], error, color=colour, linewidth=1, alpha=0.7)
            mark = MARKERS.get(trial["state"], ".")
            axes.plot(curve["budget"].iloc[-1], error.iloc[-1], marker=mark, color=colour, markersize=6, linestyle="")
    axes.set(xscale="log", yscale="log", xlabel="epochs", ylabel=f"error on val ({images:,} images)")
    axes.set_xticks(_rungs(curves["budget"]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    lines = [plt.Line2D([], [], color=colour, label=family) for family, colour in colours.items()]
    marks = [
        plt.Line2D([], [], color="grey", marker=m, linestyle="", label=s)
        for s, m in MARKERS.items()
        if (trials["state"] == s).any()
    ]
    axes.legend(handles=lines + marks, loc="upper right", fontsize=8)  # curves fall
    _write(path, figure)


def _rungs(budgets: pd.Series) -> list[float]:
    """Where several trials were judged; of those that lie too close for two labels (batches differ) the first."""
    counts = budgets.round(2).value_counts()
    out: list[float] = []
    for budget in sorted(counts[counts > 1].index):
        if not out or budget > 1.2 * out[-1]:
            out.append(budget)
    return out


def write_zoo(path: Path, table: pd.DataFrame, images: int, batches: Sequence[int]):
    """Val error against time, a panel a batch size, a colour a family; the line is the Pareto front.

    Args:
        table: of `zoo_table.tabulate`.
        images: of val. An error of 0 is drawn as half an image.
    """
    table = table.assign(y=table["val_error"].clip(lower=0.5 / images))
    families = list(table["family"].unique())
    figure, panels = plt.subplots(1, len(batches), figsize=(6 * len(batches), 5), sharey=True, layout="constrained")
    for axes, batch in zip(panels, batches, strict=True):
        points = table.rename(columns={f"ms_{batch}": "x", f"front_{batch}": "front"}).dropna(subset=["x", "y"]).sort_values("x")
        if points.empty:
            continue
        colours = [COLOURS[families.index(family) % len(COLOURS)] for family in points["family"]]
        front = points[points["front"]]
        axes.step(front["x"], front["y"], where="post", color="grey", linewidth=1)
        axes.scatter(points["x"], points["y"], color=colours, zorder=3)
        axes.set(xscale="log", yscale="log", xlabel=f"milliseconds a batch of {batch}")
        axes.margins(0.12)
        for axis, form in ((axes.xaxis, "{x:g}"), (axes.yaxis, lambda share, place: f"{100 * share:g}%")):
            axis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 5, 6, 8)))
            axis.set_major_formatter(form)
            axis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"error on val ({images:,} images)")
    title = "Bold, and joined by the line: the Pareto front, which no other network betters in both"
    figure.suptitle(f"{title}; †: partly trained" if table["full"].eq(False).any() else title, fontsize=9)
    figure.draw_without_rendering()  # so that the names know where they are
    for axes, batch in zip(panels, batches, strict=True):
        points = table.dropna(subset=[f"ms_{batch}", "y"]).sort_values(f"front_{batch}", ascending=False)
        names = points["arch"].where(points["full"].fillna(True), points["arch"] + "†")
        _name_points(axes, list(zip(points[f"ms_{batch}"], points["y"], names, points[f"front_{batch}"], strict=True)))
    _write(path, figure)


def _name_points(axes, points: list[tuple[float, float, str, bool]]):
    """Write each point's name, bold where asked, on the side of it where it covers no other name or point."""
    dots = axes.transData.transform([(x, y) for x, y, _, _ in points]) if points else []
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    for i, (x, y, name, bold) in enumerate(points):
        for side in SIDES:
            text = axes.annotate(
                name, (x, y), xytext=side[:2], textcoords="offset points", ha=side[2], va=side[3],
                fontsize=7, weight="bold" if bold else "normal",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )  # fmt: skip
            box = text.get_window_extent()
            if side == SIDES[-1] or not any(box.overlaps(other) for j, other in enumerate(taken) if j != i):
                break
            text.remove()
        taken.append(box)


def _write(path: Path, figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    plt.close(figure)
    files.write(path, buffer.getvalue())
