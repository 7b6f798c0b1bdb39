import io
import os
import zipfile
from pathlib import Path

import pytest
from competitions import flowers, kind_of, share_right
from kaggle_site import TOKEN, Site, serving, zipped

from sweeps.compete import client, send
from trainable import files
from trainable.datasets import load


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The pauses are shorter; the rest is as it is."""
    monkeypatch.setattr(client, "PAUSES", (0.05, 0.05))
    monkeypatch.setattr(client, "SILENCE", 1e5)  # the client alone takes seconds to start, and many more on a busy machine
    monkeypatch.setattr(send, "LOOKS", (0.05, 0.1))
    monkeypatch.setattr(send, "POLLS", (0.1,))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A Kaggle that has the flowers; this process and the client's see it, with good credentials."""
    site = Site("flowers", zipped(flowers()), share_right)
    with serving(site, tmp_path / "home") as env:
        for name in [name for name in os.environ if name.startswith("KAGGLE")]:
            monkeypatch.delenv(name)
        for name in ("HOME", "KAGGLE_API_ENVIRONMENT", "HTTP_PROXY"):
            monkeypatch.setenv(name, env[name])
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
        yield site
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert all("home" in path.parts for path in kept), "credentials lie nowhere else"


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def swept(tmp_path, results):
    """swept(name, errors) -> the folder of a sweep of the flowers that has ended, as far as submit.py looks at it."""
    root = tmp_path / "data" / "flowers"
    with zipfile.ZipFile(io.BytesIO(zipped(flowers()))) as whole:
        whole.extractall(root)
    (root / "competition.toml").write_text('slug = "flowers"\n')
    data = load(f"folder:{root}", tmp_path / "data")

    def swept(name: str, errors: int = 2) -> Path:
        folder = results / name
        folder.mkdir(parents=True)
        asked = {"dataset": f"folder:{root}", "image_size": None}
        about = {"arguments": asked, "data": {"fingerprint": data.fingerprint}}
        files.write_json(folder / "sweep.json", about)
        (folder / "predictions.parquet").touch()
        judged = {"errors": errors, "images": 160, "error": errors / 160}
        single = {"trial": 0, "arch": "convnet", "judged": judged}
        told = {
            "judged": judged,
            "judged_on": {"split": "out of fold", "images": 160},
            "method": "mean",
            "members": [{**single, "weight": 1.0, "networks": ["trials/0"], "ms_per_image": 0.1}],
            "best_single": single,
            "ms_per_image": 0.1,
            "submission": "unlabelled",
        }
        files.write_json(folder / "ensemble.json", told)
        wrong = {"rose": "tulip", "tulip": "rose"}
        right = [kind_of(int(i)) for i in data.unlabelled.ids]
        labels = [label if n >= errors else wrong[label] for n, label in enumerate(right)]
        rows = "".join(f"{i},{label}\n" for i, label in zip(data.unlabelled.ids, labels, strict=True))
        (folder / "submission.csv").write_text(f"id,species\n{rows}")
        return folder

    return swept
