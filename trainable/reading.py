"""Files that somebody else wrote: opened only if they are regular files, read only if there is memory for what they hold.

All that is read of a user's data comes through here. `opened` keeps out whatever can hang or has no end (a FIFO, a device, a
socket, a link to one); `require` compares a size, known before it is read, with the memory that is free.
"""

import errno
import lzma
import os
import resource
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trainable.errors import BadInput

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
SETTINGS = 1 << 20  # bytes that a file of settings has at most; competition.toml has 100
# Errors of zipfile for damaged content. RuntimeError: a member needs a password or, as
# NotImplementedError, a compression method that Python lacks.
UNZIPPABLE = (ValueError, RuntimeError, OverflowError, EOFError, zlib.error, lzma.LZMAError)
ENTRY = 600  # bytes of memory for an entry of a zip file's directory, of 46 bytes or more
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
REMEDY = "take fewer or smaller files, or a machine with more memory"


def opened(path: Path | str) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: it is no regular file, or cannot be opened; `strerror` says so.
    """
    # Looked at twice: opening a device may do something, and what lies there may change before it is opened.
    _check_regular(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(about: os.stat_result, path: Path | str):
    kind = stat.S_IFMT(about.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {KINDS.get(kind, 'no file')}, and should be a regular file", str(path))


def size_of(file: BinaryIO) -> int:
    """The bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def read(path: Path | str, times: float = 1.0, most: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        times: the memory that is needed, its content included, as a multiple of its size.
        most: the bytes that a file of this kind can have.

    Raises:
        OSError: as `opened` does.
        BadInput: it is larger than it can be, or there is not so much memory.
    """
    with opened(path) as file:
        size = size_of(file)
        if most is not None and size > most:
            raise BadInput(f"{path} has {size:,} bytes; a file of its kind has {most:,} at most")
        require(times * size, path)
        return file.read(size)


def require(needed: float, what: Path | str, remedy: str = REMEDY):
    """Raises BadInput unless so many bytes of memory are free."""
    if needed > (there := free()):
        raise BadInput(f"{what} would need {needed / 1e9:,.1f} GB of memory, and {there / 1e9:,.1f} GB are free; {remedy}")


def free() -> int:
    """The bytes of memory that this process can still take: as the machine, its container and its own limits let it."""
    return max(0, min([_of_machine(), *_of_containers(), *_of_limits()]))


def _of_machine() -> int:
    try:
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:  # not Linux
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_containers() -> Iterator[int]:
    """Limits of each control group of this process, version 1 or 2, and of those around it."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = CGROUPS / controllers
        limit, used, cached = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        folder = root / inside.lstrip("/")
        for one in (folder, *folder.parents):
            if not one.is_relative_to(root):
                break
            try:
                most, now = (int((one / name).read_text()) for name in (limit, used))
                about = dict(entry.split() for entry in (one / "memory.stat").read_text().splitlines())
                yield most - now + int(about.get(cached, 0))
            except (OSError, ValueError):  # there is none, or no limit ("max")
                continue


def _of_limits() -> Iterator[int]:
    """Limits that `ulimit` sets for this process."""
    try:
        total, _, _, _, _, data, _ = (int(n) * resource.getpagesize() for n in (PROC / "self" / "statm").read_text().split())
    except OSError:
        return
    for kind, used in ((resource.RLIMIT_AS, total), (resource.RLIMIT_DATA, data)):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - used


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file, open. The sizes that its directory names are the most that its members give.

    Raises:
        OSError: as `opened` does.
        zipfile.BadZipFile: it is none, its members share bytes, which multiplies what they unpack
            to, or a member that is read is damaged, encrypted or compressed in an unknown way.
        BadInput: its directory would need more memory than there is.
    """
    try:
        with opened(path) as file:
            end = zipfile._EndRecData(file)  # no public way tells how large the directory is before it is read
            if end:
                require(ENTRY / 46 * end[5], path)
            with zipfile.ZipFile(file) as whole:
                if (len(whole.infolist()) - end[4]) % 65_536:  # the count has 16 bits
                    raise zipfile.BadZipFile("its directory lacks members")
                if sum(member.compress_size for member in whole.infolist()) > size_of(file):
                    raise zipfile.BadZipFile("its members overlap")
                yield whole
    except BadInput:
        raise
    except UNZIPPABLE as wrong:
        raise zipfile.BadZipFile(str(wrong) or type(wrong).__name__) from wrong
