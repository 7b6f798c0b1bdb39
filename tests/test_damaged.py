"""Damaged files of a sweep, and strange arguments: the right result, or one line that names what is wrong. Never a
traceback, and never a wrong result.

The sweep is a real one, recorded before files had digests (tests/recorded); this code combines it again.
"""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from damage import RECORDED, bytes_changed, call, cell_changed, change_cell, field_changed, kept
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import arch_sweep, distil, doctor, download, ensemble, explain, mirror, predict, report, snapshot, stored, submit, zoo
from sweeps.arguments import parse
from sweeps.choose import members
from sweeps.choose.combine import ENSEMBLES
from sweeps.choose.ensemble import combine
from sweeps.choose.model import Model
from sweeps.choose.package import package
from sweeps.lock import Held
from sweeps.resume import before, blamed, check_space
from sweeps.search.draw import SEARCHERS
from sweeps.search.find_space import find_space
from sweeps.search.record import Record, read
from sweeps.search.scheduler import SCHEDULERS, rungs
from sweeps.search.searcher import Search
from sweeps.show import logged
from sweeps.warm_start import learn
from trainable import files, reading, saved, train
from trainable import predict as predict_one
from trainable.datasets import load
from trainable.errors import BadInput, Parser
from trainable.record_file import VERSION
from trainable.stored import LARGEST, SMALL, read_json, seal
from trainable.stored import parse as parse_json

