"""csv:PATH, with real files."""

import csv
import re

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from trainable.datasets import csv_file, load


def counts(dataset) -> list[int]:
    return [len(split) for split in (dataset.train, dataset.val, dataset.test, dataset.unlabelled)]


def save(folder, n: int):
    """0.png, 1.png, ... of random grey."""
    folder.mkdir(parents=True)
    for i in range(n):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"{i}.png")


def table(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return f"csv:{path}"


def pixel_rows(n: int, pixels: int, *before) -> list[list]:
    rng = np.random.default_rng(n)
    return [[*(part(i) for part in before), *rng.integers(0, 256, pixels)] for i in range(n)]


HEADER = ",".join(f"p{i}" for i in range(16))


def test_pixels(root, data):
    name = table(root / "mine.csv", f"Label,{HEADER}", rows := pixel_rows(20, 16, lambda i: f"c{i % 2 * 10}"))
    (root / "test.csv").write_text("of somebody else")
    dataset = load(name, data)
    assert (dataset.name, dataset.classes) == ("csv-mine", ("c0", "c10"))
    assert (dataset.id_column, dataset.label_column) == ("ImageId", "Label")
    assert counts(dataset) == [16, 4, 0, 0]
    for split in (dataset.train, dataset.val):
        assert split.ids.dtype == np.int64
        expected = np.array([rows[i - 1][1:] for i in split.ids])
        assert np.array_equal(split.images.reshape(-1, 16), expected)
        assert np.array_equal(split.labels, (split.ids - 1) % 2)
    assert load(name, data, image_size=8, channels=3).in_shape == (3, 8, 8)


def test_pixels_in_colour_with_ids_and_a_test(root, data):
    header = ",".join(f"p{i}" for i in range(75))
    table(root / "train.csv", f"{header},label,id", [[*row[2:], *row[:2]] for row in pixel_rows(9, 75, lambda i: i % 3, str)])
    table(root / "val.csv", f"id,label,{header}", pixel_rows(3, 75, lambda i: f"00{i}", lambda i: i))
    rows = pixel_rows(4, 75, lambda i: 10 * i)
    table(root / "test.csv", f"id,{header}", rows)
    dataset = load(f"csv:{root}", data)
    assert (dataset.name, dataset.id_column, dataset.label_column) == ("csv-my-flowers", "id", "label")
    assert counts(dataset) == [9, 3, 0, 4]
    assert dataset.unlabelled.ids.tolist() == [0, 10, 20, 30]
    assert dataset.val.ids.tolist() == ["000", "001", "002"]
    assert dataset.val.labels.tolist() == [0, 1, 2]
    assert np.array_equal(dataset.unlabelled.images.transpose(0, 2, 3, 1).reshape(4, 75), [row[1:] for row in rows])
    table(root / "test.csv", f"label,id,{header}", pixel_rows(4, 75, lambda i: 2, lambda i: i))
    assert counts(load(f"csv:{root}/train.csv", data)) == [9, 3, 4, 0]


@pytest.mark.parametrize("ending", [".png", ""])
@pytest.mark.parametrize("column", ["image", "Filename", "id"])
def test_files(ending, column, root, data):
    save(root / "train", 12)
    save(root / "pictures", 3)
    table(root / "train.csv", f"{column},width,label", [[f"{i}{ending}", 12, "ab"[i % 2]] for i in range(12)])
    table(root / "test.csv", column, [[f"pictures/{i}{ending}"] for i in range(3)])
    dataset = load(f"csv:{root}", data)
    assert counts(dataset) == [10, 2, 0, 3]
    assert dataset.id_column == column
    assert dataset.unlabelled.ids.tolist() == [f"pictures/{i}{ending}" for i in range(3)]
    for image, name, label in zip(dataset.train.images, dataset.train.ids, dataset.train.labels, strict=True):
        number = str(name).removesuffix(".png")
        assert np.array_equal(image[0], np.asarray(Image.open(root / "train" / f"{number}.png")))
        assert label == int(number) % 2


@pytest.mark.parametrize(
    ("header", "rows", "says"),
    [
        (f"y,{HEADER}", pixel_rows(4, 16, int), "mine.csv has no column label; it has y, p0, p1, p2, p3, p4 and 11 more"),
        ("label,a,b,c", [[1, 2, 3, 4]], "3 columns that are not the label, a, b, c; it should have side x side or 3 x side"),
        (f"label,{HEADER}", pixel_rows(4, 16, lambda i: 1), "mine.csv has one class only, '1'"),
        (f"label,{HEADER}", pixel_rows(4, 16, lambda i: i), "class 0 has 1 labelled images"),
        (f"label,{HEADER}", [[1, *[0] * 15, 256], [2] + [0] * 16], "mine.csv, p15: a value is 256; it should be 0 to 255"),
        (f"label,{HEADER}", [[1, *[0] * 15, 0.5], [2] + [0] * 16], "p15: a value is missing or not a whole number"),
        (f"label,{HEADER}", [["", *[0] * 16], [2] + [0] * 16], "mine.csv, label: row 1 has no value"),
        (f"label,{HEADER}", [[1, 2]], "cannot read mine.csv"),
        (f"label,{HEADER}", [], "mine.csv has no rows"),
        (f"label,label,{HEADER}", pixel_rows(4, 16, int, int), "two of its columns have the same name"),
        (f"id,label,{HEADER}", pixel_rows(4, 16, lambda i: 7, int), "mine.csv, id: '7' stands there 4 times"),
        ("file,label", [["x.png", 1], ["y.png", 2]], "names 'x.png', which is neither in .* nor in its folder mine/; 2 of 2 are"),
    ],
)
def test_csvs_that_cannot_be(header, rows, says, root, data):
    refused(table(root / "mine.csv", header, rows), data, says)


def test_no_csv_and_files_beside_that_do_not_fit(root, data):
    refused(f"csv:{root}", data, "there is no file")
    root.mkdir()
    refused(f"csv:{root}", data, re.escape(f"there is no file {root}/train.csv; it should be a CSV, or a folder with train.csv"))
    table(root / "train.csv", f"label,{HEADER}", pixel_rows(8, 16, lambda i: i % 2))
    table(root / "test.csv", f"label,{HEADER}", pixel_rows(2, 16, lambda i: 5))
    refused(f"csv:{root}", data, "test.csv has a class '5' that train has not")
    table(root / "test.csv", ",".join(f"q{i}" for i in range(16)), pixel_rows(2, 16))
    refused(f"csv:{root}", data, "test.csv should have the same 16 pixel columns as train.csv; it has q0, ")
    (root / "train.csv").write_bytes(b"\xff\xfe\x00")
    refused(f"csv:{root}", data, "cannot read train.csv")


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_more_than_the_largest_image(channels, root, data, monkeypatch):
    monkeypatch.setattr(csv_file, "LARGEST", 8)
    for side in (8, 9):
        pixels = channels * side * side
        name = table(
            root / f"{side}.csv",
            ",".join(["id", "label", *(f"p{i}" for i in range(pixels))]),
            pixel_rows(8, pixels, int, lambda i: i % 2),
        )
        if side == 8:
            assert load(name, data).in_shape == (channels, 8, 8)
    says = f"9.csv has {pixels} columns of pixels, for images of 9 x 9; a side should be 4 to 8"
    refused(name, data, says)


def test_a_val_of_the_users_own_is_said_to_be(root, data):
    name = table(root / "train.csv", f"label,{HEADER}", pixel_rows(20, 16, lambda i: i % 2))
    assert not load(name, data).val_given
    table(root / "val.csv", f"label,{HEADER}", pixel_rows(4, 16, lambda i: i % 2))
    given = load(name, data, image_size=8)
    assert given.val_given
    assert counts(given) == [20, 4, 0, 0]
