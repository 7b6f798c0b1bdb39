"""Is this file what the competition takes?"""

import csv
import io
from pathlib import Path

from trainable import reading
from trainable.datasets import Dataset
from trainable.datasets.competition import ROW
from trainable.errors import BadInput


def check(path: Path, data: Dataset):
    """Raises BadInput, in one line, unless the file has the two columns, a row for each image to predict, in their order, and
    labels that there are."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with reading.opened(path) as file:
            reading.require(ROW / 4 * reading.size_of(file), path)
            rows = list(csv.reader(io.TextIOWrapper(file, "utf-8", newline="")))
    except FileNotFoundError as missing:
        raise BadInput(f"there is no {path}; a sweep that has ended writes it") from missing
    except OSError as wrong:
        raise BadInput(f"{path} cannot be read as a CSV: {wrong.strerror}") from wrong
    except (UnicodeDecodeError, csv.Error) as wrong:
        raise BadInput(f"{path} cannot be read as a CSV: {wrong}") from wrong
    header, ids, classes = [data.id_column, data.label_column], list(map(str, data.unlabelled.ids.tolist())), set(data.classes)
    if not rows:
        raise BadInput(f"{name} is empty; it should have the columns {', '.join(header)} and {len(ids):,} rows")
    if rows[0] != header:
        raise BadInput(f"{name} has the columns {', '.join(rows[0])}; they should be {', '.join(header)}")
    body = rows[1:]
    if len(body) != len(ids):
        raise BadInput(f"{name} has {len(body):,} rows; it should have {len(ids):,}, one for each image to predict")
    for number, (row, wanted) in enumerate(zip(body, ids, strict=True), start=1):
        if len(row) != 2:
            raise BadInput(f"{name}, row {number}: it has {len(row)} values; it should have two")
        if row[0] != wanted:
            raise BadInput(f"{name}, row {number}: {header[0]} is {row[0]!r}; it should be {wanted!r}, as in the sample")
        if row[1] not in classes:
            known = ", ".join(data.classes[:12]) + (" ..." if len(data.classes) > 12 else "")
            raise BadInput(f"{name}, row {number}: {header[1]} is {row[1]!r}; it should be one of {known}")
