"""From the networks of a finished search to ensemble.json and submission.csv."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from sweeps import stored
from sweeps.choose import kept
from sweeps.choose.cascade import cascade
from sweeps.choose.combine import Judged, by_size, choose, combined
from sweeps.choose.cost import latencies
from sweeps.choose.members import Member, Network, find, out_of_fold, predict_all
from sweeps.choose.partly import admitted
from sweeps.choose.scored import as_score, score
from trainable import files, scores
from trainable.datasets.container import Dataset, judging
from trainable.errors import BadInput
from trainable.ray_trial import in_view
from trainable.schema import Damaged
from trainable.submission import write_submission

SIZES = 8  # members of the largest ensemble in the table of sizes
TIMING = 0.3  # seconds a network and batch size
SUBMISSION = "submission.csv"
TIMES = "times.json"  # what each network was timed at, by the number of its trial


def combine(
    folders: Sequence[Path],
    data: Dataset,
    methods: list[str],
    places,
    warn: Callable[[str], None],
    max_latency: float | None = None,
    to: Path | None = None,
) -> dict | None:
    """Choose the best ensemble of one or several sweeps, score it once on test, predict the unlabelled images.

    The members are the finalists, judged out of fold on all labelled images, or on a val that the user gave; where there
    are none, the networks that the search left, judged on val. Writes `ensemble.json` and `submission.csv` into `to` (the
    first folder where nothing is said). Where a dataset has no unlabelled images, the submission is about its test images;
    where it has neither, there is none, and `warn` hears so.

    Args:
        places: the cpus, gpus and device of a trial, in a sweep at work: there a network that was damaged is left
            out and `warn` hears of it. None: it is refused.
        max_latency: milliseconds an image that the ensemble may take, in batches of 128.

    Returns what `ensemble.json` holds, or None if no trial left a network.

    Raises:
        BadInput: no network is as fast as `max_latency`; a sweep at work takes the fastest.
    """
    to = to or folders[0]
    members, labels, split = candidates(folders, data, warn if places else None)
    if not members:
        return None
    times = timed(members, places, warn)
    costs = [times[m.answering[0].digest] * len(asked(m, True)) for m in members]
    if places and max_latency is not None and max_latency < (least := min(costs)):
        # After a whole search a sweep is not given up for a limit that it cannot keep.
        warn(f"--max-latency {max_latency:g}: the fastest network takes {least:.3g} ms an image; it is taken alone.")
        max_latency = least
    taken, partly = admitted(members, labels, methods, [max_latency is None or ms <= max_latency for ms in costs])
    members = [members[i] for i in taken]
    one = [times[m.answering[0].digest] for m in members]
    probs = np.stack([m.val for m in members])
    judged, methods_judged, one_each = _choose(probs, labels, methods, members, one, max_latency)
    finalists = members if len(members[0].networks) > 1 else []
    alone = np.stack([m.alone for m in members])
    if one_each:
        members = [replace(member, val=member.alone) for member in members]
    chosen = [i for i in range(len(members)) if judged.weights[i] > 0]
    networks = {i: asked(members[i], one_each) for i in chosen}
    splits = {name: part for name in ("test", "unlabelled") if len(part := getattr(data, name))}
    said = _predictions([(members[i], networks[i]) for i in chosen], splits, places)
    answers = {
        name: combined(judged.method, np.stack([member[name] for member in said]), judged.weights[chosen], judged.temperature)
        for name in splits
    }
    predicted = next((name for name in ("unlabelled", "test") if name in splits), None)
    ms = sum(one[i] * len(networks[i]) for i in chosen)
    out_of = combined(judged.method, alone, judged.weights, judged.temperature)
    errors = [scores.errors(m.val, labels) for m in members]
    about = {
        "judged_on": {"split": split, "images": len(labels), **({"given": True} if data.val_given else {})},
        "partly_trained": partly,
        "unlabelled_taught": any(member.unlabelled for member in members),
        "method": judged.method,
        "temperature": judged.temperature,
        "members": [
            {
                **_about(members[i], labels),
                "weight": float(judged.weights[i]),
                "networks": [os.path.relpath(n.folder, to) for n in networks[i]],
                "ms_per_image": one[i] * len(networks[i]),
            }
            for i in chosen
        ],
        "judged": _score(judged),
        "test": score(answers["test"], data.test.labels) if "test" in splits else None,
        "ms_per_image": ms,
        "best_single": _about(members[int(np.argmin(errors))], labels),
        "mean_errors_of_members": float(np.mean(errors)),
        "methods": {j.method: {"members": j.members, "judged": _score(j)} for j in methods_judged},
        "sizes": _sizes(probs, labels, members, one),
        "cascade": _cascade(members, out_of, labels, one, chosen, to),
        "submission": predicted,
    }
    about["networks"] = _digests([*(n for i in chosen for n in networks[i]), *(m.answering[0] for m in members)], about, to)
    if finalists:
        kept.write(to, finalists, splits, one, split)
    if predicted:
        write_submission(to / SUBMISSION, data, splits[predicted], answers[predicted])
    else:
        warn(f"No {SUBMISSION}: {data.name} has no images to predict, neither unlabelled nor test.")
    stored.write_sealed(to / stored.ENSEMBLE, about, (kept.FILE, SUBMISSION))
    return about


def _digests(networks: Sequence[Network], about: dict, to: Path) -> dict[str, dict[str, str]]:
    """The digests of the files of the networks that `about` names, by the path that it names them by."""
    asked = {name for member in about["members"] for name in member["networks"]}
    asked |= {about["cascade"]["network"]} if about["cascade"] else set()
    found = {os.path.relpath(network.folder, to): network.named for network in networks}
    return {name: found[name] for name in sorted(asked)}


def candidates(
    folders: Sequence[Path], data: Dataset, leave_out: Callable[[str], object] | None = None
) -> tuple[list[Member], np.ndarray, str]:
    """The members to choose from, lowest cross-entropy first; the labels of the images that judge them, and their name.
    `leave_out` as in `members.find`."""
    whole = [(folder / "record.db").exists() for folder in folders]
    found = [
        out_of_fold(folder, data, leave_out) if there else kept.read(folder, data)
        for folder, there in zip(folders, whole, strict=True)
    ]
    labels, split = judging(data).labels, kept.GIVEN if data.val_given else kept.JUDGED
    if not any(found):
        labels, split = data.val.labels, "val"
        found = [find(folder, leave_out) for folder, there in zip(folders, whole, strict=True) if there]
    for folder, own in zip(folders, found, strict=False):
        if any(len(member.val) != len(labels) for member in own):
            raise Damaged(f"{folder}: what its networks said is not about the {len(labels):,} images {split}; copy it again")
    members = {}  # each once, were a sweep and a copy of it named
    for sweep, own in enumerate(found, start=1):
        for member in own:
            member = replace(member, sweep=sweep) if len(found) > 1 else member
            members.setdefault((member.answering[0].digest, member.view), member)
    return sorted(members.values(), key=lambda member: member.metrics["val_loss"]), labels, split


def timed(members: list[Member], places, warn: Callable[[str], None]) -> dict[str, float]:
    """Milliseconds an image in batches of 128 of each member's first network, by its digest.

    What was timed before is kept in the sweep's folder. A network that cannot be timed counts as one that takes for ever.
    """
    firsts = [member.answering[0] for member in members]
    out = {network.digest: network.ms for network in firsts if isinstance(network, kept.Said)}
    by_folder: dict[Path, list[Network]] = {}
    for network in firsts:
        if network.digest not in out:
            by_folder.setdefault(network.folder.parent, []).append(network)
    for where, networks in by_folder.items():
        path = where.parent / TIMES
        known = stored.times(path)
        key = {n.number: f"{n.number}-{n.digest[:16]}" for n in networks}
        new = [n for n in networks if key[n.number] not in known]
        measured = dict(zip((key[n.number] for n in new), latencies(new, places, warn, TIMING), strict=True))
        known |= {name: times for name, times in measured.items() if times}  # others are measured again next time
        if new:
            with suppress(OSError):  # a folder that cannot be written: they are measured again next time
                files.write_json(path, known)
        out |= {n.digest: known.get(key[n.number], {}).get("ms_128", np.inf) / 128 for n in networks}
    return out


def _choose(probs, labels, methods, members, one, max_latency) -> tuple[Judged, list[Judged], bool]:
    """The ensemble to take, every method's, and whether it has one network a member, for the sake of time."""
    taken, judged = choose(probs, labels, methods)
    if max_latency is None:
        return taken, judged, False
    for one_each in (False, True):
        costs = [ms * len(asked(member, one_each)) for ms, member in zip(one, members, strict=True)]
        said = np.stack([member.alone for member in members]) if one_each else probs
        fitting = [j for _, j in by_size(said, labels, costs, max_latency)]
        if fitting:
            return min(fitting, key=lambda j: j.loss), judged, one_each
    least = min(ms * len(asked(member, True)) for ms, member in zip(one, members, strict=True))
    raise BadInput(f"--max-latency {max_latency:g}: the fastest member takes {least:.3g} ms an image; allow for more")


