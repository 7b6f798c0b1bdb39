"""results/submissions.parquet: everything that was sent, or waits to be."""

import io
import math
import re
import shutil
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd

from sweeps import layout
from trainable import files
from trainable.datasets.competition import METRICS
from trainable.schema import TEXT, TIME, Kind, Later, Maybe, checked, number, one_of, whole
from trainable.stored import content, verify
from trainable.stored_tables import read_table

FILE = layout.LEDGER
MEND = "restore it from a copy"
AGAIN = "offer it again: sweeps/submit.py SWEEP"
SENT = ("pending", "scored", "error")  # they are at Kaggle
# In the order in which an entry goes through them; `refused` was never taken.
STATES = ("waiting", "sending", *SENT, "refused")


@dataclass(frozen=True)
class Entry:
    """A row of it. Times are seconds since 1970, 0 where it has not come to that; a place is 0 where it is not known."""

    competition: str  # Kaggle's name of it
    dataset: str
    sweep: str  # its folder under results/, or wherever it lies
    digest: str  # SHA-256 of the file, which is kept as submissions/<mark>.csv
    metric: str
    estimate: float  # by that metric, of `images` images
    low: float  # 95 % interval
    high: float
    judged_on: str  # out of fold, val, or validation images given by the user
    images: int
    message: str  # that went with it
    state: str = "waiting"
    queued: float = 0.0
    sent: float = 0.0
    scored: float = 0.0
    ref: str = ""  # Kaggle's number of it
    score: float = math.nan
    place: int = 0  # on the leaderboard when it was scored
    teams: int = 0
    reason: str = ""  # why it could not be sent or scored

    @property
    def mark(self) -> str:
        """What it is found by among the submissions at Kaggle: the end of its message."""
        return self.message.rpartition(" ")[2]

    @property
    def key(self) -> tuple[str, float]:
        """What it is told from all others by."""
        return self.digest, self.queued

    @property
    def rank(self) -> tuple[bool, float]:
        """In which order to send: first what may have arrived, for it counts for today's limit; then what promises most."""
        return self.state == "waiting", -self.estimate if METRICS[self.metric] else self.estimate

    def better(self, other: "Entry") -> bool:
        """Whether it promises more."""
        return self.estimate > other.estimate if METRICS[self.metric] else self.estimate < other.estimate


_MARK = re.compile(r"(^| )[a-zA-Z0-9_-]{1,100}\Z")  # the end of a message
ENTRY = {
    **dict.fromkeys(("competition", "dataset", "sweep", "digest", "judged_on"), TEXT),
    "metric": one_of(METRICS),
    **dict.fromkeys(("estimate", "low", "high"), number()),
    "images": whole(1),
    "message": Kind("a text that ends with the name of a file", lambda v: isinstance(v, str) and _MARK.search(v)),
    "state": Later(one_of(STATES)),
    **dict.fromkeys(("queued", "sent", "scored"), Later(TIME)),
    **dict.fromkeys(("ref", "reason"), Later(TEXT)),
    "score": Later(Maybe(number())),  # Parquet keeps NaN as nothing
    **dict.fromkeys(("place", "teams"), Later(whole())),
}


class Ledger:
    """Read anew at every look and written whole at every change; who changes it holds the lock."""

    def __init__(self, results: Path):
        self.results, self.path = results, results / FILE

    def entries(self) -> list[Entry]:
        """The oldest first; raises BadInput where the file is damaged."""
        if not self.path.exists():
            return []
        rows = enumerate(read_table(self.path, mend=MEND).to_pylist())
        rows = (checked(row, ENTRY, str(self.path), f"row {number}", MEND) for number, row in rows)
        return [Entry(**{name: row[name] for name in ENTRY if row.get(name) is not None}) for row in rows]

    def open(self) -> list[Entry]:
        """What has not come to its end."""
        return [entry for entry in self.entries() if entry.state in ("waiting", "sending", "pending")]

    def file_of(self, entry: Entry) -> Path:
        """Path of the file as it was when it was offered."""
        return self.results / layout.SENT / f"{entry.mark}.csv"

    def whole_file_of(self, entry: Entry) -> Path:
        """`file_of`; raises BadInput where it is gone or damaged."""
        path = self.file_of(entry)
        verify(content(path, mend=AGAIN), entry.digest, path, FILE, AGAIN)
        return path

    def add(self, entry: Entry, path: Path) -> Entry:
        """With a copy of the file, which a sweep that goes on would write anew."""
        self.file_of(entry).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.file_of(entry))
        entry = replace(entry, queued=time.time())
        self._write([*self.entries(), entry])
        return entry

    def change(self, entry: Entry, **now) -> Entry:
        """The entry as it is from now on."""
        new = replace(entry, **now)
        self._write([new if other.key == entry.key else other for other in self.entries()])
        return new

    def _write(self, entries: list[Entry]):
        buffer = io.BytesIO()
        types = {field.name: field.type for field in fields(Entry)}
        pd.DataFrame([asdict(entry) for entry in entries]).astype(types).to_parquet(buffer, index=False, write_page_checksum=True)
        files.write(self.path, buffer.getvalue())


def calibration(entries: list[Entry]) -> dict[str, float] | None:
    """Over all that have a score and an estimate by out-of-fold or val: how many, how many scores lie inside the estimate's
    interval, and mean and standard deviation (n - 1) of score minus estimate."""
    gaps = [entry.score - entry.estimate for entry in entries if entry.state == "scored" and not math.isnan(entry.score)]
    if not gaps:
        return None
    inside = sum(entry.low <= entry.score <= entry.high for entry in entries if entry.state == "scored")
    values = pd.Series(gaps)
    return {"scored": len(gaps), "inside": inside, "mean": float(values.mean()), "sd": float(values.std(ddof=1))}


def calibrated(entries: list[Entry]) -> str:
    """Is our estimate honest?"""
    told = calibration(entries)
    if not told:
        return "No score yet to compare an estimate with."
    spread = f" ± {told['sd']:.5f}" if told["scored"] > 1 else ""
    gap = f"score minus estimate {told['mean']:+.5f}{spread}"
    return f"{told['scored']} scored: {gap}; {told['inside']} of them inside the interval."


def table(entries: list[Entry]) -> pd.DataFrame:
    """For people: a row each, the newest first."""
    rows = [
        {
            "sweep": entry.sweep,
            "offered": pd.Timestamp(entry.queued, unit="s").strftime("%Y-%m-%d %H:%M"),
            "state": entry.state,
            "estimate": entry.estimate,
            "95 % interval": f"{entry.low:.5f} to {entry.high:.5f}",
            "judged on": entry.judged_on,
            "score": entry.score,
            "score - estimate": entry.score - entry.estimate,
            "place": f"{entry.place:,} of {entry.teams:,}" if entry.place else "",
            "file": entry.mark,
            "reason": entry.reason,
        }
        for entry in reversed(entries)
    ]
    return pd.DataFrame(rows)
