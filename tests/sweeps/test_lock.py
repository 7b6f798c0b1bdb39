"""One driver a sweep."""

import os
import socket

import pytest

from sweeps.lock import Held, Lock
from trainable.errors import BadInput


def bound(path):
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(path.parent)  # its address has 108 bytes at most
        one.bind(path.name)


def test_a_lock_is_held_once(tmp_path):
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    first.take()
    with pytest.raises(Held, match=f"has a driver at work \\(process {os.getpid()} on "):
        second.take()
    first.release()
    second.take()
    second.release()


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        bound,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("no/where"),
        lambda path: path.symlink_to(path),
    ],
    ids=["fifo", "folder", "socket", "device", "dangling", "loop"],
)
def test_what_is_no_file_cannot_be_locked(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "lock")
    with pytest.raises(BadInput, match="lock should be a regular file; delete what lies there") as no:
        Lock(tmp_path / "lock").take()
    assert not isinstance(no.value, Held)
