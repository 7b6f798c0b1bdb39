import io
import re
from datetime import datetime

import pandas as pd
import pytest
from rich.console import Console

from sweeps.search import progress as progress_module
from sweeps.search.progress import Progress
from sweeps.search.record import Record, read
from sweeps.show import figures, summary, views
from trainable.config import TrialConfig

CONFIG = TrialConfig().flat()
METRICS = {
    "budget": 1.0,
    "val_loss": 0.2,
    "val_error": 0.05,
    "train_s": 8.0,
    "eval_s": 1.0,
    "parameters": 1000,
    "engine": "fp32-nhwc",
}


class Clock:
    """In place of a module's `time`: it stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def play(record: Record):
    """Three trials: one complete, one stopped, one failed before its first rung."""
    for number in range(3):
        record.trial_started(number, CONFIG, {}, {})
    record.rung(0, 0, METRICS, {})
    record.rung(1, 0, {**METRICS, "val_loss": 0.3}, {})
    record.trial_ended(1, "stopped", "place 2 of 2", {"train_s": 8.0, "eval_s": 1.0})
    record.rung(0, 1, {**METRICS, "val_loss": 0.1, "val_error": 0.0123, "budget": 4.0, "train_s": 16.0}, {})
    record.trial_ended(2, "failed", "ValueError: no")
    record.trial_ended(0, "complete", "", {"train_s": 16.0, "eval_s": 1.0})


def test_tables(tmp_path):
    record = Record(tmp_path / "record.db")
    play(record)
    trials, curves = views.write_tables(tmp_path)
    assert pd.read_parquet(tmp_path / "trials.parquet")["state"].tolist() == ["complete", "stopped", "failed"]
    assert trials["val_loss"].tolist()[:2] == [0.1, 0.3]
    assert trials["val_loss"].isna().tolist() == [False, False, True]
    assert trials["family"].tolist() == ["convnet"] * 3
    assert pd.read_parquet(tmp_path / "curves.parquet")[["trial", "rung"]].values.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert len(curves) == 3


def test_busy():
    trials = pd.DataFrame({"t": [100.0, 101.0], "seconds": [10.0, 9.0], "train_s": [6.0, 8.0], "eval_s": [1.0, 0.0]})
    assert views.busy(trials, slots=2, seconds=50.0) == pytest.approx(15 / 100), "not from the first trial to the last"
    assert views.busy(trials.iloc[:0], slots=2, seconds=50.0) == 0


def progress_on(console: Console, tmp_path, trials=None) -> Progress:
    progress = Progress(console, lambda: 2, lambda: 90.0, lambda: False, trials)
    with progress:
        play(Record(tmp_path / "record.db", (progress,)))
    return progress


def test_plain_lines(tmp_path):
    out = io.StringIO()
    progress = progress_on(Console(file=out, width=100), tmp_path)
    said = out.getvalue().splitlines()
    assert [re.sub(r"^ *\d\d:\d\d  ", "", line) for line in said] == [
        "trial 1 (convnet) stopped: place 2 of 2",
        "trial 2 (convnet) failed: ValueError: no",
        "trial 0 (convnet) complete",
    ]
    assert "1 complete, 1 stopped, 1 failed · best val loss 0.1000 (1.23% error): trial 0 convnet at 4 epochs" in progress.line()
    assert "01:30 left" in progress.line()


def test_display_in_a_terminal(tmp_path):
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    progress = progress_on(console, tmp_path, trials=6)
    page = Console(file=io.StringIO(), width=80)
    page.print(progress._display())
    lines = page.file.getvalue().splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) <= 80
    assert "1 complete, 1 stopped, 1 failed" in lines[1]
    assert "trial 0 convnet" in lines[2]
    assert "01:30 left" in lines[3]
    assert re.search(r"this ends about \d\d:\d\d", lines[4])
    assert "Ctrl-C ends the search" in lines[5]


def test_many_running_trials_fit_the_screen(tmp_path, monkeypatch):
    """Each with its curve, those that there is no room for counted; and when it will end."""

    class Evening(datetime):
        @classmethod
        def now(cls):
            return cls(2026, 12, 1, 23, 59)

    monkeypatch.setattr(progress_module, "datetime", Evening)
    out = Console(file=io.StringIO(), width=80)
    progress = Progress(out, lambda: 12, lambda: 600.0, lambda: False, None, all_left=lambda: 3600.0, epochs=10.0)
    record = Record(tmp_path / "record.db", (progress,))
    for number in range(12):
        record.trial_started(number, CONFIG, {}, {})
    for rung, loss in enumerate((1.0, 0.1, 0.01)):
        record.rung(0, rung, {**METRICS, "val_loss": loss, "budget": rung + 1.0, "node_ip": "10.0.0.2"}, {})
    record.rung(1, 0, {**METRICS, "node_ip": "10.0.0.3"}, {})
    out.print(progress._display())
    text = out.file.getvalue()
    assert len(text.splitlines()) <= 16
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r" 0 convnet +3\.0 of 10 epochs  loss █▄▁ 0\.0100", text)
    assert progress._line_of(0).endswith("0.0100  on 10.0.0.2"), "several machines"
    assert "and 4 more" in text
    assert progress._ends() == "this ends about 00:09, the whole sweep by 00:59"


def test_a_running_trial_is_shown(tmp_path, clock):
    progress = Progress(Console(file=io.StringIO()), lambda: 1, lambda: None, lambda: False, None)
    assert progress.line().startswith("no result yet")
    record = Record(tmp_path / "record.db", (progress,))
    record.trial_started(0, CONFIG, {}, {})
    clock.now += 200.0
    progress.beat({0: (0.73, 100.0, 50.0)})
    assert progress.line().startswith("1 running · now 0 convnet 0.7 epochs")
    assert progress._time_went() == "training 50%, evaluating 25%, else 25%"
    record.rung(0, 0, {**METRICS, "budget": 0.8}, {})
    progress.beat({0: (0.73, 1.0, 0.5)})
    assert progress.line().startswith("1 running · now 0 convnet 0.8 epochs"), "an old beat does not undo a rung"


def test_a_resumed_sweep_shows_its_own_pace(tmp_path, clock, monkeypatch):
    """Trials and seconds of earlier drivers do not count in this driver's pace and shares."""
    record = Record(tmp_path / "record.db")
    for number in range(20):
        record.trial_started(number, CONFIG, {}, {})
        record.rung(number, 0, {**METRICS, "train_s": 80.0, "eval_s": 10.0}, {})
        record.trial_ended(number, "interrupted" if number == 19 else "complete", "")
    past = read(tmp_path / "record.db")
    console, no_limit = Console(file=io.StringIO()), lambda: None
    progress = Progress(console, lambda: 1, no_limit, lambda: False, 30, past, spent=2000.0)
    record.listeners = (progress,)
    with progress:
        record.trial_restarted(19, "the sweep is resumed", CONFIG)
        clock.now += 100.0
        progress.beat({19: (2.0, 130.0, 15.0)})
        assert progress._time_went() == "training 50%, evaluating 5%, else 45%"
        assert progress._ends() == "", "three have to end before their pace says anything"
        for number in range(20, 24):
            record.trial_started(number, CONFIG, {}, {})
            record.trial_ended(number, "complete", "")
        clock.now += 100.0
        monkeypatch.setattr(progress_module, "_hour", lambda seconds: f"in {seconds:g} s")
        assert progress._ends() == f"this ends about in {200 / 4 * (30 - 23):g} s"


