"""What a sweep's tables hold, and the tables that are read where no record is left."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from sweeps import report
from sweeps.search.record import Record
from sweeps.show import drawn, page, views
from sweeps.show.importance import importance
from trainable.config import TrialConfig
from trainable.errors import BadInput

CONFIG = TrialConfig().flat()
METRICS = {"budget": 1.0, "val_loss": 0.2, "val_error": 0.05, "train_s": 8.0, "eval_s": 1.0, "parameters": 1000}


def write(folder, configs=(CONFIG, CONFIG, CONFIG)) -> Record:
    """A record: a trial that is complete, one that was stopped, one that failed before its first rung."""
    record = Record(folder / "record.db")
    for number, config in enumerate(configs):
        record.trial_started(number, config, {}, {})
    record.rung(0, 0, METRICS, {})
    record.rung(0, 1, {**METRICS, "budget": 4.0}, {}, end=("complete", ""))
    record.rung(1, 0, {**METRICS, "val_loss": 0.3}, {}, end=("stopped", "place 2 of 2"))
    record.trial_ended(2, "failed", "ValueError: no")
    return record


def everything(folder):
    """All that is shown of a sweep."""
    for name in views.VIEWS:
        report.view(folder, name, None)
    return page.page(folder)


@pytest.fixture
def tables(tmp_path):
    """A folder with the tables of a sweep, and no more."""
    write(tmp_path).close()
    views.write_tables(tmp_path)
    (tmp_path / "record.db").unlink()
    assert "convnet" in everything(tmp_path)
    return tmp_path


def as_numbers(value):
    return lambda table: table.assign(partial=value)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("curves", as_numbers(0), "the column partial has int64, 0 missing; it should hold true or false in every row"),
        ("curves", as_numbers(0.0), "the column partial has double"),
        ("curves", as_numbers(None), "the column partial has null, 3 missing"),
        ("curves", as_numbers("no"), "the column partial has "),
        ("curves", lambda table: table.drop(columns="t"), "the column t is missing"),
        ("curves", lambda table: table.assign(t=math.nan), "the column t has "),
        ("curves", lambda table: table.assign(val_loss=math.inf), "the column val_loss has double, 0 missing; it should hold a"),
        ("curves", lambda table: table.assign(trial=table["trial"] + 0.5), "the column trial has double"),
        ("curves", lambda table: table.iloc[:0], "do not fit"),
        ("curves", lambda table: table.assign(trial=1), "do not fit"),
        ("curves", lambda table: table.assign(trial=[0, 0, 2]), "do not fit"),
        ("trials", lambda table: table.drop(columns="optimizer"), "the column optimizer is missing"),
        ("trials", lambda table: table.drop(columns="lr"), "the column lr is missing"),
        ("trials", lambda table: table.drop(columns="lr_schedule"), "the column lr_schedule is missing"),
        ("trials", lambda table: table.assign(trial=0), "do not fit"),
        ("trials", lambda table: table.assign(val_loss="x"), "the column val_loss has "),
        ("trials", lambda table: table.assign(seconds=math.inf), "the column seconds has double"),
        ("trials", lambda table: table.assign(state=None), "the column state has null, 3 missing"),
        ("trials", lambda table: table.assign(refits="x"), "the column refits has "),
        ("trials", lambda table: table.assign(refits=0.5), "the column refits has double"),
        ("trials", lambda table: table.assign(ms="x"), "the column ms has "),
    ],
)
def test_tables_that_are_not_as_they_were_written(tables, name, change, says):
    path = tables / f"{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(BadInput, match=f"{name}.parquet.*{says}"):
        everything(tables)


@pytest.mark.parametrize("gone", [["refits", "ms"], []])
def test_tables_of_before(tables, gone):
    """Before there were finalists, and before evaluations were timed; what a newer one adds is kept."""
    path = tables / "trials.parquet"
    pd.read_parquet(path).drop(columns=gone).assign(later="x").to_parquet(path, index=False)
    trials, _ = views.tables(tables)
    assert trials["refits"].isna().all()
    assert trials["later"].eq("x").all()
    everything(tables)


@pytest.mark.parametrize("begun", [0, 1])
def test_tables_of_a_sweep_that_has_just_begun(tmp_path, begun):
    record = Record(tmp_path / "record.db")
    for number in range(begun):
        record.trial_started(number, CONFIG, {}, {})
    record.close()
    of_record = [len(table) for table in views.write_tables(tmp_path)]
    (tmp_path / "record.db").unlink()
    assert [len(table) for table in views.tables(tmp_path)] == of_record == [begun, 0]
    everything(tmp_path)


def test_a_field_of_a_record_that_is_named_as_a_column(tmp_path):
    """What is the record's own stands in the column."""
    configs = [{**CONFIG, "t": "x", "refits": 7, "state": 1}] * 3
    record = write(tmp_path, configs)
    record._db.execute("UPDATE rungs SET metrics = ?", (json.dumps({**METRICS, "trial": "x", "partial": 2, "at": None}),))
    record.close()
    trials, curves = views.tables(tmp_path)
    assert trials["state"].tolist() == ["complete", "stopped", "failed"]
    assert trials["refits"].isna().all()
    assert (trials["t"].dtype, curves["partial"].dtype) == (np.float64, bool)
    assert curves["trial"].tolist() == [0, 0, 1]


