import csv
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from trainable.datasets import DATASETS, READERS, default_dataset, digit_recognizer, known, load
from trainable.datasets.container import Split, all_labels, cut
from trainable.datasets.shape import recolour, reshape
from trainable.errors import BadInput

PIXELS = [f"pixel{i}" for i in range(784)]


def rows(n: int, seed: int = 0) -> list[list[int]]:
    return np.random.default_rng(seed).integers(0, 256, (n, 784)).tolist()


def text(header: list[str], body: list[list]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(body)
    return out.getvalue()


TRAIN = text(["label", *PIXELS], [[i % 10, *row] for i, row in enumerate(rows(60))])
TEST = text(PIXELS, rows(7, seed=1))


def put_csv(folder, train=TRAIN, test=TEST):
    for name, content in (("train.csv", train), ("test.csv", test)):
        if content is not None:
            (folder / name).write_text(content)


def put_zip(folder, **contents):
    with zipfile.ZipFile(folder / "digit-recognizer.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in ({"train": TRAIN, "test": TEST} | contents).items():
            archive.writestr(f"{name}.csv", content)


def test_the_sample(sample):
    assert [len(s) for s in (sample.train, sample.val, sample.test, sample.unlabelled)] == [8500, 1500, 2000, 0]
    assert sample.in_shape == (1, 28, 28)
    assert sample.train.images.dtype == np.uint8
    ids = np.concatenate([s.ids for s in (sample.train, sample.val, sample.test)])
    assert len(set(ids)) == 12000
    assert (np.bincount(sample.val.labels) == 150).all()
    assert (np.bincount(sample.test.labels) == 200).all()
    pixels = sample.train.images / 255
    assert sample.mean == pytest.approx([pixels.mean()])
    assert sample.std == pytest.approx([pixels.std()])
    assert sample.fingerprint == load("digits-sample").fingerprint
    # What finished sweeps have in their sweep.json.
    assert sample.fingerprint == "ec7fe0803caf1eecbb20bea15bd44669defe2dc09519f2544e26440593eaed1d"


@pytest.mark.parametrize("put", [put_csv, put_zip])
def test_digit_recognizer(put, tmp_path):
    put(tmp_path)
    data = load("digit-recognizer", tmp_path)
    assert [len(s) for s in (data.train, data.val, data.test, data.unlabelled)] == [50, 10, 0, 7]
    assert sorted(np.concatenate([data.train.ids, data.val.ids])) == list(range(1, 61))
    expected = np.array(rows(60), dtype=np.uint8).reshape(-1, 1, 28, 28)
    for split in (data.train, data.val):
        assert np.array_equal(split.images, expected[split.ids - 1])
        assert np.array_equal(split.labels, (split.ids - 1) % 10)
    assert data.unlabelled.ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.array_equal(data.unlabelled.images.reshape(7, 784), rows(7, seed=1))
    assert default_dataset(tmp_path)[0] == "digit-recognizer"
    assert data.fingerprint == "3383702aaa52bdb855a196849530b9f606ab9f719a470d145738e5724e2c6004"
    assert (data.id_column, data.label_column) == ("ImageId", "Label")


def test_second_start_reads_the_cache_until_the_files_change(tmp_path, monkeypatch):
    put_zip(tmp_path)
    first = load("digit-recognizer", tmp_path)
    parse = digit_recognizer._parse
    monkeypatch.setattr(digit_recognizer, "_parse", lambda sources: pytest.fail("the files were parsed again"))
    assert load("digit-recognizer", tmp_path).fingerprint == first.fingerprint
    monkeypatch.setattr(digit_recognizer, "_parse", parse)
    put_zip(tmp_path, train=text(["label", *PIXELS], [[i % 10, *row] for i, row in enumerate(rows(80))]))
    assert len(load("digit-recognizer", tmp_path).train) == 70


def test_a_cache_cut_short_is_read_anew(tmp_path):
    put_zip(tmp_path)
    first = load("digit-recognizer", tmp_path)
    (cache,) = (tmp_path / ".cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:1000])
    assert load("digit-recognizer", tmp_path).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (text(["label", *PIXELS[:-1]], [[1, *row[:-1]] for row in rows(3)]), TEST, "train.csv has 784 columns.*should have 785"),
        (TRAIN, text(["label", *PIXELS], [[1, *row] for row in rows(3)]), "test.csv has 785 columns.*should have 784"),
        (TRAIN.replace("\n1,", "\n11,", 1), TEST, "train.csv, label: a value is 11; it should be 0 to 9"),
        (TRAIN.replace("\n1,", "\n,", 1), TEST, "train.csv, label: a value is missing or not a whole number"),
        (TRAIN.replace("\n1,", "\nseven,", 1), TEST, "train.csv, label: a value is missing or not a whole number"),
        (TRAIN, text(PIXELS, [[256, *rows(1)[0][1:]]]), "test.csv, pixel0: a value is 256; it should be 0 to 255"),
        (TRAIN, text(PIXELS, [["NaN", *rows(1)[0][1:]]]), "test.csv, pixel0: a value is missing"),
        (TRAIN[:-700], TEST, "cannot read train.csv: .*[Ee]xpected 785 columns"),
        (TRAIN, None, "test.csv is missing; train.csv and test.csv belong together"),
        (text(["label", *PIXELS], []), TEST, "train.csv has no rows"),
        ("", TEST, "cannot read train.csv"),
        (text(["label", *PIXELS], [[0, *row] for row in rows(3)]), TEST, "class 1 has 0 labelled images"),
    ],
)
def test_bad_csv(train, test, says, tmp_path):
    put_csv(tmp_path, train, test)
    with pytest.raises(BadInput, match=says):
        load("digit-recognizer", tmp_path)


def test_bad_zip(tmp_path):
    with pytest.raises(BadInput, match="needs .*digit-recognizer.zip or .*train.csv"):
        load("digit-recognizer", tmp_path)
    assert default_dataset(tmp_path)[0] == "digits-sample"
    put_zip(tmp_path)
    path = tmp_path / "digit-recognizer.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="not a whole zip file"):
        load("digit-recognizer", tmp_path)
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:])
    with pytest.raises(BadInput, match="not a whole zip file"):
        load("digit-recognizer", tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BadInput, match=r"no train.csv and test.csv"):
        load("digit-recognizer", tmp_path)


