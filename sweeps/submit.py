"""Send a sweep's predictions to its competition, once, and wait for the score.

python sweeps/submit.py SWEEP                      check, send, wait for the score, remember
python sweeps/submit.py SWEEP --best-of A B        whichever of the three promises most
python sweeps/submit.py SWEEP --dry-run            everything but sending; needs no account
python sweeps/submit.py --pending                  what waits, and scores that were not there yet
python sweeps/submit.py --list                     estimates and scores so far
"""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sweeps import layout, stored
from sweeps.compete import check, ledger
from sweeps.compete.client import SETTINGS, Away, Kaggle, credentials, readable_by_others
from sweeps.compete.ledger import Entry, Ledger
from sweeps.compete.send import Desk, refusal
from sweeps.ensemble import data_of
from sweeps.flags import ROOT, existing_sweep, results_folder, seconds
from sweeps.lock import Held, Lock
from sweeps.show import tracking
from sweeps.show.judged import judges
from sweeps.show.summary import print_table
from trainable import files
from trainable.datasets import Dataset
from trainable.datasets.competition import FILE, METRICS
from trainable.errors import BadInput, Parser, as_path, run
from trainable.scores import interval

HOLDS = ("record.db", "ensemble.json")
WAIT = 600.0  # seconds, for a score
PENDING = "python sweeps/submit.py --pending"


def main() -> int:
    args = parse(sys.argv[1:])
    book = Ledger(args.results)
    if args.list:
        return show(book, args.json)
    with nullcontext() if args.dry_run else alone(book):
        if args.pending:
            if not book.open():
                say("Nothing waits, and every submission has its score.")
            return send(book, book.open(), args.wait, say)
        return offer(book, args)


def offer(book: Ledger, args) -> int:
    """The best of the sweeps that are named, unless the same or better was sent. The exit status."""
    offers = [candidate(folder, args.results) for folder in args.sweeps]
    best = offers[0]
    for other in offers[1:]:
        best = other if other[0].better(best[0]) else best
    entry, path = best
    if len(offers) > 1:
        say(f"{entry.sweep} promises most: {entry.estimate:.5f}.")
    why = None if args.force else refusal(entry, book.entries())
    if why:
        raise BadInput(f"{entry.sweep} is not sent: {why}; --force sends it all the same")
    if again := sum(other.digest == entry.digest for other in book.entries()):
        entry = replace(entry, message=f"{entry.message}-{again + 1}")  # not to be taken for the one before
    if args.dry_run:
        say(f"{path.name} of {entry.sweep} is what {entry.competition} takes: estimate {entry.estimate:.5f}.")
        say(f"By hand: {by_hand(entry, path)}")
        return 0
    return send(book, [book.add(entry, path)], args.wait, say)


def say(text: str):
    print(text, flush=True)


def candidate(folder: Path, results: Path, data: Dataset | None = None) -> tuple[Entry, Path]:
    """What a sweep, or an ensemble that sweeps/ensemble.py wrote into its folder, has to offer; the file is checked.

    Raises:
        BadInput: there is no ensemble, its data belong to no competition, or the file is not what that takes.
    """
    if not (folder / stored.ENSEMBLE).exists():
        raise BadInput(f"{folder} has no ensemble yet; a sweep that has ended has one")
    told = stored.ensemble(folder)
    sweep = folder if (folder / "record.db").exists() or (folder / "sweep.json").exists() else folder.parent
    data = data or data_of([sweep])
    if data.competition is None:
        raise BadInput(f"{data.name} belongs to no competition; {FILE} in its folder says which (README)")
    if told["submission"] != "unlabelled":
        what = "its own test, not images without labels" if told["submission"] else "no images"
        raise BadInput(f"{folder / stored.ENSEMBLE} predicts {what}; nothing to send")
    path = folder / "submission.csv"
    if path.exists():
        stored.verify_beside(folder, path.name, told)
    check.check(path, data)
    name = folder.relative_to(results).as_posix() if folder.is_relative_to(results) else str(folder)
    judged, metric = told["judged"], data.competition.metric
    bounds = interval(judged["errors"], judged["images"])
    by = (lambda error: 1 - error) if METRICS[metric] else (lambda error: error)
    low, high = sorted(map(by, bounds))
    digest = files.digest(path)
    what = f"{told['method']} of {len(told['members'])}"
    message = f"{folder.name}: {what}, estimate {by(judged['error']):.5f}, sha256 {digest[:16]}"
    on = judges(told["judged_on"])
    entry = Entry(
        data.competition.slug, data.name, name, digest, metric, by(judged["error"]), low, high, on, judged["images"], message
    )
    return entry, path


def ready(data: Dataset):
    """Raises BadInput where a sweep of these data could send nothing in the end: better said before it begins."""
    if data.competition is None:
        raise BadInput(f"--submit: {data.name} belongs to no competition; {FILE} in its folder says which (README)")
    if not len(data.unlabelled):
        raise BadInput(f"--submit: {data.name} has no images to predict; its sample submission should have a row for each")
    if credentials() is None:
        raise BadInput(f"--submit: no Kaggle credentials; make a token at {SETTINGS} and write it into ~/.kaggle/access_token")


