"""Files that are no files, and files that would need more memory than there is: one line, which names the file."""

import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from refusal import refused

from sweeps.choose import kept
from sweeps.compete import archive, check
from trainable import files, reading, saved, weights
from trainable.datasets import DATA, cache, digits_sample, folder, images, load, tables
from trainable.datasets.competition import read_sample
from trainable.errors import BadInput, run

GB = 10**9


def fifo(path: Path):
    os.mkfifo(path)


def listener(path: Path):
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(path.parent)  # its address has 108 bytes at most
        one.bind(path.name)


def fifo_behind_a_link(path: Path):
    pipe = path.with_name(f"{path.name} pipe")
    os.mkfifo(pipe)
    path.symlink_to(pipe)


KINDS = {
    "fifo": (fifo, "it is a FIFO"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "socket": (listener, "it is a socket"),
    "linked fifo": (fifo_behind_a_link, "it is a FIFO"),
    "loop": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "folder": (Path.mkdir, "it is a folder"),
}


@pytest.fixture(params=KINDS)
def no_file(request, monkeypatch, tmp_path):
    """(make(path), what is said of it)."""
    monkeypatch.chdir(tmp_path)
    make, says = KINDS[request.param]

    def made(path: Path) -> Path:
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        return path

    return made, says


@pytest.fixture
def memory(monkeypatch):
    """memory(bytes): so many are free from now on."""
    return lambda size: monkeypatch.setattr(reading, "free", lambda: size)


def put_images(root: Path, n: int = 3):
    for name in (f"{kind}/{i}.png" for kind in "ab" for i in range(n)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (12, 12), dtype=np.uint8)).save(root / name)


def test_only_regular_files_are_opened(no_file, tmp_path):
    make, says = no_file
    with pytest.raises(OSError, match=says):
        reading.opened(make(tmp_path / "x"))
    (tmp_path / "whole").write_bytes(b"content")
    (tmp_path / "link").symlink_to("whole")
    assert reading.read(tmp_path / "link") == b"content"


def test_among_the_images(no_file, root, data):
    make, says = no_file
    put_images(root)
    name = f"folder:{root}"
    load(name, data)
    make(root / "a" / "1.png")
    if says == "it is a folder":  # as it always was: a folder is looked into
        assert len(load(name, data).train) == 3
        return
    refused(name, data, f"a/1.png cannot be used: {says}")
    with pytest.raises(BadInput, match=f"1.png cannot be used: {says}"):
        folder.loose(str(root / "a"), data, 12, 1, ("a", "b"))


CSV = "label," + ",".join(f"p{i}" for i in range(16)) + "\n" + "".join(f"{i % 2}{',1' * 16}\n" for i in range(6))


@pytest.mark.parametrize("name", ["train.csv", "val.csv", "test.csv", "competition.toml", "sample_submission.csv"])
def test_in_place_of_a_table(name, no_file, root, data):
    make, says = no_file
    root.mkdir()
    (root / "train.csv").write_text(CSV)
    (root / "test.csv").write_text("".join(line.partition(",")[2] + "\n" for line in CSV.split()))
    (root / "competition.toml").write_text('slug = "x"')
    (root / "sample_submission.csv").write_text("id,label\n" + "".join(f"{i},0\n" for i in range(1, 7)))
    load(f"csv:{root}", data)
    make(root / name)
    refused(f"csv:{root}", data, rf"{name}.*{says}|{says}.*{name}")


def test_in_place_of_what_is_downloaded_or_kept(no_file, tmp_path):
    make, says = no_file
    refused("digit-recognizer", make(tmp_path / "a" / "digit-recognizer.zip").parent, f"digit-recognizer.zip.*{says}")
    refused("digits-sample", make(tmp_path / "b" / "digits-sample.parquet").parent, says)
    refused("fashion-mnist", make(tmp_path / "c" / "fashion-mnist" / "train-images-idx3-ubyte.gz").parents[1], "is damaged")
    with pytest.raises(BadInput, match=says):
        archive.check(make(tmp_path / "d" / "a.zip"))
    cache.cached(tmp_path / "e", "x", 1, lambda: {"a": np.arange(3)})
    (path,) = (tmp_path / "e" / ".cache").iterdir()
    make(path)
    assert cache.cached(tmp_path / "e", "x", 1, lambda: {"a": np.arange(4)})["a"].tolist() == [0, 1, 2, 3]


