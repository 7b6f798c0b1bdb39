"""Data sets that have some of val, test and unlabelled images, and a sweep of each that was really trained, without Ray."""

from itertools import product
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image

from sweeps.search.record import Record
from trainable import files, saved
from trainable.config import TrialConfig
from trainable.datasets import Dataset, load
from trainable.datasets.container import of_fold
from trainable.fit import evaluate, fit, predict
from trainable.ray_trial import PROBS
from trainable.scores import softmax

SPLITS = ("val", "test", "unlabelled")
SHAPES = [tuple(name for name, there in zip(SPLITS, some, strict=True) if there) for some in product((0, 1), repeat=3)]
CONFIG = {"arch": "convnet", "convnet.width": 8, "batch_size": 8, "engine": "fp32-nhwc", "epochs": 2.0}
SIDE = 16


def name_of(shape: tuple[str, ...]) -> str:
    """For the ids of tests."""
    return "+".join(shape) or "nothing else"


def draw(root: Path, shape: tuple[str, ...]) -> Path:
    """Images of two classes, of which one is bright on the left and one on the right."""
    rng = np.random.default_rng(0)
    many = {"train": 16, "val": 6, "test": 5, "unlabelled": 4}
    for split in ("train", *shape):
        for label in ("left", "right"):
            where = root / split / (label if split != "unlabelled" else "")
            where.mkdir(parents=True, exist_ok=True)
            for i in range(many[split]):
                pixels = rng.integers(0, 90, (SIDE, SIDE), dtype=np.uint8)
                half = slice(0, SIDE // 2) if label == "left" else slice(SIDE // 2, SIDE)
                pixels[:, half] += 120
                Image.fromarray(pixels).save(where / f"{label}-{i}.png")
    return root


def swept(folder: Path, dataset: str, finalists: bool = True) -> Dataset:
    """A folder as a search leaves it: two trials and, of each, a network for both of two folds; nothing combined yet."""
    data = load(dataset)
    arguments = {"dataset": dataset, "image_size": None, "metric": "val_loss", "scheduler": "asha", "seed": 0}
    arguments |= {"max_epochs": CONFIG["epochs"], "mlflow": None, "cpus_per_trial": 1}
    images = {name: len(getattr(data, name)) for name in ("train", *SPLITS)}
    of_data = {"fingerprint": data.fingerprint, "images": images, "val_given": data.val_given}
    about = {"arguments": arguments, "data": of_data}
    about |= {"commit": None, "versions": {}, "command": ["python", "sweeps/arch_sweep.py"]}
    folder.mkdir(parents=True)
    record = Record(folder / "record.db", about=about)
    configs = [{**TrialConfig.from_flat(CONFIG).flat(), "seed": seed} for seed in (0, 1)]
    jobs = [(None, config) for config in configs]
    if finalists:
        jobs += [(of, {**config, "folds": 2, "fold": fold}) for of, config in enumerate(configs) for fold in (0, 1)]
    for number, (of, config) in enumerate(jobs):
        record.trial_started(number, config, {}, {}, of)
        record.rung(number, 2, *_trained(folder / "trials" / str(number), config, data), end=("complete", ""))
    record.close()
    files.write_json(folder / "sweep.json", {**about, "ended": {"seconds": 1.0, "trials": len(jobs), "cores_busy": 0.5}})
    return data


def _trained(where: Path, flat: dict, data: Dataset) -> tuple[dict, dict[str, str]]:
    """The metrics of a real training to its end, and the digests of what it hands over."""
    config = TrialConfig.from_flat(flat)
    own = of_fold(data, config.folds, config.fold)
    for _, state in fit(config, own, "cpu"):
        pass
    metrics, probs = evaluate(state, own.val)
    said = {"val": probs}
    if config.folds:
        for name in ("test", "unlabelled"):
            if len(split := getattr(own, name)):
                logits = predict(state.best_network, split, state.plan)
                said[name] = softmax(logits, metrics["temperature"])
    handed = saved.pack(config, own, state, metrics)
    handed[PROBS] = safetensors.numpy.save({name: probs.astype(np.float32) for name, probs in said.items()})
    digests = {name: files.write(where / name, content) for name, content in handed.items()}
    more = {"train_s": 1.0, "eval_s": 0.1, "parameters": 1000, "engine": state.plan.setting, "train_loss": 0.5}
    return {**metrics, **more}, digests