def automatic(folder: Path, results: Path, data: Dataset, say: Callable[[str], None], wait: float = WAIT):
    """For a sweep that has ended: into the ledger, unless the same or better was sent; then send what waits, best first.

    Raises:
        BadInput: the file is not what the competition takes, or Kaggle does not take it from this user.
    """
    book = Ledger(results)
    entry, path = candidate(folder, results, data)
    with alone(book):
        if why := refusal(entry, book.entries()):
            say(f"Not sent: {why}.")
        else:
            book.add(entry, path)
        send(book, book.open(), wait, say)


def send(book: Ledger, entries: list[Entry], wait: float, say: Callable[[str], None]) -> int:
    """Send these, best first, and wait for scores, also of what was sent before. The exit status: 1 where one of them still waits
    or could not be scored."""
    if why := readable_by_others():
        say(why)
    for slug in dict.fromkeys(entry.competition for entry in entries):
        own = sorted((entry for entry in entries if entry.competition == slug), key=lambda entry: entry.rank)
        desk = Desk(book, Kaggle(slug), say)
        try:
            for entry in own:
                if entry.state != "pending" and desk.send(entry).state == "waiting":
                    break
            sent = [entry for entry in book.open() if (entry.competition, entry.state) == (slug, "pending")]
            remember(desk.await_scores(sent, wait) if sent else [], book.results, say)
        except Away as wrong:
            say(f"{wrong}.")
        except BadInput as wrong:
            first = next((entry for entry in book.open() if entry.competition == slug and entry.state != "pending"), None)
            if first is None:
                raise
            raise BadInput(f"{wrong}. Then {PENDING} sends it; or by hand: {by_hand(first, book.file_of(first))}") from wrong
    asked = {entry.key for entry in entries}
    states = [entry.state for entry in book.entries() if entry.key in asked]
    if waiting := states.count("waiting") + states.count("sending"):
        say(f"{waiting} still to send: {PENDING} does, later.")
    if states.count("pending"):
        say(f"No score yet of {states.count('pending')}: {PENDING} picks it up.")
    return int(waiting > 0 or "error" in states)


def remember(entries: list[Entry], results: Path, say: Callable[[str], None]):
    """The scores, in the MLflow runs and on the pages of their sweeps."""
    from sweeps.report import page, write_report  # here: a sweep need not wait for the libraries of its charts

    for entry in entries:
        folder = results / entry.sweep
        sweep = folder if (folder / "sweep.json").exists() else folder.parent
        if entry.state != "scored" or not (sweep / "sweep.json").exists():
            continue
        try:
            asked = stored.sweep(sweep)["arguments"]
            if asked.get("mlflow") or (results / tracking.FILE).exists():
                tracking.score(tracking.place(asked.get("mlflow"), results)[0], asked["dataset"], sweep.name, entry.score)
            if (sweep / page.FILE).exists():
                write_report(sweep)
        except Exception as wrong:  # both are mirrors
            again = f"python sweeps/mirror.py {sweep.name} tells the others"
            say(f"The score stands in {ledger.FILE}, and not everywhere ({type(wrong).__name__}); {again}.")


def show(book: Ledger, as_json: bool) -> int:
    """What was estimated and what came of it."""
    entries = book.entries()
    frame = ledger.table(entries)
    if as_json:
        print(frame.to_json(orient="records", indent=1, double_precision=6))
        return 0
    if not entries:
        say("Nothing was sent yet.")
        return 0
    print_table(Console() if sys.stdout.isatty() else Console(width=200), frame, "Submissions, the newest first")
    say(ledger.calibrated(entries))
    return 0


def by_hand(entry: Entry, path: Path) -> str:
    return f"kaggle competitions submit {entry.competition} -f {shlex.quote(str(path))} -m {shlex.quote(entry.message)}"


@contextmanager
def alone(book: Ledger) -> Iterator[None]:
    """Raises BadInput where another process sends what is in the ledger."""
    book.results.mkdir(parents=True, exist_ok=True)
    lock = Lock(book.results / layout.SENDING)
    try:
        lock.take()
    except Held as wrong:
        raise BadInput("another submit.py is at work on these results; wait for it") from wrong
    try:
        yield
    finally:
        lock.release()


def parse(arguments: list[str]):
    p = Parser(prog="submit.py", description=__doc__.split("\n")[0])
    p.add_argument("sweep", nargs="?", help="its name under --results, or a folder with an ensemble")
    p.add_argument("--best-of", nargs="+", default=[], metavar="SWEEP", help="others: whichever promises most is sent")
    p.add_argument("--force", action="store_true", help="send it though the same, or better, was sent")
    p.add_argument("--dry-run", action="store_true", help="check it, and say how it would be sent")
    p.add_argument("--pending", action="store_true", help="send what waits, and look for scores")
    p.add_argument("--list", action="store_true", help="print what was sent; --json for machines")
    p.add_argument("--json", action="store_true", help="with --list")
    p.add_argument("--wait", metavar="10m", default="10m", help="for the score, at most")
    p.add_argument("--results", type=as_path, help=f"where sweeps lie (default: {ROOT / 'results'})")
    args = p.parse_args(arguments)
    modes = [bool(args.sweep or args.best_of), args.pending, args.list]
    if sum(modes) != 1:
        raise BadInput("name a sweep, or give --pending or --list, one of these; --help lists the flags")
    args.results = results_folder(args.results)
    args.wait = seconds("wait", args.wait)
    named = [args.sweep, *args.best_of] if args.sweep else args.best_of
    args.sweeps = [existing_sweep(name, args.results, *HOLDS) for name in named]
    return args


if __name__ == "__main__":
    run(main)
