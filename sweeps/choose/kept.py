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
import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.choose.members import Member, Network
from trainable import files
from trainable.datasets.tables import parquet
from trainable.errors import BadInput
from trainable.ray_trial import in_view

FILE = "predictions.parquet"
JUDGED = "out of fold"  # the split that judges finalists
GIVEN, OF_ONE = "val", "val of one"  # where the user gave it
FIELDS = ("trial", "arch", "metrics", "unlabelled", "view", "seed")  # of a member, kept as they are
LEAST = 1e-7  # a probability counts as at least so much


@dataclass(frozen=True)
class Said(Network):
    """A network of which no more is there than what it said."""

    ms: float  # an image, in batches of 128, as it was measured
    probs: dict[str, np.ndarray]


def write(folder: Path, members: Sequence[Member], splits: Iterable[str], ms: Sequence[float], judged: str = JUDGED):
    """What the members said of the images that judge them, the split `judged`, and of these splits; `ms` one network of each
    takes an image."""
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
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd", compression_level=9)
    files.write(folder / FILE, buffer.getvalue())


def read(folder: Path) -> list[Member]:
    """The members that `write` was given; their networks are not there, only what they said.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        table = parquet(folder / FILE)
        table_about = json.loads(table.schema.metadata[b"members"])
        frame = table.to_pandas()
    except BadInput:
        raise
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as wrong:
        raise BadInput(f"{folder / FILE} cannot be read ({type(wrong).__name__}); copy it again") from wrong
    logs = [name for name in frame if name.startswith("logp_")]
    out = []
    for i, about in enumerate(table_about):
        mine = frame[frame["member"] == i].groupby("split", observed=True)
        said = {split: _probs(rows[logs].to_numpy(np.float32)) for split, rows in mine}
        val = said.pop(JUDGED if JUDGED in said else GIVEN)
        one = said.pop(OF_ONE, None)
        probs = {in_view(split, about["view"]): values for split, values in said.items()}
        where = folder / "trials" / str(about["number"])
        network = Said(about["number"], about["arch"], where, about["temperature"], about["digest"], about["ms"], probs)
        out.append(
            Member(networks=(network,) * about["networks"], val=val, val_of_one=one, **{name: about[name] for name in FIELDS})
        )
    return out


def _probs(logs: np.ndarray) -> np.ndarray:
    """Rows sum to 1 again."""
    probs = np.exp(logs)
    return probs / probs.sum(axis=1, keepdims=True)
