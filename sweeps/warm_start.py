"""What a new sweep learns from an earlier one, also where its space, its data or its epochs are others."""

from dataclasses import dataclass

from sweeps.resume import NOT_DRAWN, Before
from sweeps.search.draw import distributions_of, replay
from sweeps.search.space import Space
from trainable.errors import BadInput

FIRST = 3  # of the best configurations, which are tried first


@dataclass(frozen=True)
class Learned:
    """As the record keeps it."""

    told: list[dict]  # results for the searcher: params, distributions, state, and values by rung
    start: list[dict]  # parameters of the trials to begin with
    words: str  # what was taken and what was not, for people


def learn(earlier: Before, space: Space, metric: str, max_epochs: float, fingerprint: str) -> Learned:
    """The trials of `earlier` as `space` would have drawn them.

    A parameter that was not drawn then has the value that the trial had nevertheless; a trial that the space could not have
    drawn is dropped. Losses are compared only where the data and the rungs are the same; elsewhere the best
    configurations are tried first, and no result is told.
    """
    values: dict[int, dict[int, float]] = {}
    for row in earlier.rungs:
        if not row["partial"]:
            values.setdefault(row["number"], {})[row["rung"]] = row["metrics"][metric]
    known = [trial for trial in earlier.searched if trial["number"] in values]
    fitting = []
    for trial in known:
        try:
            config, fixed = replay(space, {**trial["config"], **trial["params"]})
        except BadInput:
            continue
        if all(trial["config"].get(key) == value for key, value in config.flat().items() if key not in NOT_DRAWN):
            fitting.append((trial, fixed))
    # Best first: those that came furthest, then by their value there.
    fitting.sort(key=lambda pair: (-max(values[pair[0]["number"]]), values[pair[0]["number"]][max(values[pair[0]["number"]])]))
    told = [
        {
            "params": {name: fixed.params[name] for name in fixed.distributions},
            "distributions": distributions_of(fixed),
            "state": "complete" if trial["state"] == "complete" else "stopped",
            "values": values[trial["number"]],
        }
        for trial, fixed in sorted(fitting, key=lambda pair: pair[0]["number"])
    ]
    start = [{name: fixed.params[name] for name in fixed.distributions} for _, fixed in fitting[:FIRST]]
    name, dropped = earlier.folder.name, len(known) - len(fitting)
    words = f"Learned from {name}: {len(fitting)} of its {len(known)} trials with a result lie in this space, {dropped} do not"
    other = [
        what
        for what, same in (
            ("data", fingerprint == earlier.fingerprint),
            ("epochs", earlier.arguments.get("max_epochs") == max_epochs),
        )
        if not same
    ]
    if other:
        told = []
        words += f"; its {' and '.join(other)} are others, so its losses are not compared"
    first = f" The best {len(start)} are tried first." if len(start) > 1 else " The best is tried first." if start else ""
    return Learned(told, start, f"{words}.{first}")