def test_in_place_of_weights_and_predictions(no_file, tmp_path, tiny):
    make, says = no_file
    with pytest.raises(BadInput, match=f"w.safetensors.*({says}|there is no such file)"):
        weights.read(make(tmp_path / "w.safetensors"))
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "model.safetensors").write_bytes(b"")
    make(tmp_path / "net" / "config.json")
    with pytest.raises(BadInput, match=f"config.json cannot be read: {says}|there is no config.json"):
        saved.load(tmp_path / "net")
    with pytest.raises(BadInput, match=says):
        check.check(make(tmp_path / "submission.csv"), tiny)
    with pytest.raises(OSError, match=says):
        files.digest(make(tmp_path / "any"))


def png(path: Path, side: int = 12, before: bytes = b"", after: bytes = b""):
    """A PNG of zeros, with texts before and after its pixels."""
    rows = zlib.compress((b"\0" + bytes(side)) * side)
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)]
    chunks += [b"tEXtComment\0" + before] if before else []
    chunks += [b"IDAT" + rows]
    chunks += [b"tEXtComment\0" + after] if after else []
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (*chunks, b"IEND"))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


@pytest.mark.parametrize("where", ["before", "after"])
def test_text_in_an_image(where, root, data, monkeypatch):
    """PIL would read it whole, and have it three times."""
    monkeypatch.setattr(images, "METADATA", 1 << 20)
    put_images(root)
    png(root / "a" / "1.png", **{where: b"x" * (1 << 19)})
    load(f"folder:{root}", data)
    png(root / "a" / "1.png", **{where: b"x" * (2 << 20)})
    refused(f"folder:{root}", data, "a/1.png cannot be used: it has more than 1 MB beside its pixels")
    (root / "x").write_bytes(b"x" * (2 << 20))
    for read in (lambda metered: metered.readline(), lambda metered: metered.read(1 << 40)):
        with open(root / "x", "rb") as file, pytest.raises(ValueError, match="beside its pixels"):
            read(images.Metered(file, GB))
    with open(root / "x", "rb") as file, pytest.raises(ValueError, match="larger than 0.0 GB"):
        images.Metered(file, 1000).read()


def saves(root: Path, image: Image.Image, *names: str):
    for name in names:
        image.save(root / "a" / name)


def test_images_that_need_more_memory_than_there_is(root, data, memory):
    """Of every format; those that fit are read, though not all at a time."""
    put_images(root)
    large = Image.new("RGB", (1500, 1500))
    saves(root, large, *(names := ["x.png", "x.gif", "x.tif", "x.webp", "x.bmp"]))
    memory(200_000_000)  # 45 million each, and there are half as many for all
    assert len(load(f"folder:{root}", data, image_size=12).train) == 9
    memory(80_000_000)
    refused(f"folder:{root}", data, "x.bmp cannot be used: it would need 0.0 GB of memory.*; 4 more", image_size=13)
    for name in names:
        (root / "a" / name).unlink()
    load(f"folder:{root}", data, image_size=13)


def iptc(inside: bytes) -> bytes:
    """An IPTC file of 16 x 16 grey pixels with an image of any kind inside."""
    side = b"\0\x10"
    fields = {(3, 60): b"\1\0", (3, 20): side, (3, 30): side, (3, 120): b"\5", (8, 10): inside}
    packed = (struct.pack(">BBBH", 28, *tag, len(value)) + value for tag, value in fields.items())
    return b"".join(packed) + bytes(5)


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "BLP", "IPTC"])
def test_a_format_with_an_image_inside(kind, root, data):
    """PIL decodes that one at its own size, which its header does not tell."""
    put_images(root)
    inside = Image.new("P" if kind == "BLP" else "L", (16, 16))
    inside.save(root / "a" / "x.png", "PNG" if kind == "IPTC" else kind)
    if kind == "IPTC":
        (root / "a" / "x.png").write_bytes(iptc((root / "a" / "x.png").read_bytes()))
    with Image.open(root / "a" / "x.png") as image:
        assert image.format == kind
    refused(f"folder:{root}", data, "a/x.png cannot be used: it is not an image")


