"""The architecture table: zoo.parquet, zoo.md, and the same on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from sweeps.show.views import front, write_parquet
from trainable import files
from trainable.archs import ARCHS

OF_TRIALS = {"trial": "Int64", "state": "string", "reason": "string", "train_s": "float64"}
PARTLY = "†"  # behind the error of a network that is not a full training
TIMED = {"ms_{}": "float64", "ms_{}_p90": "float64", "runs_{}": "Int64", "front_{}": "bool"}  # of a batch size
OF_SCORES = {
    f"{split}_{what}": "Int64" if what == "errors" else "float64"
    for split in ("val", "test")
    for what in ("errors", "error", "loss")
}


def columns(batches: Sequence[int]) -> dict[str, str]:
    """The columns of zoo.parquet and their types. `front_<b>`: on the Pareto front of `val_error` against `ms_<b>`."""
    timed = {name.format(b): kind for b in batches for name, kind in TIMED.items()}
    about = {"threads": "Int64", "device": "string", "setting": "string", "submission": "string"}
    size = {"arch": "string", "family": "string", "parameters": "int64", "macs": "int64", "epochs": "float64", "full": "boolean"}
    return {**size, **OF_SCORES, **timed, **about, **OF_TRIALS}


def tabulate(sizes: Mapping[str, tuple[int, int]], trials: pd.DataFrame, singles: list[dict], batches: Sequence[int]):
    """A row an architecture, lowest val error first, those without a network last.

    Args:
        sizes: parameters and MACs of every architecture that was asked for.
        trials: of `views.tables`; an architecture that is not there was never begun.
        singles: a dict a network with `arch` and any other of the columns.
    """
    tried = trials.set_index("arch")[list(OF_TRIALS)].to_dict("index")
    networks = {single["arch"]: single for single in singles}
    never = {"state": "interrupted", "reason": "the sweep ended before its turn"}
    rows = []
    for arch, (parameters, macs) in sizes.items():
        size = {"arch": arch, "family": ARCHS[arch].family, "parameters": parameters, "macs": macs}
        rows.append({**size, **tried.get(arch, never), **networks.get(arch, {})})
    kinds = columns(batches)
    table = pd.DataFrame(rows).sort_values(["val_error", "val_loss"], ignore_index=True).reindex(columns=list(kinds))
    for b in batches:
        table[f"front_{b}"] = front(table[f"ms_{b}"], table["val_error"])
    return table.astype(kinds)


def write(folder: Path, table: pd.DataFrame, about: list[str]):
    """Write zoo.parquet and zoo.md; `about` are the paragraphs of the latter above the table."""
    write_parquet(folder / "zoo.parquet", table)
    files.write(folder / "zoo.md", markdown(table, about))


def markdown(table: pd.DataFrame, about: list[str]) -> str:
    rows = [cells(row) for _, row in table.iterrows()]
    lines = [list(rows[0]), ["---"] + ["---:"] * (len(rows[0]) - 1), *(list(row.values()) for row in rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([*about, text, *notes(table)]) + "\n"


def show(console: Console, table: pd.DataFrame, title: str):
    """Print the table; fits 80 columns."""
    out = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    rows = [cells(row) for _, row in table.iterrows()]
    for name in rows[0]:
        out.add_column(name, justify="left" if name == "architecture" else "right", no_wrap=True)
    for row in rows:
        best = any(value.startswith("*") for value in row.values())
        out.add_row(*row.values(), style="bold" if best else "")
    console.print(out)
    for note in notes(table):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def cells(row: pd.Series) -> dict[str, str]:
    """A row of the table for people, by heading."""
    batches = [name.removeprefix("front_") for name in row.index if name.startswith("front_")]
    return {
        "architecture": row["arch"],
        "params": _count(row["parameters"]),
        "MACs": _count(row["macs"]),
        "val": _text(row["val_error"], ".2%") + PARTLY * (not pd.isna(row["full"]) and not row["full"]),
        "loss": _text(row["val_loss"], ".4f"),
        "test": _text(row["test_error"], ".2%"),
        **{f"ms/{b}": ("* " if row[f"front_{b}"] else "") + _text(row[f"ms_{b}"], "#.3g").rstrip(".") for b in batches},
        "train": _text(row["train_s"], ".0f"),
    }


def notes(table: pd.DataFrame) -> list[str]:
    """What the columns mean, and why a network is missing or trained less."""
    timed, partly = table.dropna(subset=["device"]), table[table["full"].eq(False).fillna(False)]
    out = [
        "val, test: error there; loss: cross-entropy on val; MACs: multiply-accumulates for one image; train: its seconds.",
        "*: on the Pareto front of val error against this time: no other network is at least as good and faster.",
    ]
    if len(timed):
        runs = timed[[name for name in table if name.startswith("runs_")]].to_numpy().min()
        devices, threads = ", ".join(timed["device"].unique()), timed["threads"].iloc[0]
        words = f"{threads} thread{'s' if threads > 1 else ''}"
        out.append(f"ms/b: milliseconds for a batch of b, median of at least {runs} warm runs; {words}, {devices}.")
    if len(partly):
        names = ", ".join(f"{row['arch']} ({row['epochs']:.3g} epochs)" for _, row in partly.iterrows())
        out.append(f"{PARTLY}: partly trained, not to the last epoch: {names}.")
    for _, row in partly[partly["state"] == "complete"].iterrows():
        out.append(f"{row['arch']} was at its best after {row['epochs']:g} epochs, and stands here as it was then.")
    ended = table[table["state"] != "complete"]
    return out + [f"{row['arch']}, {row['state']}: {row['reason']}" for _, row in ended.iterrows()]


def words_of_vote(voted: Mapping, val: int) -> list[str]:
    """Return a paragraph on a majority vote, of `singles.vote`; none where there was none.

    Args:
        val: images.
    """
    if not voted:
        return []
    names = ", ".join(arch + PARTLY * (arch in voted["partly"]) for arch in voted["archs"])
    text = f"Majority vote of {names}: {voted['val_errors']} errors of {val:,} on val ({voted['val_error']:.2%})"
    if "test_error" in voted:
        text += f", {voted['test_errors']} on test ({voted['test_error']:.2%})"
    return [text + (f"; {voted['submission']}" if "submission" in voted else "") + "."]


def _text(value, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)


def _count(value: int) -> str:
    """Three digits and a unit."""
    for unit, symbol in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:#.3g}".rstrip(".") + symbol
    return str(value)
