"""Train a trial of a sweep again, and compare: is what the record says what comes out?"""

import platform
import subprocess
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from trainable.config import TrialConfig
from trainable.errors import MOST, BadInput, short
from trainable.errors import number as parsed
from trainable.fit import State, evaluate, mean_loss
from trainable.record_file import rows

COMPARED = ("val_error", "val_loss", "train_loss")


@dataclass(frozen=True)
class Recorded:
    """A trial as the record has it."""

    name: str  # <sweep>-<number>
    config: TrialConfig  # with the engine's setting that was found for it
    rungs: list[dict]  # the metrics, in order; none of a trial that failed before
    dataset: str
    image_size: int | None
    data: dict  # fingerprint, and whether val was the user's
    threads: int
    versions: dict[str, str]
    commit: str | None


def recorded(asked: str, results: Path) -> Recorded:
    """The trial `asked` for: SWEEP/NUMBER, where SWEEP is a sweep's name under `results` or its folder.

    Raises:
        BadInput: there is none.
    """
    sweep, _, number = asked.rstrip("/").rpartition("/")
    folder = next((f for f in (Path(sweep), results / sweep) if sweep and (f / "record.db").is_file()), None)
    wanted = parsed(number, int)
    if folder is None or wanted is None or not 0 <= wanted <= MOST:
        raise BadInput(
            f"--trial {short(asked)}: write SWEEP/NUMBER, where SWEEP is a folder with a record.db, or its name under {results}"
        )
    path = folder / "record.db"
    trials, drivers = rows(path, "trials", "number", whole_file=True), rows(path, "drivers", "id")
    found = next((trial for trial in trials if trial["number"] == wanted), None)
    if found is None:
        there = f"the trials 0 to {len(trials) - 1}" if trials else "no trials"
        raise BadInput(f"--trial {asked}: that sweep has {there}")
    about = next((row["about"] for row in reversed(drivers) if row["about"]), None)
    if about is None or about["arguments"]["dataset"] is None:
        raise BadInput(f"--trial {asked}: {path} does not say of which dataset; take another sweep")
    rungs = [row["metrics"] for row in rows(path, "rungs", "rung") if row["number"] == found["number"]]
    try:
        config = TrialConfig.from_flat(found["config"])
        if rungs:
            config = replace(config, engine=rungs[-1].get("engine", config.engine))
    except BadInput as wrong:
        raise BadInput(f"--trial {asked}: {path}: trials {number}.config: {wrong}") from wrong
    arguments = about["arguments"]
    return Recorded(
        name=f"{folder.resolve().name}-{number}",
        config=config,
        rungs=rungs,
        dataset=arguments["dataset"],
        image_size=arguments["image_size"],
        data=about["data"],
        threads=arguments["cpus_per_trial"],
        versions=about["versions"],
        commit=about["commit"],
    )


class Comparison:
    """Evaluates a training at the recorded rungs, as the trial was."""

    def __init__(self, trial: Recorded):
        self.trial = trial
        self.now: list[dict] = []
        self.losses: list[torch.Tensor] = []

    def see(self, metrics: dict, state: State, data) -> bool:
        """Take a step of the training; whether it has reached all that is recorded."""
        self.losses.append(metrics["loss"])
        while len(self.now) < len(self.trial.rungs) and state.step >= state.steps_at(self.trial.rungs[len(self.now)]["budget"]):
            self.now.append({**evaluate(state, data.val)[0], **mean_loss(self.losses)})
            self.losses = []
        return len(self.now) == len(self.trial.rungs)

    @property
    def largest_difference(self) -> float | None:
        """The largest difference of a figure at a rung; None where none can be compared."""
        differences = [
            abs(then[name] - now[name])
            for then, now in zip(self.trial.rungs, self.now, strict=True)
            for name in COMPARED
            if name in then and name in now
        ]
        return max(differences, default=None)

    def verdict(self) -> str:
        """In one line: whether the numbers match, and within what."""
        difference = self.largest_difference
        if difference is None:
            return "The record has no figure that this training has too: nothing could be compared."
        if difference == 0:
            return "The numbers are those of the record, to the last bit."
        other = self._differences()
        why = f"; not as then: {', '.join(other)}" if other else "; the device, its load or a library's choices are not as then"
        return f"The numbers are not exactly those of the record: the largest difference is {difference:.2g}{why}."

    def _differences(self) -> list[str]:
        """What is not as it was when the trial was tried."""
        out = []
        for name, then in self.trial.versions.items():
            try:
                now = platform.python_version() if name == "python" else version(name)
            except (PackageNotFoundError, ValueError):  # of a name that is none
                now = "absent"
            if now != then:
                out.append(f"{name} {now} (was {then})")
        now = commit(Path(__file__).resolve().parents[1])
        if now != self.trial.commit:
            out.append(f"commit {now} (was {self.trial.commit})")
        return out


def commit(folder: Path) -> str | None:
    """What git says of the code, with -dirty where it was changed; None where there is no git."""
    try:
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return git.stdout.strip() or None