def test_a_palette_is_looked_at_where_there_is_memory(root, data, memory, monkeypatch):
    """PIL decodes the pixels with it."""
    put_images(root)
    saves(root, Image.new("P", (1500, 1500)), "x.gif")
    loaded, load_gif = [], GifImageFile.load
    monkeypatch.setattr(GifImageFile, "load", lambda self: loaded.append(self.size) or load_gif(self))
    load(f"folder:{root}", data)
    assert loaded
    loaded.clear()
    memory(80_000_000)
    says = "x.gif cannot be used: it would need 0.0 GB of memory"
    refused(f"folder:{root}", data.with_name("other"), says)
    assert not loaded


def test_a_tile_larger_than_its_image(root, data, memory):
    put_images(root)
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16_000, 323: 16_000, 324: 8, 325: 1}  # 324: where it lies
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tile = zlib.compress(bytes(1000))
    start = struct.pack("<2sHI", b"II", 42, 8 + len(tile))
    (root / "a" / "x.tif").write_bytes(start + tile + struct.pack("<H", len(tags)) + entries + bytes(4))
    memory(GB)
    refused(f"folder:{root}", data, "x.tif cannot be used: it would need 5.1 GB of memory", image_size=12, channels=1)


def test_more_images_than_memory(root, data, memory, tiny):
    put_images(root)
    memory(10_000_000)
    load(f"folder:{root}", data)
    refused(
        f"folder:{root}",
        data,
        "6 images of 1024 x 1024 pixels and 3 channels would need 0.0 GB.*--image-size",
        image_size=1024,
        channels=3,
    )
    memory(GB)
    refused("digits-sample", DATA, "digits-sample: 12,000 images of 512 x 512 .* would need 3.1 GB", image_size=512)


PIXELS = [f"pixel{i}" for i in range(784)]


def digits(rows: int) -> tuple[str, str]:
    train = ",".join(["label", *PIXELS]) + "\n" + "".join(f"{i % 10}{',0' * 784}\n" for i in range(rows))
    return train, ",".join(PIXELS) + "\n" + ",".join(["7"] * 784) + "\n"


def test_a_zip_of_more_rows_than_memory(tmp_path, memory):
    with zipfile.ZipFile(tmp_path / "digit-recognizer.zip", "w", zipfile.ZIP_DEFLATED) as whole:
        for name, text in zip(("train.csv", "test.csv"), digits(20_000), strict=True):
            whole.writestr(name, text)
    memory(20_000_000)
    refused("digit-recognizer", tmp_path, "digit-recognizer.zip:train.csv would need 0.0 GB of memory, and 0.0 GB are free")
    memory(GB)
    assert len(load("digit-recognizer", tmp_path).train) == 18_000


PEAK = """
import resource, sys
from pathlib import Path
from trainable.datasets import load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = load("digit-recognizer", Path(sys.argv[1]))
print(len(data.train) + len(data.val), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kB there")
def test_memory_of_rows_is_near_that_of_the_result(tmp_path):
    """40,000 rows are 31 MB of pixels, 63 MB of text, and would be 250 MB of whole numbers."""
    with zipfile.ZipFile(tmp_path / "digit-recognizer.zip", "w", zipfile.ZIP_DEFLATED) as whole:
        for name, text in zip(("train.csv", "test.csv"), digits(40_000), strict=True):
            whole.writestr(name, text)
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True)
    rows, kilobytes = map(int, done.stdout.split())
    assert rows == 40_000, done.stderr
    assert kilobytes < 250_000


def test_members_that_overlap(tmp_path):
    """Each of ten entries unpacks the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr("train.csv", os.urandom(50_000))
        first = whole.infolist()[0]
        for i in range(9):
            other = zipfile.ZipInfo(f"test{i}.csv")
            for name in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(other, name, getattr(first, name))
            whole.filelist.append(other)
    path = tmp_path / "digit-recognizer.zip"
    path.write_bytes(out.getvalue())
    with pytest.raises(BadInput, match="is not a whole zip file .*overlap"):
        archive.check(path)
    refused("digit-recognizer", tmp_path, "is not a whole zip file .*overlap")


