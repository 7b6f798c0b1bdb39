"""The benchmarks run and write the figures that they print; how large these are is not tested here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
STATED = {"device", "torch", "commit", "load_before", "batch", "repeats"}


def bench(name: str, *arguments: str, to: Path) -> dict:
    command = [sys.executable, str(BENCHMARKS / name), *arguments, "--json", str(to)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(to.read_text())


@pytest.mark.full
def test_engine(tmp_path):
    short = ("--repeats", "1", "--seconds", "0.2", "--steps", "1", "--seeds", "2", "--loss-steps", "2")
    figures = bench("engine.py", "--archs", "squeezenet1_1", *short, to=tmp_path / "figures.json")
    found = figures["images_a_second"]["squeezenet1_1"]
    assert set(figures) == STATED | {
        *("mode", "images_a_second", "ratio_geometric_mean", "ratio_lowest", "slowest"),
        *("outside_median_of_own_families", "loss", "loss_steps"),
    }
    assert set(found) == {"ours", "reference", "ratio", "outside"}
    assert all(len(values) == 1 and min(values) > 0 for values in found.values())
    assert max(found["outside"]) < 1
    assert figures["ratio_geometric_mean"] == pytest.approx(figures["ratio_lowest"])  # of one network
    loss = figures["loss"]["squeezenet1_1"]
    assert loss["difference"] == pytest.approx((sum(loss["ours"]) - sum(loss["reference"])) / 2)
    assert all(1 < value < 4 for value in loss["ours"] + loss["reference"])  # ten classes, hardly trained: about 2.3


@pytest.mark.full
def test_augment(tmp_path):
    figures = bench("augment.py", "--repeats", "1", "--seconds", "0.1", to=tmp_path / "figures.json")
    assert set(figures) == STATED | {"images_a_second", "pixels_moved", "times_image_by_image"}
    assert len(figures["images_a_second"]) == len(figures["times_image_by_image"]) == 4
    for found in figures["images_a_second"].values():
        assert all(found[way][0] > 0 for way in ("ours", "image by image", "one for the batch"))
    for moved in figures["pixels_moved"].values():
        for name, tolerance in (("elastic", 0.1), ("perspective", 0.25)):
            assert moved[name]["ours"] == pytest.approx(moved[name]["torchvision"], rel=tolerance), name


@pytest.mark.full
def test_bad_input():
    command = [sys.executable, str(BENCHMARKS / "engine.py"), "--archs", "convnet,nonsense"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("engine.py: unknown architecture 'nonsense'")
    assert len(done.stderr.splitlines()) == 1