def test_the_sample_cut_short(tmp_path):
    (tmp_path / "digits-sample.parquet").write_bytes(b"PAR1 and not much more")
    with pytest.raises(BadInput, match="git checkout"):
        load("digits-sample", tmp_path)


def test_unknown_dataset_lists_the_known():
    kinds = ", ".join([*DATASETS, "folder:PATH", "csv:PATH"])
    with pytest.raises(BadInput, match=rf"^unknown dataset 'cifar'; known: {kinds}; did you mean cifar10\?$"):
        load("cifar")
    assert all(name in known() for name in [*DATASETS, *READERS])


def test_another_shape(tiny):
    assert reshape(tiny, 28, 1) is tiny
    larger = reshape(tiny, (32, 40), 3)
    assert larger.in_shape == (3, 32, 40)
    assert [len(s) for s in (larger.train, larger.val, larger.test, larger.unlabelled)] == [512, 200, 200, 0]
    assert np.array_equal(larger.test.labels, tiny.test.labels)
    for n in (0, 199):  # within rounding of what PIL makes of it
        pil = Image.fromarray(tiny.test.images[n, 0]).resize((40, 32), Image.Resampling.BILINEAR)
        assert abs(larger.test.images[n].astype(int) - np.asarray(pil)).max() <= 1
    with pytest.raises(BadInput, match="image size is 2000, outside 4 to 1024"):
        reshape(tiny, 2000, None)
    with pytest.raises(BadInput, match="channels is 4; it should be 1"):
        reshape(tiny, None, 4)


def test_colour_becomes_grey_as_in_pil():
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 9, 9), dtype=np.uint8)
    pil = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in images]
    assert np.array_equal(recolour(images, 1)[:, 0], pil)
    assert np.array_equal(recolour(recolour(images, 1), 3)[:, 2], pil)


def test_cut_is_stratified_and_always_the_same():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    everything = Split(np.zeros((160, 1, 2, 2), np.uint8), labels, np.arange(160))
    rest, held = cut(everything, 0.1, classes=3)
    assert np.bincount(held.labels).tolist() == [10, 5, 1]
    assert sorted([*rest.ids, *held.ids]) == list(range(160))
    assert np.array_equal(held.ids, cut(everything, 0.1, classes=3)[1].ids)
    assert (np.diff(rest.ids) > 0).all()


def test_all_labels(sample):
    whole = all_labels(sample)
    assert [len(s) for s in (whole.train, whole.val, whole.test)] == [10000, 0, 2000]
    rows = {
        i: (image, label) for s in (sample.train, sample.val) for image, label, i in zip(s.images, s.labels, s.ids, strict=True)
    }
    for n in (0, 8499, 8500, 9999):
        image, label = rows[whole.train.ids[n]]
        assert np.array_equal(whole.train.images[n], image)
        assert whole.train.labels[n] == label
    assert whole.in_shape == (1, 28, 28)


def test_a_val_that_we_cut_is_not_given(sample):
    assert not sample.val_given
