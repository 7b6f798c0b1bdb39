"""Combine the networks of finished sweeps again, another way.

python sweeps/ensemble.py 2026-11-22-101500-digits-sample --ensemble weights
python sweeps/ensemble.py MONDAY TUESDAY --max-latency 2
"""

import sys
from pathlib import Path

from rich.console import Console

from sweeps import stored
from sweeps.choose import kept
from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import SUBMISSION, combine
from sweeps.choose.model import FILE
from sweeps.flags import results_folder, sweep_folder
from sweeps.resume import before, blamed
from sweeps.show import summary
from trainable.datasets import load
from trainable.datasets.container import Dataset, as_recorded
from trainable.errors import BadInput, Parser, as_path, lookup, positive, run

HOLDS = ("record.db", kept.FILE)  # a sweep, or what was kept of one


def main():
    p = Parser(prog="ensemble.py", description=__doc__.split("\n")[0])
    p.add_argument("sweeps", nargs="+", metavar="SWEEP", help="names under --results, or folders")
    p.add_argument(
        "--ensemble", help=f"how networks are combined: {', '.join(ENSEMBLES)} (default: whichever is best out of fold)"
    )
    p.add_argument("--max-latency", type=positive(float, 1e6), metavar="MS", help="milliseconds an image that it may take")
    p.add_argument("--results", type=as_path, help="where sweeps lie (default: results/ of the project)")
    p.add_argument("--out", type=as_path, help="the folder to write (default: ensemble-2, -3, ... in that of the first sweep)")
    args = p.parse_args()
    if args.ensemble is not None:
        lookup(ENSEMBLES, args.ensemble, "ensemble")
    results = results_folder(args.results)
    folders = list(dict.fromkeys(sweep_folder(name, results, *HOLDS) for name in args.sweeps))
    data = data_of(folders)
    out = args.out.resolve() if args.out else _unused(folders[0])
    if (out / FILE).exists():
        raise BadInput(f"--out {out} holds an ensemble already; choose another folder")
    console = Console() if sys.stdout.isatty() else Console(width=120)
    methods = [args.ensemble] if args.ensemble else list(ENSEMBLES)
    try:
        about = combine(folders, data, methods, None, console.print, args.max_latency, out)
    except OSError as wrong:
        raise BadInput(f"--out {out}: {wrong.strerror}; choose a folder that can be written") from wrong
    if about is None:
        raise BadInput(f"{', '.join(args.sweeps)} left no network; go on with one: --resume {folders[0].name}")
    summary.show_ensemble(console, about)
    if len(folders) > 1:
        numbered = ", ".join(f"{number}/: {folder.name}" for number, folder in enumerate(folders, start=1))
        console.print(f"Trials of {numbered}", markup=False, highlight=False)
    there = [name for name in (FILE, SUBMISSION) if (out / name).exists()]
    console.print(f"\nIn {out}: {', '.join(there)}", markup=False, highlight=False, soft_wrap=True)


def data_of(folders: list[Path]) -> Dataset:
    """What these sweeps were about, all of them; raises BadInput where they were about different images."""
    asked = [_asked(folder) for folder in folders]
    dataset, image_size, about = asked[0]
    source = folders[0] / ("record.db" if (folders[0] / "record.db").exists() else stored.SWEEP)
    data = None
    if dataset is None:
        raise BadInput(f"{folders[0]} does not say which dataset it was about; restore it from a copy")
    for folder, (*_, other) in zip(folders, asked, strict=True):
        names = f"{folder.name} and {folders[0].name}"
        if other["fingerprint"] != about["fingerprint"]:
            raise BadInput(f"{names} are about different images; combine sweeps of the same data")
        with blamed(source):
            data = data or load(dataset, image_size=image_size)
        if data.val_given and bool(other.get("val_given")) != bool(about.get("val_given")):
            raise BadInput(f"one of {names} has trained on the val that the user gave; combine sweeps that have not")
    if data.fingerprint != about["fingerprint"]:
        raise BadInput(f"the data of {folders[0].name} have changed, or {source} is damaged; bring them back")
    return as_recorded(data, about)


def _asked(folder: Path) -> tuple[str, int | None, dict]:
    """A sweep's dataset, the size of its images, and what is said of the data: by its record, or, where no more was kept of
    a sweep than what its finalists said, by sweep.json."""
    if (folder / "record.db").exists() or not (folder / kept.FILE).exists():
        earlier = before(folder)
        return earlier.arguments["dataset"], earlier.arguments["image_size"], earlier.data
    if not (folder / stored.SWEEP).exists():
        raise BadInput(f"{folder} has {kept.FILE} and no sweep.json that says of which data; copy that too")
    about = stored.sweep(folder)
    return about["arguments"]["dataset"], about["arguments"]["image_size"], about["data"]


def _unused(folder: Path) -> Path:
    number = 2
    while (folder / f"ensemble-{number}").exists():
        number += 1
    return folder / f"ensemble-{number}"


if __name__ == "__main__":
    run(main)
