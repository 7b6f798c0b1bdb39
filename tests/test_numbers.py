"""Numbers that a user writes: plain decimals within bounds, by one rule for every flag."""

import argparse
import inspect
import math

import numpy as np
import pytest

from sweeps import arch_sweep, arguments, distil, ensemble, explain, flags, submit, zoo
from trainable import again, errors, predict, train
from trainable.config import TrialConfig
from trainable.errors import BadInput, listed, number, positive, short

# What int() or float() would take, or nearly, and nobody means.
NO_NUMBERS = (
    "1_000",
    "١٢",
    "１２",
    " 5",
    "5 ",
    "5\n",
    "+5",
    "nan",
    "inf",
    "-inf",
    "Infinity",
    "0x10",
    "1e",
    "1e99999",
    "",
    "²",
    "9" * 5000,
)
NO_COUNTS = (*NO_NUMBERS, "1e3", "1.0", "5.", "-1", str(10**20))
NO_DURATIONS = ("1_0m", "١m", "１m", " 5m", "+5m", "5 m", "nanm", "infs", "1..5m", ".m", "m", "1h30")
NO_DURATIONS += ("1e400s", "9" * 400 + "d")


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("kind", [int, float])
def test_only_plain_decimals_are_numbers(kind, text):
    assert number(text, kind) is None


@pytest.mark.parametrize(("text", "value"), [("7", 7.0), ("007", 7.0), ("0.25", 0.25), (".5", 0.5), ("5.", 5.0), ("1e-3", 1e-3)])
def test_plain_decimals_are_numbers(text, value):
    assert number(text, float) == value


def test_counts_stay_exact():
    assert number("9007199254740993", int) == 9007199254740993


@pytest.mark.parametrize("text", NO_COUNTS)
def test_a_count_without_a_limit_of_its_own_has_one(text):
    with pytest.raises(argparse.ArgumentTypeError) as said:
        positive(int)(text)
    assert len(str(said.value)) < 200


def numeric(main, module) -> list[str]:
    """The flags of a command that take a number, from its parser."""
    found = []

    class Stop(Exception):
        pass

    def parse_args(self, *arguments):
        found.extend(a.option_strings[0] for a in self._actions if a.option_strings and a.type not in (None, errors.as_path))
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(errors.Parser, "parse_args", parse_args)
        entry = getattr(module, "parse", main)
        with pytest.raises(Stop):
            entry(*[[]] * len(inspect.signature(entry).parameters))
    return found


COMMANDS = {
    "arch_sweep": (arch_sweep.main, arguments),
    "zoo": (zoo.main, zoo),
    "ensemble": (ensemble.main, None),
    "distil": (distil.main, distil),
    "train": (train.main, train),
    "predict": (predict.main, predict),
}
FLAGS = [(name, flag) for name, (main, module) in COMMANDS.items() for flag in numeric(main, module)]
NEEDS = {"ensemble": ["S"], "distil": ["S"], "predict": ["N"]}


def test_the_flags_are_found():
    assert len(FLAGS) > 25
    assert ("arch_sweep", "--trials") in FLAGS
    assert ("train", "--epochs") in FLAGS


@pytest.mark.parametrize(("name", "flag"), FLAGS, ids=lambda value: value)
@pytest.mark.parametrize("text", ["1_0", "١", " 1", "+1", "nan", "inf", "9" * 5000, "1e3000"])
def test_every_flag_that_takes_a_number(refuses, name, flag, text):
    main, _ = COMMANDS[name]
    said = refuses(main, *NEEDS.get(name, []), f"{flag}={text}")
    assert f"argument {flag}: {short(repr(text))} is not a" in said
    assert len(said) < 300


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_durations(text):
    with pytest.raises(BadInput) as said:
        flags.seconds("time-budget", text)
    assert str(said.value).startswith(f"--time-budget {short(repr(text))} ")
    assert len(str(said.value)) < 200


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172800), ("30m1s", 1801)])
def test_durations_that_are_meant(text, seconds):
    assert flags.seconds("wait", text) == seconds


