"""Sweeps side by side."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sweeps.show import charts, drawn, views
from sweeps.show import page as report
from sweeps.show.judged import judges
from trainable.scores import interval

COLUMNS = [
    *("sweep", "dataset", "judged", "images", "errors", "error", "low", "high", "loss", "single", "members", "partly", "ms"),
    *("trials", "complete", "minutes", "commit"),
]

# What people read in place of them.
WORDS = {
    "partly": "partly trained",
    "judged": "judged on",
    "low": "95 % from",
    "high": "95 % to",
    "single": "best single",
    "ms": "ms an image",
}


def table(folders: Sequence[Path]) -> pd.DataFrame:
    """A row a sweep: its ensemble's errors and their interval, what it tried, and what it cost."""
    rows = []
    for folder in folders:
        trials, _ = views.tables(folder)
        about, ensemble = report.there(folder)
        row = {"sweep": folder.name, "dataset": about.get("arguments", {}).get("dataset")}
        if ensemble:
            judged = ensemble["judged"]
            low, high = interval(judged["errors"], judged["images"])
            row |= {"judged": judges(ensemble["judged_on"]), "images": judged["images"], "errors": judged["errors"]}
            row |= {"error": judged["error"], "low": low, "high": high, "loss": judged["loss"]}
            row |= {"single": ensemble["best_single"]["judged"]["error"], "members": len(ensemble["members"])}
            row |= {"ms": ensemble["ms_per_image"], "partly": sum(not m.get("full", True) for m in ensemble["members"])}
        searched = views.searched(trials)
        row |= {"trials": len(searched), "complete": int((searched["state"] == "complete").sum()) if len(searched) else 0}
        row |= {"minutes": about.get("ended", {}).get("seconds", float("nan")) / 60, "commit": about.get("commit")}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def page(folders: Sequence[Path], rows: pd.DataFrame) -> str:
    """The table, and how low the loss of each was at which minute."""
    told = pd.concat([drawn.anytime(folder.name, *views.tables(folder)) for folder in folders])
    specs = {"progress": charts.progress(legend=True).to_dict(validate=False)}
    return report.render(
        "compare.html",
        name=", ".join(folder.name for folder in folders),
        rows=rows,
        tables={"progress": told, "families": []},
        specs=specs,
    )