def asked(member: Member, one_each: bool) -> tuple[Network, ...]:
    """The networks of a member that predict; one alone only where it is there, and not what all of them said together."""
    alone = one_each and not isinstance(member.answering[0], kept.Said)
    return member.answering[:1] if alone else member.answering


def _predictions(members: list[tuple[Member, Sequence[Network]]], splits, places) -> list[dict[str, np.ndarray]]:
    """What each member says of each split: the mean of those of its networks."""
    wanted = [(network, {in_view(name, member.view) for name in splits}) for member, networks in members for network in networks]
    predict_all([network for network, names in wanted if not names <= network.probs.keys()], splits, places)
    return [
        {name: np.mean([member.said(network, name) for network in networks], axis=0) for name in splits}
        for member, networks in members
    ]


def _sizes(probs, labels, members: list[Member], one: list[float]) -> list[dict]:
    """The best ensemble of each size, its members equally weighed, and what it costs."""
    alike = Counter(member.name for member in members)
    names = [f"{m.name} ({m.metrics['budget']:.3g} epochs)" if alike[m.name] > 1 else m.name for m in members]
    names = [name if m.full else f"{name} (partly trained)" for name, m in zip(names, members, strict=True)]
    return [
        {
            "members": [members[i].trial for i in chosen],
            "names": [names[i] for i in chosen],
            "judged": _score(judged),
            "ms_one_network_each": sum(one[i] for i in chosen),
            "ms_per_image": sum(one[i] * len(members[i].answering) for i in chosen),
        }
        for chosen, judged in by_size(probs, labels, [0.0] * len(members), largest=SIZES)
    ]


