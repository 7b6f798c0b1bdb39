"""Why did a trial end as it did?

python sweeps/explain.py 2026-11-22-101500-digits-sample 12
"""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from sweeps.flags import ROOT, results_folder, sweep_folder
from sweeps.resume import before
from sweeps.search.record import rows
from sweeps.search.scheduler import SCHEDULERS, Verdict
from sweeps.show.judged import GIVEN, name_of_val
from sweeps.show.trained import PARTLY
from trainable.errors import BadInput, Parser, as_path, positive, run

NAMED = 5  # of the trials that were better, so many are named


def main():
    args = parse(sys.argv[1:])
    sweep = before(args.sweep)
    trial = next((t for t in sweep.trials if t["number"] == args.trial), None)
    if trial is None:
        raise BadInput(
            f"{args.trial}: that sweep has {f'the trials 0 to {len(sweep.trials) - 1}' if sweep.trials else 'no trials'}"
        )
    console = Console() if sys.stdout.isatty() else Console(width=120)

    def say(text: str):
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    seconds = trial["train_s"] + trial["eval_s"]
    say(f"Trial {args.trial} of {sweep.folder.name}: {trial['config']['arch']}, {trial['state']}, {seconds:.0f} seconds.")
    reached = max((row["metrics"]["budget"] for row in sweep.rungs if row["number"] == args.trial), default=0.0)
    if trial["state"] != "complete":
        say(f"Not a full training: {PARTLY}, {reached:.3g} of {trial['config']['epochs']:.3g} epochs.")
    if trial["reason"]:
        say(f"Why: {trial['reason']}")
    for line in trial["trace"].splitlines():
        say(f"  {line}")
    for again in (row for row in rows(sweep.folder / "record.db", "restarts") if row["number"] == args.trial):
        say(f"Started again after {again['t'] / 60:.1f} minutes of the sweep: {again['reason']}")
    if trial["refits"] is not None:
        config = trial["config"]
        say(f"It trains trial {trial['refits']} again, a finalist, on fold {config['fold'] + 1} of {config['folds']}.")
        for row in (row for row in sweep.rungs if row["number"] == args.trial):
            metrics = row["metrics"]
            judges = f"the {GIVEN}" if sweep.data.get("val_given") else "the images of its fold"
            say(f"After {metrics['budget']:.3g} epochs: loss {metrics['val_loss']:.4f} on {judges}.")
    again = [str(t["number"]) for t in sweep.trials if t["refits"] == args.trial]
    if again:
        say(f"A finalist: it promised most in the time that was left. Trained again as {', '.join(again)}.")
    searched = {t["number"] for t in sweep.searched}
    judged = judgements([row for row in sweep.rungs if row["number"] in searched], sweep.arguments, args.trial)
    if judged:
        console.print(table(judged, sweep.arguments["metric"], sweep.arguments["scheduler"], name_of_val(sweep.data)))
        if any(not verdict.go_on and row["rung"] < judged[-1][0]["rung"] for row, verdict, _ in judged):
            say("It went on all the same, as a starting point that its space is sure of.")
    say(f"Train it again: python trainable/train.py --trial {sweep.folder}/{args.trial}")


def parse(arguments: list[str]):
    p = Parser(prog="explain.py", description=__doc__.split("\n")[0])
    p.add_argument("sweep", help="its name under --results, or its folder")
    p.add_argument("trial", type=positive(int, or_zero=True), help="its number")
    p.add_argument("--results", type=as_path, help=f"where sweeps lie (default: {ROOT / 'results'})")
    args = p.parse_args(arguments)
    args.sweep = sweep_folder(args.sweep, results_folder(args.results))
    return args


def judgements(rungs: list[dict], arguments: dict, number: int) -> list[tuple[dict, Verdict, list[int]]]:
    """What the scheduler knew and said at each rung that the trial reached, and the trials that were better, best first.

    The record's rungs are in the order in which they were judged; they are judged again.
    """
    scheduler, metric, found = SCHEDULERS[arguments["scheduler"]](), arguments["metric"], []
    reached: dict[int, list[tuple[float, int]]] = {}
    for row in rungs:
        if row["partial"]:
            continue
        value, at = row["metrics"][metric], reached.setdefault(row["rung"], [])
        verdict = scheduler.judge(row["rung"], value)
        if row["number"] == number:
            found.append((row, verdict, [other for other_value, other in sorted(at) if other_value < value]))
        at.append((value, row["number"]))
    return found


def table(judged: list[tuple[dict, Verdict, list[int]]], metric: str, scheduler: str, val: str) -> Table:
    title = f"At its rungs ({metric} on {val}; lower is better; scheduler {scheduler})"
    out = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD,
        caption="room for: so many of those that had come by then; all, while they are too few. cut: the worst that went on",
        caption_justify="left",
    )  # fmt: skip
    for name in ("rung", "epochs", metric, "place", "of", "room for", "cut"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("trials that were better")
    for row, verdict, better in judged:
        more = f" and {len(better) - NAMED} more" if len(better) > NAMED else ""
        names = ", ".join(map(str, better[:NAMED])) + more
        room = "all" if not verdict.places else str(verdict.places)
        cut = "-" if verdict.cut is None else f"{verdict.cut:.4f}"
        cells = [str(row["rung"] + 1), f"{row['metrics']['budget']:.3g}", f"{row['metrics'][metric]:.4f}"]
        out.add_row(*cells, str(verdict.place), str(verdict.reached), room, cut, names or "none")
    return out


if __name__ == "__main__":
    run(main)
