"""A search that is cut off and goes on from its record decides as one that was never cut off. No training, no Ray."""

import json
import random

import pytest
from optuna.trial import TrialState

from sweeps.search.draw import SEARCHERS
from sweeps.search.record import Record, read, rows
from sweeps.search.scheduler import Asha, Never
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES

RUNGS = [1.0, 4.0, 16.0]


class Cut(Exception):
    pass


def result(config: dict, rung: int) -> dict:
    value = abs(config["weight_decay"] - 0.01) * 10 + 1 / (rung + 1) + config["seed"] % 7 / 100
    return {"budget": RUNGS[rung], "val_loss": value, "val_error": value / 2, "train_s": RUNGS[rung], "eval_s": 0.5,
            "rung": rung, "interrupted": False, "temperature": 1.0, "files": "{}"}  # fmt: skip


def begin(path, searcher: str, trials=24, **more) -> Search:
    record = Record(path)
    record.interrupt_all("the sweep was cut off")
    more = {"scheduler": Asha(), **more}
    return Search(SPACES["quick"], record, sampler=SEARCHERS[searcher], rungs=RUNGS, trials=trials, **more)


def run(search: Search, states: dict[int, int], at_once: int, cut=lambda: None):
    """To the end; `states` is what the keeper holds: the rung from which each trial can go on. `cut` may raise."""
    running: dict[int, tuple[dict, int]] = {}
    while not search.finished:
        while len(running) < at_once and (job := search.ask()):
            running[job.number] = job.config, states.get(job.number, 0)
            cut()
        for number, (config, rung) in list(running.items()):
            goes_on = search.hear(number, result(config, rung))
            cut()
            if goes_on:
                states[number] = rung + 1  # handed over while the next rung is trained
                running[number] = config, rung + 1
                cut()
            else:
                del running[number]
    search.record.close()


def facts(path):
    trials, _ = read(path)
    rungs = [(r["number"], r["rung"], r["metrics"]) for r in rows(path, "rungs", "seq")]
    return [(t["number"], t["config"], t["params"], t["state"], t["reason"]) for t in trials], rungs


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("seed", range(3))
def test_ten_kills_change_nothing(tmp_path, searcher, seed):
    whole, cut_off = tmp_path / "whole.db", tmp_path / "cut.db"
    run(begin(whole, searcher), {}, at_once=1)
    dice, states, kills = random.Random(seed), {}, 0

    def cut():
        nonlocal kills
        if kills < 10 and dice.random() < 0.3:
            kills += 1
            raise Cut

    while True:
        search = begin(cut_off, searcher)
        try:
            run(search, states, at_once=1, cut=cut)
            break
        except Cut:
            search.record.close()  # what was recorded is there, and nothing else
    assert kills == 10
    assert facts(cut_off) == facts(whole)
    assert len(facts(whole)[0]) == 24
    assert len(rows(cut_off, "drivers")) == 11
    told = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}
    assert [told[t.state] for t in begin(cut_off, searcher).study.trials] == [state for *_, state, _ in facts(whole)[0]]


def test_a_state_that_was_lost_costs_its_rungs_and_nothing_else(tmp_path):
    """What is trained again is compared with nobody twice, and recorded once."""
    whole, cut_off = tmp_path / "whole.db", tmp_path / "cut.db"
    run(begin(whole, "tpe"), {}, at_once=1)
    left = 30

    def cut():
        nonlocal left
        left -= 1
        if left == 0:
            raise Cut

    search = begin(cut_off, "tpe")
    with pytest.raises(Cut):
        run(search, {}, at_once=1, cut=cut)
    search.record.close()
    assert rows(cut_off, "rungs")
    run(begin(cut_off, "tpe"), {}, at_once=1)
    assert facts(cut_off) == facts(whole)


def test_with_several_at_once_nothing_is_lost_or_done_twice(tmp_path):
    dice, states, path = random.Random(1), {}, tmp_path / "record.db"

    def cut():
        if dice.random() < 0.05:
            raise Cut

    while True:
        search = begin(path, "tpe")
        try:
            run(search, states, at_once=4, cut=cut)
            break
        except Cut:
            search.record.close()
    trials, rungs = read(path)
    assert [t["number"] for t in trials] == list(range(24))
    assert {t["state"] for t in trials} == {"complete", "stopped"}
    assert len({(r["number"], r["rung"]) for r in rungs}) == len(rungs)
    complete = sum(t["state"] == "complete" for t in trials)
    assert sum(r["rung"] == 2 for r in rungs) == complete


