"""folder:PATH, with real files."""

import itertools
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from trainable.datasets import folder, images, load
from trainable.errors import BadInput

COUNTER = itertools.count()


def grey(value: int | None = None, size=(12, 12)) -> Image.Image:
    if value is not None:
        return Image.new("L", size, value)
    return Image.fromarray(np.random.default_rng(next(COUNTER)).integers(0, 256, size[::-1], dtype=np.uint8))


def put(root, **files) -> str:
    """Save images; "/" is written "__" in their names, "." as "_dot_"; a number n stands for n random grey ones."""
    for name, image in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        if isinstance(image, int):
            path.mkdir(parents=True, exist_ok=True)
            for i in range(image):
                grey().save(path / f"{i}.png")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return f"folder:{root}"


def counts(dataset) -> list[int]:
    return [len(split) for split in (dataset.train, dataset.val, dataset.test, dataset.unlabelled)]


def test_classes_alone(root, data):
    name = put(root, class10=20, class9=20, Class2=20)
    (root / "class9" / "deep").mkdir()
    grey().save(root / "class9" / "deep" / "x.JPG")
    for nothing in (".hidden.png", "notes.txt", "Thumbs.db"):
        (root / "class9" / nothing).write_bytes(b"no image")
    (root / ".git").mkdir()
    dataset = load(name, data)
    assert dataset.name == "folder-my-flowers"
    assert dataset.classes == ("Class2", "class9", "class10")
    assert (dataset.id_column, dataset.label_column) == ("file", "label")
    assert counts(dataset) == [52, 9, 0, 0]
    assert dataset.in_shape == (1, 12, 12)
    for split in (dataset.train, dataset.val):
        assert split.ids.dtype.kind == "U"
        for image, label, file in zip(split.images, split.labels, split.ids, strict=True):
            assert file.split("/")[0] == dataset.classes[label]
            assert np.array_equal(image[0], np.asarray(Image.open(root / file)))
    ids = [*dataset.train.ids, *dataset.val.ids]
    assert len(set(ids)) == 61
    assert "class9/deep/x.JPG" in ids
    assert dataset.train.ids.tolist().index("Class2/9.png") < dataset.train.ids.tolist().index("Class2/10.png")


@pytest.mark.parametrize("flat", [True, False])
def test_the_folders_above(flat, root, data):
    name = put(root, train__a=5, train__b=4, val__a=2, val__b=1, unlabelled__some=2)
    if flat:
        put(root, test=3)
    else:
        put(root, test__b=3)
    dataset = load(name, data)
    assert counts(dataset) == ([9, 3, 0, 5] if flat else [9, 3, 3, 2])
    assert set(dataset.unlabelled.labels) == {-1}
    assert dataset.val.labels.tolist() == [0, 0, 1]
    assert dataset.unlabelled.ids[-2:].tolist() == ["unlabelled/some/0.png", "unlabelled/some/1.png"]
    if not flat:
        assert dataset.test.labels.tolist() == [1, 1, 1]


def test_unlabelled_beside_the_classes_and_a_class_called_train(root, data):
    dataset = load(put(root, car=3, train=3, unlabelled=2), data)
    assert dataset.classes == ("car", "train")
    assert counts(dataset) == [4, 2, 0, 2]


