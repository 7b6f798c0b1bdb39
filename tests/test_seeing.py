"""One real sweep with names that mean harm, looked at in every place: browser, MLflow, its server, Optuna's dashboard, Tune."""

import base64
import csv
import fcntl
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from browser import CONTRAST, DRAWN, opened, report
from PIL import Image
from played import play
from ray import tune
from running import ROOT, SWEEP, new_mlflow, wait

from sweeps.search.cluster import cluster
from sweeps.search.record import read
from sweeps.show import study
from trainable.datasets import load

pytestmark = pytest.mark.full
OWNED = "document.title='owned'"
CLASSES = [
    f"<script>{OWNED}</script>", f'"><img src=x onerror="{OWNED}">', "O'Brien & \"sons\"", "ünïcödé 数字 🙂", "long " * 100,
    "{{ 7 * 7 }}", "</table></script>", "a\\u003c/b", f"javascript:{OWNED}", "${datum.x}",
]  # fmt: skip
PARAMETER = f"<img src=x onerror={OWNED}>.['\"]"
SPACE = f"""
def draw(trial):
    trial.suggest_categorical({PARAMETER!r}, ["<b>one</b>", "'two\\""])
    lr = trial.suggest_float("lr", 2e-3, 8e-3, log=True)
    return {{"arch": "convnet", "convnet.width": 8, "engine": "fp32-nhwc", "lr": lr}}
"""


def write_csv(path: Path, split, rows: int):
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["label", *(f"pixel{i}" for i in range(784))])
        out.writerows(
            [CLASSES[label], *image.ravel()] for image, label in zip(split.images[:rows], split.labels[:rows], strict=True)
        )