DIRECTORY, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
DAMAGE = {  # signature of the entry: first of its bytes that are changed, what they are changed to
    "encrypted": (DIRECTORY, 8, b"\x01\x00"),
    "unknown compression": (DIRECTORY, 10, b"\x62\x00"),
    "lzma": (DIRECTORY, 10, b"\x0e\x00"),
    "bzip2": (DIRECTORY, 10, b"\x0c\x00"),
    "name that is not UTF-8": (DIRECTORY, 8, b"\x00\x08" + bytes(36) + b"\xff"),
    "local name that is not UTF-8": (LOCAL, 6, b"\x00\x08" + bytes(22) + b"\xff"),
    "offset beyond the file": (DIRECTORY, 42, b"\xf0\xff\xff\xff"),
}


def zip64_offset(content: bytes, offset: int) -> bytes:
    """Say of the first member that it lies at `offset`, in a field of 64 bits."""
    at = content.index(DIRECTORY)
    length, extra = struct.unpack_from("<HH", content, at + 28)
    field = struct.pack("<HHQ", 1, 8, offset)
    entry = bytearray(content[at : at + 46 + length])
    struct.pack_into("<H", entry, 30, extra + len(field))
    entry[42:46] = b"\xff" * 4
    end = content.rindex(b"PK\x05\x06")
    (size,) = struct.unpack_from("<I", content, end + 12)
    tail = content[end : end + 12] + struct.pack("<I", size + len(field)) + content[end + 16 :]
    return content[:at] + bytes(entry) + field + content[at + len(entry) : end] + tail


@pytest.mark.parametrize("damage", [*DAMAGE, "64 bits"])
def test_a_damaged_zip(damage, tmp_path):
    path = tmp_path / "digit-recognizer.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as whole:
        for name, text in zip(("train.csv", "test.csv"), digits(20), strict=True):
            whole.writestr(name, text)
    content = path.read_bytes()
    if damage == "64 bits":
        path.write_bytes(zip64_offset(content, 2**64 - 100))
    else:
        entry, at, changed = DAMAGE[damage]
        at += content.index(entry)
        old = content[at : at + len(changed)]
        new = bytes(c or o for c, o in zip(changed, old, strict=True))
        path.write_bytes(content[:at] + new + content[at + len(changed) :])
    says = "digit-recognizer.zip is not a whole zip file|cannot read .*digit-recognizer.zip"
    with pytest.raises(BadInput, match=says):
        archive.check(path)
    refused("digit-recognizer", tmp_path, says)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_byte_of_a_zip_may_be_damaged(method, tmp_path):
    """It is refused, or holds what it held."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as whole:
        whole.writestr("a.txt", "content" * 3)
        whole.writestr("b.txt", "other" * 3)
    content = path.read_bytes()
    for at in range(len(content)):
        for change in (1, 255):
            path.write_bytes(content[:at] + bytes([content[at] ^ change]) + content[at + 1 :])
            with suppress(BadInput):
                archive.unpack(path, tmp_path / "to")
                there = {item.name: item.read_text() for item in (tmp_path / "to").iterdir()}
                assert there == {"a.txt": "content" * 3, "b.txt": "other" * 3}, (at, change)
                shutil.rmtree(tmp_path / "to")


def test_a_directory_of_too_many_members(tmp_path, memory):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as whole:
        for i in range(2000):
            whole.writestr(f"{i}", "")
    memory(1_000_000)
    with pytest.raises(BadInput, match="a.zip would need"):
        archive.check(tmp_path / "a.zip")


def test_parquet_files_of_more_rows_than_memory(tmp_path, memory):
    """Runs of one value cost nothing in the file."""
    many = 3_000_000
    columns = {"label": pa.array(np.zeros(many, np.int64)), "split": pa.array(np.zeros(many, np.int64))}
    pq.write_table(pa.table({"image": pa.nulls(many, pa.binary()), **columns}), tmp_path / digits_sample.FILE)
    assert (tmp_path / digits_sample.FILE).stat().st_size < 50_000
    memory(GB // 100)
    refused("digits-sample", tmp_path, "digits-sample.parquet would need 0.1 GB of memory, and 0.0 GB are free")
    text = pa.table({"a": pa.array(["x" * 100_000] * 2000).dictionary_encode()})
    pq.write_table(text.cast(pa.schema({"a": pa.string()})), tmp_path / "long.parquet")
    with pytest.raises(BadInput, match="long.parquet would need 0.1 GB"):
        tables.parquet(tmp_path / "long.parquet")
    memory(GB)
    assert tables.parquet(tmp_path / "long.parquet").equals(text.cast(pa.schema({"a": pa.string()})))
    with pytest.raises(pa.ArrowException, match="no column b"):
        tables.parquet(tmp_path / "long.parquet", ["b"])
    categories = pa.table({"a": pa.array([str(i // 1500) for i in range(3000)]).dictionary_encode()})
    pq.write_table(categories, tmp_path / "categories.parquet")
    assert tables.parquet(tmp_path / "categories.parquet").to_pandas().equals(categories.to_pandas())
    whole = tables.parquet(DATA / digits_sample.FILE)
    assert whole.equals(pq.read_table(DATA / digits_sample.FILE))
    pq.write_table(whole.slice(0, 0), tmp_path / "none.parquet")
    assert tables.parquet(tmp_path / "none.parquet", ["label"]).num_rows == 0


def test_a_text_that_grows_in_many_batches(tmp_path, memory):
    """No batch is large: the sum of all is, and its user's copy of it."""
    few = pa.array(["x" * 16_000] * 1024 * 6).dictionary_encode().cast(pa.string())
    pq.write_table(pa.table({"a": few}), tmp_path / "text.parquet")
    assert (tmp_path / "text.parquet").stat().st_size < 100_000
    memory(60_000_000)
    assert tables.parquet(tmp_path / "text.parquet", times=1.0).num_rows == 6144
    with pytest.raises(BadInput, match="text.parquet would need 0.1 GB of memory"):
        tables.parquet(tmp_path / "text.parquet")