def test_every_kind_of_image(root, data):
    ramp = np.linspace(0, 65535, 144).astype(np.uint16).reshape(12, 12)
    palette = Image.new("P", (12, 12), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    clear = Image.new("RGBA", (12, 12), (0, 0, 255, 0))
    clear.paste((0, 255, 0, 255), (0, 0, 6, 12))
    half_clear_grey = Image.new("LA", (12, 12), (0, 0))
    colours = {
        "grey.png": (grey(100), 100),
        "bit.png": (Image.new("1", (12, 12), 1), 255),
        "deep.png": (Image.fromarray(ramp), ramp >> 8),
        "deep.tif": (Image.fromarray(ramp), ramp >> 8),
        "deep.pgm": (Image.fromarray(ramp), ramp >> 8),
        "palette.png": (palette, (255, 0, 0)),
        "palette.gif": (palette, (255, 0, 0)),
        "cmyk.tif": (Image.new("RGB", (12, 12), (255, 255, 0)).convert("CMYK"), (255, 255, 0)),
        "half.webp": (half_clear_grey.convert("RGBA"), 255),
        "la.png": (half_clear_grey, 255),
        "colour.bmp": (Image.new("RGB", (12, 12), (1, 2, 3)), (1, 2, 3)),
    }
    for where in ("a", "b"):
        (root / where).mkdir(parents=True)
        for file, (image, _) in colours.items():
            image.save(root / where / file, lossless=True) if file.endswith("webp") else image.save(root / where / file)
    clear.save(root / "a" / "clear.png")
    dataset = load(f"folder:{root}", data)
    assert dataset.in_shape == (3, 12, 12)
    found = {}
    for split in (dataset.train, dataset.val):
        found |= dict(zip(split.ids.tolist(), split.images, strict=True))
    for file, (_, expected) in colours.items():
        wanted = np.broadcast_to(np.asarray(expected).reshape(-1, 1, 1) if np.ndim(expected) == 1 else expected, (3, 12, 12))
        assert np.array_equal(found[f"b/{file}"], wanted), file
    assert found["a/clear.png"][:, 0, 0].tolist() == [0, 255, 0]
    assert found["a/clear.png"][:, 0, 11].tolist() == [255, 255, 255]

    alone = load(f"folder:{root}", data, channels=1)
    assert alone.in_shape == (1, 12, 12)
    for file in ("palette.png", "colour.bmp", "clear.png"):
        put(root, **{"a__" + file.replace(".", "_dot_"): grey(1), "b__" + file.replace(".", "_dot_"): grey(1)})
    for where, file in itertools.product("ab", ("palette.gif", "cmyk.tif", "half.webp")):
        (root / where / file).unlink()
    assert load(f"folder:{root}", data).in_shape == (1, 12, 12)


def test_mixed_sizes(root, data):
    """Left of the picture is black, right is white: the crop is at the centre, and nothing is squeezed."""
    for i, (width, height) in enumerate([(40, 20), (30, 60), (24, 24), (100, 50)]):
        image = grey(0, (width, height))
        image.paste(255, (width // 2, 0, width, height))
        put(root, **{f"a__{i}_dot_png": image, f"b__{i}_dot_png": image})
    name = f"folder:{root}"
    dataset = load(name, data)
    assert dataset.in_shape == (1, 27, 27)  # the median of 20, 30, 24, 50
    assert load(name, data, image_size=16).in_shape == (1, 16, 16)
    wide = load(name, data, image_size=(8, 16), channels=3)
    assert wide.in_shape == (3, 8, 16)
    for image in wide.train.images:
        assert image[:, :, :7].max() < 20
        assert image[:, :, 9:].min() > 235


def test_large_images_are_made_small_and_antialiased(root, data):
    board = (np.indices((450, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    put(root, a=0, b=0)
    for where, i in itertools.product("ab", range(2)):
        Image.fromarray(board).save(root / where / f"{i}.{'jpg' if i else 'png'}", quality=95)
    dataset = load(f"folder:{root}", data)
    assert dataset.in_shape == (1, 96, 96)
    assert abs(dataset.train.images.astype(int) - 127).max() < 40  # not the board's 0 and 255


def test_exif_rotation(root, data):
    image = grey(0, (20, 10))
    image.paste(255, (0, 0, 20, 5))  # white above
    about = Image.Exif()
    about[0x0112] = 6  # to be turned a quarter clockwise: white on the right
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    for where, file in itertools.product("ab", ("0.jpg", "1.png")):
        image.save(root / where / file, exif=about, **({"quality": 100} if file.endswith("jpg") else {}))
    dataset = load(f"folder:{root}", data)
    assert dataset.in_shape == (1, 20, 10)
    for image in dataset.train.images:
        assert image[0, :, :4].max() < 20
        assert image[0, :, 6:].min() > 235


def test_the_cache(root, data, monkeypatch):
    name = put(root, a=4, b=4, test=3)
    first = load(name, data)
    monkeypatch.setattr(images, "_decode", lambda *_: pytest.fail("decoded again"))
    assert load(name, data).fingerprint == first.fingerprint
    assert all(path.parent in (root / "a", root / "b", root / "test") for path in root.rglob("*") if path.is_file())
    monkeypatch.undo()
    grey(3).save(root / "a" / "0.png")
    os.utime(root / "a" / "0.png", ns=(1, 1))
    assert load(name, data).fingerprint != first.fingerprint
    assert load(name, data, image_size=8).in_shape == (1, 8, 8)
    for size in range(8, 16):
        load(name, data, image_size=size)
    assert len(list((data / ".cache").iterdir())) <= 4


def test_a_data_folder_that_cannot_be_written_to(root, data):
    data.write_text("a file")
    assert counts(load(put(root, a=4, b=4), data)) == [6, 2, 0, 0]


def test_a_name_in_another_script_and_a_link(root, data):
    put(root, rose=3, **{"лилия": 3})
    (root / "лилия" / "0.png").rename(root / "лилия" / "цветок, №1.png")
    (root / "rose" / "loop").symlink_to(root, target_is_directory=True)
    dataset = load(f"folder:{root}", data)
    assert dataset.classes == ("rose", "лилия")
    assert "лилия/цветок, №1.png" in {*dataset.train.ids, *dataset.val.ids}
    assert dataset.fingerprint == load(f"folder:{root}", data).fingerprint


def test_loose_images(root, data):
    put(root, deep__er=2, test=1)
    grey(7, (30, 20)).save(root / "x10.png")
    grey(9, (20, 30)).save(root / "x9.png")
    dataset, split = folder.loose(str(root), data, (10, 12), 3, ("a", "b"))
    assert split.ids.tolist() == ["deep/er/0.png", "deep/er/1.png", "test/0.png", "x9.png", "x10.png"]
    assert split.images.shape == (5, 3, 10, 12)
    assert split.images[:, 0, 0, 0].tolist()[3:] == [9, 7]
    assert dataset.unlabelled is split
    assert (dataset.classes, dataset.in_shape, set(split.labels)) == (("a", "b"), (3, 10, 12), {-1})
    (root / "none").mkdir()
    with pytest.raises(BadInput, match="none has no images"):
        folder.loose(str(root / "none"), data, 10, 1, ("a", "b"))


def bomb(path):
    """A PNG that says it has 20,000 x 20,000 pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0), b"IDAT" + zlib.compress(bytes(1000)), b"IEND")
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "my flowers! has no class folders"),
        ({"x_dot_png": grey(1)}, "has no class folders"),
        ({"a": 3}, "has one class only, 'a'; it needs at least two"),
        ({"a": 3, "b": 0}, "my flowers!/b has no images; fill the folder, or delete it"),
        ({"a": 3, "b": 1}, "class b has 1 labelled images; each class needs at least 2"),
        ({"a": 3, "b": 3, "x_dot_png": grey(1)}, "x.png belongs to no class"),
        ({"train__a": 3, "train__b": 3, "valid__a": 2}, "valid/a/[0-2].png belongs to no class"),
        ({"train__a": 3, "train__b": 3, "val__c": 2}, "my flowers!/val has a class 'c' that train has not; train's are a, b"),
        ({"train__a": 3, "train__b": 3, "val": 2}, "val/[01].png belongs to no class"),
        ({"train__a": 3, "train__b": 3, "test__a": 2, "test": 1}, "test/0.png belongs to no class"),
        ({"train__a": 3, "train__b": 3, "test": 0}, "test has no images"),
        ({"a": 3, "b": 3, "a__t_dot_png": grey(1, (3, 30))}, "a/t.png cannot be used: it is 3 x 30 pixels; .* at least 4"),
        ({"a": 3, "b__f_dot_tif": Image.new("F", (9, 9), 0.5)}, "class b has 1"),
        ({"a": 3, "b": 3, "b__f_dot_tif": Image.new("F", (9, 9), 0.5)}, "f.tif cannot be used: its pixels are floating-point"),
    ],
)
def test_folders_that_cannot_be(files, says, root, data):
    root.mkdir()
    refused(put(root, **files), data, says)


def test_broken_images_are_named_and_counted(root, data):
    name = put(root, a=6, b=6)
    whole = (root / "a" / "3.png").read_bytes()
    (root / "a" / "3.png").write_bytes(whole[: len(whole) // 2])
    refused(name, data, "a/3.png cannot be used: .*truncated[^;]*$")
    (root / "b" / "0.png").write_bytes(b"not an image")
    refused(name, data, "a/3.png cannot be used: .*; 1 more cannot be used either$")
    refused(name, data, "a/3.png cannot be used: .*; 1 more cannot be used either$", image_size=8, channels=1)
    (root / "a" / "3.png").unlink()
    bomb(root / "b" / "0.png")
    refused(name, data, "b/0.png cannot be used: it has more than .* pixels")
    (root / "b" / "0.png").unlink()
    (root / "b" / "0.png").symlink_to("nowhere.png")
    refused(name, data, "b/0.png cannot be used: No such file")


def test_names_that_cannot_be(root, data):
    refused("folder:/no/such/folder", data, "there is no such folder")
    refused("folder:", data, "unknown dataset 'folder:'; known: .*svhn, folder:PATH, csv:PATH$")
    refused("zip:x", data, "unknown dataset 'zip:x'")
    name = put(root, a=2, b=2)
    refused(name, data, "image size is 2, outside 4 to 1024", image_size=2)
    refused(name, data, "channels is 2; it should be 1", channels=2)
    (root / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    refused(name, data, "is not UTF-8")


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_path_that_is_not_utf_8(kind, tmp_path, data):
    root = tmp_path / os.fsdecode(b"im\xff")
    put(root, a=2, b=2)
    refused(f"{kind}:{root}", data, r"dataset .*im\\udcff' is not UTF-8; rename its folder or file")
    with pytest.raises(BadInput, match="is not UTF-8"):
        folder.loose(str(root), data, 12, 1, ("a", "b"))


def test_a_val_of_the_users_own_is_said_to_be(root, data):
    cut = load(put(root / "cut", a=20, b=20), data)
    given = load(put(root / "given", train__a=20, train__b=20, val__a=3, val__b=3), data)
    assert (cut.val_given, given.val_given) == (False, True)
    assert counts(given) == [40, 6, 0, 0]
    assert load(f"folder:{root / 'given'}", data, image_size=8, channels=3).val_given
    tested = load(put(root / "tested", train__a=20, train__b=20, test__a=3), data)
    assert not tested.val_given, "its val is cut from train"
