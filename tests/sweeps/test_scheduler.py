import pytest

from sweeps.search.scheduler import SCHEDULERS, Asha, rungs


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_new_best_always_goes_on(name):
    scheduler = SCHEDULERS[name]()
    assert all(scheduler.judge(rung, 1.0 / (i + 1)).go_on for rung in (0, 1) for i in range(30))


def test_a_third_goes_on():
    asha = Asha(eta=3)
    assert [asha.judge(0, v).go_on for v in (0.5, 0.9)] == [True, True], "nobody to compare with yet"
    verdict = asha.judge(0, 0.7)
    assert not verdict.go_on
    assert verdict.words(0, 0.7) == "place 2 of 3 at rung 1, beyond the best 1: 0.7000 against 0.5000"
    assert [asha.judge(0, v).go_on for v in (0.6, 0.4, 0.45, 0.95, 0.96, 0.41)] == [False, True, True, False, False, True]
    assert asha.judge(1, 9.0).go_on, "every rung by itself"


def test_a_third_of_many_goes_on():
    asha = Asha(eta=3)
    values = [((i * 7919) % 1000) / 1000 for i in range(999)]
    went_on = [v for v in values if asha.judge(0, v).go_on]
    assert 0.30 < len(went_on) / 999 < 0.37
    assert sorted(values)[0] in went_on
    assert sum(v > 0.5 for v in went_on) < 10


def test_rungs():
    assert rungs(10) == [0.625, 2.5, 10]
    assert rungs(0.5, count=2, spacing=5) == [0.1, 0.5]
