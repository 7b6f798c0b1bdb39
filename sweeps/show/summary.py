"""The last lines of a sweep: what was tried, what came out, where it lies."""

from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from sweeps.search.record import STATES
from trainable.scores import interval

ENDS = [state for state in STATES if state != "running"]


def show(console: Console, trials: pd.DataFrame, ensemble: dict, images: int):
    """Print the tables of a finished sweep. `images`: how many val has."""
    searched = trials[trials["refits"].isna()]
    console.print(_families(searched, images))
    console.print(_best_trials(searched, images))
    show_ensemble(console, ensemble)


def show_ensemble(console: Console, ensemble: dict):
    """Print what ensemble.json says."""
    console.print(_ensembles(ensemble))
    console.print(_sizes(ensemble))
    test = ensemble["test"]
    if test:
        low, high = interval(test["errors"], test["images"])
        console.print(
            f"Test, never used to choose: [bold]{1 - test['error']:.2%}[/bold] right, {test['errors']} errors of "
            f"{test['images']:,} (95 % interval {1 - high:.2%} to {1 - low:.2%}).",
            highlight=False,
        )
    console.print(_cost(ensemble), highlight=False)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _families(trials: pd.DataFrame, images: int) -> Table:
    table = _table(f"What was tried, and the best error on val ({images:,} images)")
    table.add_column("family")
    for name in ("trials", *ENDS, "error", "minutes"):
        table.add_column(name, justify="right", no_wrap=True)
    by_family = trials.assign(seconds=trials["train_s"] + trials["eval_s"]).groupby("family")
    for family, rows in sorted(by_family, key=lambda item: (item[1]["val_error"].isna().all(), item[1]["val_error"].min())):
        counts = [str((rows["state"] == s).sum()) for s in ENDS]
        table.add_row(family, str(len(rows)), *counts, _percent(rows["val_error"].min()), f"{rows['seconds'].sum() / 60:.1f}")
    return table


def _best_trials(trials: pd.DataFrame, images: int) -> Table:
    table = _table(f"The best trials, by loss (cross-entropy) on val ({images:,} images)")
    for name in ("trial", "epochs", "error", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("architecture", "optimizer", "lr_schedule"):
        table.add_column(name, no_wrap=True)
    for _, t in trials.dropna(subset=["val_loss"]).nsmallest(8, "val_loss").iterrows():
        scores = f"{t['budget']:.3g}", _percent(t["val_error"]), f"{t['val_loss']:.4f}"
        table.add_row(str(t["trial"]), *scores, t["arch"], f"{t['optimizer']} {t['lr']:.2g}", t["lr_schedule"])
    return table


def _ensembles(ensemble: dict) -> Table:
    table = _table(f"Ensembles, {_judged_on(ensemble)}{_taught(ensemble)}")
    if len(ensemble["methods"]) > 1:
        table.caption = "chosen: the lowest loss, unless it makes clearly more errors than the best network alone"
        table.caption_justify = "left"
    table.add_column("method")
    for name in ("members", "errors", "error", "95 % interval", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    single = ensemble["best_single"]
    rows = [(name, m["members"], m["judged"]) for name, m in ensemble["methods"].items()]
    rows.append((f"fewest errors: trial {single['trial']} {single['arch']}", 1, single["judged"]))
    for name, members, judged in rows:
        mark = "[bold]" if name == ensemble["method"] else ""
        label = f"{mark}{name}, chosen" if mark else name
        table.add_row(label, str(members), *_scores(judged), f"{judged['loss']:.4f}")
    return table


def _sizes(ensemble: dict) -> Table:
    table = _table(f"The best of each size, equally weighed{_taught(ensemble)}")
    table.add_column("members (trials)")
    for name in ("errors", "error", "95 % interval", "ms", "ms, one network each"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in ensemble["sizes"]:
        ms = (f"{row[name]:.3g}" for name in ("ms_per_image", "ms_one_network_each"))
        table.add_row(", ".join(row["names"]), *_scores(row["judged"]), *ms)
    return table


def _scores(judged: dict) -> tuple[str, str, str]:
    low, high = interval(judged["errors"], judged["images"])
    return str(judged["errors"]), _percent(judged["error"]), f"{low:.2%} to {high:.2%}"


def _judged_on(ensemble: dict) -> str:
    judged = ensemble["judged_on"]
    return f"{'out of fold' if judged['split'] == 'out of fold' else 'on val'} ({judged['images']:,} images)"


def _taught(ensemble: dict) -> str:
    return "; u: unlabelled images taught, too" if ensemble["unlabelled_taught"] else ""


def _cost(ensemble: dict) -> str:
    networks = sum(len(m["networks"]) for m in ensemble["members"])
    many = f"{networks} networks take" if networks > 1 else "Its network takes"
    text = f"{many} {ensemble['ms_per_image']:.3g} ms an image, in batches of 128 on one place."
    cascade = ensemble["cascade"]
    if cascade:
        text += (
            f" A cascade that asks one of each member for {cascade['share_passed_on']:.1%} of the images, and one of trial "
            f"{cascade['first']} alone for the others, takes {cascade['ms_per_image']:.3g} ms "
            f"({cascade['judged']['errors']} errors; that network alone: {cascade['ms_first']:.3g} ms)."
        )
    return text


def _percent(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.2%}"


def next_commands(console: Console, folder: Path, written: list[str], commands: list[str]):
    """Name the files and the next commands."""
    console.print(f"\nIn {folder}:", markup=False, highlight=False, soft_wrap=True)
    for name in written:
        console.print(f"  {name}", markup=False, highlight=False, soft_wrap=True)
    console.print("Next:", highlight=False)
    for command in commands:
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def why_none(trials: pd.DataFrame) -> str:
    """What the trials of a sweep that left no network have in common."""
    if trials.empty:
        return "The time was over before the first; give more."
    alike = trials["reason"].str.replace(r"\d[\d.]*", "", regex=True)  # the same at another step is the same
    common, count = next(alike.value_counts().items())
    return f"{count} of them: {trials['reason'][alike == common].iloc[0]}"