SOME = settings(max_examples=12, derandomize=True, deadline=None, database=None)
DATA = ("--dataset", "csv:digits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a sweep `sweep`, what is kept of one `kept`, and one network `network` lie, as this code writes them."""
    folder = tmp_path_factory.mktemp("damaged") / "results"
    shutil.copytree(RECORDED, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_anew(folder)
        yield folder


def write_anew(folder: Path):
    """Let this code write what it has not written: digests, what was learned and kept, a network alone."""
    torch.set_num_threads(1)
    sweep = folder / "sweep"
    about = combine([sweep], load("csv:digits"), list(ENSEMBLES), None, print)
    assert about["networks"].keys() >= {"trials/4", "trials/5"}
    told = json.loads((sweep / "sweep.json").read_text())
    stored.write_sealed(sweep / "sweep.json", told)
    record = Record(sweep / "record.db")
    record.phase_done("combine", {name: files.digest(sweep / name) for name in arch_sweep.DONE})
    drawn = {name: read(record.path)[0][1][name] for name in ("params", "distributions")}
    told = {**drawn, "state": "complete", "values": {0: 1.3, 1: 1.2}}
    record.learn([told, {**told, "state": "stopped"}], [drawn["params"]])
    record._db.execute("INSERT INTO restarts VALUES (5, 7.0, 'its machine was taken away')")
    record.close()
    (folder / "kept").mkdir()
    for name in ("sweep.json", "ensemble.json", "predictions.parquet", "submission.csv"):
        shutil.copy(sweep / name, folder / "kept")
    few = ("--epochs", "0.1", "--threads", "1", "--set", "convnet.width=2", "--set", "convnet.stages=1")
    assert call(train.main, *DATA, *few, "--set", "batch_size=16", "--out", "network").status == 0


def one_line(main, *arguments) -> str | None:
    """None where a command ends with status 0; else its one line, with status 2."""
    told = call(main, *arguments)
    assert "Traceback" not in told.err
    if told.status == 0:
        return None
    lines = [line for line in told.err.splitlines() if line.strip()]
    assert (told.status, len(lines)) == (2, 1), told
    return lines[0]


def said(main, *arguments) -> str:
    """What it prints, or its one line."""
    told = call(main, *arguments)
    return told.out if told.status == 0 else one_line(main, *arguments)


def predicted(main, *arguments) -> str:
    return one_line(main, *arguments, "--out", "out.csv") or Path("out.csv").read_text()


def resumed():
    """What arch_sweep.py --resume does before it starts Ray, on a copy of the record."""
    args, earlier = parse(["--resume", "sweep", "--results", "."])
    with blamed(earlier.record):
        space, budgets = find_space(args.space), rungs(args.max_epochs)
    check_space(earlier, space)
    print(arch_sweep.nothing_left(args, earlier), earlier.words())
    shutil.copy("sweep/record.db", "copy.db")
    record = Record(Path("copy.db"))
    try:
        more = {"sampler": SEARCHERS[args.searcher], "scheduler": SCHEDULERS[args.scheduler](), "metric": args.metric}
        search = Search(space, record, rungs=budgets, trials=args.trials, seed=args.seed, **more)
        print(search.finished, search.started, [(trial.state, trial.params) for trial in search.study.trials])
    finally:
        record.close()


def learned():
    earlier = before(Path("sweep").resolve())
    print(learn(earlier, find_space("space.py:draw"), "val_loss", 2.0, earlier.fingerprint))


def combined(*arguments) -> str:
    shutil.rmtree("combined", ignore_errors=True)
    wrong = one_line(ensemble.main, *arguments, "--out", "combined")
    if wrong:
        return wrong
    about = stored.ensemble(Path("combined"))
    del about["networks"]  # also of the cascade, which is the fastest
    return json.dumps(without_times(about))


def page(*arguments) -> str:
    """A report's page, without the time at which it was written."""
    text = one_line(report.main, *arguments, "--out", "page.html") or Path("page.html").read_text()
    return re.sub(r"Written [0-9: -]+", "", text)


def mirrored() -> str:
    """What mirror.py writes beside a record, and what it tells MLflow; nothing of it stays there."""
    there = [Path("sweep") / name for name in ("trials.parquet", "curves.parquet", "study.db", "report.html")]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mirror, "Lock", locked)  # so that MLflow, which is slow, is left to others
            if wrong := one_line(mirror.main, "sweep"):
                return wrong
        tables = [pd.read_parquet(path).to_json() for path in there[:2]]
        earlier = before(Path("sweep"))
        told = [logged.parameters({"arguments": earlier.arguments, "data": earlier.data}), *map(logged.columns, earlier.trials)]
        with contextlib.closing(sqlite3.connect(there[2])) as db:
            tables += [str(db.execute(f"SELECT * FROM {name}").fetchall()) for name in ("trials", "trial_values", "trial_params")]
        return json.dumps([told, tables])
    finally:
        for path in there:
            path.unlink(missing_ok=True)


def locked(path: Path):
    """In place of a lock: another driver holds it."""
    raise Held(f"{path} is held")


def distilled() -> str:
    """The digest of the weights that distil.py teaches."""
    shutil.rmtree("distilled", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "measure", lambda *_: {"ms_128": 1.0})
        wrong = one_line(distil.main, "sweep", "--epochs", "0.1", "--threads", "1", "--out", "distilled")
    return wrong or files.digest(Path("distilled") / saved.WEIGHTS)


def without_times(value):
    """A network that is timed again takes another time."""
    if isinstance(value, dict):
        timed = ("ms_", "files", "sha256", "cascade")
        return {key: without_times(item) for key, item in value.items() if not key.startswith(timed)}
    return [without_times(item) for item in value] if isinstance(value, list) else value


READERS = {
    "predict": lambda: predicted(predict.main, "sweep", *DATA),
    "predict one": lambda: predicted(predict_one.main, "network", *DATA),
    "submit": lambda: said(submit.main, "sweep", "--dry-run", "--results", "."),
    "compare": lambda: said(report.main, "sweep", "sweep", "--json"),
    "table": lambda: said(report.main, "sweep", "--view", "leaderboard"),
    "importance": lambda: said(report.main, "sweep", "--view", "importance"),
    "explain": lambda: said(explain.main, "sweep", "5"),
    "combine": lambda: combined("sweep"),
    "combine what is kept": lambda: combined("kept"),
    "resume": lambda: said(resumed),
    "learn": lambda: said(learned),
    "train again": lambda: said(train.main, "--trial", "sweep/99"),
    "page": lambda: page("sweep"),
    "mirror": mirrored,
    "distil": distilled,
}
# The files that are sealed, or named with a digest by another: any change of a byte is noticed.
SEALED = {
    "sweep/ensemble.json": ("predict", "submit", "compare", "page", "distil"),
    "sweep/sweep.json": ("compare", "page"),
    "sweep/submission.csv": ("submit",),
    "sweep/times.json": ("combine",),
    "sweep/trials/4/config.json": ("predict", "combine"),
    "sweep/trials/4/model.safetensors": ("predict", "combine", "distil"),
    "sweep/trials/4/probs.safetensors": ("combine", "page"),
    "kept/predictions.parquet": ("combine what is kept",),
    "kept/sweep.json": ("combine what is kept",),
    "network/config.json": ("predict one",),
    "network/model.safetensors": ("predict one",),
}
JSON = {name: readers for name, readers in SEALED.items() if name.endswith(".json") and "trials" not in name}
OF_RECORD = ("explain", "table", "importance", "combine", "resume", "learn", "train again")
OF_RECORD += ("mirror", "distil")


@pytest.fixture(scope="module")
def right(folder) -> dict[str, str]:
    """The result of each reader of the intact folder."""
    return {name: read() for name, read in READERS.items()}


def check(name: str, reader: str, right: dict[str, str], *, exact: bool):
    """The result of a reader is right, or a line that names the damaged file."""
    result = READERS[reader]()
    if result != right[reader] and (exact or ".py: " in result[:20]):
        assert Path(name).name in result, (name, reader, result)


def test_the_intact_folder_is_read(right):
    """What follows compares with results, not with refusals."""
    refused = {name: result for name, result in right.items() if ".py: " in result[:20]}
    assert refused.keys() == {"train again"}
    assert "that sweep has the trials 0 to 7" in refused["train again"]
    assert right["predict"].count("\n") == right["predict one"].count("\n") == 21


def put(path: Path, changed: bytes | None):
    """Replace a file by another content; None: by a folder."""
    path.unlink()
    if changed is None:
        path.mkdir()
    else:
        path.write_bytes(changed)


@pytest.mark.parametrize("name", SEALED)
@SOME
@given(draw=st.data())
def test_a_changed_byte(folder, right, name, draw):
    changed = draw.draw(bytes_changed((folder / name).read_bytes()))
    with kept(folder / name):
        put(folder / name, changed)
        for reader in SEALED[name]:
            check(name, reader, right, exact=True)


@pytest.mark.parametrize("name", JSON)
@SOME
@given(draw=st.data())
def test_a_changed_field(folder, right, name, draw):
    """Without the digest of the file itself, as somebody changes it by hand."""
    changed = draw.draw(field_changed((folder / name).read_text()))
    with kept(folder / name):
        (folder / name).write_text(changed, errors="surrogatepass")
        for reader in JSON[name]:
            check(name, reader, right, exact=False)


@settings(SOME, max_examples=30)
@given(draw=st.data())
def test_a_changed_cell_of_the_record(folder, right, draw):
    name = "sweep/record.db"
    changed = draw.draw(cell_changed(folder / name))
    with kept(folder / name):
        change_cell(folder / name, *changed)
        for reader in OF_RECORD:
            check(name, reader, right, exact=False)


@SOME
@given(draw=st.data())
def test_a_changed_byte_of_the_record(folder, right, draw):
    name = "sweep/record.db"
    changed = draw.draw(bytes_changed((folder / name).read_bytes()))
    with kept(folder / name):
        put(folder / name, changed)
        for reader in OF_RECORD:
            check(name, reader, right, exact=False)


def refused(read: str, *words: str):
    """A reader ends with one line that has these words."""
    line = READERS[read]()
    assert ".py: " in line[:20], line[:300]
    assert all(word in line for word in words), line


def flip_exponents(path: Path, many: int = 40):
    """Set the highest bit of the exponent of so many weights."""
    content = bytearray(path.read_bytes())
    first = 8 + int.from_bytes(content[:8], "little")
    for i in range(many):
        content[first + 4 * i + 3] ^= 0x40
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("read", "name"),
    [("predict one", "network/model.safetensors"), ("predict", "sweep/trials/4/model.safetensors")],
)
def test_flipped_exponents(folder, read, name):
    with kept(folder / name):
        flip_exponents(folder / name)
        refused(read, name.split("/", 1)[1], "does not fit", "copy the network again")


