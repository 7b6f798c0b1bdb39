"""The policy of a sweep on curves that are known, with no training and no Ray."""

import json
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from sweeps.search.draw import SEARCHERS
from sweeps.search.record import Record, read
from sweeps.search.scheduler import Asha, Never
from sweeps.search.searcher import DEATHS, METRICS, Job, Search
from sweeps.search.space import SPACES, Space
from trainable.errors import BadInput

RUNGS = [1.0, 4.0, 16.0]


@pytest.fixture
def make(tmp_path):
    """make(**arguments) -> a Search with a record in tmp_path."""

    def make(space=SPACES["quick"], **arguments):
        record = Record(tmp_path / "record.db", arguments.pop("listeners", ()))
        given = {"sampler": SEARCHERS["random"], "scheduler": Asha(), "rungs": RUNGS, "trials": 30}
        return Search(space, record, **(given | arguments))

    return make


def result(value: float, budget: float, **more) -> dict:
    return {"budget": budget, "val_loss": value, "val_error": value / 2, "train_s": budget, "eval_s": 0.5,
            "interrupted": False, "files": "{}", **more}  # fmt: skip


def curve(config: dict, rung: int) -> float:
    return abs(config["weight_decay"] - 0.01) * 10 + 1 / (rung + 1)


def play(search: Search, at_once: int = 2):
    """Run a search to its end, `at_once` trials in turn."""
    running: dict[int, tuple[dict, int]] = {}
    while True:
        while len(running) < at_once and (asked := search.ask()):
            running[asked.number] = (asked.config, 0)
        if not running:
            return
        for number, (config, rung) in list(running.items()):
            goes_on = search.hear(number, result(curve(config, rung), RUNGS[rung]))
            running[number] = (config, rung + 1)
            if not goes_on:
                del running[number]


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_study_and_record_tell_the_same(make, tmp_path, searcher):
    search = make(sampler=SEARCHERS[searcher])
    play(search, at_once=3)
    trials, rungs = read(tmp_path / "record.db")
    assert [t["number"] for t in trials] == list(range(30))
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped"}
    for kept, told in zip(trials, search.study.trials, strict=True):
        assert kept["state"] == states[told.state]
        assert kept["params"] == told.params
        values = {r["rung"]: r["metrics"]["val_loss"] for r in rungs if r["number"] == kept["number"]}
        assert values == told.intermediate_values, "a stopped trial keeps its values by rung"
        assert kept["ended"] >= kept["started"]
        assert kept["train_s"] == RUNGS[len(values) - 1]
    stopped = [t for t in trials if t["state"] == "stopped"]
    assert 15 < len(stopped) < 30
    assert all("beyond the best" in t["reason"] for t in stopped)
    best = min(trials, key=lambda t: curve(t["config"], 0))
    assert best["state"] == "complete"
    assert search.study.best_trial.number == best["number"]


@pytest.mark.parametrize(("value", "goes_on"), [(1.9, True), (2.1, False)], ids=["near", "far"])
def test_a_starting_point_that_the_space_is_sure_of_is_not_stopped_early(make, tmp_path, value, goes_on):
    search = make(space=replace(SPACES["quick"], sure=2))
    numbers = [search.ask().number for _ in range(3)]
    assert search.hear(numbers[0], result(1.0, RUNGS[0]))
    assert search.hear(numbers[1], result(value, RUNGS[0])) == goes_on, "twice the cut is too far"
    assert not search.hear(numbers[2], result(value, RUNGS[0])), "whom it is not sure of"
    if goes_on:
        search.close("enough")
        again = make(space=replace(SPACES["quick"], sure=2))
        assert [again.ask().number for _ in range(2)] == numbers[:2], "nor when the search is resumed"
        assert again.hear(numbers[1], result(value, RUNGS[1], rung=1)), "the first at its second rung"
        assert again.hear(numbers[0], result(1.9 * value, RUNGS[1], rung=1))


def test_starts_with_the_recipe_on_every_architecture(make):
    search = make(trials=6)
    drawn = [search.ask().config for _ in range(6)]
    assert drawn[0]["arch"] == "convnet"
    assert len({config["arch"] for config in drawn[:5]}) == 5
    assert [config["optimizer"] for config in drawn[:5]] == ["muon", "adamw", "adamw", "adamw", "adamw"]
    assert [config["seed"] for config in drawn] == [0, 1, 2, 3, 4, 5]
    assert {config["epochs"] for config in drawn} == {16.0}


@pytest.mark.parametrize("metric", METRICS)
def test_metric(make, metric):
    search = make(metric=metric)
    number = search.ask().number
    search.hear(number, result(0.5, 1.0))
    assert search.study.trials[0].intermediate_values == {0: 0.5 if metric == "val_loss" else 0.25}


