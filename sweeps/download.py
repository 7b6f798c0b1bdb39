"""Get a competition's data from Kaggle, whole and checked.

python sweeps/download.py                      Digit Recognizer's, into data/
python sweeps/download.py flowers              another's, unpacked into data/flowers/
"""

import re
import sys
import time
from pathlib import Path

from sweeps.compete import archive
from sweeps.compete.client import Away, Kaggle, readable_by_others
from trainable import files
from trainable.datasets import DATA, DATASETS, digit_recognizer
from trainable.datasets.competition import FILE
from trainable.errors import BadInput, Parser, as_path, run, short

HOME = "digit-recognizer"


def main() -> int:
    args = parse(sys.argv[1:])
    return download(args.slug, args.data)


def download(slug: str, data: Path = DATA) -> int:
    """Into `data`; what lies there already stays. The exit status: 1 where Kaggle cannot be reached.

    Raises:
        BadInput: Kaggle refuses it, or what came is not what it should be; nothing of it stays then.
    """
    to = data / (f"{slug}.zip" if slug == HOME else slug)
    if to.exists():
        if slug == HOME:
            digit_recognizer.check(to)
        print(f"{to} is there already.")
        return 0
    data.mkdir(parents=True, exist_ok=True)
    if why := readable_by_others():
        print(why)
    part = data / f".{slug}.download"  # kept when it is cut off: the next call goes on with it
    part.mkdir(exist_ok=True)
    try:
        path = Kaggle(slug).download(part)
    except Away as wrong:
        print(f"download.py: {wrong}; call this again, and it goes on where it stopped", file=sys.stderr)
        return 1
    try:
        members = archive.check(path)
        if slug == HOME:
            digit_recognizer.check(path)
        digest, size = files.digest(path), path.stat().st_size
        if slug == HOME:
            path.replace(to)
        else:
            archive.unpack(path, to)
    finally:
        for left in part.iterdir():
            left.unlink()
        part.rmdir()
    files.write_json(data / f"{slug}.json", {"sha256": digest, "bytes": size, "downloaded": time.time(), "members": members})
    print(f"{to}: {len(members)} files, {sum(members.values()) / 1e6:.0f} MB, SHA-256 {digest}")
    if slug == HOME:
        print("Next: python sweeps/arch_sweep.py")
        return 0
    describe(slug, to)
    return 0


def describe(slug: str, folder: Path):
    """Write what a sweep must know of the competition, where the archive tells it, and say what to do next."""
    samples = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.csv") if "sample" in path.name.lower())
    if samples and not (folder / FILE).exists():
        files.write(folder / FILE, f'slug = "{slug}"\nsample = "{samples[0]}"\nmetric = "accuracy"  # or "error"\n')
        print(f"{folder / FILE} says where predictions go; see whether it is right.")
    elif not samples:
        print(f"No sample submission was found; write {folder / FILE} (README) before the first sweep.")
    kind = "csv" if (folder / "train.csv").exists() else "folder"
    print(f"Next: python sweeps/arch_sweep.py --dataset {kind}:{folder}")


def parse(arguments: list[str]):
    p = Parser(prog="download.py", description=__doc__.split("\n")[0])
    p.add_argument("slug", nargs="?", default=HOME, help="the last part of kaggle.com/competitions/SLUG")
    p.add_argument("--data", type=as_path, default=DATA, help="the folder that it comes into")
    args = p.parse_args(arguments)
    if args.slug != HOME and args.slug in DATASETS:
        raise BadInput(f"{args.slug}: data/{args.slug} is that dataset's own; there is nothing to download for it")
    if not re.fullmatch(r"\w[\w-]{0,99}", args.slug, re.ASCII):
        raise BadInput(
            f"{short(repr(args.slug))} is no competition's name, which is the last part of kaggle.com/competitions/SLUG"
        )
    return args


if __name__ == "__main__":
    run(main)
