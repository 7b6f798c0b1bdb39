"""What MLflow is told of a sweep and of a trial, by the names under which it shows them."""

import contextlib
import itertools
import json
import re
from collections.abc import Mapping

REFITTED = ("fold", "folds", "epochs", "seed", "unlabelled")  # of a finalist, whose configuration is known


class System:
    """How busy the driver's machine is, by the names under which MLflow shows it."""

    def __init__(self):
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self.monitors = [CPUMonitor()]
        with contextlib.suppress(Exception):  # no GPU, or nothing that can ask it
            self.monitors.append(GPUMonitor())

    def metrics(self) -> dict[str, float]:
        out = {}
        for monitor in self.monitors:
            monitor.collect_metrics()
            out |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return out


def dataset(name: str, about: Mapping):
    """What was trained on, as MLflow's input of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    images = json.dumps({key: value for key, value in about.items() if key.startswith("images.")})
    told = Dataset(name, str(about.get("fingerprint", ""))[:36], "local", json.dumps({"dataset": name}), profile=images)
    return DatasetInput(told, [InputTag("mlflow.data.context", "training")])


def _key(name: str, taken: Mapping) -> str:
    """A name of a user's as MLflow takes it, letters, digits and `_ . -` alone, and as no other has it."""
    plain = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:200]
    return next(key for i in itertools.count(1) if (key := f"{plain}_{i}" if i > 1 else plain) not in taken)


def columns(trial: Mapping) -> dict:
    """What of a trial's configuration becomes a parameter of its run: the architecture, what was drawn, and of a finalist its
    fold. What every trial has alike would only be in the way; trials.parquet has it."""
    config, out = trial["config"], {"arch": trial["config"]["arch"]}
    for name, value in trial["params"].items():
        own = name if name in config else name.partition(".")[2]  # `muon.lr` is drawn for `lr`
        out |= {own: config[own]} if own in config else {_key(name, out): value}
    if trial["refits"] is not None:
        out |= {name: config[name] for name in REFITTED}
    return out


def parameters(about: Mapping) -> dict:
    """Of a sweep, from what sweep.json says: the arguments that were given a value, what the data are, and the commit."""
    given = {name: value for name, value in about["arguments"].items() if value is not None}
    images = {f"images.{split}": count for split, count in about["data"].get("images", {}).items()}
    val = {"val_given": about["data"]["val_given"]} if "val_given" in about["data"] else {}
    return {**given, "fingerprint": about["data"]["fingerprint"], **images, **val, "commit": about.get("commit")}


def metrics(ensemble: Mapping, trials: int, busy: float) -> dict[str, float]:
    """Of a sweep that has ended, from ensemble.json."""
    of_test = {"test_error": ensemble["test"]["error"]} if ensemble["test"] else {}
    loss = {"loss": ensemble["judged"]["loss"]} if ensemble["judged"]["loss"] is not None else {}
    return {
        "error": ensemble["judged"]["error"],
        **loss,
        "best_single_error": ensemble["best_single"]["judged"]["error"],
        **of_test,
        "ms_per_image": ensemble["ms_per_image"],
        "partly_trained_members": sum(not member.get("full", True) for member in ensemble["members"]),
        "trials": trials,
        "cores_busy": busy,
    }
