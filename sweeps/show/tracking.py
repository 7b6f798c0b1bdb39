"""MLflow's mirror: a parent run a sweep, a child run a trial, written by one background thread in batches.

It never stops a sweep: when MLflow fails, it says so once and gives up. The record has everything.
"""

import contextlib
import logging
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sweeps import layout
from sweeps.show.logged import System, columns, dataset
from sweeps.show.trained import FULL, PARTLY
from trainable.archs import ARCHS

# A server that is away shall cost seconds, not minutes; and nothing is told to anybody else.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

STATUS = {"complete": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}
FILE = layout.MLFLOW
FILES = (
    "ensemble.json",
    "submission.csv",
    "report.html",
    "curves.png",
    "trials.parquet",
    "curves.parquet",
    "study.db",
)  # kept there
MODEL = "model"  # of the ensemble, among the artifacts of the sweep's run
PAUSE = 2.0  # seconds between two batches
SAMPLE = 10.0  # seconds between two looks at the driver's machine


def place(uri: str | None, results: Path) -> tuple[str, Path | None]:
    """The store, and the folder for a new experiment's artifacts (None: the server's own): of the server that was asked for, or
    beside the sweeps."""
    return (uri, None) if uri else (f"sqlite:///{results / FILE}", results / layout.ARTIFACTS)