def handed_over(number: int) -> dict[str, str]:
    return dict.fromkeys(("model.safetensors", "probs.safetensors"), f"new {number}")


def test_a_lost_network_is_trained_again_and_changes_no_decision(tmp_path):
    """faults.md 14."""
    path = tmp_path / "record.db"
    run(begin(path, "tpe"), {}, at_once=2)
    before = facts(path)
    best = next(number for number, *_, state, _ in before[0] if state == "complete")
    stopped = next(number for number, *_, state, _ in before[0] if state == "stopped")
    search = begin(path, "tpe", again=[best, stopped])
    assert not search.finished
    told = [(t.number, t.state) for t in search.study.trials]
    trained = []
    while job := search.ask():
        for rung in range(3):
            again = {**result(job.config, rung), "files": json.dumps(handed_over(job.number))}
            trained.append((job.number, rung))
            if not search.hear(job.number, again):
                break
    assert search.finished
    assert facts(path) == before
    assert [(t.number, t.state) for t in search.study.trials] == told
    last = {r["number"]: r["files"] for r in rows(path, "rungs", "seq")}
    assert (last[best], last[stopped]) == (handed_over(best), handed_over(stopped))
    assert trained.count((best, 2)) == 1


def test_an_end_while_something_is_trained_again(tmp_path):
    """It is as it was: what had ended has ended, what had been interrupted is interrupted."""
    path = tmp_path / "record.db"
    search = begin(path, "random", trials=2, scheduler=Never())
    jobs = [search.ask() for _ in range(2)]
    for job in jobs:
        search.hear(job.number, result(job.config, 0))
    search.hear(jobs[0].number, {"failed": "ValueError: no"})
    search.record.close()
    search = begin(path, "random", trials=2, again=[0], scheduler=Never())
    assert {search.ask().number for _ in range(2)} == {0, 1}
    for job in jobs:
        assert not search.hear(job.number, {**result(job.config, 0), "interrupted": True, "budget": 0.5})
    trials, rungs = read(path)
    assert [t["state"] for t in trials] == ["failed", "interrupted"]
    assert [(r["rung"], r["partial"], r["metrics"]["budget"]) for r in rungs] == [(0, 0, 1.0)] * 2


def test_more_trials(tmp_path):
    """A sweep of 12 that is given 24 is a sweep of 24."""
    whole, grown = tmp_path / "whole.db", tmp_path / "grown.db"
    run(begin(whole, "tpe"), {}, at_once=1)
    run(begin(grown, "tpe", trials=12), {}, at_once=1)
    run(begin(grown, "tpe", trials=24), {}, at_once=1)
    assert facts(grown) == facts(whole)


def test_what_the_end_of_a_search_interrupted_goes_on(tmp_path):
    path, over = tmp_path / "record.db", []
    search = begin(path, "random", is_over=lambda: bool(over))
    first, second = search.ask(), search.ask()
    search.hear(first.number, result(first.config, 0))
    over.append(True)
    search.hear(first.number, {**result(first.config, 1), "interrupted": True, "budget": 2.5})
    search.hear(second.number, {"budget": 0.0, "interrupted": True})
    search.record.close()
    assert [t["state"] for t in read(path)[0]] == ["interrupted"] * 2
    assert [(r["rung"], r["partial"]) for r in read(path)[1]] == [(0, 0), (1, 1)]
    begin(path, "random", is_over=lambda: True).close("the search ended")
    assert [(r["rung"], r["partial"]) for r in read(path)[1]] == [(0, 0), (1, 1)], "no time to go on: it stays"
    assert [t["reason"] for t in read(path)[0]] == ["the search ended at 2.50 epochs", "the search ended before it began"]
    search = begin(path, "random")
    assert [search.ask().number, search.ask().number, search.ask().number] == [0, 1, 2]
    assert [t["state"] for t in read(path)[0]] == ["running"] * 3
    assert [(r["rung"], r["partial"]) for r in read(path)[1]] == [(0, 0)]
    assert search.hear(0, result(first.config, 1))
    assert search.study.trials[0].intermediate_values.keys() == {0, 1}
