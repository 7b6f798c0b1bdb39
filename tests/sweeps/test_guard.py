"""The guard: what a killed driver started ends, and nothing else. faults.md 1."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from running import runs, wait

from sweeps.search import guard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
DRIVER = f"""
import os, subprocess, sys, time
from pathlib import Path
from sweeps.search.guard import Guard

temp = Path(sys.argv[1])
guard = Guard(temp)
def sleeper(code={SLEEPER!r}, **more):
    process = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, **more)
    process.stdout.readline()
    return process.pid
with guard.marking():
    print(sleeper(), flush=True)
    print(sleeper(start_new_session=True), flush=True)
    # Its parent is gone, as is that of Ray's agents when the raylet has died.
    orphan = subprocess.run([sys.executable, "-c", '''
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", {SLEEPER!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid)
'''], stdout=subprocess.PIPE, text=True)
    print(orphan.stdout.strip(), flush=True)
print(sleeper(start_new_session=True), flush=True)  # started by the driver, and none of Ray's
print(guard._process.pid, flush=True)
(temp / f"session_2026-01-01_{{os.getpid()}}").mkdir()
(temp / f"session_2026-01-01_{{os.getpid()}}" / "log").touch()
(temp / f"session_2026-01-01_{{os.getpid()}}1").mkdir()
(temp / "session_latest").symlink_to(temp / f"session_2026-01-01_{{os.getpid()}}")
old = temp / f"session_2025-01-01_{{os.getpid()}}"
old.mkdir()
os.utime(old, (1, 1))
print("ready", flush=True)
if sys.stdin.readline().strip() == "dismiss":
    guard.dismiss()
    print("dismissed", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def driver(tmp_path):
    """A driver with three marked processes, one that is not, and the guard: (driver, marked, stranger, guard)."""
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    *marked, stranger, watcher = (int(process.stdout.readline()) for _ in range(5))
    assert process.stdout.readline() == "ready\n"
    assert all(map(runs, (*marked, stranger, watcher)))
    yield process, marked, stranger, watcher
    for pid in (process.pid, *marked, stranger, watcher):
        if runs(pid):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def test_what_a_killed_driver_started_ends_and_nothing_else(driver, tmp_path):
    process, marked, stranger, watcher = driver
    process.kill()
    wait(lambda: not runs(watcher))
    assert not any(map(runs, marked)), "SIGTERM does not end these"
    assert runs(stranger), "it is not Ray's"
    names = {path.name for path in tmp_path.iterdir()}
    others = {f"session_2026-01-01_{process.pid}1", f"session_2025-01-01_{process.pid}"}
    assert names == others, "another process's session, and that of an earlier owner of the id, stay"


def test_a_signal_to_the_drivers_terminal_does_not_reach_the_guard(driver):
    process, marked, _, watcher = driver
    assert os.getsid(watcher) == watcher
    os.kill(watcher, signal.SIGINT)
    os.kill(watcher, signal.SIGHUP)
    process.kill()
    wait(lambda: not any(map(runs, marked)))


def test_a_driver_that_has_ended_ray_itself(driver, tmp_path):
    """What is left is ended; Ray's logs stay, as without a guard."""
    process, marked, stranger, watcher = driver
    process.stdin.write("dismiss\n")
    process.stdin.flush()
    assert process.stdout.readline() == "dismissed\n"
    assert not runs(watcher)
    assert not any(map(runs, marked))
    assert runs(stranger)
    assert (tmp_path / f"session_2026-01-01_{process.pid}" / "log").exists()


def test_the_mark_is_on_nothing_that_comes_after(monkeypatch, tmp_path):
    monkeypatch.setenv("SPT_NOENV", "mine")
    own = guard.Guard(tmp_path)
    with own.marking():
        assert os.environ[guard.MARK] == own.mark
        assert guard.end_marked(own.mark, 0) == 0, "this process began without it"
    assert guard.MARK not in os.environ
    assert os.environ["SPT_NOENV"] == "mine"
    own.dismiss()
    assert own._process.returncode == 0


def test_without_proc_there_is_no_guard(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    own = guard.Guard(tmp_path)
    with own.marking():
        pass
    own.dismiss()
    assert own._process is None
