"""An archive from the net: looked at before anything of it is written."""

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from trainable import reading
from trainable.errors import BadInput

RATIO = 200  # a member may unpack to so many times its size; the competition's CSVs to nine times
LARGEST = 200 << 30  # bytes, all of it unpacked


def check(path: Path) -> dict[str, int]:
    """Its members' sizes in bytes. Raises BadInput unless it is a whole zip file of plain files that stay in their folder and
    unpack to what they can be meant to."""
    try:
        with reading.archive(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                _check(path, member)
            names = [member.filename for member in members]
            total = sum(member.file_size for member in members)
            if len(set(names)) < len(names):
                raise BadInput(f"{path.name} has a file twice; it is not unpacked")
            if total > LARGEST:
                raise BadInput(f"{path.name} would unpack to {total >> 30} GiB; it is not unpacked")
            for member in members:
                with archive.open(member) as file:  # to its end: its checksum is compared
                    while file.read(1 << 20):
                        pass
    except (zipfile.BadZipFile, OSError) as wrong:
        raise BadInput(f"{path.name} is not a whole zip file ({wrong}); download it again") from wrong
    if not members:
        raise BadInput(f"{path.name} is empty; download it again")
    return {member.filename: member.file_size for member in members}


def _check(path: Path, member: zipfile.ZipInfo):
    pure = PurePosixPath(member.filename.replace("\\", "/"))
    kind = stat.S_IFMT(member.external_attr >> 16)
    if not pure.parts or kind not in (0, stat.S_IFREG):  # no parts: "." or no name at all
        raise BadInput(f"{path.name}: {member.filename!r} is no plain file; nothing is unpacked")
    if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise BadInput(f"{path.name}: {member.filename!r} would be written outside of its folder; nothing is unpacked")
    if member.file_size > 1 << 20 and member.file_size > RATIO * member.compress_size:
        ratio = member.file_size / max(1, member.compress_size)
        raise BadInput(f"{path.name}: {member.filename!r} would unpack to {ratio:,.0f} times its size; nothing is unpacked")


def unpack(path: Path, to: Path):
    """Into a new folder `to`, whole or not at all; checked by `check` before."""
    room, needed = shutil.disk_usage(to.parent).free, sum(check(path).values())
    if needed > room:
        raise BadInput(f"{path.name} needs {needed / 1e9:.1f} GB, and {room / 1e9:.1f} are free; make room")
    part = to.with_name(f".{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with reading.archive(path) as archive:
            archive.extractall(part)
        part.rename(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
