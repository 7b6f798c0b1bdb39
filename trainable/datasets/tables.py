"""CSV files with an image a row: every value is checked."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pyarrow import compute

from trainable.errors import BadInput

LARGEST = 1 << 30  # bytes one CSV may have; Kaggle's has 77 million


def name_of(source: Path | io.BytesIO) -> str:
    return Path(source.name).name


def read(source: Path | io.BytesIO, text: tuple[str, ...] = ()) -> pa.Table:
    """The table in a file; the columns named in `text` are strings as they stand there.

    Raises:
        BadInput: it cannot be read, or has no rows.
    """
    try:
        # One block: a column's type is found from all of its values.
        table = pa.csv.read_csv(
            source,
            read_options=pa.csv.ReadOptions(block_size=LARGEST),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(text, pa.string())),
        )
    except (pa.ArrowException, OSError) as wrong:
        raise BadInput(f"cannot read {name_of(source)}: {str(wrong).splitlines()[0][:200]}") from wrong
    if not table.num_rows:
        raise BadInput(f"{name_of(source)} has no rows")
    return table


def integers(column: pa.ChunkedArray, high: int, where: str) -> np.ndarray:
    """Raises BadInput unless every value is an integer in [0, high]."""
    if not pa.types.is_integer(column.type) or column.null_count:
        raise BadInput(f"{where}: a value is missing or not a whole number; it should be 0 to {high}")
    extremes = compute.min_max(column).as_py()
    for value in extremes.values():
        if not 0 <= value <= high:
            raise BadInput(f"{where}: a value is {value}; it should be 0 to {high}")
    return column.to_numpy()


def pixels(table: pa.Table, columns: list[str], file: str) -> np.ndarray:
    """uint8 [rows, columns]; raises BadInput unless every value is an integer in [0, 255]."""
    out = np.empty((table.num_rows, len(columns)), dtype=np.uint8)
    for i, name in enumerate(columns):
        out[:, i] = integers(table[name], 255, f"{file}, {name}")
    return out