def test_a_knob_with_numbers_and_words(tmp_path):
    """A space may draw either: `stem_stride` is auto, or a number."""
    configs = [{**CONFIG, "convnet.kernel": value} for value in ("auto", 3, True)]
    write(tmp_path, configs).close()
    views.write_tables(tmp_path)
    assert pd.read_parquet(tmp_path / "trials.parquet")["convnet.kernel"].tolist() == ["auto", "3", "True"]


@pytest.mark.parametrize("first", [0, 1])
def test_a_parameter_that_was_drawn_in_two_ways(first):
    """Optuna refuses that within one process; a resumed sweep's space may do it."""
    ways = [(FloatDistribution(0.1, 1, log=True), 0.5), (CategoricalDistribution(["a", "b"]), "a")]
    rows = [ways[(first + number) % 2] for number in range(4)]
    of = [{"x": distribution_to_json(distribution)} for distribution, _ in rows]
    params = [{"x": value} for _, value in rows]
    table = pd.DataFrame({"trial": range(4), "loss": 0.5, "params": params, "distributions": of})
    kinds = drawn._kinds(table)
    assert kinds == {"x": {"kind": "choice", "choices": ["a", "b"]}}
    assert set(drawn._parallel(table, ["x"], kinds)["place"]) == {0, 1}
    shown = importance(table).set_index("parameter").loc["x"]
    assert shown["tried"] == "2 choices"
    assert set(shown["good values"].split(", ")) <= {"a 33%", "a 67%", "0.5 33%", "0.5 67%"}


def test_the_winning_family_is_compared_at_a_rung_of_its_own(tmp_path, monkeypatch):
    """Parameters of its own may be missing at the rung at which all trials are compared."""
    monkeypatch.setattr("sweeps.show.importance.ENOUGH", 4)
    record = Record(tmp_path / "record.db")
    uniform = distribution_to_json(FloatDistribution(0.0, 1.0))
    for number in range(8):
        name = "wide" if number < 3 else "convnet"
        config = TrialConfig(arch=name).flat()
        params = {f"{name}.a": number / 8, f"{name}.b": 1 - number / 8}
        record.trial_started(number, config, params, dict.fromkeys(params, uniform))
        record.rung(number, 0, {**METRICS, "val_loss": 0.1 if name == "wide" else 0.3}, {})
        if name == "convnet":
            last = {**METRICS, "budget": 4.0, "val_loss": 0.2}
            record.rung(number, 1, last, {}, end=("complete", ""))
    record.close()
    trials, curves = views.tables(tmp_path)
    told = drawn.Drawn(tmp_path, trials, curves, {}, None).tables
    assert told["winner"]["family"] == "wide"
    assert set(told["parallel"]["parameter"]) == {"wide.a", "wide.b"}