def test_a_text_column_of_more_than_memory(root, data, memory):
    """The letters are counted while they are read: NumPy needs four bytes for each."""
    root.mkdir()
    rows = (f"{i}{'x' * 100_000},{i % 2}\n" for i in range(250))
    (root / "mine.csv").write_text("image,label\n" + "".join(rows))
    memory(50_000_000)
    refused(f"csv:{root / 'mine.csv'}", data, "^mine.csv would need 0.1 GB of memory")


def test_what_a_sweep_has_kept(no_file, tmp_path, memory, tiny):
    make, _ = no_file
    pq.write_table(pa.table({"member": np.zeros(3_000_000, np.int16)}), tmp_path / kept.FILE)
    memory(1_000_000)
    with pytest.raises(BadInput, match="predictions.parquet would need"):
        kept.read(tmp_path, tiny)
    make(tmp_path / kept.FILE)
    with pytest.raises(BadInput, match=r"predictions.parquet cannot be read"):
        kept.read(tmp_path, tiny)


def test_a_digit_that_is_no_digit(tmp_path):
    out = io.BytesIO()
    Image.new("L", (5000, 5000)).save(out, "PNG")
    for content in (out.getvalue(), b"no image", None):
        table = pa.table({"image": pa.array([content], pa.binary()), "label": [0], "split": ["test"]})
        pq.write_table(table, tmp_path / digits_sample.FILE)
        refused("digits-sample", tmp_path, "cannot read .*digits-sample.parquet: .*git checkout")


@pytest.mark.parametrize("promise", [(10**13,), (10**6, 10**6), "object", "bomb"])
def test_a_kept_array_that_promises_too_much(promise, tmp_path, memory):
    make = lambda: {"a": np.arange(3)}  # noqa: E731
    cache.cached(tmp_path, "x", 1, make)
    (path,) = (tmp_path / ".cache").iterdir()
    out = io.BytesIO()
    if promise == "object":
        np.save(out, np.array([{}], dtype=object), allow_pickle=True)
    elif promise == "bomb":
        np.save(out, np.zeros(10_000_000, np.uint8))
        memory(5_000_000)
    else:
        np.lib.format.write_array_header_2_0(out, {"descr": "|u1", "fortran_order": False, "shape": promise})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr("a.npy", out.getvalue())
    assert cache.cached(tmp_path, "x", 1, make)["a"].tolist() == [0, 1, 2], "made again"


