"""An ensemble as an MLflow model: a folder that `mlflow models serve` answers from, and `mlflow.pyfunc.load_model` loads."""

import base64
import io
import logging
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from sweeps import stored
from sweeps.choose.model import FILE
from trainable import files, saved

ROOT = Path(__file__).resolve().parents[2]
NEEDS = ("mlflow", "numpy", "pandas", "pillow", "safetensors", "torch", "torchvision", "tqdm", "rich")


def package(folder: Path, to: Path):
    """Write the model of the ensemble in `folder` into `to`, which must not be there: its networks as safetensors, our code, the
    signature and an example."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    about = stored.ensemble(folder)
    cascade = about["cascade"]
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary) / "ensemble"
        new: dict[str, str] = {}

        def take(network: str) -> str:
            """Where a network lies in the package; those of other sweeps lie elsewhere on the disk."""
            if network not in new:
                new[network] = f"networks/{len(new)}"
                contents = saved.contents(folder / network, about["networks"].get(network), FILE)
                for name, content in contents.items():
                    files.write(where / new[network] / name, content)
            return new[network]

        members = [{**member, "networks": [take(n) for n in member["networks"]]} for member in about["members"]]
        cascade = cascade and {**cascade, "network": take(cascade["network"])}
        digests = {new[network]: named for network, named in about["networks"].items() if network in new}
        packed = {**about, "members": members, "cascade": cascade, "networks": digests, "files": {}}
        stored.write_sealed(where / FILE, packed)
        mlflow.pyfunc.save_model(
            to,
            python_model=str(Path(__file__).with_name("served.py")),
            artifacts={"ensemble": str(where)},
            code_paths=[str(ROOT / room) for room in ("sweeps", "trainable")],
            signature=ModelSignature(
                Schema([ColSpec("string", "image")]), Schema([ColSpec("string", "label"), ColSpec("double", "probability")])
            ),
            input_example={"image": [_example(folder / about["members"][0]["networks"][0])]},
            pip_requirements=[f"{name}=={version(name)}" for name in NEEDS],
        )


def _example(network: Path) -> str:
    """A black image of the right shape, as a PNG in base64."""
    path = network / saved.CONFIG
    channels, height, width = saved.described(path.read_bytes(), path)[1].in_shape
    pixels = np.zeros((height, width) if channels == 1 else (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
