"""Tables of the user's: CSV files with an image a row, of which every value is checked, and Parquet files.

They are read in blocks, so that memory is needed for little more than the result.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow import compute

from trainable import reading
from trainable.errors import BadInput

BLOCK = 8 << 20  # bytes that are parsed at a time; no row of up to WIDE columns is longer
WIDE = 1 << 16  # columns; Arrow needs 9 kB for each, whatever is in it
PER_COLUMN = 9_000  # bytes
TEXT = 60  # bytes of memory for a short text
MOST_COLUMNS = 3 * 1024 * 1024 + 16  # the pixels of the largest image, and some others
HEADER = 64 << 20  # bytes: the names of so many
STEP = 16 << 20  # bytes that are read before memory is asked for again
NO_NUMBER = re.compile(r"In CSV column #(\d+): CSV conversion error to int64")  # Arrow's words
WHOLE = re.compile(r"\s*\d{1,18}\s*", re.ASCII)


class Growth:
    """Memory for a table that grows while it is read; its size in memory is not known before.

    Args:
        what: for messages.
        times: memory needed beside what is read already, in multiples of its size.
    """

    def __init__(self, what: Path | str, times: float):
        self.what, self.times, self.size, self.asked = what, times, 0, STEP

    def add(self, size: int):
        """Count more bytes. Raises BadInput unless their need and one more STEP are free."""
        self.size += size
        if self.size > self.asked:
            self.asked = self.size + STEP
            reading.require(self.times * self.size + STEP, self.what)


class Table:
    """A CSV that is open, with its header read.

    Args:
        file: can seek to its beginning.
        name: for messages.
        size: bytes, all of them.

    Raises:
        BadInput: the header cannot be read.
    """

    def __init__(self, file: BinaryIO, name: str, size: int):
        self.file, self.name, self.size = file, name, size
        try:
            line = file.readline(HEADER + 1)
            if len(line) > HEADER or line.count(b",") >= MOST_COLUMNS:
                raise BadInput(f"{name}: its first line is no header; it should have {MOST_COLUMNS:,} columns at most")
            self.columns = next(csv.reader([line.decode("utf-8-sig")]), [])
        except (OSError, UnicodeDecodeError, csv.Error, EOFError) as wrong:
            raise BadInput(f"cannot read {name}: {wrong}") from wrong
        if not self.columns:
            raise BadInput(f"cannot read {name}: its first line is empty; it should have the names of the columns")

    def read(
        self, text: Sequence[str] = (), numbers: Mapping[str, int] | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The columns of these names, in these orders.

        Args:
            text: as they stand there.
            numbers: whole numbers from 0 to the value, 255 at most.

        Returns:
            The texts by column, and the numbers, uint8 [rows, columns].

        Raises:
            BadInput: it cannot be read, has no rows, a number is missing or wrong, or there is not enough memory.
        """
        numbers = numbers or {}
        # A number and its separator have two bytes at least; the blocks are joined at the end.
        reading.require((self.size if numbers else 0) + PER_COLUMN * min(len(self.columns), WIDE), self.name)
        self.file.seek(0)
        parts, texts = [], {column: [] for column in text}
        letters = Growth(self.name, times=4)  # NumPy has four bytes for each
        blocks = self._wide(text, numbers) if len(self.columns) > WIDE else self._narrow(text, numbers)
        try:
            for block, more in blocks:
                parts.append(block)
                for column in text:
                    texts[column] += more[column]
                    letters.add(sum(map(len, more[column])))
        except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error, EOFError) as wrong:
            if number := NO_NUMBER.search(str(wrong)):
                column = self.columns[int(number[1])]
                raise self._no_number(column, numbers[column]) from wrong
            raise BadInput(f"cannot read {self.name}: {self._reason(wrong)}") from wrong
        rows = sum(map(len, parts))
        if not rows:
            raise BadInput(f"{self.name} has no rows")
        return {column: self._array(texts[column], column) for column in text}, np.concatenate(parts)

    def _narrow(self, text: Sequence[str], numbers: Mapping[str, int]) -> Iterator[tuple[np.ndarray, dict[str, list[str]]]]:
        """The numbers and the texts of one block of rows after the other."""
        reader = pa.csv.open_csv(
            self.file,
            read_options=pa.csv.ReadOptions(block_size=BLOCK),
            convert_options=pa.csv.ConvertOptions(
                column_types={**dict.fromkeys(text, pa.string()), **dict.fromkeys(numbers, pa.int64())},
                include_columns=[*text, *numbers],
            ),
        )
        for batch in reader:
            reading.require(TEXT * batch.num_rows * len(text), self.name)
            block = np.empty((batch.num_rows, len(numbers)), dtype=np.uint8)
            for i, (column, high) in enumerate(numbers.items()):
                block[:, i] = self._integers(batch[column], column, high)
            yield block, {column: batch[column].to_pylist() for column in text}

    def _integers(self, values: pa.Array, column: str, high: int) -> np.ndarray:
        """Raises BadInput unless every value is there and in [0, high]."""
        if values.null_count:
            raise self._no_number(column, high)
        extremes = compute.min_max(values).as_py() if len(values) else {}
        for value in extremes.values():
            if not 0 <= value <= high:
                raise self._out_of_range(column, value, high)
        return values.to_numpy()

    def _wide(self, text: Sequence[str], numbers: Mapping[str, int]) -> Iterator[tuple[np.ndarray, dict[str, list[str]]]]:
        """As `_narrow` does, for many columns: a row after the other."""
        place = {column: i for i, column in enumerate(self.columns)}
        wanted, high = [place[column] for column in numbers], np.array(list(numbers.values()))
        longest = BLOCK + 16 * len(self.columns)

        def lines() -> Iterator[str]:
            self.file.readline()
            while line := self.file.readline(longest + 1):
                if len(line) > longest:
                    raise BadInput(f"{self.name} has a row of more than {longest >> 20} MB")
                yield line.decode()

        for row in filter(None, csv.reader(lines())):
            if len(row) != len(self.columns):
                raise BadInput(f"cannot read {self.name}: Expected {len(self.columns)} columns, got {len(row)}")
            fields = [row[i] for i in wanted]
            for column, field in zip(numbers, fields, strict=True):
                if not WHOLE.fullmatch(field):
                    raise self._no_number(column, numbers[column])
            values = np.array(list(map(int, fields)))
            for i in np.flatnonzero(values > high)[:1]:
                raise self._out_of_range(self.columns[wanted[i]], values[i], high[i])
            yield values.astype(np.uint8)[None], {column: [row[place[column]]] for column in text}

    def _no_number(self, column: str, high: int) -> BadInput:
        return BadInput(f"{self.name}, {column}: a value is missing or not a whole number; it should be 0 to {high}")

    def _out_of_range(self, column: str, value: int, high: int) -> BadInput:
        return BadInput(f"{self.name}, {column}: a value is {value}; it should be 0 to {high}")

    def _reason(self, wrong: Exception) -> str:
        """For people."""
        said = (str(wrong).splitlines() or [type(wrong).__name__])[0]
        return f"a row has more than {BLOCK >> 20} MB" if "straddling" in said else said[:200]

    def _array(self, values: list[str], column: str) -> np.ndarray:
        """NumPy gives every text as much room as the longest has."""
        longest = max(map(len, values))
        what = f"{self.name}, {column}, whose longest text has {longest:,} letters,"
        reading.require(4 * longest * len(values), what)
        return np.array(values, dtype=str)


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """The table in a file. Raises BadInput if that is no regular file, or cannot be read."""
    try:
        with reading.opened(path) as file:
            yield Table(file, path.name, reading.size_of(file))
    except OSError as wrong:
        raise BadInput(f"cannot read {path}: {wrong.strerror}") from wrong