@pytest.mark.parametrize("flag", ["--time-budget", "--step-timeout"])
def test_durations_of_a_sweep(refuses, tmp_path, flag):
    assert f"{flag} '١m' is not a time" in refuses(
        arch_sweep.main, "--results", tmp_path, "--dataset", "digits-sample", flag, "١m"
    )


def test_duration_of_waiting(refuses):
    assert "--wait '1_0m' is not a time" in refuses(submit.main, "--pending", "--wait", "1_0m")


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("lr=1_000", "lr is '1_000', not a number"),
        ("lr= 1", "lr is ' 1', not a number"),
        ("lr=+1", "lr is '+1', not a number"),
        ("lr=１", "lr is '１', not a number"),
        ("lr=NaN", "lr is nan, not a number"),
        ("lr=Infinity", "lr is inf, not a number"),
        (f"lr=1{'0' * 400}", "lr is a number of more than 300 digits, outside 0 to 1000"),
        (f"lr={'9' * 5000}", "lr is '9999"),
        (f"lr={'[' * 100_000}", "lr is '[[["),
        ("batch_size=1e2", "batch_size is 100.0, not a whole number"),
        (f"batch_size={10**20}", "batch_size is 1e+20, outside 2 to 1048576"),
        ("clip=-1", "clip is -1, outside 0 to 1000000"),
        (f"{'k' * 5000}=1", "unknown key 'kkkk"),
        (f"arch{'x' * 5000}", "write KEY=VALUE"),
    ],
    ids=lambda value: value[:24],
)
def test_settings(refuses, tmp_path, pair, says):
    said = refuses(train.main, "--out", tmp_path / "out", "--set", pair)
    assert says in said
    assert len(said) < 500


VALUES = (10**400, -(10**5000), math.nan, math.inf, True, "1", None, np.array(1))


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_value_that_a_space_may_draw(value):
    with pytest.raises(BadInput, match="^lr is "):
        TrialConfig(lr=value)


@pytest.mark.parametrize("trial", ["1_0", "١", "²", "", "-1", "9" * 30, "9" * 5000])
def test_the_number_of_a_trial(tmp_path, refuses, trial):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "record.db").write_text("")
    with pytest.raises(BadInput) as said:
        again.recorded(f"s/{trial}", tmp_path)
    assert "write SWEEP/NUMBER" in str(said.value)
    assert "is not a whole number" in refuses(explain.main, "--results", tmp_path, "--", "s", trial)


@pytest.mark.parametrize("port", ["6_379", "١", " 1", "", "b", "0", "65536", "99999999999"])
def test_a_port(refuses, tmp_path, port):
    address = f"127.0.0.1:{port}"
    said = refuses(arch_sweep.main, "--results", tmp_path, "--dataset", "digits-sample", "--address", address)
    assert "that is no HOST:PORT" in said


def test_long_lists_are_cut_to_what_is_like_the_name():
    names = [f"network-{i:03}" for i in range(500)]
    said = listed(names, "network-417")
    assert said.startswith("network-417")
    assert said.endswith(" and 495 more")
    assert len(said) < 120
    assert listed(["a", "b"]) == "a, b"
    assert len(listed(["x" * 5000, *names])) < 200


def test_long_lists_of_a_message(refuses):
    said = refuses(train.main, "--arch", "resnet19")
    assert "did you mean resnet1" in said
    assert len(said) < 200
    said = refuses(train.main, "--set", "convnet.widht=3")
    assert "did you mean convnet.width?" in said
    assert len(said) < 250


def test_messages_are_one_line_of_printable_text(refuses):
    said = refuses(train.main, "--arch", "a\nb\x1b[31m\0c")
    assert said.isprintable() or said[:-1].isprintable()
    assert len(refuses(train.main, "--arch", "a" * 10**6)) < 400
