"""What a sweep's finalists said of every image, in one file: enough to combine them again, without their networks.

`predictions.parquet` has a row for each member, split and image: `member` (from 0, lowest loss first), `trial` (whose
configuration it has), `split` (`out of fold`: the labelled images, train and val together; or `val` where the user gave
that, by the mean of its networks, and `val of one`, by the first of them; `test`, `unlabelled`: the mean of its networks),
`image` (row in the split), and `logp_0`, `logp_1`, ...: the natural logarithm of the calibrated probability of each class,
float16.
"""

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sweeps import stored
from sweeps.choose.members import Member, Network
from trainable import files
from trainable.datasets.container import Dataset
from trainable.ray_trial import in_view
from trainable.record_file import METRICS
from trainable.schema import OR_INFINITE, TEXT, YES_OR_NO, Damaged, Many, number, whole
from trainable.stored import from_json
from trainable.stored_tables import FINITE, TEXTS, WHOLE, read_table

FILE = "predictions.parquet"
JUDGED = "out of fold"  # the split that judges finalists
GIVEN, OF_ONE = "val", "val of one"  # where the user gave it
FIELDS = ("trial", "arch", "metrics", "unlabelled", "view", "seed")  # of a member, kept as they are
LEAST = 1e-7  # a probability counts as at least so much
ROUNDED = 0.05  # that a sum of probabilities can be off, for they are kept as float16
LOWEST = (1 + ROUNDED) * float(np.log(LEAST))
AGAIN = "copy it again"
ABOUT = {
    **dict.fromkeys(("trial", "view", "seed", "number"), whole()),
    **dict.fromkeys(("arch", "digest"), TEXT),
    "metrics": METRICS,
    "unlabelled": YES_OR_NO,
    "temperature": number(above=0),
    "ms": OR_INFINITE,
    "networks": whole(1, 100_000),
}


@dataclass(frozen=True)
class Said(Network):
    """A network of which no more is there than what it said."""

    ms: float  # an image, in batches of 128, as it was measured
    probs: dict[str, np.ndarray]


def write(folder: Path, members: Sequence[Member], splits: Iterable[str], ms: Sequence[float], judged: str = JUDGED):
    """Write what the members said of the images that judge them, and of these splits.

    Args:
        members: lowest loss first.
        splits: names of the others.
        ms: milliseconds that one network of each member takes an image.
        judged: the split that judges.
    """
    tables, about = [], []
    for i, member in enumerate(members):
        said = {judged: member.val} | ({} if member.val_of_one is None else {OF_ONE: member.val_of_one})
        said |= {name: np.mean([member.said(n, name) for n in member.answering], axis=0) for name in splits}
        for split, probs in said.items():
            logs = np.log(np.clip(probs, LEAST, 1)).astype(np.float16)
            rows = len(logs)
            columns = {"member": np.full(rows, i, np.int16), "trial": np.full(rows, member.trial, np.int32)}
            columns |= {"split": pa.array([split] * rows).dictionary_encode(), "image": np.arange(rows, dtype=np.int32)}
            tables.append(pa.table({**columns, **{f"logp_{c}": logs[:, c] for c in range(logs.shape[1])}}))
        first = member.answering[0]
        of_first = {"number": first.number, "digest": first.digest, "temperature": first.temperature, "ms": ms[i]}
        about.append({**{name: getattr(member, name) for name in FIELDS}, **of_first, "networks": len(member.answering)})
    table = pa.concat_tables(tables).unify_dictionaries()
    buffer = io.BytesIO()
    metadata = {**(table.schema.metadata or {}), b"members": json.dumps(about).encode()}
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, buffer, compression="zstd", compression_level=9, write_page_checksum=True)
    files.write(folder / FILE, buffer.getvalue())


def read(folder: Path, data: Dataset) -> list[Member]:
    """The members that `write` was given; their networks are not there, only what they said.

    Args:
        data: that the members predicted.

    Raises:
        BadInput: the file is not as it was written, or not about these data.
    """
    path = folder / FILE
    named = stored.ensemble(folder)["files"] if (folder / stored.ENSEMBLE).exists() else {}
    logs = [f"logp_{c}" for c in range(len(data.classes))]
    columns = {"member": WHOLE, "split": TEXTS, "image": WHOLE, **dict.fromkeys(logs, FINITE)}
    table = read_table(path, columns, named.get(FILE, ""), stored.ENSEMBLE, AGAIN)
    table_about = from_json((table.schema.metadata or {}).get(b"members", b""), Many(ABOUT, 1), f"{path}: members", AGAIN)
    frame = table.to_pandas()
    rows = {name: len(getattr(data, name)) for name in ("test", "unlabelled")}
    out = []
    for i, about in enumerate(table_about):
        mine = frame[frame["member"] == i].groupby("split", observed=True)
        said = {split: _probs(part, rows.get(split, len(part)), logs, f"{path}: member {i}") for split, part in mine}
        if not {JUDGED, GIVEN} & said.keys():
            raise Damaged(f"{path}: member {i} says nothing of the images that judge it; {AGAIN}")
        val = said.pop(JUDGED if JUDGED in said else GIVEN)
        one = said.pop(OF_ONE, None)
        if one is not None and len(one) != len(val):
            raise Damaged(f"{path}: member {i} has {len(one):,} images {OF_ONE}, and {len(val):,} that judge; {AGAIN}")
        probs = {in_view(split, about["view"]): values for split, values in said.items()}
        where = folder / "trials" / str(about["number"])
        network = Said(about["number"], about["arch"], where, about["temperature"], about["digest"], about["ms"], probs)
        out.append(
            Member(networks=(network,) * about["networks"], val=val, val_of_one=one, **{name: about[name] for name in FIELDS})
        )
    return out


def _probs(part: pd.DataFrame, rows: int, logs: list[str], where: str) -> np.ndarray:
    """A member's probabilities of a split; their rows sum to 1 again."""
    values, split = part[logs].to_numpy(np.float32), part["split"].iloc[0]
    if len(part) != rows or not np.array_equal(part["image"], np.arange(rows)):
        raise Damaged(f"{where} is not about the {rows:,} images of {split}, or damaged; {AGAIN}")
    probs = np.exp(values.clip(-80, 80))
    total = probs.sum(axis=1, keepdims=True)
    if values.min() < LOWEST or values.max() > 0 or np.abs(total - 1).max() > ROUNDED:
        limits = f"{LOWEST:.1f} to 0, of probabilities with the sum 1"
        raise Damaged(f"{where} has wrong values of logp for {split}; they should be {limits}; {AGAIN}")
    return probs / total