def pair() -> dict[str, np.ndarray]:
    return {"a": np.arange(3), "b": np.array(["x", "yz"])}


def test_a_cache_of_two_gibibytes_is_read(tmp_path, monkeypatch):
    """Its directory ends with a zip64 record, as that of this small one."""
    with monkeypatch.context() as small:
        small.setattr(zipfile, "ZIP64_LIMIT", 50)
        cache.cached(tmp_path, "x", 1, pair)
    (path,) = (tmp_path / ".cache").iterdir()
    assert b"PK\x06\x06" in path.read_bytes()
    again = cache.cached(tmp_path, "x", 1, lambda: pytest.fail("made again"))
    assert again["b"].tolist() == ["x", "yz"]


@pytest.mark.parametrize("change", [lambda byte: byte ^ 1, lambda byte: 0], ids=["flipped", "zero"])
def test_any_byte_of_a_cache_may_be_damaged(change, tmp_path):
    cache.cached(tmp_path, "x", 1, pair)
    (path,) = (tmp_path / ".cache").iterdir()
    whole = path.read_bytes()
    for at, byte in enumerate(whole):
        path.write_bytes(whole[:at] + bytes([change(byte)]) + whole[at + 1 :])
        again = cache.cached(tmp_path, "x", 1, pair)
        there = {name: array.tolist() for name, array in again.items()}
        assert there == {"a": [0, 1, 2], "b": ["x", "yz"]}, at


def header(content: dict | bytes, length: int | None = None, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    "content",
    [
        header(b"{}", 2**63),
        header(b"{}", 10**12),
        header(b"[" * 100_000),
        header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        header({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}}, data=bytes(8)),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}, data=bytes(8)),
        b"",
    ],
    ids=["2^63", "a terabyte", "nested", "absurd offsets", "absurd shape", "backwards", "empty"],
)
def test_weights_with_an_absurd_header(content, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="w.safetensors is damaged or no safetensors file"):
        weights.read(path)


def test_weights_of_more_than_memory(tmp_path, memory):
    (tmp_path / "w.safetensors").write_bytes(bytes(1_000_000))
    memory(1_500_000)
    with pytest.raises(BadInput, match="w.safetensors would need"):
        weights.read(tmp_path / "w.safetensors")


def test_lines_without_an_end(root, data, monkeypatch, memory):
    root.mkdir()
    path, name = root / "mine.csv", f"csv:{root / 'mine.csv'}"
    monkeypatch.setattr(tables, "HEADER", 100_000)
    path.write_bytes(b"x" * 200_000)
    refused(name, data, "mine.csv: its first line is no header")
    path.write_bytes(b"," * 200_000)
    refused(name, data, "mine.csv: its first line is no header")
    path.write_bytes(b"x" * 90_000 + b"," + b"y" * 140_000)
    monkeypatch.undo()
    refused(name, data, "cannot read mine.csv: field larger than field limit")
    monkeypatch.setattr(tables, "BLOCK", 100_000)
    path.write_text(CSV + "1," * 200_000)
    refused(name, data, "cannot read mine.csv: ")
    path.write_text(CSV + "1" * 200_000)
    refused(name, data, "cannot read mine.csv: a row has more than")
    monkeypatch.setattr(tables, "WIDE", 4)
    path.write_text(CSV + "1" * 300_000)
    refused(name, data, "mine.csv has a row of more than|mine.csv: field larger than")
    monkeypatch.undo()
    path.write_text("image,label\n" + "x" * 100_000 + ",a\ny,b\n" + "".join(f"{i},b\n" for i in range(500)))
    memory(100_000_000)
    refused(name, data, "mine.csv, image, whose longest text has 100,000 letters, would need 0.2 GB")


