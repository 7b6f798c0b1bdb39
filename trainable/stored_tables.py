"""The reading of Parquet files that were written earlier: see stored.py."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import compute

from trainable.datasets import tables
from trainable.errors import BadInput
from trainable.schema import MEND, Damaged, Kind, Later
from trainable.stored import content, verify


def read_table(
    path: Path,
    columns: Mapping[str, Kind | Later] | None = None,
    digest: str = "",
    named_in: str = "",
    mend: str = MEND,
) -> pa.Table:
    """A Parquet file; the checksums of its pages are verified.

    Args:
        columns: that it must have, and the kind of each, of those below; a file may lack those
            that are Later.
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
    names = table.schema.names
    if len(set(names)) < len(names):
        raise Damaged(f"{path}: a column is there twice; {mend}")
    for name, kind in (columns or {}).items():
        if name not in names:
            if isinstance(kind, Later):
                continue
            raise Damaged(f"{path}: the column {name} is missing; {mend}")
        kind = kind.kind if isinstance(kind, Later) else kind
        if table.num_rows and not kind.fits(table[name]):  # without rows a column may have no type
            has = f"{table.schema.field(name).type}, {table[name].null_count} missing"
            raise Damaged(f"{path}: the column {name} has {has}; it should hold {kind.words}; {mend}")
    return table


def _column(words: str, of_type: Callable[[pa.DataType], bool], more: Callable[[pa.ChunkedArray], bool]) -> Kind:
    return Kind(words, lambda column: of_type(column.type) and more(column))


def _is_whole(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_null(kind)


def _is_number(kind: pa.DataType) -> bool:
    return _is_whole(kind) or pa.types.is_floating(kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_there(column: pa.ChunkedArray) -> bool:
    return not column.null_count


def _is_finite(column: pa.ChunkedArray) -> bool:
    return _is_there(column) and compute.all(compute.is_finite(column)).as_py()


# Kinds of columns.
TEXTS = _column("a text in every row", _is_text, _is_there)
FLAGS = _column("true or false in every row", pa.types.is_boolean, _is_there)
WHOLE = _column("a whole number in every row", _is_whole, _is_there)
WHOLE_OR_NOTHING = _column("whole numbers", _is_whole, lambda column: True)
FINITE = _column("a finite number in every row", _is_number, _is_finite)
NUMBERS = _column("numbers", _is_number, lambda column: True)
