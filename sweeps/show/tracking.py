"""MLflow's mirror: a parent run a sweep, a child run a trial, written by one background thread in batches.

It never stops a sweep: when MLflow fails, it says so once and gives up. The record has everything.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

# A server that is away shall cost seconds, not minutes; and nothing is told to anybody else.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

STATUS = {"complete": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}
PAUSE = 2.0  # seconds between two batches


class Tracker:
    """A listener of the record.

    Args:
        uri: of MLflow's store or server.
        artifacts: the folder for a new experiment's artifacts; None: the server's own place.
        about: the parent run's parameters.
        warn: called at most once, with one line.
    """

    def __init__(self, uri: str, artifacts: Path | None, experiment: str, sweep: str, about: dict, warn: Callable[[str], None]):
        self.uri, self.artifacts, self.experiment, self.sweep = uri, artifacts, experiment, sweep
        self.about, self.warn = about, warn
        self.events: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self.closing = threading.Event()
        self.runs: dict[int, str] = {}
        self.thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self.thread.start()

    def __call__(self, event: dict):
        if self.thread.is_alive():
            self.events.put({**event, "at": time.time()})

    def close(self, metrics: dict[str, float], files: list[Path], patience: float = 30.0):
        """Write what is left, then the sweep's own metrics and files; wait at most `patience` seconds."""
        self.events.put({"kind": "sweep_ended", "metrics": metrics, "files": files, "at": time.time()})
        self.closing.set()
        self.thread.join(patience)
        if self.thread.is_alive():
            self.warn(f"MLflow at {self.uri} takes too long; its mirror of this sweep is not whole")

    def _work(self):
        try:
            self._mirror()
        except Exception as wrong:
            self.warn(f"no MLflow mirror of this sweep: {type(wrong).__name__}: {str(wrong).splitlines()[0][:200]}")

    def _mirror(self):
        # Imported here: it takes seconds, and the search need not wait for them.
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.client = MlflowClient(self.uri)
        found = self.client.get_experiment_by_name(self.experiment)
        place = self.artifacts and self.artifacts.resolve().as_uri()
        self.home = found.experiment_id if found else self.client.create_experiment(self.experiment, place)
        self.parent = self._run(self.sweep, {"sweep": self.sweep}, time.time())
        self._log(self.parent, params=self.about)
        ended = False
        while not ended:
            self.closing.wait(PAUSE)
            ended = self._flush()

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
        return True

    def _write(self, number: int, events: list[dict]):
        from mlflow.entities import Metric

        params, metrics, tags, end = {}, [], {}, None
        for event in events:
            if event["kind"] == "trial_started":
                ties = {"mlflow.parentRunId": self.parent, "sweep": self.sweep, "trial": str(number)}
                name = f"{number:03d} {event['config']['arch']}"
                self.runs[number] = self._run(name, ties, event["at"])
                params = event["config"]
            elif event["kind"] == "rung":
                at = int(event["at"] * 1000)
                numbers = {name: value for name, value in event["metrics"].items() if name != "engine"}
                metrics += [Metric(name, value, at, event["rung"]) for name, value in numbers.items()]
                tags = {"engine": event["metrics"].get("engine", "")}
            else:
                end = event
        tags |= {"state": end["state"], "reason": end["reason"]} if end else {}
        self._log(self.runs[number], metrics, params, tags)
        if end:
            self.client.set_terminated(self.runs[number], STATUS[end["state"]], int(end["at"] * 1000))

    def _run(self, name: str, tags: dict, at: float) -> str:
        return self.client.create_run(self.home, int(at * 1000), tags, name).info.run_id

    def _log(self, run: str, metrics=(), params=None, tags=None, at: float = 0):
        from mlflow.entities import Metric, Param, RunTag

        if isinstance(metrics, dict):
            metrics = [Metric(name, value, int(at * 1000), 0) for name, value in metrics.items()]
        params = [Param(name, str(value)[:6000]) for name, value in (params or {}).items()]
        tags = [RunTag(name, value[:5000]) for name, value in (tags or {}).items()]
        if metrics or params or tags:
            self.client.log_batch(run, list(metrics), params, tags)
