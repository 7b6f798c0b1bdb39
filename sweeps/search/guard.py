"""The guard: a process that outlives the driver for some seconds, and ends the Ray processes that the driver started.

A driver that is killed (-9) ends nothing itself. Its guard is there before Ray is, and reads from a pipe that the driver alone
holds open: however the driver ends, the kernel closes it. Ray's processes carry a mark of this driver in their environment, so
no other process is ever ended. They need not be descendants of anything: the raylet dies first, and its agents lose their parent.

As a process the guard runs this file by itself, with the standard library alone: it is ready in milliseconds.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

MARK = "SWEEP_DRIVER"  # a variable of the environment
# Ray's setproctitle would write a process's title over the environment that /proc shows.
KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}
ENDED = b"."  # from a driver that has ended Ray itself
LOOK = 0.1  # seconds between two looks at the processes
GRACE = 2.0  # seconds from SIGTERM to SIGKILL
QUIET = 2.0  # seconds without a marked process: one that was being started when the driver died would have shown up
LONGEST = 9.0  # seconds, all in all


@cache
def mark_of_driver() -> str:
    """The value of MARK in the processes of this driver."""
    return f"{os.getpid()}-{uuid.uuid4().hex}"


class Guard:
    """The driver's end.

    Args:
        temp: the folder in which Ray makes its session's folder.
    """

    def __init__(self, temp: str | Path):
        self.mark = mark_of_driver()
        self._process = None
        if sys.platform != "linux":  # no /proc to find processes by; there Ray's own ways must do
            return
        command = [sys.executable, "-I", "-S", __file__, self.mark, str(temp), str(os.getpid()), str(time.time())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # In a session of its own: neither Ctrl-C nor a signal to the driver's group reaches it.
        self._process = subprocess.Popen(command, cwd="/", start_new_session=True, **pipes)

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Mark the processes that are started within, and theirs; no other child of this process."""
        own = {MARK: self.mark, **KEEP_ENVIRONMENT}
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def dismiss(self):
        """Ray was shut down: let the guard look once for what that left, and end."""
        if not self._process:
            return
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(ENDED, timeout=LONGEST + 1)


def main(mark: str, temp: str, driver: str, since: str):
    """The guard's end: wait for the driver's, then end and remove what it left."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ended = sys.stdin.buffer.read() == ENDED
    end_all(mark, 0.0 if ended else QUIET)
    if not ended:
        remove_sessions(Path(temp), driver, float(since))


def end_all(mark: str, quiet: float):
    """SIGTERM, then SIGKILL, to every process with this mark, until there was none for `quiet` seconds."""
    began = last = time.monotonic()
    while (now := time.monotonic()) - began < LONGEST:
        if end_marked(mark, signal.SIGKILL if now - began > GRACE else signal.SIGTERM):
            last = time.monotonic()
        elif now - last >= quiet:
            return
        time.sleep(LOOK)


def end_marked(mark: str, number: int) -> int:
    """Send a signal to every process with this mark; how many there were. One that waits for its parent alone has none."""
    wanted, found = f"{MARK}={mark}".encode(), 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is another user's
            handle = os.pidfd_open(int(name))  # by which no later owner of its id gets the signal
            try:
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found += 1
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
    return found


def remove_sessions(temp: Path, driver: str, since: float):
    """Remove the folders of Ray's sessions that this driver began: their names end with its process id, which others had before.

    Ray's shared memory needs nothing: its file has no name from the beginning, and goes with the processes.
    """
    for folder in temp.glob(f"session_*_{driver}"):
        if folder.stat().st_mtime >= since:
            shutil.rmtree(folder, ignore_errors=True)
    latest = temp / "session_latest"
    if latest.is_symlink() and not latest.exists():
        latest.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