def test_a_network_from_before_there_were_digests(folder):
    """It loads, as long as its weights are numbers."""
    about = json.loads((folder / "network" / saved.CONFIG).read_text())
    weights = folder / "network" / saved.WEIGHTS
    before = {name: tensor.clone() for name, tensor in saved.load(folder / "network")[0].state_dict().items()}
    with kept(folder / "network" / saved.CONFIG), kept(weights):
        plain = {name: value for name, value in about.items() if name not in ("files", "sha256")}
        (folder / "network" / saved.CONFIG).write_text(json.dumps(plain))
        network, _, _ = saved.load(folder / "network")
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        flip_exponents(weights)
        tensors = safetensors.torch.load(weights.read_bytes())
        next(tensor for tensor in tensors.values() if tensor.is_floating_point()).view(-1)[0] = float("inf")
        weights.write_bytes(safetensors.torch.save(tensors))
        refused("predict one", "model.safetensors", "no finite number")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("temperature", 0, "temperature is 0; it should be a finite number above 0"),
        ("temperature", float("nan"), "temperature is nan"),
        ("method", "guess", "method is 'guess'; it should be one of mean, vote, greedy, weights, best"),
        ("members.0.weight", float("inf"), "members.0.weight is inf; it should be a finite number of 0 or more, at most 1"),
        ("members.0.weight", -1, "members.0.weight is -1"),
        ("members.*.weight", 0, "members.weight is [0, 0]; it should be weights with the sum 1"),
        ("members.0.weight", 1, "it should be weights with the sum 1"),
        ("members.0.networks.0", "../../x", "the digests of all networks that are asked, '../../x' among them"),
        ("cascade.network", "x", "the digests of all networks that are asked, 'x' among them"),
        ("judged_on.split", "test", "judged_on.split is 'test'; it should be one of out of fold, val"),
        ("members.0.view", "left", "members.0.view is 'left'; it should be a whole number"),
        ("members.0.view", -1, "members.0.view is -1"),
        ("members.0.networks", [], "members.0.networks is []; it should be a list of 1 or more"),
        ("members", {}, "members is {}; it should be a list of 1 or more"),
        ("cascade.threshold", "x", "cascade.threshold is 'x'"),
        ("judged.errors", 500, "judged is {'errors': 500, 'images': 100"),
        ("judged.error", 0.9, "it should be errors of so many images, and the error as their share"),
        ("best_single.judged.errors", 0, "best_single.judged is {'errors': 0"),
        ("members.1.judged.images", 7, "members.1.judged is "),
        ("methods.mean.judged.error", 0, "methods.mean.judged is "),
        ("sizes.0.judged.errors", 500, "sizes.0.judged is "),
        ("cascade.judged.errors", 500, "cascade.judged is "),
        ("cascade.first_judged.errors", 500, "cascade.first_judged is "),
        ("judged_on.images", 7, "judged_on.images is 7; it should be 100, as judged.images is"),
    ],
)
@pytest.mark.parametrize("is_sealed", [True, False])
def test_values_of_an_ensemble(folder, field, value, says, is_sealed):
    """Also where the digest was made anew, or left out."""
    path = folder / "sweep" / "ensemble.json"
    about = json.loads(path.read_text())
    *names, last = field.split(".")
    holders = [about]
    for name in names:
        holders = [item for h in holders for item in (h if name == "*" else [h[int(name) if isinstance(h, list) else name]])]
    for holder in holders:
        holder[int(last) if isinstance(holder, list) else last] = value
    with kept(path):
        rest = {name: item for name, item in about.items() if name != "sha256"}
        path.write_text(json.dumps(rest if not is_sealed else {**rest, "sha256": seal(rest)}))
        for read in ("predict", "submit", "compare"):
            refused(read, "ensemble.json", says)