def test_more_columns_than_an_image_has(root, data, monkeypatch):
    root.mkdir()
    (root / "mine.csv").write_text("label" + ",x" * 5000 + "\n")
    monkeypatch.setattr(tables, "MOST_COLUMNS", 1000)
    refused(f"csv:{root / 'mine.csv'}", data, "it should have 1,000 columns at most")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("256", "p1: a value is 256; it should be 0 to 255"),
        ("-1", "p1: a value is (-1; it should be 0 to 255|missing or not a whole number)"),
        ("0.5", "p1: a value is missing or not a whole number"),
        ("", "p1: a value is missing or not a whole number"),
        ("1_0", "p1: a value is missing or not a whole number"),
        ("\u0663", "p1: a value is missing or not a whole number"),
        ("1,1", "cannot read mine.csv: .*[Ee]xpected 17 columns, got 18"),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_many_columns_are_read_as_few_are(wide, values, says, root, data, monkeypatch):
    """Arrow needs much memory for a column, so a wide table is read otherwise: to the same."""
    root.mkdir()
    (root / "mine.csv").write_text("\ufeff" + CSV.replace("1,1,1", '"1",1,1', 1))
    whole = load(f"csv:{root / 'mine.csv'}", data)
    monkeypatch.setattr(tables, "WIDE", 4 if wide else 100)
    again = load(f"csv:{root / 'mine.csv'}", data.with_name("other"))
    assert again.fingerprint == whole.fingerprint
    rows = CSV.splitlines()
    rows[3] = f"0,1,{values}{',1' * 14}"
    (root / "mine.csv").write_text("\n".join(rows) + "\n")
    refused(f"csv:{root / 'mine.csv'}", data, says)


def test_settings_that_are_no_settings(root, data, tmp_path):
    root.mkdir()
    (root / "train.csv").write_text(CSV)
    for content in (b"a = " + b"[" * 100_000, b"#" * (2 << 20), b"\xff"):
        (root / "competition.toml").write_bytes(content)
        refused(f"csv:{root}", data, "competition.toml")
    (tmp_path / "sample.csv").write_text("id,label\n" + "x" * 200_000 + ",1\n")
    with pytest.raises(BadInput, match="cannot read sample.csv: field larger"):
        read_sample(tmp_path / "sample.csv")


def test_a_sample_of_more_rows_than_memory(tmp_path, memory):
    (tmp_path / "sample.csv").write_text("id,label\n" + "".join(f"{i},1\n" for i in range(1000)))
    memory(100_000)
    with pytest.raises(BadInput, match="sample.csv would need"):
        read_sample(tmp_path / "sample.csv")


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_is_that_of_the_container(version, tmp_path, monkeypatch):
    """A group in a group: the narrower counts; what is only cached is free."""
    monkeypatch.setattr(reading, "PROC", tmp_path / "proc")
    monkeypatch.setattr(reading, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    8000000 kB\n")
    assert reading.free() == 8_192_000_000
    controllers = {1: "memory", 2: ""}[version]
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"3:cpu:/x\n4:{controllers}:/pod/box\n")
    root = tmp_path / "cgroup" / controllers
    (root / "pod" / "box").mkdir(parents=True)
    limit, used, cached = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ("memory.max", "memory.current", "inactive_file"),
    )[version - 1]
    for group, most in ((root / "pod" / "box", "max" if version == 2 else str(2**63 - 4096)), (root / "pod", "3000000000")):
        (group / limit).write_text(f"{most}\n")
        (group / used).write_text("2500000000\n")
        (group / "memory.stat").write_text(f"anon 1\n{cached} 100000000\n")
    assert reading.free() == 600_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_free_memory_is_that_of_the_limits():
    code = """
import resource
from trainable import reading
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 300_000_000, resource.RLIM_INFINITY))
print(reading.free())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 200_000_000 < int(done.stdout) < 301_000_000, done.stderr


def test_out_of_memory_all_the_same(monkeypatch, capsys):
    def main():
        raise pa.lib.ArrowMemoryError("malloc of size 640 failed")

    monkeypatch.setattr(sys, "argv", ["predict.py"])
    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 1
    assert capsys.readouterr().err == "predict.py: out of memory: malloc of size 640 failed\n"
