"""One driver a sweep."""

import fcntl
import os
import socket
from pathlib import Path

from trainable.errors import BadInput


class Held(BadInput):
    """A lock that another process holds."""


class Lock:
    """Held from `take` until `release`, or until this process ends, however it ends: the kernel lets go of it.

    On one machine; on a file system that several share, as far as that one carries flock over.
    """

    def __init__(self, path: Path):
        self.path = path

    def take(self):
        """Take the lock.

        Raises:
            Held: another driver holds it.
            BadInput: something else than a file lies there.
        """
        if os.path.lexists(self.path) and not self.path.is_file():
            raise BadInput(f"{self.path} should be a regular file; delete what lies there")
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as wrong:
            who = os.pread(self._handle, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(self._handle)
            raise Held(f"{self.path.parent} has a driver at work ({who}); wait for it, or end it first") from wrong
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self):
        os.close(self._handle)