def test_failures_are_told_with_their_reason(make, tmp_path):
    search = make(scheduler=Never())
    first, second, third = (search.ask().number for _ in range(3))
    assert not search.hear(first, {"failed": "FloatingPointError: the loss is nan at step 7", "train_s": 2.0, "eval_s": 0.0})
    assert search.hear(second, result(1.0, 1.0))
    for attempt in range(DEATHS):
        search.lose(second, "its process died")
        search.lose(second, "told twice")
        assert attempt == DEATHS - 1 or search.ask() == Job(second, search._running[second].config, attempt + 1)
    search.lose(99, "never heard of")
    assert search.hear(third, result(1.0, 1.0))
    trials, _ = read(tmp_path / "record.db")
    assert [(t["state"], t["reason"], t["train_s"]) for t in trials] == [
        ("failed", "FloatingPointError: the loss is nan at step 7", 2.0),
        ("failed", "its process died, 3 times", 1.0),
        ("running", "", 1.0),
    ]
    assert [search.memory.get_trial(number).state for number in range(3)] == [
        TrialState.FAIL,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_missing_metric_fails_its_trial_alone(make, tmp_path, value):
    """faults.md 24."""
    search = make(trials=2)
    first, second = search.ask().number, search.ask().number
    without = {**result(0.5, 1.0), "val_loss": value}
    assert not search.hear(first, {name: v for name, v in without.items() if v is not None})
    assert search.hear(second, result(0.5, 1.0))
    trials, rungs = read(tmp_path / "record.db")
    assert [t["state"] for t in trials] == ["failed", "running"]
    assert trials[0]["reason"] == "its result has no val_loss, or none that is a number"
    assert [r["number"] for r in rungs] == [1]


def test_ten_preemptions_of_one_trial_are_not_its_failures(make, tmp_path):
    """faults.md 10."""
    search = make(trials=1)
    number = search.ask().number
    for attempt in range(10):
        search.lose(number, "its node was preempted", machine=True)
        assert not search.hear(number, result(0.5, 1.0)), "what comes late is not taken"
        assert not search.finished
        assert search.ask().attempt == attempt + 1
    for rung in RUNGS:
        search.hear(number, result(0.5, rung))
    trials, rungs = read(tmp_path / "record.db")
    assert [t["state"] for t in trials] == ["complete"]
    assert len(rungs) == 3
    assert search.finished


def test_out_of_memory_is_tried_again_alone_in_parts(make, tmp_path):
    """faults.md 22: nothing else runs beside it, and the searcher hears the true result."""
    search = make(trials=3)
    first, second = search.ask(), search.ask()
    assert first.config["accumulate"] == 1
    assert not search.hear(first.number, {"out_of_memory": "OutOfMemoryError: 3 GiB"})
    alone = search.ask()
    assert (alone.number, alone.alone, alone.config["accumulate"]) == (first.number, True, 4)
    assert search.ask() is None, "it has its machine for itself"
    assert not search.finished
    assert search.hear(second.number, result(0.6, 1.0))
    assert search.hear(first.number, result(0.4, 1.0))
    assert search.study.trials[0].intermediate_values == {0: 0.4}
    search.lose(first.number, "out of memory: killed", memory=True)
    assert search.ask().number == 2, "it has failed; the others go on"
    trials = read(tmp_path / "record.db")[0]
    assert trials[0]["state"] == "failed"
    assert trials[0]["reason"] == "out of memory: killed; alone on its machine and with batches in 4 parts, too"
    assert trials[0]["config"]["accumulate"] == 4


def test_a_search_where_everything_fails_ends(make):
    search = make(trials=None)
    while asked := search.ask():
        search.hear(asked.number, {"failed": f"ValueError: no{'o' * asked.number}"})
    assert search.started == 20


def test_a_search_that_breaks_off_leaves_nothing_running(make, tmp_path):
    search = make()
    number = search.ask().number
    search.ask()
    search.hear(number, result(0.5, 1.0))
    search.close("the search broke off")
    assert [(t["state"], t["train_s"]) for t in read(tmp_path / "record.db")[0]] == [("interrupted", 1.0), ("interrupted", 0.0)]


def test_the_end_of_the_search(make, tmp_path):
    over = []
    search = make(is_over=lambda: bool(over))
    first, second = search.ask().number, search.ask().number
    over.append(True)
    assert search.ask() is None
    assert not search.hear(first, result(0.4, 0.7, interrupted=True))
    assert not search.hear(second, {"budget": 0.0, "interrupted": True})
    trials, rungs = read(tmp_path / "record.db")
    assert [(t["state"], t["reason"]) for t in trials] == [
        ("interrupted", "the search ended at 0.70 epochs"),
        ("interrupted", "the search ended before it began"),
    ]
    assert len(rungs) == 1
    assert [search.memory.get_trial(number).state for number in range(2)] == [TrialState.PRUNED, TrialState.FAIL]


def test_trials_are_counted(make, tmp_path):
    search = make(trials=4)
    play(search)
    assert len(read(tmp_path / "record.db")[0]) == 4
    assert search.ask() is None


def test_the_record_comes_first(make, tmp_path):
    """A listener that looks into the record finds the event that it is told."""
    told = []

    def listen(event):
        trials, rungs = read(tmp_path / "record.db")
        if event["kind"] == "rung":
            assert (event["number"], event["rung"]) in {(r["number"], r["rung"]) for r in rungs}
        else:
            state = trials[event["number"]]["state"]
            assert state == event.get("state", "running")
        told.append(event["kind"])

    play(make(trials=5, listeners=(listen,)))
    assert told.count("trial_started") == told.count("trial_ended") == 5
    json.dumps(told)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda trial: None, "the space does not work: .*returned NoneType, not a dict"),
        (lambda trial: {"arhc": "convnet"}, "the space does not work: .*unknown key 'arhc'"),
        (lambda trial: 1 / 0, "the space does not work: ZeroDivisionError"),
        (lambda trial: {"arch": "vgg"}, "unknown architecture 'vgg'; known: "),
    ],
)
def test_a_space_that_does_not_work(make, draw, says):
    with pytest.raises(BadInput, match=says):
        make(Space(draw)).ask()