@pytest.fixture(scope="module")
def swept(tmp_path_factory, sample) -> Path:
    """Its folder: one for all workers of pytest, of which the first to come makes it."""
    base = tmp_path_factory.getbasetemp()
    where = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "seeing"
    with open(where.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not where.exists():
            make_sweep(where, sample)
    return where / "results" / "s"


def make_sweep(where: Path, sample):
    (where / "digits").mkdir(parents=True)
    write_csv(where / "digits" / "train.csv", sample.train, 3000)
    write_csv(where / "digits" / "test.csv", sample.test, 400)
    (where / "mine.py").write_text(SPACE)
    new_mlflow(where / "results" / "mlflow.db")
    arguments = ["--results", str(where / "results"), "--name", "s", "--dataset", f"csv:{where / 'digits'}", "--trials", "4"]
    arguments += ["--space", "mine.py:draw", "--max-epochs", "2", "--finalists", "2", "--folds", "2"]
    done = subprocess.run([*SWEEP, *arguments], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No report.html" not in done.stdout
    assert "MLflow" not in done.stdout + done.stderr, "no warning"


def said_wrong(said: list[str]) -> list[str]:
    return [line for line in said if not line.startswith("warning: WARN Infinite extent")]


@pytest.mark.browser
def test_report_in_a_browser(swept):
    with report(swept / "report.html") as (page, said):
        assert page.title() == "s"
        charts = page.locator(".chart").count()
        assert charts >= 8
        assert page.locator(".chart canvas").count() == charts
        for canvas in page.locator(".chart canvas").all():
            assert canvas.evaluate(DRAWN)
        for name in CLASSES:
            assert page.get_by_text(name.strip(), exact=False).count() or name not in page.content()
        wrong = json.loads((swept / "ensemble.json").read_text())["judged"]["errors"]
        assert 0 < page.locator(".gallery img").count() <= max(48, wrong)
        assert page.evaluate("[...document.querySelectorAll('.gallery img')].every(image => image.naturalWidth === 28)")
        assert page.locator("#parameter option").all_text_contents().count(PARAMETER) == 1
        page.select_option("#parameter", label=PARAMETER)
        page.wait_for_function(
            "charts.drawn.view.data('drawn').some(row => row.value === '<b>one</b>' || row.value[0] === \"'\")"
        )
        assert page.title() == "s", "no name was run"
        assert said_wrong(said) == []


@pytest.mark.browser
def test_report_sorts_and_filters(tmp_path):
    folder = play(tmp_path / "many", 120)
    done = subprocess.run([sys.executable, str(ROOT / "sweeps" / "report.py"), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with report(folder / "report.html") as (page, said):
        cells = lambda column: page.locator(f"#board tr td:nth-child({column})").all_text_contents()  # noqa: E731
        assert len(cells(1)) == 50
        page.click("#more")
        assert len(cells(1)) == 120
        for order in (1, -1):
            page.click("#board th >> text=error")
            errors = [float(text[:-1]) for text in cells(6) if text != "-"]
            assert errors == sorted(errors)[::order]
        assert cells(6)[-1] == "-", "those without a result come last"
        page.fill("#search", "stopped convnet")
        assert set(cells(3)) == {"stopped"}
        assert set(cells(2)) == {"convnet"}
        assert page.text_content("#count") == f"{len(cells(1))} of 120 trials"
        page.fill("#search", "")
        before = len(cells(1))
        drawn = page.evaluate("charts.curves.view.data('curves').length")
        page.uncheck(".family[value=convnet]")
        assert "convnet" not in cells(2)
        assert len(cells(1)) < before
        page.wait_for_function(f"charts.curves.view.data('curves').length < {drawn}")
        assert said_wrong(said) == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_on_a_phone(swept, scheme):
    with report(swept / "report.html", width=360, scheme=scheme) as (page, said):
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for selector in ("body", "p", "th", ".answer b"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, selector
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        assert said_wrong(said) == []


@pytest.mark.browser
def test_report_of_a_folder_with_a_name_that_means_harm(swept, tmp_path):
    folder = tmp_path / f"<img src=x onerror={OWNED}>'\" 数字"
    shutil.copytree(swept, folder)
    for command in (["report.py", folder], ["report.py", folder, swept, "--out", tmp_path / "both.html"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "sweeps" / command[0]), *map(str, command[1:])], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert folder.name in done.stdout.replace("\n", "")
    for path in (folder / "report.html", tmp_path / "both.html"):
        with report(path) as (page, said):
            assert page.title() != "owned"
            assert folder.name in page.text_content("body")
            assert said_wrong(said) == []


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def serving(command: list, path: str, **more):
    """A server's address, once it answers."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow calls uvicorn by its name
    quiet = {**os.environ, "PATH": search, "MLFLOW_DISABLE_TELEMETRY": "true", **more}
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen([*map(str, command), "--port", str(port)], env=quiet, **nowhere) as server:
        try:
            wait(lambda: answers(address + path), server)
            yield address
        finally:
            os.killpg(server.pid, 9)


def answers(url: str) -> bool:
    try:
        return urlopen(url).status == 200
    except (URLError, OSError):
        return False


def ask(url: str, records: list[dict]) -> list[dict]:
    body = json.dumps({"dataframe_records": records}).encode()
    request = Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    return json.loads(urlopen(request).read())["predictions"]


def in_base64(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_the_ensemble_is_served(swept):
    """A real `mlflow models serve`, real requests: as many errors as ensemble.json says."""
    uri = f"sqlite:///{swept.parent / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    (model,) = client.search_registered_models()
    (version,) = client.search_model_versions(f"name='{model.name}'")
    assert version.tags["sweep"] == "s"
    package = Path(client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")) / "model"
    assert not [path for path in package.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pth")], "no pickle"
    data = load(f"csv:{swept.parents[1] / 'digits'}")
    images = [{"image": in_base64(image[0])} for image in data.test.images]
    command = [
        Path(sys.executable).with_name("mlflow"),
        "models",
        "serve",
        "-m",
        f"models:/{model.name}/1",
        "--env-manager",
        "local",
    ]
    with serving(command, "/ping", MLFLOW_TRACKING_URI=uri, MLFLOW_REGISTRY_URI=uri) as address:
        (alone,) = ask(address, images[:1])
        told = ask(address, images)
        assert told[0]["label"] == alone["label"]
        assert told[0]["probability"] == pytest.approx(alone["probability"], abs=1e-3)
        wrong = sum(row["label"] != data.classes[label] for row, label in zip(told, data.test.labels, strict=True))
        assert wrong == json.loads((swept / "ensemble.json").read_text())["test"]["errors"]
        large = {"image": in_base64(np.kron(data.test.images[0][0], np.ones((4, 4), np.uint8)))}
        assert ask(address, [large])[0]["label"] == alone["label"], "of any size"
        with pytest.raises(HTTPError) as refused:
            ask(address, [{"image": "no image"}])
        assert refused.value.code == 400


def test_mlflow_sorts_and_filters(swept):
    mlflow.set_tracking_uri(f"sqlite:///{swept.parent / 'mlflow.db'}")
    (name,) = [e.name for e in mlflow.search_experiments() if e.name != "Default"]
    runs = mlflow.search_runs(experiment_names=[name], filter_string="tags.family = 'convnet' and params.arch = 'convnet'",
                              order_by=["metrics.val_error ASC"])  # fmt: skip
    searched = runs[runs["tags.refits"].isna()].dropna(axis=1, how="all")
    assert len(searched) == 4
    assert searched["metrics.val_error"].is_monotonic_increasing
    assert set(searched["tags.rung"]) <= {"1", "2", "3"}
    varying = {name for name in searched if name.startswith("params.")}
    assert varying == {"params.arch", "params.lr", "params._img_src_x_onerror_document.title_owned_._"}
    (parent,) = mlflow.search_runs(experiment_names=[name], filter_string="tags.mlflow.runName = 's'").to_dict("records")
    run = mlflow.get_run(parent["run_id"])
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.digest == json.loads((swept / "sweep.json").read_text())["data"]["fingerprint"][:36]
    assert {"system/cpu_utilization_percentage", "error", "loss", "test_error", "ms_per_image"} <= run.data.metrics.keys()
    kept = {item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert kept >= {"report.html", "curves.png", "trials.parquet", "curves.parquet", "ensemble.json", "submission.csv", "model"}


@pytest.mark.long
def test_mirrors_are_made_again(swept, tmp_path):
    """All of them lost; nothing of the sweep but its record, its networks and what combining wrote."""
    folder = tmp_path / "results" / "s"
    shutil.copytree(swept, folder)
    for name in ("trials.parquet", "curves.parquet", "study.db", "report.html"):
        (folder / name).unlink()
    done = subprocess.run([sys.executable, str(ROOT / "sweeps" / "mirror.py"), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("trials.parquet", "curves.parquet", "report.html"):
        assert (folder / name).stat().st_size > 0
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "trials.parquet"), pd.read_parquet(swept / "trials.parquet"))
    uri = f"sqlite:///{folder.parent / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    (experiment,) = [e.name for e in mlflow.search_experiments() if e.name != "Default"]
    assert len(mlflow.search_runs(experiment_names=[experiment])) == len(read(folder / "record.db")[0]) + 1
    assert len(mlflow.MlflowClient(uri).search_registered_models()) == 1


class Porter(BaseHTTPRequestHandler):
    """Lets through to a server, `behind`, who says the name and the password."""

    protocol_version = "HTTP/1.1"
    behind = ""
    asks_for = "Basic " + base64.b64encode(b"ada:canary-of-mlflow").decode()

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != self.asks_for:
            status, kind, said = 401, "text/plain", b"who are you?"
        else:
            server = http.client.HTTPConnection(self.behind.removeprefix("http://"))
            named = {name: self.headers[name] for name in ("Content-Type",) if name in self.headers}
            server.request(self.command, self.path, body, named)
            answer = server.getresponse()
            status, kind, said = answer.status, answer.headers.get("Content-Type", ""), answer.read()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

    def log_message(self, *_):
        pass


@pytest.mark.long
def test_a_mirror_on_a_server_that_asks_for_a_password(swept, tmp_path):
    """It comes from the environment alone, and lies nowhere afterwards."""
    folder = tmp_path / "results" / "s"
    shutil.copytree(swept, folder)
    command = [Path(sys.executable).with_name("mlflow"), "server", "--backend-store-uri", f"sqlite:///{tmp_path / 'away.db'}"]
    command += ["--artifacts-destination", tmp_path / "artifacts", "--workers", "1"]
    with serving(command, "/health", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false") as behind:
        porter = ThreadingHTTPServer(("127.0.0.1", 0), type("", (Porter,), {"behind": behind}))
        threading.Thread(target=porter.serve_forever, daemon=True).start()
        mirror = [sys.executable, ROOT / "sweeps" / "mirror.py", folder, "--mlflow", f"http://127.0.0.1:{porter.server_port}"]
        for password, status in (("wrong", 2), ("canary-of-mlflow", 0)):
            env = {**os.environ, "MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": password}
            done = subprocess.run(list(map(str, mirror)), capture_output=True, text=True, env=env)
            assert done.returncode == status, done.stdout + done.stderr
            assert password not in done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            assert ("401" in done.stderr) == (status == 2)
        client = mlflow.MlflowClient(behind)
        (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
        assert len(client.search_runs([experiment.experiment_id])) == len(read(folder / "record.db")[0]) + 1
        assert len(client.search_registered_models()) == 1
        porter.shutdown()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"canary-of-mlflow" in path.read_bytes()]


@pytest.mark.browser
def test_optunas_dashboard(swept, tmp_path):
    """It shows sense, and what is done there is done to a mirror."""
    database = tmp_path / "study.db"
    shutil.copyfile(swept / "study.db", database)
    before = read(swept / "record.db")
    dashboard = [Path(sys.executable).with_name("optuna-dashboard"), f"sqlite:///{database}", "--host", "127.0.0.1"]
    with serving(dashboard, "/api/studies") as address:
        (summary,) = json.loads(urlopen(f"{address}/api/studies").read())["study_summaries"]
        assert summary["study_name"] == "s"
        detail = json.loads(urlopen(f"{address}/api/studies/{summary['study_id']}").read())
        states = [trial["state"] for trial in detail["trials"]]
        assert sorted(states) == sorted({"complete": "Complete", "stopped": "Pruned"}[t["state"]] for t in before[0][:4])
        assert all(trial["intermediate_values"] for trial in detail["trials"])
        with opened(f"{address}/dashboard/studies/{summary['study_id']}", offline=False) as (page, _):
            page.wait_for_selector("text=Hyperparameter")
            assert page.title() != "owned"
        urlopen(Request(f"{address}/api/studies/{summary['study_id']}", method="DELETE"))
    assert read(swept / "record.db") == before
    study.write(swept, to=database)
    assert len(optuna.load_study(study_name="s", storage=f"sqlite:///{database}").trials) == 4


@pytest.mark.long
def test_tunes_own_view(swept):
    """Every trial, its configuration and its results over time; and TensorBoard's files."""
    trials, rungs = read(swept / "record.db")
    with cluster(None, 1, 0, None):  # Tune opens nothing without Ray
        grid = tune.ExperimentAnalysis(str(swept / "tune"))
        assert len(grid.trials) == sum(trial["refits"] is None for trial in trials)
        for trial in grid.trials:
            mine = [row["metrics"]["val_loss"] for row in rungs if row["number"] == trial.config["number"]]
            assert grid.trial_dataframes[trial.trial_id]["val_loss"].tolist() == pytest.approx(mine)
            assert list((swept / "tune").glob(f"{Path(trial.path).name}/events.out.tfevents.*"))
