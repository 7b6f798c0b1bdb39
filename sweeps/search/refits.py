"""Train configurations of a search again, as trials of their own."""

from collections.abc import Sequence

from sweeps.search.draw import SEARCHERS
from sweeps.search.hopeless import IN_A_ROW
from sweeps.search.record import Record, read
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import Search
from sweeps.search.space import Space
from trainable.config import TrialConfig

PARTS = 4  # of a training, after each of which its state is handed over


def refits(jobs: Sequence[tuple[int, dict]], epochs: float, record: Record, **more) -> Search:
    """What trains those of the jobs that are not trained yet, in this order, each for `epochs`.

    A job is the number of the trial of the search and a flat configuration. One that the record has as cut off, and that is
    wanted no more, is ended. `more` as for a Search.
    """
    there = [trial for trial in read(record.path)[0] if trial["refits"] is not None]
    wanted = [(of, TrialConfig.from_flat(config).flat()) for of, config in jobs]
    known = [_what(trial["refits"], trial["config"]) for trial in there]
    asked = [_what(*job) for job in wanted]
    for trial, what in zip(there, known, strict=True):
        if trial["state"] in ("running", "interrupted") and what not in asked:
            record.trial_ended(trial["number"], "stopped", "it is of no finalist any more")
    new = [job for job, what in zip(wanted, asked, strict=True) if what not in known]
    configs = [trial["config"] for trial in there] + [config for _, config in new]
    return Search(
        Space(lambda trial: configs[trial.number]),
        record,
        sampler=SEARCHERS["random"],
        scheduler=SCHEDULERS["none"](),
        rungs=[epochs * (part + 1) / PARTS for part in range(PARTS)],
        trials=len(configs),
        seed=None,
        alike=IN_A_ROW,  # of another finalist it may not be true
        refits=[trial["refits"] for trial in there] + [of for of, _ in new],
        **more,
    )


def _what(of: int, config: dict) -> tuple:
    """What tells jobs apart; in how many parts a batch was computed does not."""
    return of, {key: value for key, value in config.items() if key != "accumulate"}
