"""What a sweep may be resumed with, what a new one learns from it, and why its trials ended: from records, without Ray."""

import json
from dataclasses import replace

import pytest
from test_go_on import RUNGS, begin, run

from sweeps import arch_sweep, explain, warm_start
from sweeps.arguments import parse
from sweeps.ensemble import data_of
from sweeps.resume import as_before, before, check_data, check_space
from sweeps.search.draw import SEARCHERS
from sweeps.search.keeper import Keeper
from sweeps.search.record import Record, read, rows
from sweeps.search.scheduler import Asha
from sweeps.search.searcher import Search
from sweeps.search.space import SPACES, Space
from trainable.config import TrialConfig
from trainable.datasets import load
from trainable.errors import BadInput

ARGUMENTS = {
    **{"dataset": "digits-sample", "space": "quick", "scheduler": "asha", "searcher": "tpe", "metric": "val_loss", "seed": 0},
    **{"trials": 24, "time_budget": None, "max_epochs": 16.0, "concurrent": None, "cpus_per_trial": 1, "image_size": None},
    **{"gpus_per_trial": None, "address": None, "ensemble": None, "step_timeout": 600.0, "mlflow": None, "quick": False},
    **{"finalists": None, "folds": 5, "views": 1, "use_unlabelled": False, "max_latency": None, "search_share": 0.4},
}

ABOUT = {"arguments": ARGUMENTS, "data": {"fingerprint": load("digits-sample").fingerprint}, "versions": {}, "commit": None}


@pytest.fixture
def results(tmp_path):
    """results/s: a sweep of 24 trials that was searched, and not combined."""
    folder = tmp_path / "results" / "s"
    folder.mkdir(parents=True)
    Record(folder / "record.db", about=ABOUT).close()
    run(begin(folder / "record.db", "random"), {}, at_once=2)
    return folder.parent


def resumed(results, *arguments: str):
    return parse(["--results", str(results), "--resume", "s", *arguments])


def test_without_more_it_is_as_before(results):
    args, earlier = resumed(results)
    assert {name: getattr(args, name) for name in ARGUMENTS} == ARGUMENTS
    assert len(earlier.trials) == 24
    assert not arch_sweep.nothing_left(args, earlier), "it has not been combined"


def test_it_may_be_extended(results):
    args, _ = resumed(results, "--trials", "48", "--time-budget", "1h", "--concurrent", "4", "--cpus-per-trial", "2")
    assert (args.trials, args.time_budget, args.concurrent, args.cpus_per_trial) == (48, 3600.0, 4, 2)
    assert resumed(results, "--space", "quick", "--metric", "val_loss")[0].space == "quick", "what is the same is no change"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--space", "default"], "--space default: the trials of sweep s were tried with quick, .* --warm-start s$"),
        (["--metric", "val_error"], "--metric val_error: .*with val_loss"),
        (["--dataset", "digit-recognizer"], "--dataset digit-recognizer: .*with digits-sample"),
        (["--max-epochs", "20"], "--max-epochs 20.0: .*with 16.0"),
        (["--name", "t"], "--resume s goes on with that sweep as it is; leave --name out"),
        (["--warm-start", "s"], "leave --warm-start out"),
        (["--seed", "1"], "--seed 1: .*with 0"),
        (["--trials", "12"], "--trials 12: sweep s has 24 already; give more"),
        (["--time-budget", "soon"], "--time-budget 'soon' is not a time"),
    ],
)
def test_what_would_change_the_meaning_is_refused(results, arguments, says):
    """faults.md 15."""
    with pytest.raises(BadInput, match=says) as wrong:
        resumed(results, *arguments)
    assert "\n" not in str(wrong.value)


def test_longer_trials_where_no_trial_is_compared(results):
    record = Record(results / "s" / "record.db")
    about = rows(results / "s" / "record.db", "drivers")[0]["about"]
    about["arguments"]["scheduler"] = "none"
    record._db.execute("UPDATE drivers SET about = ? WHERE id = 1", (json.dumps(about),))
    record.close()
    assert resumed(results, "--max-epochs", "40")[0].max_epochs == 40


@pytest.mark.parametrize("name", ["nope", "../s", "", "ü" * 200])
def test_no_such_sweep(results, name):
    with pytest.raises(BadInput, match="holds no sweep; there are: (s|none)$|--resume|File name too long"):
        parse(["--results", str(results), "--resume", name, "--quick"] if name else ["--resume"])


