"""The real downloads, from a server on this machine: small files in the real formats."""

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torchvision
from scipy.io import savemat

from trainable import datasets
from trainable.datasets import DATASETS, load
from trainable.datasets.container import Dataset
from trainable.errors import BadInput

RNG = np.random.default_rng(0)
IDX = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
DOWNLOADED = [*IDX, "emnist", "cifar10", "cifar100", "svhn"]


class Server:
    def __init__(self, folder):
        self.folder, self.asked = folder, []
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                super().do_GET()

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def put(self, name: str, content: bytes) -> tuple[str, str]:
        """Its address and md5."""
        (self.folder / name).write_bytes(content)
        return self.url + name, hashlib.md5(content).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "www"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.http.shutdown()
    server.http.server_close()


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(head + array.tobytes())


def problem(classes: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """20 images a class to train, 1 to test; labels in no order."""
    out = {}
    for split, each in (("train", 20), ("test", 1)):
        out[f"{split}_labels"] = RNG.permutation(np.repeat(np.arange(classes, dtype=np.uint8), each))
        out[f"{split}_images"] = RNG.integers(0, 256, (classes * each, *shape), dtype=np.uint8)
    return out


def publish(name: str, server: Server, monkeypatch) -> dict[str, np.ndarray]:
    """Put a small dataset in `name`'s own form on the server; patch its addresses and md5 sums. Returns what it holds."""
    tv = torchvision.datasets
    kinds = [("train", "images", "idx3"), ("train", "labels", "idx1"), ("test", "images", "idx3"), ("test", "labels", "idx1")]
    if name in IDX:
        truth = problem(10, (28, 28))
        source = getattr(tv, IDX[name])
        resources = []
        for (split, what, kind), (file, _) in zip(kinds, source.resources, strict=True):
            resources.append((file, server.put(file, idx(truth[f"{split}_{what}"]))[1]))
        monkeypatch.setattr(source, "resources", resources)
        monkeypatch.setattr(source, "mirrors", [server.url + "gone/", server.url])  # the first mirror has nothing
    elif name == "emnist":
        truth = problem(47, (28, 28))
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for split, what, kind in kinds:
                array = truth[f"{split}_{what}"]
                content = idx(np.ascontiguousarray(array.swapaxes(1, 2)) if what == "images" else array)
                archive.writestr(f"gzip/emnist-balanced-{split}-{what}-{kind}-ubyte.gz", content)
                archive.writestr(f"gzip/emnist-letters-{split}-{what}-{kind}-ubyte.gz", b"another split")
        url, md5 = server.put("gzip.zip", file.getvalue())
        monkeypatch.setattr(tv.EMNIST, "url", url)
        monkeypatch.setattr(tv.EMNIST, "md5", md5)
    elif name == "svhn":
        truth, addresses = problem(10, (3, 32, 32)), {}
        for split in ("train", "test"):
            file = io.BytesIO()
            labels = truth[f"{split}_labels"].astype(np.uint8)
            content = {"X": truth[f"{split}_images"].transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]}
            savemat(file, content, do_compression=True)
            url, md5 = server.put(f"{split}_32x32.mat", file.getvalue())
            addresses[split] = [url, f"{split}_32x32.mat", md5]
        monkeypatch.setattr(tv.SVHN, "split_list", addresses)
    else:
        entry = DATASETS[name]
        classes = 10 if name == "cifar10" else 100
        truth = problem(classes, (3, 32, 32))
        before = [] if name == "cifar10" else [b"\x07"]  # the coarse label
        files = {entry.names: "\n".join(f"thing{i}" for i in range(classes)).encode() + b"\n\n"}
        for split in ("train", "test"):
            pairs = zip(truth[f"{split}_labels"], truth[f"{split}_images"], strict=True)
            rows = [b"".join([*before, bytes([label]), image.tobytes()]) for label, image in pairs]
            parts = np.array_split(np.arange(len(rows)), len(getattr(entry, split)))
            files |= {f: b"".join(rows[i] for i in p) for f, p in zip(getattr(entry, split), parts, strict=True)}
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for inner in sorted(files):
                about = tarfile.TarInfo(inner)
                about.size = len(files[inner])
                archive.addfile(about, io.BytesIO(files[inner]))
        url, md5 = server.put(entry.url.rpartition("/")[2], file.getvalue())
        monkeypatch.setitem(DATASETS, name, replace(entry, url=url, md5=md5))
    return truth


