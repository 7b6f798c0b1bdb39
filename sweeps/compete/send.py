"""What is offered is sent once, in the order of its promise, and its score waited for."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from zipfile import BadZipFile

from sweeps.compete.client import Away, Kaggle
from sweeps.compete.ledger import SENT, Entry, Ledger
from trainable.datasets.competition import METRICS
from trainable.errors import BadInput

TRIES = 3  # to send a file that did not arrive
LOOKS = (2.0, 10.0, 30.0)  # seconds before each look whether it arrived: the list may lag behind
POLLS = (5.0, 10.0, 20.0, 40.0, 60.0)  # seconds between looks for a score, the last again and again


def refusal(entry: Entry, entries: list[Entry]) -> str | None:
    """In one line why it should not be sent: the same was, or better was."""
    for other in entries:
        if other.competition == entry.competition and other.digest == entry.digest and other.state != "refused":
            score = f", score {other.score:.5f}" if other.state == "scored" else ""
            what = "was sent" if other.state in SENT else "waits already"
            return f"the very same file {what} (of {other.sweep}{score})"
    sent = [other for other in entries if other.competition == entry.competition and other.state in SENT]
    best = next((other for other in sent if all(not more.better(other) for more in sent)), None)
    if best and best.better(entry):
        return f"its estimate, {entry.estimate:.5f}, is worse than that of {best.sweep}, {best.estimate:.5f}, which was sent"
    return None


class Desk:
    """Sends what a ledger holds for one competition. `say` hears what happens."""

    def __init__(self, ledger: Ledger, kaggle: Kaggle, say: Callable[[str], None]):
        self.ledger, self.kaggle, self.say = ledger, kaggle, say

    def send(self, entry: Entry) -> Entry:
        """Once; its state is `pending` then, or `waiting` still where today's limit is reached.

        Raises:
            Away: not sent, or nobody knows: it waits, or its state is `sending`, and the next call looks first.
            BadInput: Kaggle does not take it, or not from this user, for whom it waits.
        """
        if found := self._found(entry):
            return self._arrived(entry, found, "It had arrived before")
        if entry.state == "sending":
            entry = self.ledger.change(entry, state="waiting")
        if self.kaggle.limit_reached():
            return self._waits(entry)
        for _ in range(TRIES):
            path = self.ledger.whole_file_of(entry)
            entry = self.ledger.change(entry, state="sending")
            try:
                ref = self.kaggle.submit(path, entry.message)
                return self._arrived(entry, ref, "Sent")
            except Away as wrong:
                self.say(f"{wrong}; looking whether it arrived.")
                for pause in LOOKS:
                    time.sleep(pause)
                    if found := self._found(entry):
                        return self._arrived(entry, found, "It has arrived")
            except BadInput as wrong:
                entry = self.ledger.change(entry, state="waiting")
                if self.kaggle.limit_reached():
                    return self._waits(entry)
                if str(wrong).startswith("Kaggle refuses it"):
                    self.ledger.change(entry, state="refused", reason=str(wrong))
                raise
        self.ledger.change(entry, state="waiting")
        raise Away(f"{entry.sweep} was sent {TRIES} times and did not arrive")

    def await_scores(self, entries: list[Entry], seconds: float) -> list[Entry]:
        """Look at once, and then until all of them have a score or an error, or the time is over."""
        until, polls, waiting = time.monotonic() + seconds, iter(POLLS), list(entries)
        pause, said = 0.0, ""
        while True:
            listed = {one["ref"]: one for one in self.kaggle.submissions()}
            waiting = [self._scored(entry, listed.get(entry.ref, {})) for entry in waiting]
            left = until - time.monotonic()
            if all(entry.state != "pending" for entry in waiting) or left <= 0:
                return waiting
            pause = next(polls, pause)
            now = f"Waiting for a score, {math.ceil(left / 60)} more minutes at most."
            if now != said:
                said = now
                self.say(said)
            time.sleep(min(pause, left))

    def _found(self, entry: Entry) -> str | None:
        """The number that a file has at Kaggle."""
        return next((one["ref"] for one in self.kaggle.submissions() if (one["description"] or "").endswith(entry.mark)), None)

    def _arrived(self, entry: Entry, ref: str, how: str) -> Entry:
        self.say(f"{how}: {entry.sweep} is submission {ref} of {entry.competition}.")
        return self.ledger.change(entry, state="pending", ref=ref, sent=time.time(), reason="")

    def _waits(self, entry: Entry) -> Entry:
        self.say(f"Today's limit of {entry.competition} is reached: {entry.sweep} waits.")
        return self.ledger.change(entry, state="waiting", reason="the daily limit")

    def _scored(self, entry: Entry, told: dict) -> Entry:
        """With what the list says of it."""
        if entry.state != "pending" or told.get("status") not in ("COMPLETE", "ERROR"):
            return entry
        if told["status"] == "ERROR":
            reason = self.kaggle.why(entry.ref)
            self.say(f"Kaggle could not score {entry.sweep}: {reason}.")
            return self.ledger.change(entry, state="error", scored=time.time(), reason=reason)
        score, place, teams = float(told["publicScore"] or math.nan), 0, 0
        entry = self.ledger.change(entry, state="scored", scored=time.time(), score=score)
        with suppress(Away, BadInput, OSError, ValueError, LookupError, BadZipFile):  # the score is what counts
            place, teams = self.kaggle.place(score, METRICS[entry.metric])
        where = f", place {place:,} of {teams:,}" if place else ""
        estimate = f"estimate {entry.estimate:.5f}, {entry.low:.5f} to {entry.high:.5f}"
        self.say(f"Score of {entry.sweep}: {score:.5f}{where} ({estimate}).")
        return self.ledger.change(entry, place=place, teams=teams)
