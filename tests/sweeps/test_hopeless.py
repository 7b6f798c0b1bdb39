"""A search whose trials all fail alike is given up soon, and says once why."""

import io

import pytest
from rich.console import Console

from sweeps.search.draw import SEARCHERS
from sweeps.search.hopeless import ALIKE, IN_A_ROW
from sweeps.search.progress import Progress
from sweeps.search.record import Record, read
from sweeps.search.scheduler import Asha
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES
from sweeps.show import summary, views

WIDE = "BadInput: convnet.width is {}, outside 1 to 1024 (config.py:12)"


@pytest.fixture
def make(tmp_path):
    """make(**arguments) -> a Search that goes on from the record in tmp_path."""

    def make(**more):
        record = Record(tmp_path / "record.db", more.pop("listeners", ()))
        given = {"sampler": SEARCHERS["random"], "scheduler": Asha(), "rungs": [1.0, 4.0]}
        return Search(SPACES["quick"], record, **(given | more))

    return make


def result(**more) -> dict:
    return {"budget": 1.0, "val_loss": 0.5, "val_error": 0.1, "train_s": 1.0, "eval_s": 0.1, "interrupted": False, **more}


def fail(search: Search, reason: str = WIDE) -> int:
    number = search.ask().number
    assert not search.hear(number, {"failed": reason.format(10_000 + number)})
    return number


def test_three_alike_are_enough(make, tmp_path):
    search = make()
    for _ in range(ALIKE):
        assert not search.finished
        fail(search)
    assert search.ask() is None
    assert search.finished
    assert search.failures.hopeless == "no trial has had a result, and 3 have failed alike"
    assert len(read(tmp_path / "record.db")[0]) == ALIKE == 3


def test_failures_of_different_kinds_are_not_alike(make):
    search = make()
    for i in range(ALIKE - 1):
        fail(search)
        fail(search, f"KeyError: 'small{'er' * i}'")
    assert not search.failures.hopeless


@pytest.mark.parametrize("reason", ["FloatingPointError: the loss is nan at step {}", "out of memory: {} bytes"])
def test_what_another_draw_may_not_have_is_tried_longer(make, reason):
    search = make()
    for _ in range(IN_A_ROW):
        assert not search.failures.hopeless
        fail(search, reason)
    assert search.failures.hopeless == "20 trials in a row have failed"
    assert search.finished


@pytest.mark.parametrize("reason", ["OutOfMemoryError: CUDA out of memory", "RuntimeError: can't allocate memory"])
def test_a_trial_that_has_no_room_even_alone(make, reason):
    """As a trial says it itself, unlike the kernel or Ray."""
    search = make()
    for _ in range(ALIKE + 1):
        job = search.ask()
        assert not search.hear(job.number, {"out_of_memory": reason})
        again = search.ask()
        assert (again.number, again.alone) == (job.number, True)
        assert not search.hear(job.number, {"out_of_memory": reason})
    assert not search.failures.hopeless


def test_a_result_before_them(make):
    search = make()
    search.hear(search.ask().number, result())
    for _ in range(ALIKE + 2):
        fail(search)
    assert not search.failures.hopeless


def test_those_that_run_are_waited_for(make):
    """What fails, fails fast: the first result of a trial that is well comes later."""
    search = make()
    slow = search.ask().number
    for _ in range(ALIKE):
        fail(search)
    assert search.ask() is None, "nothing more is begun meanwhile"
    assert not search.finished
    search.hear(slow, result())
    assert not search.failures.hopeless
    assert search.ask() is not None


def test_who_resumes_it_has_it_tried_again(make):
    search = make()
    for _ in range(ALIKE):
        fail(search)
    again = make()
    assert not again.failures.hopeless, "what was wrong may have been mended"
    for _ in range(ALIKE):
        fail(again)
    assert again.finished


def test_also_after_many_in_a_row(make):
    search = make()
    number = search.ask().number
    assert search.hear(number, result())
    assert not search.hear(number, result(budget=4.0)), "it has come to its end"
    for _ in range(IN_A_ROW):
        fail(search)
    assert search.finished
    assert not make().finished


def test_many_that_are_trained_whatever_comes(make):
    search = make(trials=8, alike=IN_A_ROW)
    for _ in range(8):
        fail(search)
    assert search.ask() is None


@pytest.mark.parametrize(("width", "longest"), [(80, 110), (120, 120), (10_000, 210)])
def test_it_is_said_once_and_shortly(make, tmp_path, width, longest):
    said = io.StringIO()
    long = "KeyError: " + ", ".join(f"architecture{i}" for i in "abcdefghijklmnopqrstuvwxyz" * 5)
    progress = Progress(Console(file=said, width=width), lambda: 1, lambda: None, lambda: False, None)
    search = make(listeners=(progress,))
    progress.live = None
    first, *_ = (fail(search, long) for _ in range(ALIKE))
    lines = said.getvalue().splitlines()
    assert len(lines) == ALIKE
    assert sum("KeyError" in line for line in lines) == 1
    assert len(lines[0]) <= longest
    assert lines[1].endswith(f"failed, as trial {first} did")
    trials, _ = views.tables(tmp_path)
    why = summary.why_none(trials)
    assert why.startswith("3 of them: KeyError: architecturea, ")
    assert len(why) < 200
    assert read(tmp_path / "record.db")[0][0]["reason"] == long, "the record has all of it"