class Tracker:
    """A listener of the record.

    Args:
        uri: of MLflow's store or server.
        artifacts: the folder for a new experiment's artifacts; None: the server's own place.
        about: the parent run's parameters.
        warn: called at most once, with one line.
        past: of a sweep that is resumed, the trials and rungs that the record has already; what the mirror lacks of them
            is written first.
    """

    def __init__(
        self,
        uri: str,
        artifacts: Path | None,
        experiment: str,
        sweep: str,
        about: dict,
        warn: Callable[[str], None],
        past: tuple[list[dict], list[dict]] | None = None,
    ):
        self.uri, self.artifacts, self.experiment, self.sweep = uri, artifacts, experiment, sweep
        self.about, self.warn = about, warn
        self.resumed = past is not None
        trials, rungs = past or ((), ())
        self.past = {trial["number"]: (trial, []) for trial in trials}
        for rung in rungs:
            self.past[rung["number"]][1].append(rung)
        self.events: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self.closing = threading.Event()
        self.warned = threading.Lock()  # taken by the first warning, which may come from either thread
        self.runs: dict[int, str] = {}
        self.thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self.thread.start()

    def __call__(self, event: dict):
        if self.thread.is_alive():
            self.events.put(event)

    def close(
        self,
        metrics: dict[str, float],
        files: list[Path],
        model: Callable[[Path], None] | None = None,
        patience: float | None = 60.0,
    ):
        """Write what is left, then the sweep's own metrics and files, and the model that `model` makes in a folder; wait at most
        `patience` seconds."""
        self.events.put({"kind": "sweep_ended", "metrics": metrics, "files": files, "model": model, "at": time.time()})
        self.closing.set()
        self.thread.join(patience)
        if self.thread.is_alive():
            self._warn(f"MLflow at {self.uri} takes too long; its mirror of this sweep is not whole")

    def _warn(self, what: str):
        if self.warned.acquire(blocking=False):
            self.warn(what)

    def _work(self):
        try:
            self._mirror()
        except Exception as wrong:
            said = str(wrong).partition("\n")[0][:200]
            self._warn(f"no MLflow mirror of this sweep: {type(wrong).__name__}: {said}")

    def _mirror(self):
        # Imported here: it takes seconds, and the search need not wait for them.
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # with tracebacks; `warn` says what is wrong
        # MLflow waits 20 s for a locked SQLite, but while it reads the schema only SQLAlchemy's 5 s.
        patient = "?timeout=20" if self.uri.startswith("sqlite:") and "?" not in self.uri else ""
        self.client = MlflowClient(self.uri + patient)
        found = self.client.get_experiment_by_name(self.experiment)
        place = self.artifacts and self.artifacts.resolve().as_uri()
        self.home = found.experiment_id if found else self.client.create_experiment(self.experiment, place)
        there = self._there()
        if None in there:
            self.parent = there[None].info.run_id
            self.client.update_run(self.parent, "RUNNING")
        else:
            self.parent = self._run(self.sweep, {"sweep": self.sweep}, time.time())
        if None not in there or not there[None].data.params:  # MLflow may have failed between the run and its parameters
            self._log(self.parent, params=self.about)
            self.client.log_inputs(self.parent, [dataset(self.experiment, self.about)])
        for number in self.past:
            self._mend(number, there.get(number))
        system, looked, ended = System(), 0.0, False
        while not ended:
            self.closing.wait(PAUSE)
            if time.monotonic() - looked > SAMPLE and not self.closing.is_set():
                looked = time.monotonic()
                self._log(self.parent, metrics=system.metrics(), at=time.time(), step=round(time.time()))
            ended = self._flush()

    def _there(self) -> dict[int | None, object]:
        """This sweep's runs that MLflow has, by trial; None: the parent."""
        runs, page = {}, None
        while self.resumed and (page is None or page):
            found = self.client.search_runs([self.home], f"tags.sweep = '{self.sweep}'", max_results=1000, page_token=page)
            for run in found:
                trial = run.data.tags.get("trial")
                runs[None if trial is None else int(trial)] = run
            page = found.token or ""
        return runs

    def _mend(self, number: int, run):
        """Bring a trial's run, or None, to what the record says."""
        trial, rungs = self.past[number]
        ends = [{**trial, "kind": "trial_ended", "at": trial["ended"]}] if trial["ended"] else []
        written = {}
        if run:
            self.runs[number] = run.info.run_id
            if run.data.tags.get("mlflow.parentRunId") != self.parent:
                self._log(self.runs[number], tags={"mlflow.parentRunId": self.parent})
            # The time, for a trial can be interrupted twice. It is written last: all else is there too.
            if ends and run.info.status != "RUNNING" and run.info.end_time == int(trial["ended"] * 1000):
                return
            if not run.data.params:
                self._log(self.runs[number], params=columns(trial))
            written = {m.step: m.timestamp for m in self.client.get_metric_history(self.runs[number], "val_loss")}
            if not written.items() <= {rung["rung"]: int(rung["at"] * 1000) for rung in rungs}.items():
                # A result between two rungs, forgotten by the record while MLflow was away.
                self.client.delete_run(self.runs[number])
                run, written = None, {}
        missing = [{**rung, "kind": "rung"} for rung in rungs if rung["rung"] not in written]
        self._write(number, [*([] if run else [_started(trial)]), *missing, *ends])

    def _go_on(self, number: int):
        """A trial runs again. What it had between two rungs is forgotten, which MLflow can do only with the whole run."""
        trial, rungs = self.past.get(number, (None, []))
        if any(rung["partial"] for rung in rungs):
            self.client.delete_run(self.runs[number])
            whole = [{**rung, "kind": "rung"} for rung in rungs if not rung["partial"]]
            self.past[number] = trial, whole
            self._write(number, [_started(trial), *whole])
        self.client.update_run(self.runs[number], "RUNNING")
        self._log(self.runs[number], tags={"state": "running", "reason": ""})

    def _flush(self) -> bool:
        """Write what has been heard so far, a batch a trial; whether the sweep has ended."""
        heard: dict[int, list[dict]] = {}
        last = None
        while not self.events.empty():
            event = self.events.get()
            if event["kind"] == "sweep_ended":
                last = event
            else:
                heard.setdefault(event["number"], []).append(event)
        for number, events in heard.items():
            self._write(number, events)
        if last is None:
            return False
        self._log(self.parent, metrics=last["metrics"], at=last["at"])
        for path in last["files"]:
            self.client.log_artifact(self.parent, str(path))
        self.client.set_terminated(self.parent, "FINISHED", int(last["at"] * 1000))
        if last["model"]:
            self._register(last["model"])
        return True

    def _register(self, make: Callable[[Path], None]):
        """The ensemble as a file of the sweep's run, and as the newest version of the dataset's registered model."""
        from mlflow.exceptions import MlflowException

        name = re.sub(r"[/:.%\"']+", "-", self.experiment)
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder) / MODEL)
            self.client.log_artifacts(self.parent, str(Path(folder) / MODEL), MODEL)
        with contextlib.suppress(MlflowException):  # it is there
            self.client.create_registered_model(name)
        source = f"{self.client.get_run(self.parent).info.artifact_uri}/{MODEL}"
        self.client.create_model_version(name, source, self.parent, {"sweep": self.sweep})

    def _write(self, number: int, events: list[dict]):
        from mlflow.entities import Metric

        params, metrics, tags, end = {}, [], {}, None
        for event in events:
            if event["kind"] == "trial_started":
                ties = {"mlflow.parentRunId": self.parent, "sweep": self.sweep, "trial": str(number)}
                name = f"{number:03d} {event['config']['arch']}"
                if event.get("refits") is not None:
                    name += f", trial {event['refits']} on fold {event['config']['fold'] + 1} of {event['config']['folds']}"
                    ties["refits"] = str(event["refits"])
                ties |= {"family": ARCHS[event["config"]["arch"]].family, "training": PARTLY}
                self.runs[number] = self._run(name, ties, event["at"])
                params = columns(event)
            elif event["kind"] == "trial_restarted":
                self._go_on(number)
            elif event["kind"] == "rung":
                at = int(event["at"] * 1000)
                words = {name: value for name, value in event["metrics"].items() if isinstance(value, str)}
                numbers = {name: value for name, value in event["metrics"].items() if name not in words}
                metrics += [Metric(name, value, at, event["rung"]) for name, value in numbers.items()]
                tags |= {**words, "rung": str(event["rung"] + 1)}
            else:
                end = event
        if end:
            whole = FULL if end["state"] == "complete" else PARTLY
            tags |= {"state": end["state"], "reason": end["reason"], "training": whole}
        self._log(self.runs[number], metrics, params, tags)
        if end:
            self.client.set_terminated(self.runs[number], STATUS[end["state"]], int(end["at"] * 1000))

    def _run(self, name: str, tags: dict, at: float) -> str:
        return self.client.create_run(self.home, int(at * 1000), tags, name).info.run_id

    def _log(self, run: str, metrics=(), params=None, tags=None, at: float = 0, step: int = 0):
        from mlflow.entities import Metric, Param, RunTag

        if isinstance(metrics, dict):
            metrics = [Metric(name, value, int(at * 1000), step) for name, value in metrics.items()]
        params = [Param(name, str(value)[:6000]) for name, value in (params or {}).items()]
        tags = [RunTag(name, value[:5000]) for name, value in (tags or {}).items()]
        if metrics or params or tags:
            self.client.log_batch(run, list(metrics), params, tags)


def score(uri: str, experiment: str, sweep: str, value: float):
    """Log what the competition gave a sweep's predictions into its run, if it has one, as kaggle_score. Raises what MLflow
    raises."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    home = client.get_experiment_by_name(experiment)
    asked = f"tags.sweep = '{sweep}' and tags.mlflow.runName = '{sweep}'"  # the sweep's own, of all that it has
    for run in client.search_runs([home.experiment_id], asked) if home else ():
        client.log_metric(run.info.run_id, "kaggle_score", value)


def _started(trial: dict) -> dict:
    return {"kind": "trial_started", **{k: trial[k] for k in ("number", "refits", "config", "params")}, "at": trial["started"]}
