"""A trial between its search and whoever trains it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Job:
    """A trial to start, or to go on with from what it handed over."""

    number: int
    config: dict  # flat TrialConfig
    attempt: int = 0  # how often it was started before, by this driver
    alone: bool = False  # on a machine of its own: it needs more memory than its share


@dataclass
class Running:
    """Facts about a trial that has not ended."""

    config: dict
    known: dict[int, dict]  # metrics by rung that the record has
    rung: int = 0  # that it reports next
    ending: tuple[str, str] | None = None  # state and reason as recorded, of a trial that is only trained again
    starts: int = 0  # by this driver
    why: str = ""  # it is to be started again
    deaths: int = 0
    alone: bool = False
    times: dict = field(default_factory=dict)
