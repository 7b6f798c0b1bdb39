"""The JSON files of a sweep's folder as they are read: sweep.json, ensemble.json, times.json."""

import math
from collections.abc import Iterable
from pathlib import Path

from sweeps.choose.combine import ENSEMBLES
from trainable import files, schema, stored
from trainable.record_file import ABOUT
from trainable.schema import (
    DIGESTS,
    OR_INFINITE,
    SCALAR,
    TEXT,
    TIME,
    YES_OR_NO,
    Both,
    Damaged,
    Each,
    Kind,
    Later,
    Many,
    Maybe,
    number,
    one_of,
    whole,
)

SWEEP, ENSEMBLE = "sweep.json", "ensemble.json"
COMBINE = "restore it from a copy, or combine the sweep again: sweeps/ensemble.py"
ENDED = {"seconds": TIME, "trials": whole(), "cores_busy": number(0), "busy": Later(TEXT)}
SCORE = Both(
    {"errors": whole(), "images": whole(1), "error": number(0, 1), "loss": Later(Maybe(number(0)), None)},
    Kind(
        "errors of so many images, and the error as their share",
        lambda v: math.isclose(v["error"], v["errors"] / v["images"], abs_tol=1e-6),
    ),
)
# Networks from before partly trained ones took part have no epochs.
BEST = {
    "trial": whole(),
    "arch": TEXT,
    "judged": SCORE,
    **dict.fromkeys(("epochs", "of_epochs"), Later(number(above=0), None)),
    "full": Later(YES_OR_NO, True),
}
MEMBER = {
    **BEST,
    "sweep": Later(whole(), 0),
    "view": Later(whole(0, 999), 0),
    "seed": Later(whole(), 0),
    "unlabelled": Later(YES_OR_NO, False),
    "weight": number(0, 1),
    "networks": Many(TEXT, 1),
    "ms_per_image": OR_INFINITE,
}
CASCADE = {
    "first": SCALAR,  # a member's name, once a trial's number
    "first_full": Later(YES_OR_NO, True),
    "network": TEXT,
    "threshold": OR_INFINITE,
    "share_passed_on": number(0, 1),
    "judged": SCORE,
    "first_judged": Later(SCORE),
    "ms_first": OR_INFINITE,
    "ms_per_image": OR_INFINITE,
}
SIZE = {"members": Many(whole(), 1), "names": Many(TEXT, 1), "judged": SCORE}
SIZE |= {"ms_one_network_each": OR_INFINITE, "ms_per_image": OR_INFINITE}
ABOUT_ENSEMBLE = {
    "judged_on": {"split": one_of(("out of fold", "val")), "images": whole(1), "given": Later(YES_OR_NO)},
    "partly_trained": Later(Maybe({"networks": whole(), "taken": YES_OR_NO, "why": TEXT})),
    "unlabelled_taught": Later(YES_OR_NO, False),
    "method": one_of(ENSEMBLES),
    "temperature": Later(number(above=0), 1.0),
    "members": Many(MEMBER, 1),
    "judged": SCORE,
    "test": Later(Maybe(SCORE), None),
    "ms_per_image": OR_INFINITE,
    "best_single": BEST,
    "mean_errors_of_members": Later(number(0)),
    "methods": Later(Each({"members": whole(1), "judged": SCORE}), {}),
    "sizes": Later(Many(SIZE), []),
    "cascade": Later(Maybe(CASCADE), None),
    "submission": Later(Maybe(one_of(("unlabelled", "test"))), None),
    # Digests: of the files of each network that is asked, and of what lies beside ensemble.json.
    "networks": Later(Each(DIGESTS), {}),
    "files": Later(DIGESTS, {}),
}
TIMES = Each({"ms_128": Later(OR_INFINITE)})


def sweep(folder: Path) -> dict:
    """The content of a sweep's sweep.json; raises Damaged."""
    return stored.read_json(folder / SWEEP, {**ABOUT, "ended": Later(ENDED)})


def ensemble(folder: Path) -> dict:
    """The content of the ensemble.json in a folder; raises Damaged."""
    path = folder / ENSEMBLE
    about = stored.read_json(path, ABOUT_ENSEMBLE, COMBINE)
    weights = [member["weight"] for member in about["members"]]
    if not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise schema.wrong(str(path), "members.weight", weights, "weights with the sum 1", COMBINE)
    images, judged_on = about["judged"]["images"], about["judged_on"]["images"]
    if images != judged_on:
        raise schema.wrong(str(path), "judged_on.images", judged_on, f"{images}, as judged.images is", COMBINE)
    asked = {name for member in about["members"] for name in member["networks"]}
    asked |= {about["cascade"]["network"]} if about["cascade"] else set()
    if about["networks"] and (unknown := asked - about["networks"].keys()):
        names = f"the digests of all networks that are asked, {min(unknown)!r} among them"
        raise schema.wrong(str(path), "networks", list(about["networks"]), names, COMBINE)
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