def parquet(path: Path, columns: Sequence[str] | None = None, times: float = 2.0) -> pa.Table:
    """The table in a Parquet file.

    Args:
        times: memory that its user needs, the table included, in multiples of its size. By default
            the user copies it, as to_pandas() does.

    Raises:
        OSError, pa.ArrowException: it cannot be read, or lacks a column.
        BadInput: it would need more memory than there is.
    """
    with reading.opened(path) as file:
        source = pq.ParquetFile(file, page_checksum_verification=True)
        about, schema = source.metadata, source.schema_arrow
        if missing := set(columns or ()) - set(schema.names):
            raise pa.ArrowKeyError(f"there is no column {min(missing)}")
        kept = [i for i, name in enumerate(schema.names) if columns is None or name in columns]
        # A run of equal values takes a few bytes in the file; in memory each row has its own.
        widths = [schema.field(i).type.bit_width / 8 if _has_width(schema.field(i).type) else 8 for i in kept]
        reading.require(times * about.num_rows * sum(widths), path)
        batches, growth = [], Growth(path, times - 1)
        for batch in source.iter_batches(batch_size=1024, columns=columns):
            growth.add(sum(map(_size, batch.columns)))
            batches.append(batch)
        if not batches:
            return schema.empty_table().select([schema.names[i] for i in kept])
        return pa.Table.from_batches(batches).unify_dictionaries()


def _size(column: pa.Array) -> int:
    """Bytes in memory: a text that the file has once may stand in every row.

    A dictionary is not counted: batches share it.
    """
    return (column.indices if isinstance(column, pa.DictionaryArray) else column).nbytes


def _has_width(kind: pa.DataType) -> bool:
    try:
        return kind.bit_width > 0
    except ValueError:  # text, bytes, lists
        return False
