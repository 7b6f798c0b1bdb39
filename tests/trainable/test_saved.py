import dataclasses

import numpy as np
import pytest

from trainable import files, saved
from trainable.archs import ARCHS
from trainable.archs.torchvision_zoo import ZOO
from trainable.config import TrialConfig
from trainable.errors import BadInput
from trainable.fit import fit, predict

SOME = [*(name for name in ARCHS if name not in ZOO), "resnet18", "mnasnet0_5", "squeezenet1_1", "efficientnet_b0"]


def packed(config, tiny):
    _, state = next(fit(config, tiny, device="cpu"))
    return saved.pack(config, tiny, state, {"val_error": 0.5}), state


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