def log_probabilities(frame: pd.DataFrame, value: float):
    frame.loc[3, [name for name in frame if name.startswith("logp")]] = value


def one_network(frame: pd.DataFrame):
    """Let the first member have had a val of the user's: what all its networks said, and one of them, of fewer images."""
    mine = frame["member"].eq(0) & frame["split"].eq("out of fold")
    frame.loc[mine, "split"] = "val"
    frame.loc[mine & frame["image"].ge(90), "split"] = "val of one"
    frame.loc[frame["split"].eq("val of one"), "image"] = range(10)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: log_probabilities(frame, -1000), "member 0 has wrong values of logp for out of fold"),
        (lambda frame: log_probabilities(frame, 1000), "member 0 has wrong values of logp for out of fold"),
        (lambda frame: log_probabilities(frame, 0), "member 0 has wrong values of logp for out of fold"),
        (lambda frame: log_probabilities(frame, -10), "member 0 has wrong values of logp for out of fold"),
        (lambda frame: log_probabilities(frame, np.nan), "the column logp_0 has halffloat, 1 missing; it should hold a finite"),
        (one_network, "member 0 has 10 images val of one, and 90 that judge"),
        (lambda frame: frame.__setitem__("image", frame["image"] + 0.5), "the column image has double, 0 missing; it should"),
    ],
)
def test_values_of_what_was_kept(folder, change, says):
    """Where no ensemble.json has its digest."""
    path = folder / "kept" / "predictions.parquet"
    with kept(path), kept(folder / "kept" / "ensemble.json"):
        (folder / "kept" / "ensemble.json").unlink()
        table = pq.read_table(path)
        frame = table.to_pandas().astype({"split": str})
        assert "method" in READERS["combine what is kept"]()
        change(frame)
        changed = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
        refused("combine what is kept", "predictions.parquet", says)


