"""What a sweep is resumed from, and what of it may change."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sweeps.flags import no_sweep
from sweeps.search.draw import SEARCHERS, distributions_of, replay
from sweeps.search.launch import KEEP
from sweeps.search.record import newest_about, read, rows
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.space import Space
from trainable import files, schema
from trainable.datasets.container import Dataset, as_recorded
from trainable.errors import BadInput
from trainable.record_file import MEND

# Flags that change neither what a trial means nor how trials compare.
# What comes after the search is done again.
AFTER = {
    "finalists",
    "finalist_epochs",
    "finalist_seeds",
    "last_fit",
    "folds",
    "views",
    "ensemble",
    "max_latency",
    "use_unlabelled",
}
MAY_CHANGE = {
    "trials",
    "time_budget",
    "search_share",
    "concurrent",
    "cpus_per_trial",
    "gpus_per_trial",
    "address",
    "step_timeout",
    "download",
    "submit",
}
MAY_CHANGE |= AFTER
LIMITS = ("trials", "time_budget")
NOT_DRAWN = ("seed", "epochs", "accumulate")  # of a configuration: the search's own
REDRAWN = 200  # trials whose configurations are drawn again, to see whether the space is the same


@dataclass(frozen=True)
class Before:
    """What the record of a sweep says when it is resumed."""

    folder: Path
    arguments: dict  # as given last
    fingerprint: str  # of the data
    trials: list[dict]
    rungs: list[dict]
    phases: dict[str, dict[str, str]]  # files and digests by phase
    seconds: float  # that its drivers have worked
    data: dict = field(default_factory=dict)  # what its sweep.json says of the data

    @property
    def record(self) -> Path:
        return self.folder / "record.db"

    @cached_property
    def searched(self) -> list[dict]:
        """The trials of the search."""
        return [trial for trial in self.trials if trial["refits"] is None]

    def words(self) -> str:
        """What there is, for people."""
        ended = sum(trial["state"] not in ("running", "interrupted") for trial in self.trials)
        last = {row["number"]: row["metrics"]["budget"] for row in self.rungs}
        cut = [trial["number"] for trial in self.trials if trial["state"] in ("running", "interrupted")]
        named = ", ".join(f"{number} (at {last.get(number, 0):.3g} epochs)" for number in cut[:5])
        more = f" and {len(cut) - 5} more" if len(cut) > 5 else ""
        return f"{ended} trials have ended" + (f"; cut off were {named}{more}" if cut else "")

    @cached_property
    def kept(self) -> dict[int, tuple[float, bool]]:
        """The networks that should lie there, by trial: their loss, and whether they do as they were recorded.

        Of the search the best, and all those that were trained again.
        """
        last = {row["number"]: (row["metrics"]["val_loss"], row["files"]) for row in self.rungs if row["files"]}
        searched = {trial["number"] for trial in self.searched}
        best = sorted((item for item in last.items() if item[0] in searched), key=lambda item: item[1][0])[:KEEP]
        best += [item for item in last.items() if item[0] not in searched]
        return {number: (loss, self._lies_there(number, named)) for number, (loss, named) in best}

    def lost(self) -> list[int]:
        """The trials whose network should lie in the folder, and does not as it was recorded."""
        return [number for number, (_, there) in self.kept.items() if not there]

    def losses(self) -> dict[int, float]:
        """The loss of each network that lies in the folder as it was recorded, by trial.

        Without what an interrupted trial was between two rungs: that is forgotten when it goes on.
        """
        last = {row["number"]: row["partial"] for row in self.rungs}
        return {number: loss for number, (loss, there) in self.kept.items() if there and not last[number]}

    def _lies_there(self, number: int, named: dict[str, str]) -> bool:
        return all(files.is_whole(self.folder / "trials" / str(number) / name, sha) for name, sha in named.items())

    def done(self, phase: str) -> bool:
        return phase in self.phases and all(files.is_whole(self.folder / name, sha) for name, sha in self.phases[phase].items())


def before(folder: Path) -> Before:
    """Raises BadInput if there is nothing to resume there, or its record is damaged."""
    path = folder / "record.db"
    if not path.exists():
        raise no_sweep(folder, folder.parent)
    about = newest_about(path)
    if about is None:
        raise BadInput(f"{path} does not say how the sweep was begun; begin a new one")
    for name, table in (("scheduler", SCHEDULERS), ("searcher", SEARCHERS)):
        value = about["arguments"].get(name)
        if value is not None and value not in table:
            where = f"drivers.about.arguments.{name}"
            raise schema.wrong(str(path), where, value, f"one of {', '.join(table)}", MEND)
    if "space" in about["arguments"] and "max_epochs" not in about["arguments"]:
        raise schema.Damaged(f"{path}: drivers.about.arguments.max_epochs is missing; {MEND}")
    trials, rungs = read(path)
    return Before(
        folder,
        about["arguments"],
        about["data"]["fingerprint"],
        trials,
        sorted(rungs, key=lambda row: row["seq"]),
        {row["name"]: row["files"] for row in rows(path, "phases")},
        sum(row["seconds"] for row in rows(path, "drivers")),
        about["data"],
    )


@contextmanager
def blamed(file: Path | None) -> Iterator[None]:
    """Say of a BadInput that is raised within which file asked for it; None: the user did."""
    try:
        yield
    except BadInput as wrong:
        if file is None:
            raise
        raise BadInput(f"{wrong}; {file} asks for it, in `arguments`") from wrong


def merged(args: Namespace, given: Mapping, earlier: Before) -> Namespace:
    """The earlier arguments with those `given` now.

    Raises:
        BadInput: one that would change what the trials there are mean.
    """
    name = earlier.folder.name
    if "space" not in earlier.arguments:
        raise BadInput(f"{name} has no search to go on with: its record names no space; begin a new sweep")
    for key in ("name", "warm_start"):
        if key in given:
            raise BadInput(f"--resume {name} goes on with that sweep as it is; leave --{key.replace('_', '-')} out")
    for key, value in given.items():
        was = earlier.arguments.get(key)
        if key in MAY_CHANGE or value == was or key in ("resume", "results", "name"):
            continue
        if key == "max_epochs" and earlier.arguments["scheduler"] == "none":
            continue
        flag = f"--{key.replace('_', '-')}"
        raise BadInput(
            f"{flag} {value}: the trials of sweep {name} were tried with {was}, and would mean something else; "
            f"leave {flag} out, or begin a new sweep that learns from this one with --warm-start {name}"
        )
    now = {"name": name, "why": "as before", "results": args.results, "address": args.address}  # whatever it was then
    return Namespace(**{**vars(args), **earlier.arguments, **given, **now})


def as_before(earlier: Before, data: Dataset) -> Dataset:
    """Return the data as the sweep goes on with them: without finalists, nothing has been trained on val yet.

    Raises:
        BadInput: they are not those of the sweep.
    """
    check_data(earlier, data.fingerprint)
    return data if len(earlier.searched) == len(earlier.trials) else as_recorded(data, earlier.data)


def check_data(earlier: Before, fingerprint: str):
    """Raises BadInput if the data are not those of the sweep."""
    if fingerprint != earlier.fingerprint:
        name = earlier.folder.name
        raise BadInput(
            f"the data of sweep {name} have changed (fingerprint {fingerprint[:12]}, was {earlier.fingerprint[:12]}); "
            f"or record.db is damaged; bring them back, or begin a new sweep with --warm-start {name}"
        )


def check_space(earlier: Before, space: Space):
    """Raises BadInput if the space does not draw what it drew before."""
    for trial in earlier.searched[:REDRAWN]:
        try:
            config, fixed = replay(space, trial["params"])
        except BadInput as wrong:
            what = str(wrong)
        else:
            other = [key for key, value in config.flat().items() if key not in NOT_DRAWN and trial["config"].get(key) != value]
            other += [key for key, d in distributions_of(fixed).items() if trial["distributions"].get(key) != d]
            if not other:
                continue
            what = f"{other[0]} is drawn otherwise"
        name = earlier.folder.name
        raise BadInput(
            f"the space of sweep {name} has changed since trial {trial['number']} ({what}), or record.db is damaged; "
            f"bring it back, or begin a new sweep with --warm-start {name}"
        )
