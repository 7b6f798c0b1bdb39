"""The files that describe clusters agree with each other, with the code and with the requirements."""

import re

import pytest
import yaml
from running import ROOT

from clusters import own

FILES = ("cluster.yaml", "clusters/local.yaml")
REQUIRED = dict(re.findall(r"^(\w+)(?:\[.*\])?==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M))


@pytest.fixture(params=FILES)
def about(request) -> dict:
    return yaml.safe_load((ROOT / request.param).read_text())


def commands(about: dict) -> list[str]:
    return [command for name, some in about.items() if name.endswith("commands") for command in some]


def test_what_is_copied_is_there(about):
    mounts = {there: here for there, here in about["file_mounts"].items() if not here.startswith("~")}
    assert all((ROOT / path).exists() for path in mounts.values())
    assert about["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    scripts = re.findall(r"~/sweeps/((?:sweeps|clusters)/[\w./]+)", " ".join(commands(about)))
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)


def test_every_start_asks_for_the_token_and_shows_nothing(about):
    starts = [command for command in commands(about) if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    (head,) = (command for command in starts if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in head
    (worker,) = (command for command in starts if "--head" not in command)
    before = about["worker_start_ray_commands"]
    assert any("doctor.py --join $RAY_HEAD_IP:6379" in command for command in before[: before.index(worker)])


def test_versions(about):
    (installed,) = re.findall(r"astral\.sh/uv/([\d.]+)/", " ".join(commands(about)))
    assert installed == REQUIRED["uv"]
    job = yaml.safe_load((ROOT / "clusters" / "rayjob.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == REQUIRED["ray"]


def test_the_firewall_knows_every_port():
    about = yaml.safe_load((ROOT / "clusters" / "local.yaml").read_text())
    known = [range(int(low), int(high or low) + 1) for low, high in re.findall(r"(\d+)(?:-(\d+))?", own.PORTS)]
    given = {int(port) for port in re.findall(r"-port[=:](\d+)", " ".join(commands(about)))}
    assert len(given) > 8
    assert all(any(port in ports for ports in known) for port in given)
