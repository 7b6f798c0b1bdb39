"""Tests tell the truth: on a slow machine as on a fast one, and where something is missing."""

import ast
import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CLOCKS = {"monotonic", "perf_counter", "process_time", "pytest.mark.timeout"}
# Of a machine that gives no GPU, of one that has not what could be installed, and of a test that passes.
SKIPS = """
import pytest

@pytest.mark.parametrize("reason", ["needs a GPU, and torch sees none", "needs root: no mount"])
def test_given(reason):
    pytest.skip(reason)

@pytest.mark.skipif(True, reason="needs a browser: apt-get install chromium")
def test_marked():
    pass

def test_imported():
    pytest.importorskip("no_such_module")

@pytest.fixture
def absent():
    pytest.skip("no sshd")

def test_of_a_fixture(absent):
    pass

def test_passes():
    pass
"""


def read_clocks(path: Path) -> set[str]:
    """The clocks that a file reads, and limits of its own: the one limit, against hangs, is pytest's."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    return ({node.attr for node in nodes} | {ast.unparse(node) for node in nodes}) & CLOCKS


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.name)
def test_no_test_measures_time(path):
    """Seconds are for benchmarks: what takes long on one machine says nothing on another."""
    if path.name != Path(__file__).name:
        assert read_clocks(path) == set()


@pytest.mark.parametrize(("ci", "skipped", "wrong"), [("true", 2, 3), ("", 5, 0)])
def test_in_ci_only_what_a_machine_cannot_give_is_skipped(ci, skipped, wrong, pytester, monkeypatch):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ["XDG_CACHE_HOME"])  # which the inner conftest changes
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.makepyfile(SKIPS)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    outcomes = done.parseoutcomes()
    assert outcomes["passed"] == 1
    assert outcomes.get("skipped", 0) == skipped
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == wrong