def test_a_sweep_whose_finalists_have_trained_on_a_given_val_goes_on_as_it_was(results, sample):
    given = replace(sample, val_given=True)
    assert as_before(before(results / "s"), given).val_given, "without finalists nothing has been trained on it"
    record = Record(results / "s" / "record.db", about=ABOUT)
    record.trial_started(24, {**TrialConfig().flat(), "folds": 5}, {}, {}, refits=0)
    assert not as_before(before(results / "s"), given).val_given
    assert not as_before(before(results / "s"), sample).val_given
    assert not data_of([results / "s"]).val_given


def test_other_data_are_refused(results):
    with pytest.raises(BadInput, match="the data of sweep s have changed .*--warm-start s"):
        check_data(before(results / "s"), "0" * 64)


def narrower(trial) -> dict:
    return {**SPACES["quick"].draw(trial), "lr": trial.suggest_float("lr", 1e-9, 1e-8)}


@pytest.mark.parametrize("draw", [narrower, lambda trial: {"arch": "convnet"}, lambda trial: 1 / 0])
def test_another_space_under_the_same_name_is_refused(results, draw):
    check_space(before(results / "s"), SPACES["quick"])
    with pytest.raises(BadInput, match="the space of sweep s has changed since trial 0 .*--warm-start s") as wrong:
        check_space(before(results / "s"), Space(draw))
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("space", "quik", "unknown space 'quik'"),
        ("space", "/nowhere/mine.py:draw", "no file /nowhere/mine.py"),
        ("dataset", "folder:/nowhere", "/nowhere"),
    ],
)
def test_what_the_record_asks_for_and_cannot_be_names_the_record(results, refuses, name, value, says):
    """Nobody has given it now."""
    Record(results / "s" / "record.db", about={**ABOUT, "arguments": {**ARGUMENTS, name: value}}).close()
    said = refuses(arch_sweep.main, "--resume", "s", "--results", results)
    assert says in said
    assert f"{results / 's' / 'record.db'} asks for it, in `arguments`" in said


def test_a_zoo_teaches_without_its_losses(results):
    """It has no epochs of its own to compare by."""
    plain = {name: value for name, value in ARGUMENTS.items() if name not in ("space", "max_epochs")}
    Record(results / "s" / "record.db", about={**ABOUT, "arguments": plain}).close()
    assert "its epochs are others" in learned(results, SPACES["quick"]).words
    with pytest.raises(BadInput, match="has no search to go on with"):
        resumed(results)


