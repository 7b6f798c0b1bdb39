"""Sweeps with hardly any time: one step of one trial makes a network, a prediction and a page that says how little it is."""

import json

import chaos
import pytest
from running import check_folder, finish, start

from sweeps import arch_sweep, flags, zoo
from sweeps.search.cluster import cluster
from sweeps.search.draw import SEARCHERS
from sweeps.search.launch import Ending, run_search
from sweeps.search.record import Record, read
from sweeps.search.scheduler import SCHEDULERS, Asha
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES, Space

SMALL = Space(lambda trial: {"arch": "convnet", "convnet.width": 8, "engine": "fp32-nhwc"})


@pytest.fixture
def make(tmp_path):
    """make(**arguments) -> a Search that is over, and goes on from the record in tmp_path."""

    def make(space=SPACES["quick"], **more):
        given = {"sampler": SEARCHERS["random"], "scheduler": Asha(), "rungs": [1.0, 4.0], "is_over": lambda: True}
        return Search(space, Record(tmp_path / "record.db"), **(given | more))

    return make


def result(**more) -> dict:
    return {"budget": 0.01, "val_loss": 0.5, "val_error": 0.1, "interrupted": True, **more}


@pytest.mark.parametrize("trials", [None, 1])
def test_a_search_that_is_over_starts_one_trial(make, trials):
    search = make(trials=trials)
    assert not search.finished
    job = search.ask()
    assert search.ask() is None, "and no second"
    assert not search.finished
    assert not search.hear(job.number, result())
    assert search.finished
    assert search.ask() is None


def test_it_does_not_start_one_after_the_other(make):
    search = make()
    assert not search.hear(search.ask().number, {"failed": "ValueError: no"})
    assert search.finished
    assert search.ask() is None


def test_nor_where_there_is_a_network(make):
    over = []
    search = make(is_over=lambda: bool(over))
    search.hear(search.ask().number, result(budget=1.0, interrupted=False))
    over.append(True)
    search.close("that was it")
    assert search.finished
    assert make().ask() is None, "nor when it is resumed"


def test_what_one_step_made_is_a_network(make):
    search = make()
    search.hear(search.ask().number, result())
    assert make().finished, "a search that goes on without time leaves it as it is"


def test_a_search_that_had_no_step_goes_on_when_it_is_resumed(make):
    search = make()
    search.hear(search.ask().number, {"interrupted": True, "budget": 0.0})
    again = make()
    assert not again.finished
    assert again.ask().number == 0
    assert again.ask() is None


@pytest.mark.full
@pytest.mark.parametrize("how", ["deadline", pytest.param("signal", marks=pytest.mark.long)])
def test_a_real_trial_hands_over_after_one_step(tmp_path, tiny, how):
    """It is over before the first trial begins, of a training of 4,000 steps."""
    ending = Ending(0.0 if how == "deadline" else None)
    if how == "signal":
        ending.asked.set()
    record = Record(tmp_path / "record.db")
    with cluster(None, 1, 0, 2) as places:
        more = {"sampler": SEARCHERS["random"], "scheduler": SCHEDULERS["none"](), "is_over": ending.is_over}
        search = Search(SMALL, record, rungs=[500.0, 1000.0], **more)
        assert run_search(search, tiny, places, ending, tmp_path) is None
    (trial,), (rung,) = read(tmp_path / "record.db")
    assert (trial["state"], rung["partial"]) == ("interrupted", 1)
    assert 0 < rung["metrics"]["budget"] < 500
    assert set(rung["files"]) == {"config.json", "model.safetensors", "probs.safetensors"}
    assert (tmp_path / "trials" / "0" / "model.safetensors").stat().st_size


@pytest.mark.parametrize("main", [arch_sweep.main, zoo.main])
@pytest.mark.parametrize("budget", ["1s", "9.9s", "0.1m", "0.001h"])
def test_less_than_a_start_takes_is_refused(refuses, tmp_path, main, budget):
    said = refuses(main, "--dataset", "digits-sample", "--results", tmp_path, "--time-budget", budget)
    assert f"--time-budget {budget} is too short" in said
    assert f"give at least {flags.LEAST}s" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_the_least_that_is_taken(tmp_path):
    """The time is over before Ray has started: the whole of a sweep all the same, and finalists with no time at all."""
    (tmp_path / "mine.py").write_text(chaos.SPACE)
    given = ["--space", "mine.py:draw", "--max-epochs", "20", "--time-budget", f"{flags.LEAST}s"]
    sweep = start(tmp_path, *given, "--finalists", "1")
    said = finish(sweep)
    assert sweep.returncode == 0, said
    assert "Traceback" not in said
    folder = tmp_path / "results" / "s"
    check_folder(folder)
    (longest,) = [line for line in said.splitlines() if line.startswith("No training came to its end: the longest had ")]
    assert longest.replace("A longer", "").split("the longest had")[1].split(" of 20 epochs")[0].strip() != "0"
    assert "No training came to its end" in (folder / "report.html").read_text()
    assert json.loads((folder / "ensemble.json").read_text())["members"]
