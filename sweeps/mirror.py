"""Write again what mirrors a sweep's record: its tables, its page, Optuna's study, and its runs in MLflow.

python sweeps/mirror.py SWEEP
python sweeps/mirror.py SWEEP --mlflow https://mlflow.example.org      # MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN
"""

import sys
from pathlib import Path

from sweeps import stored
from sweeps.choose.package import package
from sweeps.compete.ledger import Ledger
from sweeps.flags import ROOT, results_folder, sweep_folder
from sweeps.lock import Held, Lock
from sweeps.report import write_report
from sweeps.resume import before
from sweeps.search.record import newest_about, read
from sweeps.show import logged, study, tracking, views
from trainable.errors import BadInput, Parser, as_path, run


def main() -> int:
    args = parse(sys.argv[1:])
    folder = args.sweep
    sweep = before(folder)
    views.write_tables(folder)
    study.write(folder, sweep.arguments.get("metric", "val_loss"))
    write_report(folder)
    print(f"In {folder}: trials.parquet, curves.parquet, {study.FILE}, report.html.", flush=True)
    try:
        Lock(folder / "lock").take()
    except Held:
        print("It has a driver at work, which mirrors it in MLflow: left to that.")
        return 0
    return mirror(folder, args.mlflow, args.model)


def mirror(folder: Path, uri: str | None, with_model: bool) -> int:
    about = newest_about(folder / "record.db")
    where, artifacts = tracking.place(uri, folder.parent)
    failed: list[str] = []
    told = logged.parameters(about)
    tracker = tracking.Tracker(
        where, artifacts, about["arguments"]["dataset"], folder.name, told, failed.append, read(folder / "record.db")
    )
    metrics, model = {}, None
    if (folder / "ensemble.json").exists():
        ensemble = stored.ensemble(folder)
        ended = stored.sweep(folder).get("ended", {}) if (folder / stored.SWEEP).exists() else {}
        metrics = logged.metrics(ensemble, ended.get("trials", 0), ended.get("cores_busy", 0.0))
        scores = [e.score for e in Ledger(folder.parent).entries() if e.sweep == folder.name and e.state == "scored"]
        metrics |= {"kaggle_score": scores[-1]} if scores else {}
        model = (lambda to: package(folder, to)) if with_model else None
    there = [folder / name for name in tracking.FILES if (folder / name).exists()]
    tracker.close(metrics, there, model, patience=None)
    if failed:
        raise BadInput(f"{failed[0]}; see to {where}, and call this again")
    print(f"In MLflow at {where}: its runs, files{' and model' if model else ''}.")
    return 0


def parse(arguments: list[str]):
    p = Parser(prog="mirror.py", description=__doc__.split("\n")[0])
    p.add_argument("sweep", help="its name under --results, or its folder")
    p.add_argument("--mlflow", metavar="URI", help="an MLflow server (default: mlflow.db under --results)")
    p.add_argument("--no-model", dest="model", action="store_false", help="do not register the ensemble as a model there")
    p.add_argument("--results", type=as_path, help=f"where sweeps lie (default: {ROOT / 'results'})")
    args = p.parse_args(arguments)
    args.sweep = sweep_folder(args.sweep, results_folder(args.results))
    return args


if __name__ == "__main__":
    run(main)
