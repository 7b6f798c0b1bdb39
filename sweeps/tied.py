"""Processes that end with the one that started them, however that ends.

python sweeps/tied.py PARENT MODULE ...    runs a module as `python -m` does, tied to the process with the id PARENT
"""

import ctypes
import os
import runpy
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def tie(parent: int):
    """Let the kernel kill this process when the thread of `parent` that started it ends; elsewhere than on Linux do nothing."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    sys.path[0] = ""  # as `python -m` has it, in place of this file's folder
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