def _cascade(
    members: list[Member], large: np.ndarray, labels: np.ndarray, one: list[float], chosen: Sequence[int], to: Path
) -> dict | None:
    """The fastest cascade before the ensemble of those `chosen`, one network of each: over the members that may answer first.

    These see images as they are, for so the first network is asked. None before a single member.

    Args:
        large: what the chosen ones say together, one network of each.
    """
    firsts = [i for i, member in enumerate(members) if not member.view] if len(chosen) > 1 else []
    if not firsts:
        return None
    large_ms = sum(one[i] for i in chosen)
    found = []
    for i in firsts:
        made = cascade(members[i].alone, large, labels)
        passed_on_ms = made.share * large_ms if made.share else 0.0  # and not 0 times infinity, of one that was not timed
        found.append((one[i] + passed_on_ms, i, made))
    ms, i, made = min(found, key=lambda item: item[:2])
    return {
        "first": members[i].name,
        "first_full": members[i].full,
        "first_judged": score(members[i].alone, labels),
        "network": os.path.relpath(members[i].answering[0].folder, to),
        "threshold": made.threshold,
        "share_passed_on": made.share,
        "judged": as_score(made.errors, len(labels), None),
        "ms_first": one[i],
        "ms_per_image": ms,
    }


def _about(member: Member, labels: np.ndarray) -> dict:
    return {
        "trial": member.trial,
        "sweep": member.sweep,
        "arch": member.arch,
        "view": member.view,
        "seed": member.seed,
        "unlabelled": member.unlabelled,
        "epochs": member.metrics["budget"],
        "of_epochs": member.epochs or member.metrics["budget"],
        "full": member.full,
        "judged": score(member.val, labels),
    }


def _score(judged: Judged) -> dict:
    return as_score(judged.errors, len(judged.wrong), judged.loss)
