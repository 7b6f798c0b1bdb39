import copy
import csv
import dataclasses
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trainable import engine, files, saved, scores
from trainable import predict as single
from trainable.archs import ARCHS
from trainable.archs.torchvision_zoo import ZOO
from trainable.config import TrialConfig
from trainable.errors import BadInput
from trainable.fit import fit, predict, settle

ROOT = Path(__file__).resolve().parents[2]
SOME = [*(name for name in ARCHS if name not in ZOO), "resnet18", "mnasnet0_5", "squeezenet1_1", "efficientnet_b0"]


def packed(config, tiny, **scores):
    _, state = next(fit(config, tiny, device="cpu"))
    return saved.pack(config, tiny, state, {"val_error": 0.5, **scores}), state


@pytest.mark.parametrize("arch", SOME)
def test_round_trip(arch, tiny, tmp_path):
    config = TrialConfig(arch=arch, batch_size=8, seed=3)
    contents, state = packed(config, tiny)
    for name, content in contents.items():
        files.write(tmp_path / name, content)
    network, again, problem = saved.load(tmp_path)
    assert again == dataclasses.replace(config, engine=state.plan.setting)
    assert problem.seen == ("tiny",)
    assert problem.classes == tiny.classes
    state.plan.place(network)
    few = tiny.val.take(np.arange(16))
    assert np.array_equal(predict(network, few, state.plan), predict(state.best_network, few, state.plan))


def test_the_readmes_snippet_says_what_predict_says(sample, tmp_path, monkeypatch, command):
    """Calibrated: at a temperature far from 1, which nobody may leave out or apply twice."""
    data = replace(sample, train=sample.train.take(np.arange(512)))
    for _, state in fit(TrialConfig(epochs=4.0, knobs={"width": 8}, engine="fp32-nhwc"), data, device="cpu"):
        pass
    settle(state)
    for name, content in saved.pack(TrialConfig(knobs={"width": 8}), data, state, {"temperature": 0.37}).items():
        files.write(tmp_path / "networks" / "mine" / name, content)
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text()
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "saved.load(" in code)
    there = {}
    exec(snippet, there)
    probs = there["probs"].numpy()
    few = data.test.take(np.arange(100))
    raw, _, problem = saved.unpack({n: (tmp_path / "networks" / "mine" / n).read_bytes() for n in (saved.CONFIG, saved.WEIGHTS)})
    logits = predict(raw, few, engine.plan(raw, problem.in_shape, "cpu", "fp32-nhwc"))
    assert problem.temperature == 0.37
    expected = scores.softmax(logits, 0.37)
    assert probs == pytest.approx(expected, abs=1e-4)
    assert np.abs(scores.softmax(logits) - expected).max() > 0.05, "it matters"
    assert single.answer(single.read("networks/mine"), few, [0], "cpu", lambda n: None) == pytest.approx(expected, abs=1e-4)
    status, _, said = command(single.main, "networks/mine", "--dataset", "digits-sample", "--split", "test", "--device", "cpu")
    assert status == 0, said
    rows = list(csv.DictReader((tmp_path / "submission.csv").open()))[:100]
    assert [row["Label"] for row in rows] == [data.classes[i] for i in probs.argmax(axis=1)]


def test_a_loaded_network_is_the_one_that_was_saved(tiny, tmp_path):
    contents, state = packed(TrialConfig(batch_size=8), tiny, temperature=2.5)
    for name, content in contents.items():
        files.write(tmp_path / name, content)
    network, _, problem = saved.load(tmp_path)
    assert problem.temperature == 1.0, "its logits need no other"
    assert network.state_dict().keys() == state.best_network.state_dict().keys()
    images = torch.rand(4, *tiny.in_shape)
    raw = saved.unpack(contents)[0]
    with torch.no_grad():
        assert torch.allclose(network(images), raw(images) / 2.5, atol=1e-5)
        again = copy.deepcopy(network)(images)
        assert torch.equal(again, network(images))
        exported = torch.export.export(network, (images,)).module()
        assert torch.allclose(exported(images), raw(images) / 2.5, atol=1e-5)
    taught = next(fit(TrialConfig(batch_size=8, weights=str(tmp_path)), tiny, device="cpu"))[1]
    assert not taught.network._forward_hooks, "who starts from its weights starts from weights alone"


def test_what_is_not_whole_is_refused(tiny, tmp_path):
    contents, _ = packed(TrialConfig(), tiny)
    with pytest.raises(BadInput, match=r"model.safetensors does not fit"):
        saved.unpack({**contents, saved.WEIGHTS: contents[saved.WEIGHTS][:-100]})
    other, _ = packed(TrialConfig(knobs={"width": 8}), tiny)
    with pytest.raises(BadInput, match=r"model.safetensors does not fit config.json"):
        saved.unpack({**contents, saved.WEIGHTS: other[saved.WEIGHTS]})
    with pytest.raises(BadInput, match=r"config.json is not a saved network's"):
        saved.unpack({**contents, saved.CONFIG: b"{}"})
    with pytest.raises(BadInput, match="holds no saved network"):
        saved.load(tmp_path)


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.txt"
    digest = files.write(path, "first")
    assert digest == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        files.write(path, "second")
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
