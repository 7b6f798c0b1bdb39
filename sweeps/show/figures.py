"""Pictures of a sweep."""

import io
from pathlib import Path

import matplotlib
import pandas as pd

from trainable import files

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import NullLocator, PercentFormatter

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = {"complete": "o", "stopped": "x", "interrupted": "|", "failed": "v"}


def write_curves(path: Path, trials: pd.DataFrame, curves: pd.DataFrame, images: int):
    """Every trial's val error by epoch, a colour a family; how a trial ended is the mark at its end.

    Args:
        images: of val. An error of 0 is drawn as half an image.
    """
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
    ends = curves["budget"].round(2).value_counts()
    axes.set_xticks(sorted(ends[ends > 1].index))  # the rungs
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
    axes.legend(handles=lines + marks, loc="lower left", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    plt.close(figure)
    files.write(path, buffer.getvalue())