def test_a_text_that_takes_more_memory_than_there_is(tmp_path, monkeypatch):
    """An empty list is 3 bytes of JSON and 64 of memory."""
    monkeypatch.setattr(reading, "free", lambda: 20 * SMALL)
    text = "[" + "[]," * (SMALL // 3) + "[]]"
    with pytest.raises(BadInput, match="record.db would need 0.1 GB of memory, and 0.0 GB are free"):
        parse_json(text, "record.db")
    assert len(parse_json("[" + "[]," * 9 + "[]]", "record.db")) == 10
    (tmp_path / "sweep.json").touch()
    os.truncate(tmp_path / "sweep.json", LARGEST + 1)
    with pytest.raises(BadInput, match=f"sweep.json has .* a file of its kind has {LARGEST:,} at most"):
        read_json(tmp_path / "sweep.json")


def test_an_edit_by_hand(folder):
    """It is refused as long as the digest stands there; who removes that is believed."""
    path = folder / "sweep" / "ensemble.json"
    about = json.loads(path.read_text())
    with kept(path):
        path.write_text(json.dumps({**about, "temperature": 2.0}))
        refused("predict", "ensemble.json is not as it was written", "if you changed it yourself and mean it, remove")
        del about["sha256"]
        path.write_text(json.dumps({**about, "temperature": 2.0}))
        assert READERS["predict"]().count("\n") == 21


def test_a_network_of_other_classes(folder):
    """Each file is whole; they do not belong together."""
    path = folder / "sweep" / "ensemble.json"
    about = json.loads(path.read_text())
    with kept(path), kept(folder / "network" / saved.CONFIG):
        told = json.loads((folder / "network" / saved.CONFIG).read_text())
        told["problem"]["classes"] = list("abcd")
        stored.write_sealed(folder / "network" / saved.CONFIG, told)
        about["members"][0]["networks"] = ["../network"]
        names = (saved.CONFIG, saved.WEIGHTS)
        about["networks"]["../network"] = {name: files.digest(folder / "network" / name) for name in names}
        stored.write_sealed(path, about)
        refused("predict", "ensemble.json", "other classes or another shape")


@pytest.mark.parametrize("reader", OF_RECORD)
def test_a_newer_record(folder, reader):
    path = folder / "sweep" / "record.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    with kept(path):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {VERSION + 1}")
        refused(reader, f"record.db has tables of version {VERSION + 1}", "update the code")
        with pytest.raises(BadInput, match="update the code"):
            Record(path)
        assert said(arch_sweep.main, "--resume", "sweep", "--results", ".").endswith("update the code")


def test_a_page_of_a_damaged_sweep(folder):
    """report.py and mirror.py write no page that leaves out in silence what is damaged."""
    for name in ("ensemble.json", "sweep.json", "trials/4/probs.safetensors"):
        with kept(folder / "sweep" / name):
            (folder / "sweep" / name).write_bytes(b"")
            for main in (report.main, mirror.main):
                line = one_line(main, "sweep")
                assert line, name
                assert Path(name).name in line
            assert not (folder / "sweep" / "report.html").exists()


def test_what_networks_said_later_is_kept_with_its_digest(folder):
    """predictions.safetensors can be made again, so that is what happens where it is damaged."""
    found = members.find(folder / "sweep")[0]
    data = load("csv:digits")
    splits = {"unlabelled": data.unlabelled}
    (first,) = members.predict_all([found.networks[0]], splits, None)
    path = found.networks[0].folder / members.PREDICTIONS
    content = path.read_bytes()
    path.write_bytes(content[:-4] + bytes(byte ^ 1 for byte in content[-4:]))
    (again,) = members.predict_all([members.find(folder / "sweep")[0].networks[0]], splits, None)
    assert np.array_equal(again["unlabelled"], first["unlabelled"])
    assert np.array_equal(safetensors.numpy.load_file(path)["unlabelled"], first["unlabelled"])


