"""What a sweep is resumed from, and what of it may change."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import optuna

from sweeps.search.draw import distributions_of, draw_config
from sweeps.search.launch import KEEP
from sweeps.search.record import rows
from sweeps.search.space import Space
from trainable import files
from trainable.errors import BadInput

# Flags that change neither what a trial means nor how trials compare.
MAY_CHANGE = {"trials", "time_budget", "concurrent", "cpus_per_trial", "gpus_per_trial", "address", "ensemble", "step_timeout"}
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

    @cached_property
    def kept(self) -> dict[int, tuple[float, bool]]:
        """The best networks that trials handed over, by trial: their loss, and whether they lie there as recorded."""
        last = {row["number"]: (row["metrics"]["val_loss"], row["files"]) for row in self.rungs if row["files"]}
        best = sorted(last.items(), key=lambda item: item[1][0])[:KEEP]
        return {number: (loss, self._lies_there(number, named)) for number, (loss, named) in best}

    def lost(self) -> list[int]:
        """The trials whose network should lie in the folder, and does not as it was recorded."""
        return [number for number, (_, there) in self.kept.items() if not there]

    def losses(self) -> dict[int, float]:
        """The loss of each network that lies in the folder as it was recorded, by trial."""
        return {number: loss for number, (loss, there) in self.kept.items() if there}

    def _lies_there(self, number: int, named: dict[str, str]) -> bool:
        return all(is_whole(self.folder / "trials" / str(number) / name, sha) for name, sha in named.items())

    def done(self, phase: str) -> bool:
        return phase in self.phases and all(is_whole(self.folder / name, sha) for name, sha in self.phases[phase].items())


def is_whole(path: Path, digest: str) -> bool:
    """Whether a file has this SHA-256."""
    return path.is_file() and files.digest(path) == digest


def before(folder: Path) -> Before:
    """Raises BadInput if there is nothing to resume there."""
    path = folder / "record.db"
    if not path.is_file():
        others = sorted(p.parent.name for p in folder.parent.glob("*/record.db"))
        raise BadInput(f"{folder} holds no sweep to go on with; there are: {', '.join(others) or 'none'}")
    drivers = rows(path, "drivers", "id")
    about = next((row["about"] for row in reversed(drivers) if row["about"]), None)
    if about is None:
        raise BadInput(f"{path} does not say how the sweep was begun; begin a new one")
    return Before(
        folder,
        about["arguments"],
        about["data"]["fingerprint"],
        rows(path, "trials", "number"),
        rows(path, "rungs", "seq"),
        {row["name"]: row["files"] for row in rows(path, "phases")},
        sum(row["seconds"] for row in drivers),
    )


def merged(args: Namespace, given: Mapping, earlier: Before) -> Namespace:
    """The earlier arguments with those `given` now.

    Raises:
        BadInput: one that would change what the trials there are mean.
    """
    name = earlier.folder.name
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
    return Namespace(**{**vars(args), **earlier.arguments, **given, "name": name, "why": "as before", "results": args.results})


def check_data(earlier: Before, fingerprint: str):
    """Raises BadInput if the data are not those of the sweep."""
    if fingerprint != earlier.fingerprint:
        name = earlier.folder.name
        raise BadInput(
            f"the data of sweep {name} have changed (fingerprint {fingerprint[:12]}, was {earlier.fingerprint[:12]}); "
            f"bring them back, or begin a new sweep with --warm-start {name}"
        )


def check_space(earlier: Before, space: Space):
    """Raises BadInput if the space does not draw what it drew before."""
    for trial in earlier.trials[:REDRAWN]:
        fixed = optuna.trial.FixedTrial(trial["params"])
        try:
            config = draw_config(space, fixed).flat()
        except BadInput as wrong:
            what = str(wrong)
        else:
            other = [key for key, value in config.items() if key not in NOT_DRAWN and trial["config"].get(key) != value]
            other += [key for key, d in distributions_of(fixed).items() if trial["distributions"].get(key) != d]
            if not other:
                continue
            what = f"{other[0]} is drawn otherwise"
        name = earlier.folder.name
        raise BadInput(
            f"the space of sweep {name} has changed since trial {trial['number']} ({what}); "
            f"bring it back, or begin a new sweep with --warm-start {name}"
        )