def test_done_is_done(results):
    args, _ = resumed(results)
    folder = results / "s"
    (folder / "submission.csv").write_text("x")
    record = Record(folder / "record.db")
    record.phase_done("combine", {"submission.csv": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"})
    record.close()
    assert arch_sweep.nothing_left(args, before(folder))
    assert not arch_sweep.nothing_left(resumed(results, "--trials", "25")[0], before(folder))
    assert not arch_sweep.nothing_left(resumed(results, "--folds", "3")[0], before(folder))
    (folder / "submission.csv").write_text("y")
    assert not arch_sweep.nothing_left(args, before(folder)), "what it wrote is lost"


def test_what_is_done_says_what_would_go_on(results, command):
    folder = results / "s"
    (folder / "submission.csv").write_text("x")
    record = Record(folder / "record.db")
    record.phase_done("combine", {"submission.csv": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"})
    record.close()
    _, said, _ = command(arch_sweep.main, "--resume", "s", "--results", results, "--time-budget", "3h")
    assert said == "Sweep s is done. To go on with it, give --trials above 24.\n", "not a longer time, which was given"


def test_a_sweep_is_named_or_pointed_at(results):
    args, earlier = parse(["--resume", str(results / "s")])
    assert (args.results, args.name, earlier.folder) == (results, "s", results / "s")


def test_what_there_is_in_words(results):
    assert before(results / "s").words() == "24 trials have ended"
    record = Record(results / "s" / "record.db")
    record.trial_started(24, {"arch": "convnet"}, {}, {})
    record.rung(24, 0, {"budget": 0.625, "val_loss": 1.0, "val_error": 0.1}, {})
    record.trial_started(25, {"arch": "convnet"}, {}, {})
    record.close()
    assert before(results / "s").words() == "24 trials have ended; cut off were 24 (at 0.625 epochs), 25 (at 0 epochs)"


def learned(results, space: Space, **other):
    given = {"metric": "val_loss", "max_epochs": 16.0, "fingerprint": before(results / "s").fingerprint, **other}
    return warm_start.learn(before(results / "s"), space, **given)


def test_a_network_from_between_two_rungs_does_not_stand_in_the_way_of_the_finished_one(tmp_path):
    """A trial that goes on may end with a higher loss than it had where it was interrupted."""
    record = Record(tmp_path / "record.db", about={"arguments": {}, "data": {"fingerprint": "x"}})
    keeper = Keeper(str(tmp_path / "trials"), 12)
    for number, loss in enumerate((0.2, 0.3)):
        record.trial_started(number, {"arch": "convnet"}, {}, {})
        contents = dict.fromkeys(("model.safetensors", "probs.safetensors"), f"those of {number}".encode())
        digests = keeper.keep(number, loss, contents)
        end = ("interrupted", "the search ended") if number == 0 else ("complete", "")
        metrics = {"budget": 3.0, "val_loss": loss, "val_error": 0.1, "temperature": 1.0}
        record.rung(number, 1, metrics, digests, partial=number == 0, end=end)
    assert before(tmp_path).losses() == {1: 0.3}
    assert not keeper.wants(0, 0.21), "while it is trained without a break the better one stays"
    assert Keeper(str(tmp_path / "trials"), 12, before(tmp_path).losses()).wants(0, 0.21)


def test_a_new_sweep_learns_from_another(results, tmp_path):
    found = learned(results, SPACES["quick"])
    assert len(found.told) == 24
    assert "24 of its 24 trials with a result lie in this space, 0 do not. The best 3 are tried first." in found.words
    record = Record(tmp_path / "new.db")
    record.learn(found.told, found.start)
    record.close()
    trials, _ = read(results / "s" / "record.db")
    best = min((t for t in trials if t["state"] == "complete"), key=lambda t: abs(t["config"]["weight_decay"] - 0.01))
    seen = []
    for _ in range(2):  # and when it is resumed
        record = Record(tmp_path / "new.db")
        search = Search(SPACES["quick"], record, sampler=SEARCHERS["tpe"], scheduler=Asha(), rungs=RUNGS, trials=2)
        job = search.ask()
        seen.append((job.number, job.config, [(t.state, t.params) for t in search.study.trials[:24]]))
        search.close("cut off")
        record.close()
    assert seen[0] == seen[1]
    assert seen[0][0] == 0
    different = {key for key, value in seen[0][1].items() if best["config"].get(key) != value}
    assert different <= {"seed"}


def test_what_another_space_could_not_have_drawn_is_dropped_and_counted(results):
    trials, _ = read(results / "s" / "record.db")
    convnets = [t for t in trials if t["config"]["arch"] == "convnet" and t["config"]["optimizer"] == "adamw"]

    def only(trial) -> dict:
        drawn = SPACES["quick"].draw(trial)
        return {**drawn, "optimizer": "adamw"} if drawn["arch"] == "convnet" else {"arch": "nothing"}

    found = learned(results, Space(only))
    assert len(found.told) == len(convnets) > 0
    assert f"{len(convnets)} of its 24 trials with a result lie in this space, {24 - len(convnets)} do not" in found.words


def test_values_beyond_a_narrower_space_are_dropped(results, tmp_path, recwarn):
    def narrower(trial) -> dict:
        trial.suggest_float("weight_decay", 1e-3, 1e-2, log=True)
        return SPACES["quick"].draw(Within(trial))

    class Within:
        """Weight decay is drawn from a narrower range already."""

        def __init__(self, trial):
            self.trial = trial

        def __getattr__(self, name):
            return getattr(self.trial, name)

        def suggest_float(self, name, *arguments, **more):
            return self.trial.params[name] if name == "weight_decay" else self.trial.suggest_float(name, *arguments, **more)

    inside = [t for t in read(results / "s" / "record.db")[0] if 1e-3 <= t["config"]["weight_decay"] <= 1e-2]
    found = learned(results, Space(narrower))
    assert 0 < len(found.told) == len(inside) < 24
    assert not recwarn.list
    record = Record(tmp_path / "new.db")
    record.learn(found.told, found.start)
    search = Search(Space(narrower), record, sampler=SEARCHERS["tpe"], scheduler=Asha(), rungs=RUNGS, trials=2)
    assert 1e-3 <= search.ask().config["weight_decay"] <= 1e-2


@pytest.mark.parametrize(("other", "word"), [({"fingerprint": "0"}, "data"), ({"max_epochs": 4.0}, "epochs")])
def test_losses_that_cannot_be_compared_are_not_told(results, other, word):
    found = learned(results, SPACES["quick"], **other)
    assert found.told == []
    assert len(found.start) == 3
    assert f"its {word} are others, so its losses are not compared" in found.words


def test_explain(results, command):
    trials, _ = read(results / "s" / "record.db")
    stopped = next(t for t in trials if t["state"] == "stopped")
    status, said, _ = command(explain.main, str(results / "s"), stopped["number"])
    assert status == 0
    assert stopped["reason"] in said
    place, of = stopped["reason"].split()[1], stopped["reason"].split()[3]
    row = [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()][-1]
    assert row[3:5] == [place, of]
    better = [int(word.strip(",")) for word in row[7:] if word.strip(",").isdigit()]
    assert len(better) >= min(int(place) - 1, explain.NAMED)
    assert all(number < 24 for number in better)


def test_explain_does_not_compare_finalists_with_trials(results, command):
    before_it = command(explain.main, str(results / "s"), 23)[1]
    record = Record(results / "s" / "record.db")
    of = read(record.path)[0][3]
    record.trial_started(24, {**of["config"], "folds": 5, "fold": 1}, {}, {}, 3)
    record.rung(24, 0, {"budget": 4.0, "val_loss": -9.0, "val_error": 0.1}, {}, end=("complete", ""))
    record.close()
    said = command(explain.main, str(results / "s"), 24)[1]
    assert "It trains trial 3 again, a finalist, on fold 2 of 5." in said
    assert "After 4 epochs: loss -9.0000 on the images of its fold." in said
    assert "At its rungs" not in said
    assert (
        "A finalist: it promised most in the time that was left. Trained again as 24."
        in command(explain.main, str(results / "s"), 3)[1]
    )
    assert command(explain.main, str(results / "s"), 23)[1] == before_it


def test_explain_says_who_goes_on_all_the_same(tmp_path, command):
    record = Record(tmp_path / "record.db", about={"arguments": ARGUMENTS, "data": {"fingerprint": ""}})
    space = Space(lambda trial: {"lr": trial.suggest_float("lr", 1e-3, 1e-2)}, sure=3)
    search = Search(space, record, sampler=SEARCHERS["random"], scheduler=Asha(), rungs=RUNGS, trials=3)
    times = {"val_error": 0.1, "train_s": 1.0, "eval_s": 0.0, "interrupted": False}
    for loss in (1.0, 1.1, 1.2):
        assert search.hear(search.ask().number, {"budget": RUNGS[0], "val_loss": loss, **times})
    assert search.hear(2, {"budget": RUNGS[1], "val_loss": 0.5, **times})
    record.close()
    said = " ".join(command(explain.main, str(tmp_path), 2)[1].split())
    assert "It went on all the same, as a starting point that its space is sure of." in said


def test_explain_names_a_failure(tmp_path, command):
    about = {"arguments": ARGUMENTS, "data": {"fingerprint": ""}}
    record = Record(tmp_path / "record.db", about=about)
    search = Search(SPACES["quick"], record, sampler=SEARCHERS["random"], scheduler=Asha(), rungs=RUNGS, trials=1)
    search.hear(
        search.ask().number, {"failed": "ValueError: no (mine.py:3)", "trace": "Traceback:\n  mine.py, line 3\nValueError: no"}
    )
    record.close()
    _, said, _ = command(explain.main, str(tmp_path), 0)
    assert "Why: ValueError: no (mine.py:3)" in said
    assert "  mine.py, line 3" in said


@pytest.mark.parametrize(("arguments", "says"), [(("s", 99), "that sweep has the trials 0 to 23"), (("t", 0), "there are: s")])
def test_explain_refuses(results, refuses, arguments, says):
    assert says in refuses(explain.main, *arguments, "--results", results)