def test_a_damaged_network_in_a_sweep_at_work(folder):
    """Whoever combines by hand is told; a sweep leaves it out, and says so."""
    path = folder / "sweep" / "trials" / "0" / saved.WEIGHTS
    heard = []
    with kept(path):
        path.write_bytes(path.read_bytes()[:-1])
        there = members.find(folder / "sweep", heard.append)
        with pytest.raises(BadInput, match=r"trials/0/model.safetensors does not fit record.db.*--resume sweep"):
            members.find(folder / "sweep")
    assert [member.trial for member in there] == [m.trial for m in members.find(folder / "sweep") if m.trial != 0]
    assert len(heard) == 1
    assert "trials/0/model.safetensors" in heard[0]


def test_the_served_model_has_its_own_digests(folder, tmp_path):
    """Its networks lie elsewhere, under other names."""
    package(folder / "sweep", tmp_path / "model")
    where = next(tmp_path.rglob("ensemble.json")).parent
    model = Model(where)
    data = load("csv:digits")
    expected = Model(folder / "sweep")(data.unlabelled)
    assert np.array_equal(model(data.unlabelled), expected)
    flip_exponents(next(where.rglob(saved.WEIGHTS)))
    with pytest.raises(BadInput, match="model.safetensors does not fit ensemble.json"):
        Model(where)


def test_a_sweep_from_before_there_were_digests(tmp_path, monkeypatch):
    """It is opened, reported, combined, sent and resumed as it lies there."""
    shutil.copytree(RECORDED, tmp_path / "results")
    monkeypatch.chdir(tmp_path / "results")
    before_it = (tmp_path / "results" / "sweep" / "ensemble.json").read_bytes()
    assert b"sha256" not in before_it
    assert one_line(explain.main, "sweep", "1") is None
    assert one_line(report.main, "sweep") is None
    assert "data:image/png" in (tmp_path / "results" / "sweep" / "report.html").read_text()
    assert predicted(predict.main, "sweep", *DATA).count("\n") == 21
    assert "what small-digits takes: estimate 0.47000" in said(submit.main, "sweep", "--dry-run", "--results", ".")
    assert said(arch_sweep.main, "--resume", "sweep", "--results", ".").startswith("Sweep sweep is done.")
    assert json.loads(combined("sweep"))["judged"]["errors"] == 53
    with contextlib.closing(sqlite3.connect(tmp_path / "results" / "sweep" / "record.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (0,), "who only reads changes nothing"
    Record(tmp_path / "results" / "sweep" / "record.db").close()
    assert one_line(explain.main, "sweep", "1") is None


def of_argv(main):
    """A command that parses sys.argv, up to that."""
    parse_args = Parser.parse_args

    def stop(self, *arguments):
        parse_args(self, *arguments)
        raise SystemExit(0)

    def parsed(arguments: list[str]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [sys.argv[0], *arguments])
            patch.setattr(Parser, "parse_args", stop)
            main()

    return parsed


# What each command parses, and what it needs besides the flag that is tried.
COMMANDS = {
    "arch_sweep": (parse, ()),
    "zoo": (zoo.parse, ()),
    "train": (train.parse, ()),
    "predict one": (predict_one.parse, ("network",)),
    "explain": (explain.parse, ("sweep", "1")),
    "report": (report.parse, ("sweep",)),
    "submit": (submit.parse, ("sweep",)),
    "mirror": (mirror.parse, ("sweep",)),
    "download": (download.parse, ()),
    "ensemble": (of_argv(ensemble.main), ("sweep",)),
    "predict": (of_argv(predict.main), ("sweep",)),
    "distil": (of_argv(distil.main), ("sweep",)),
    "snapshot": (of_argv(snapshot.main), ("results",)),
    "doctor": (of_argv(doctor.main), ()),
}
VALUES = ["", "x", "-1", "0", "nan", "1e400", "1_000", "٣", "../x", "1" * 400, "é" * 200, "a\x00b", "'", "0x10", "1e3"]


@pytest.mark.parametrize("name", COMMANDS)
@SOME
@given(draw=st.data())
def test_a_strange_argument(folder, name, draw):
    main, needed = COMMANDS[name]
    usage = call(lambda: main(["--help"])).out
    flags = sorted(set(re.findall(r"^\s+(--[a-z-]+)", usage, re.MULTILINE)) - {"--help", "--download"})
    flag, value = draw.draw(st.sampled_from(flags)), draw.draw(st.sampled_from(VALUES))
    command = lambda: main([*needed, f"{flag}={value}"]) and None  # noqa: E731
    told = call(command)
    assert told.status in (0, 2)
    assert len(told.err.splitlines()) == (1 if told.status else 0), told
