"""What happened in a sweep: a page for the browser, or a table.

python sweeps/report.py SWEEP                          writes report.html into its folder
python sweeps/report.py SWEEP --view families          prints a table
python sweeps/report.py SWEEP OTHER                    sweeps side by side
"""

import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from sweeps import stored
from sweeps.choose.mistakes import Mistakes, mistakes
from sweeps.compete.ledger import Entry, Ledger, calibrated, table
from sweeps.flags import ROOT, existing_sweep, results_folder
from sweeps.show import compare, page, views
from sweeps.show.importance import compared, importance
from sweeps.show.summary import print_across, print_table
from trainable import files
from trainable.datasets import Dataset, load
from trainable.datasets.container import as_recorded
from trainable.errors import BadInput, Parser, as_path, listed, run
from trainable.schema import Damaged

HOLDS = ("record.db", "trials.parquet")


def main():
    args = parse(sys.argv[1:])
    if len(args.sweeps) > 1:
        return several(args)
    (folder,) = args.sweeps
    if args.view:
        title, rows = view(folder, args.view, args.family)
        show(rows, title, args.json)
        return None
    to = args.out or folder / page.FILE
    write_report(folder, to)
    print(f"{to} ({to.stat().st_size / 1e6:.1f} MB): open it in a browser; it needs no network.")


def write_report(folder: Path, to: Path | None = None, data: Dataset | None = None):
    """Write a sweep's page; `data` are its images, read again where they are not given."""
    wrong, missing = None, "there is no ensemble yet"
    if (folder / "ensemble.json").exists():
        try:
            wrong, missing = _mistakes(folder, data), ""
        except Damaged:
            raise
        except BadInput as why:
            missing = str(why).replace(f"{ROOT}/", "")  # the page may go to others, whom this machine's folders say nothing
    entries = _sent(folder)
    sent, honest = table(entries).to_dict("records"), calibrated(entries) if entries else ""
    files.write(to or folder / page.FILE, page.page(folder, wrong, missing, sent, honest))


def _mistakes(folder: Path, data: Dataset | None) -> Mistakes:
    if not (folder / stored.SWEEP).exists():
        raise BadInput(f"there is no {stored.SWEEP} that says of which images")
    about = stored.sweep(folder)
    arguments = about["arguments"]
    data = data or load(arguments["dataset"], image_size=arguments["image_size"])
    if data.fingerprint != about["data"]["fingerprint"]:
        raise BadInput("its images have changed since")
    return mistakes(folder, as_recorded(data, about["data"]))


def _sent(folder: Path) -> list[Entry]:
    """Everything that went to the competition that this sweep's predictions went to."""
    entries = Ledger(folder.parent).entries()
    own = {entry.competition for entry in entries if entry.sweep == folder.name}
    return [entry for entry in entries if entry.competition in own]


def view(folder: Path, name: str, family: str | None) -> tuple[str, pd.DataFrame]:
    """A title and a table."""
    if name == "importance":
        there, epochs = compared(folder, family)
        table = importance(there)
        of = f" of {family}" if family else ""
        return f"What mattered{of}, compared after {epochs:.3g} epochs" if epochs else "No trial has come to a rung yet", table
    trials, curves = views.tables(folder)
    if family and len(trials):
        if family not in set(trials["family"]):
            raise BadInput(f"--family {family}: that sweep tried {listed(sorted(set(trials['family'])), family)}")
        trials = trials[trials["family"] == family]
    return f"{folder.name}: {name}", views.VIEWS[name](trials, curves)


def show(table: pd.DataFrame, title: str, as_json: bool, print_it=print_table):
    if as_json:
        print(table.to_json(orient="records", indent=1, double_precision=6))
    else:
        print_it(Console() if sys.stdout.isatty() else Console(width=160), table, title)


def several(args):
    """Sweeps side by side: a table, and a page."""
    if args.view:
        raise BadInput("--view is of one sweep; leave it out, or name one")
    table = compare.table(args.sweeps)
    show(table if args.json else table.rename(columns=compare.WORDS), "Sweeps side by side", args.json, print_across)
    if not args.json:
        to = args.out or Path.cwd() / "compare.html"
        files.write(to, compare.page(args.sweeps, table))
        print(f"{to}: the same in a browser, with their progress.")


def parse(arguments: list[str]):
    p = Parser(prog="report.py", description=__doc__.split("\n")[0])
    p.add_argument("sweeps", nargs="+", metavar="SWEEP", help="names under --results, or folders")
    p.add_argument("--view", choices=[*views.VIEWS, "importance"], help="print this table in place of the page")
    p.add_argument("--family", help="of its trials alone: what --view importance and others are about")
    p.add_argument("--json", action="store_true", help="print the table as JSON")
    p.add_argument("--out", type=as_path, help=f"where the page is written (default: {page.FILE} in the sweep's folder)")
    p.add_argument("--results", type=as_path, help=f"where sweeps lie (default: {ROOT / 'results'})")
    args = p.parse_args(arguments)
    if args.json and not args.view and len(args.sweeps) == 1:
        raise BadInput("--json is of a table; say which with --view")
    results = results_folder(args.results)
    args.sweeps = [existing_sweep(name, results, *HOLDS) for name in args.sweeps]
    return args


if __name__ == "__main__":
    run(main)
