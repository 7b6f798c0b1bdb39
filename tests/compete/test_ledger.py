"""submissions.parquet as it is read: what our own code writes, and what it does not."""

import math

import pandas as pd
import pytest

from sweeps.compete import ledger
from sweeps.compete.ledger import Entry, Ledger
from trainable.errors import BadInput

GIVEN = Entry("flowers", "f", "s", "0" * 64, "accuracy", 0.99, 0.98, 0.995, "out of fold", 100, "s: sha256 0123abcd")
SCORED = Entry(**{**vars(GIVEN), "digest": "1" * 64, "state": "scored", "queued": 1.7e9, "score": 0.991, "place": 2, "teams": 9})


@pytest.fixture
def book(tmp_path) -> Ledger:
    """A ledger with an entry that has its score, and one that waits."""
    (tmp_path / "submission.csv").write_text("id,species\n")
    book = Ledger(tmp_path)
    book.add(SCORED, tmp_path / "submission.csv")
    book.add(GIVEN, tmp_path / "submission.csv")
    return book


def change(book: Ledger, **columns):
    """Give a column other values; None: leave it out."""
    frame = pd.read_parquet(book.path)
    gone = [name for name, values in columns.items() if values is None]
    frame.drop(columns=gone).assign(**{k: v for k, v in columns.items() if v is not None}).to_parquet(book.path, index=False)


def test_what_is_written_is_read(book):
    scored, waits = book.entries()
    assert (scored.score, scored.place, waits.state) == (0.991, 2, "waiting")
    assert math.isnan(waits.score), "Parquet keeps it as nothing"
    waits = book.change(waits, state="pending", sent=2e9)
    assert [entry.state for entry in book.entries()] == ["scored", "pending"]
    assert len(ledger.table(book.entries())) == 2
    assert ledger.calibrated(book.entries()).startswith("1 scored: score minus estimate +0.00100")


def test_a_ledger_of_before(book):
    """Columns that were invented later may be missing, others are left alone."""
    change(book, place=None, teams=None, reason=None, later=["x", "y"])
    assert [(entry.place, entry.teams, entry.reason) for entry in book.entries()] == [(0, 0, "")] * 2


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("images", [100, math.nan], "row 0.images is 100.0; it should be a whole number"),
        ("images", pd.array([100, None], "Int64"), "row 1.images is None"),
        ("images", [100, 0], "row 1.images is 0"),
        ("place", [math.nan, 0], "row 0.place is "),
        ("teams", pd.array([None, 0], "Int64"), "row 0.teams is None"),
        ("teams", [-1, 0], "row 0.teams is -1"),
        ("queued", [1.7e9, math.nan], "row 1.queued is None; it should be a finite number of 0 or more, at most 2.5e"),
        ("queued", [1.7e9, 1e18], "row 1.queued is 1e"),
        ("scored", [math.inf, 0.0], "row 0.scored is inf"),
        ("estimate", [math.nan, 0.9], "row 0.estimate is None; it should be a finite number"),
        ("low", [0.9, None], "row 1.low is None"),
        ("score", [math.inf, 0.9], "row 0.score is inf"),
        ("score", ["x", "y"], "row 0.score is 'x'"),
        ("state", ["scored", "lost"], "row 1.state is 'lost'; it should be one of waiting, sending"),
        ("metric", ["accuracy", None], "row 1.metric is None"),
        ("message", ["../x", "s: sha256 ../../x"], "row 0.message is '../x'; it should be a text that ends with the name of"),
        ("message", ["a b", "a \x00"], "row 1.message is 'a "),
        ("digest", None, "digest is missing"),
    ],
)
def test_what_our_own_code_does_not_write(book, column, values, says):
    """Refused when it is read, not when the ledger is next written."""
    change(book, **{column: values})
    with pytest.raises(BadInput, match=f"submissions.parquet: (row 0.)?{says}.*restore it from a copy"):
        book.entries()
