"""The last lines of a sweep: what was tried, what came out, where it lies."""

from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeps.show import views
from sweeps.show.judged import judges
from sweeps.show.trained import FULL, PARTLY, mark, partly, share
from trainable.errors import short, without_numbers
from trainable.scores import interval

REASON = 160  # characters of a reason that are shown
BEST = 5  # trials that are named at the end
MARK = "*"


def show(console: Console, trials: pd.DataFrame, curves: pd.DataFrame, ensemble: dict, images: int):
    """Print what a finished sweep came to, on one screen. `images`: how many val has."""
    families = views.families(trials, curves).drop(columns=["best", "epochs", "training", "loss"])
    whole = views.searched(trials)[lambda frame: frame["training"] == FULL].groupby("family")["val_error"].min()
    families["error"] = [_marked(e, ".2%", whole.get(f) == e) for f, e in zip(families["family"], families["error"], strict=True)]
    val = f"val{', given by the user' * ensemble['judged_on'].get('given', False)}"
    print_table(console, families, f"What was tried, and the best error on {val} ({images:,} images)")
    console.print()
    best = views.leaderboard(trials, curves).dropna(subset=["loss"]).head(BEST)
    best["epochs"] = [_marked(e, ".3g", t == FULL) for e, t in zip(best["epochs"], best["training"], strict=True)]
    best = best.drop(columns=["state", "parameters", "minutes", "training"])
    print_table(console, best, f"The best trials, by epochs and loss (cross-entropy) on {val} ({images:,} images)")
    console.print(f"{MARK}: {PARTLY}, stopped before the last epoch", highlight=False)
    console.print()
    console.print(_ensembles(ensemble))
    _answer(console, ensemble)


def _marked(value: float, form: str, full: bool) -> str:
    return "-" if pd.isna(value) else format(value, form) + ("" if full else MARK)


def show_ensemble(console: Console, ensemble: dict):
    """Print what ensemble.json says."""
    console.print(_ensembles(ensemble))
    console.print()
    console.print(_sizes(ensemble))
    _answer(console, ensemble)


def _answer(console: Console, ensemble: dict):
    console.print()
    test = ensemble["test"]
    if test:
        low, high = interval(test["errors"], test["images"])
        console.print(
            f"Test, never used to choose: [bold]{1 - test['error']:.2%}[/bold] right, {test['errors']} errors of "
            f"{test['images']:,} (95 % interval {1 - high:.2%} to {1 - low:.2%}).",
            highlight=False,
        )
    if about := partly(ensemble):
        console.print(about, highlight=False)
    if some := [m for m in ensemble["members"] if not m.get("full", True)]:
        names = ", ".join(f"{m['trial']} {m['arch']} ({share(m)} epochs)" for m in some)
        console.print(f"Members that are {PARTLY}: {names}.", highlight=False)
    console.print(_cost(ensemble), highlight=False)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))


# How columns are written; others as they are.
FORMS = dict.fromkeys(("error", "share", "95 % from", "95 % to", "best single"), ".2%") | {"importance": ".1%", "loss": ".4f"}
FORMS |= dict.fromkeys(("best loss", "worst that went on"), ".4f") | {"minutes": ".1f", "parameters": ",.0f"}
FORMS |= dict.fromkeys(("estimate", "score"), ".5f") | {"score - estimate": "+.5f"}
FORMS |= dict.fromkeys(("epochs", "lr", "ms", "ms an image", "training", "evaluating", "else"), ".3g")


def print_table(console: Console, frame: pd.DataFrame, title: str):
    """A view, for people."""
    table = _table(title)
    for name in frame:
        words = not pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(name, justify="left" if words else "right", no_wrap=name not in ("reason", "good values"))
    for _, row in frame.iterrows():
        table.add_row(*(escape(_cell(name, value)) for name, value in row.items()))
    console.print(table)


def print_across(console: Console, frame: pd.DataFrame, title: str):
    """A view with few rows and many columns: each row, which its first column names, in a column of its own."""
    first, *others = frame
    table = _table(title)
    for name in (first, *frame[first]):
        table.add_column(escape(str(name)), justify="left" if name == first else "right", overflow="fold")
    for name in others:
        table.add_row(name, *(escape(_cell(name, value)) for value in frame[name]))
    console.print(table)


def _cell(name: str, value) -> str:
    if pd.isna(value):
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else ""
    form = FORMS.get(name, "")
    return format(value, form if not isinstance(value, str) else "") if form or isinstance(value, str) else f"{value:g}"


def _ensembles(ensemble: dict) -> Table:
    table = _table(f"Ensembles, {_judged_on(ensemble)}{_taught(ensemble)}")
    if len(ensemble["methods"]) > 1:
        table.caption = "chosen: lowest loss, unless it makes clearly more errors than the best alone"
        table.caption_justify = "left"
    table.add_column("method")
    for name in ("members", "errors", "error", "95 % interval", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    single = ensemble["best_single"]
    rows = [(name, m["members"], m["judged"]) for name, m in ensemble["methods"].items()]
    rows.append((f"fewest errors: trial {single['trial']} {single['arch']}{mark(single)}", 1, single["judged"]))
    for name, members, judged in rows:
        label = f"[bold]{name}, chosen" if name == ensemble["method"] else name
        table.add_row(label, str(members), *_scores(judged), _cell("loss", judged["loss"]))
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
    return f"{'on ' * (judged['split'] == 'val')}{judges(judged)} ({judged['images']:,} images)"


def _taught(ensemble: dict) -> str:
    return "; u: unlabelled images taught, too" if ensemble["unlabelled_taught"] else ""


def _cost(ensemble: dict) -> str:
    networks = sum(len(m["networks"]) for m in ensemble["members"])
    many = f"{networks} networks take" if networks > 1 else "Its network takes"
    text = f"{many} {ensemble['ms_per_image']:.3g} ms an image, in batches of 128 on one place."
    cascade = ensemble["cascade"]
    if cascade:
        first = f"{cascade['first']}{'' if cascade.get('first_full', True) else f' ({PARTLY})'}"
        text += (
            f" A cascade that asks one of each member for {cascade['share_passed_on']:.1%} of the images, and one of trial "
            f"{first} alone for the others, takes {cascade['ms_per_image']:.3g} ms "
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


def how_little(trials: pd.DataFrame, epochs: float) -> str:
    """Describe how short the longest training was, where none came to its end; "" where one did."""
    if (trials["state"] == "complete").any() or not trials["budget"].max() > 0:
        return ""
    longest = f"{trials['budget'].max():.3g} of {epochs:g} epochs"
    return f"No training came to its end: the longest had {longest}. A longer --time-budget gives better networks."


def why_none(trials: pd.DataFrame) -> str:
    """What the trials of a sweep that left no network have in common."""
    if trials.empty:
        return "The time was over before the first; give more."
    alike = trials["reason"].map(without_numbers)
    common, count = next(alike.value_counts().items())
    return f"{count} of them: {short(trials['reason'][alike == common].iloc[0], REASON)}"