def test_summary_fits_80_columns(tmp_path):
    play(Record(tmp_path / "record.db"))
    trials, curves = views.tables(tmp_path)
    score = {"errors": 5, "images": 1500, "error": 5 / 1500, "loss": 0.0123}
    ensemble = {
        "unlabelled_taught": True,
        "judged_on": {"split": "out of fold", "images": 10_000},
        "method": "mean", "judged": score, "test": {**score, "images": 2000}, "ms_per_image": 1.5,
        "best_single": {"trial": 0, "arch": "mobilenet_v3_small", "judged": score},
        "methods": {"mean": {"members": 3, "judged": score}, "best": {"members": 1, "judged": score}},
        "members": [{"networks": [4, 5]}],
        "sizes": [
            {"names": ["0", "123u view 1", "7"], "judged": score, "ms_per_image": 12.345, "ms_one_network_each": 2.0}
        ],
        "cascade": {"share_passed_on": 0.0123, "first": "3", "ms_per_image": 0.1, "ms_first": 0.09, "judged": score},
    }  # fmt: skip
    out = io.StringIO()
    summary.show(Console(file=out, width=80), trials, curves, ensemble, 1500)
    text = out.getvalue()
    assert "…" not in text, "nothing is cut off"
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 30
    for expected in ("mean, chosen", "1.23%", "val (1,500 images)", "5 errors of 2,000", "(95 % interval", "failed"):
        assert expected in text


def test_labels_of_rungs_do_not_overlap():
    """Half an epoch is another number of steps for another batch size."""
    assert figures._rungs(pd.Series([0.62, 0.62, 0.64, 0.64, 1.37, 2.5, 2.5, 10.0, 10.0])) == [0.62, 2.5, 10.0]
