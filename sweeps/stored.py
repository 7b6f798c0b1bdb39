"""The JSON files of a sweep's folder as they are read: sweep.json, ensemble.json, times.json."""

from collections.abc import Iterable
from pathlib import Path

from sweeps.choose.combine import ENSEMBLES
from trainable import files, stored
from trainable.record_file import ABOUT
from trainable.stored import (
    DIGESTS,
    DURATION,
    SCALAR,
    TEXT,
    YES_OR_NO,
    Damaged,
    Each,
    Later,
    Many,
    Maybe,
    number,
    one_of,
    whole,
)

SWEEP, ENSEMBLE = "sweep.json", "ensemble.json"
COMBINE = "restore it from a copy, or combine the sweep again: sweeps/ensemble.py"
ENDED = {"seconds": number(0), "trials": whole(), "cores_busy": number(0), "busy": Later(TEXT)}
SCORE = {"errors": whole(), "images": whole(1), "error": number(0, 1), "loss": Later(Maybe(number(0)), None)}
BEST = {"trial": whole(), "arch": TEXT, "judged": SCORE}
MEMBER = {
    **BEST,
    "sweep": Later(whole(), 0),
    "view": Later(whole(0, 999), 0),
    "seed": Later(whole(), 0),
    "unlabelled": Later(YES_OR_NO, False),
    **dict.fromkeys(("epochs", "of_epochs"), Later(number(above=0))),
    "full": Later(YES_OR_NO),
    "weight": number(0),
    "networks": Many(TEXT, 1),
    "ms_per_image": DURATION,
}
CASCADE = {
    "first": SCALAR,  # a member's name, once a trial's number
    "network": TEXT,
    "threshold": number(0),
    "share_passed_on": number(0, 1),
    "judged": SCORE,
    "ms_first": DURATION,
    "ms_per_image": DURATION,
}
SIZE = {"members": Many(whole(), 1), "names": Many(TEXT, 1), "judged": SCORE}
SIZE |= {"ms_one_network_each": DURATION, "ms_per_image": DURATION}
ABOUT_ENSEMBLE = {
    "judged_on": {"split": TEXT, "images": whole(1), "given": Later(YES_OR_NO)},
    "partly_trained": Later(Maybe({"networks": whole(), "taken": YES_OR_NO, "why": TEXT})),
    "unlabelled_taught": Later(YES_OR_NO, False),
    "method": one_of(ENSEMBLES),
    "temperature": Later(number(above=0), 1.0),
    "members": Many(MEMBER, 1),
    "judged": SCORE,
    "test": Later(Maybe(SCORE), None),
    "ms_per_image": DURATION,
    "best_single": BEST,
    "mean_errors_of_members": Later(number(0)),
    "methods": Later(Each({"members": whole(1), "judged": SCORE}), {}),
    "sizes": Later(Many(SIZE), []),
    "cascade": Later(Maybe(CASCADE), None),
    "submission": Later(Maybe(TEXT), None),
    # Digests: of the files of each network that is asked, and of what lies beside ensemble.json.
    "networks": Later(Each(DIGESTS), {}),
    "files": Later(DIGESTS, {}),
}
TIMES = Each({"ms_128": Later(DURATION)})


def sweep(folder: Path) -> dict:
    """The content of a sweep's sweep.json; raises Damaged."""
    return stored.read_json(folder / SWEEP, {**ABOUT, "ended": Later(ENDED)})


def ensemble(folder: Path) -> dict:
    """The content of the ensemble.json in a folder; raises Damaged."""
    path = folder / ENSEMBLE
    about = stored.read_json(path, ABOUT_ENSEMBLE, COMBINE)
    weights = [member["weight"] for member in about["members"]]
    if not 0 < sum(weights) < float("inf"):
        raise stored.wrong(str(path), "members.weight", weights, "weights with a sum above 0", COMBINE)
    return about


def write_sealed(path: Path, about: dict, beside: Iterable[str] = ()):
    """Write a JSON file with its own digest, and those of files `beside` it that are there."""
    there = {name: path.parent / name for name in beside}
    named = {name: files.digest(file) for name, file in there.items() if file.is_file()}
    about = {**about, **({"files": named} if named else {})}
    files.write_json(path, stored.sealed(about))


def verify_beside(folder: Path, name: str, about: dict) -> bytes:
    """The bytes of a file beside ensemble.json, as `about` says that they are; raises Damaged."""
    path = folder / name
    data = stored.content(path, mend=COMBINE)
    digest = about["files"].get(name)
    return stored.verify(data, digest, path, ENSEMBLE, COMBINE) if digest else data


def times(path: Path) -> dict:
    """Return measured times of networks; nothing where that cannot be read."""
    try:
        return stored.read_json(path, TIMES)
    except Damaged:
        return {}  # they are measured again


def verify_files(folder: Path, named: dict[str, str], named_in: str, mend: str = COMBINE) -> bool:
    """Return whether all files of a network are there.

    Raises:
        Damaged: one is there, and is not as it was written.
    """
    paths = {folder / name: digest for name, digest in named.items()}
    if not all(path.exists() for path in paths):
        return False
    for path, digest in paths.items():
        stored.verify(stored.content(path, mend=mend), digest, path, named_in, mend)
    return True
