"""What a driver starts ends with it: Kaggle's client, and whatever else is tied to it."""

import os
import signal
import subprocess
import sys

import pytest
from running import runs, wait

from sweeps import tied
from sweeps.compete.client import Kaggle

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, {tied!r}, str(os.getpid()), "http.server", "0", "--bind", "127.0.0.1"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
print(child.pid, flush=True)
print(child.stdout.read1(8).decode().strip(), flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_it_ends_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-u", "-c", PARENT.format(tied=tied.__file__)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert parent.stdout.readline().strip() == "Serving", "the module runs"
    assert runs(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait(lambda: not runs(child))


def test_it_does_not_begin_for_another():
    done = subprocess.run([sys.executable, tied.__file__, "1", "json.tool", "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


def test_kaggles_client_is_tied(monkeypatch):
    seen = []

    class Stop(Exception):
        pass

    def popen(command, **more):
        seen.append(command)
        raise Stop

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Stop):
        Kaggle("flowers").submissions()
    assert seen[0][1:4] == [tied.__file__, str(os.getpid()), "kaggle"]
