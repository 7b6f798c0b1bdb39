"""The reading of Parquet files that were written earlier: see stored.py."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from trainable.datasets import tables
from trainable.errors import BadInput
from trainable.stored import MEND, Damaged, content, verify


def read_table(
    path: Path,
    columns: Mapping[str, str] | None = None,
    digest: str = "",
    named_in: str = "",
    mend: str = MEND,
) -> pa.Table:
    """A Parquet file; the checksums of its pages are verified.

    Args:
        columns: that it must have, and whether each holds "number"s, "text" or "any" values.
        digest: of the file, where `named_in` has it.

    Raises:
        Damaged: it is not as it was written.
    """
    if digest:
        verify(content(path, mend=mend), digest, path, named_in, mend)
    try:
        table = tables.parquet(path)
        table.validate(full=True)
    except BadInput:
        raise
    except Exception as error:  # the reader's own, of many kinds
        raise Damaged(f"{path} cannot be read ({type(error).__name__}); {mend}") from error
    for name, wanted in (columns or {}).items():
        if table.schema.names.count(name) != 1:
            raise Damaged(f"{path}: the column {name} is missing or there twice; {mend}")
        kind = table.schema.field(name).type
        if not _TYPES[wanted](kind):
            raise Damaged(f"{path}: the column {name} has {kind}; it should hold {wanted}; {mend}")
    return table


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


_TYPES = {"number": _is_number, "text": _is_text, "any": lambda kind: True}