@pytest.mark.parametrize("name", DOWNLOADED)
def test_download_read_and_keep(name, server, tmp_path, monkeypatch):
    truth = publish(name, server, monkeypatch)
    data = load(name, tmp_path)
    assert data.name == name
    n, classes = len(truth["train_labels"]), len(data.classes)
    assert [len(s) for s in (data.train, data.val, data.test, data.unlabelled)] == [n * 9 // 10, n // 10, classes, 0]
    assert (np.bincount(data.val.labels) == 2).all()
    for split in (data.train, data.val):
        assert np.array_equal(split.labels, truth["train_labels"][split.ids - 1])
        assert np.array_equal(
            split.images.squeeze(1) if data.in_shape[0] == 1 else split.images, truth["train_images"][split.ids - 1]
        )
    assert np.array_equal(data.test.labels, truth["test_labels"])
    assert np.array_equal(data.test.images.reshape(truth["test_images"].shape), truth["test_images"])

    asked = len(server.asked)
    assert asked > 0
    assert load(name, tmp_path).fingerprint == data.fingerprint
    for cache in (tmp_path / ".cache").iterdir():
        cache.unlink()
    assert load(name, tmp_path).fingerprint == data.fingerprint
    assert len(server.asked) == asked
    assert not list((tmp_path / name).glob("*.part"))


def test_every_dataset_that_is_downloaded_is_tested():
    assert {"digit-recognizer", "digits-sample", *DOWNLOADED} == set(DATASETS)


def test_the_names_of_the_classes(server, tmp_path, monkeypatch):
    assert DATASETS["mnist"].classes == tuple("0123456789")
    assert DATASETS["fashion-mnist"].classes[9] == "Ankle boot"
    publish("emnist", server, monkeypatch)
    assert "".join(load("emnist", tmp_path).classes) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
    publish("cifar100", server, monkeypatch)
    assert load("cifar100", tmp_path).classes[99] == "thing99"


def test_a_damaged_file_is_named(server, tmp_path, monkeypatch):
    publish("mnist", server, monkeypatch)
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.parent.mkdir()
    path.write_bytes((server.folder / path.name).read_bytes()[:-1])
    with pytest.raises(BadInput, match=rf"^{path} is damaged.*delete it.*again$"):
        load("mnist", tmp_path)
    path.unlink()
    assert len(load("mnist", tmp_path).test) == 10


def test_what_comes_damaged_or_not_at_all_leaves_nothing(server, tmp_path, monkeypatch, capfd):
    publish("cifar10", server, monkeypatch)
    file = server.folder / "cifar-10-binary.tar.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(
        BadInput, match=r"^cannot download cifar-10-binary.tar.gz .*what came is damaged.*put that file into"
    ) as no:
        load("cifar10", tmp_path)
    assert "\n" not in str(no.value)
    file.unlink()
    with pytest.raises(BadInput, match="HTTP Error 404"):
        load("cifar10", tmp_path)
    assert not list((tmp_path / "cifar10").iterdir())
    file.write_bytes(whole)
    assert isinstance(load("cifar10", tmp_path), Dataset)
    assert f"downloading {server.url}" in capfd.readouterr().err


def test_nobody_answers(server, tmp_path, monkeypatch):
    publish("svhn", server, monkeypatch)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(BadInput, match="cannot download train_32x32.mat .*refused"):
        load("svhn", tmp_path)


def test_another_shape(server, tmp_path, monkeypatch):
    publish("cifar10", server, monkeypatch)
    publish("kmnist", server, monkeypatch)
    assert load("cifar10", tmp_path, image_size=16, channels=1).in_shape == (1, 16, 16)
    assert datasets.load("kmnist", tmp_path, channels=3).in_shape == (3, 28, 28)
