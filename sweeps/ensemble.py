"""Combine the networks of finished sweeps again, another way.

python sweeps/ensemble.py 2026-11-22-101500-digits-sample --ensemble weights
python sweeps/ensemble.py MONDAY TUESDAY --max-latency 2
"""

import sys
from pathlib import Path

from rich.console import Console

from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import combine
from sweeps.flags import results_folder, sweep_folder
from sweeps.resume import before
from sweeps.show import summary
from trainable.datasets import load
from trainable.errors import BadInput, Parser, lookup, positive, run


def main():
    p = Parser(prog="ensemble.py", description=__doc__.split("\n")[0])
    p.add_argument("sweeps", nargs="+", metavar="SWEEP", help="names under --results, or folders")
    p.add_argument("--ensemble", help=f"how networks are combined: {', '.join(ENSEMBLES)} (default: the best)")
    p.add_argument("--max-latency", type=positive(float, 1e6), metavar="MS", help="milliseconds an image that it may take")
    p.add_argument("--results", help="where sweeps lie (default: results/ of the project)")
    p.add_argument("--out", help="the folder to write (default: ensemble-2, -3, ... in that of the first sweep)")
    args = p.parse_args()
    if args.ensemble:
        lookup(ENSEMBLES, args.ensemble, "ensemble")
    results = results_folder(args.results)
    earlier = [before(sweep_folder(name, results)) for name in args.sweeps]
    first = earlier[0]
    for other in earlier[1:]:
        if other.fingerprint != first.fingerprint:
            names = f"{other.folder.name} and {first.folder.name}"
            raise BadInput(f"{names} are about different images; combine sweeps of the same data")
    data = load(first.arguments["dataset"], image_size=first.arguments["image_size"])
    if data.fingerprint != first.fingerprint:
        raise BadInput(f"the data of {first.folder.name} have changed; bring them back")
    out = Path(args.out).resolve() if args.out else _unused(first.folder)
    if (out / "ensemble.json").exists():
        raise BadInput(f"--out {out} holds an ensemble already; choose another folder")
    console = Console() if sys.stdout.isatty() else Console(width=120)
    methods = [args.ensemble] if args.ensemble else list(ENSEMBLES)
    try:
        about = combine([b.folder for b in earlier], data, methods, None, console.print, args.max_latency, out)
    except OSError as wrong:
        raise BadInput(f"--out {out}: {wrong.strerror}; choose a folder that can be written") from wrong
    if about is None:
        raise BadInput(f"{', '.join(args.sweeps)} left no network; go on with one: --resume {first.folder.name}")
    summary.show_ensemble(console, about)
    console.print(f"\nIn {out}: ensemble.json, submission.csv", markup=False, highlight=False, soft_wrap=True)


def _unused(folder: Path) -> Path:
    number = 2
    while (folder / f"ensemble-{number}").exists():
        number += 1
    return folder / f"ensemble-{number}"


if __name__ == "__main__":
    run(main)
