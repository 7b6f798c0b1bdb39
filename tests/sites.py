"""A user's machine and machines of their own, as clusters/local.yaml is for."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hosts import Hosts
from running import ROOT, wait

BIN = Path(sys.executable).parent
VARIABLES = f"CLUSTER=clusters/local.yaml VENV={sys.prefix}"
# Small, and no time is lost with finding the fastest engine.
SPACE = """
def draw(trial):
    return {
        "arch": "convnet",
        "convnet.width": 8,
        "engine": "fp32-nhwc",
        "lr": trial.suggest_float("lr", 2e-3, 8e-3, log=True),
    }
"""
SMALL = ("--dataset", "digits-sample", "--space", "~/sweeps/sweeps/mine.py:draw", "--scheduler", "none", "--finalists", "0")


class Site:
    """The project, an SSH key and a token on a machine of the user's; and the `hosts`, of which the first is the head."""

    def __init__(self, folder: Path, hosts: Hosts):
        self.hosts, self.project, self.home = hosts, folder / "project", folder / "client"
        self.file = self.project / "clusters" / "local.yaml"
        (self.project / "data").mkdir(parents=True)
        for name in ("sweeps", "trainable", "clusters"):
            shutil.copytree(ROOT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", "data/digits-sample.parquet", "requirements.txt", "pyproject.toml"):
            shutil.copy2(ROOT / name, self.project / name)  # as old as they are, so that make finds its environment up to date
        (self.project / "sweeps" / "mine.py").write_text(SPACE)
        (self.home / ".ray").mkdir(parents=True)
        self.env = {**os.environ, "HOME": str(self.home), "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "token"}
        self.run("ray get-auth-token --generate")
        self.template = self.file.read_text()
        self.move(*hosts.numbers)
        for i in hosts.numbers:
            install(hosts, i)

    def move(self, head: int, *workers: int):
        """Say in the file which machines there are."""
        self.head, self.members, text = head, (head, *workers), self.template
        for was, now in (
            ("192.168.1.10", self.hosts.address(head)),
            ("[192.168.1.11, 192.168.1.12]", json.dumps([self.hosts.address(i) for i in workers])),
            ("ssh_user: me", "ssh_user: root"),
            ("~/.ssh/id_ed25519", str(self.hosts.key)),
        ):
            assert was in text
            text = text.replace(was, now)
        self.file.write_text(text)

    def run(self, command: str) -> str:
        """On the user's machine, in the project: what it said; it must succeed."""
        done = subprocess.run(
            shlex.split(command),
            cwd=self.project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def on(self, i: int, command: str) -> subprocess.CompletedProcess:
        return self.hosts.ssh(i, command)

    def up(self):
        """`ray up`, until every host that the file names has joined."""
        self.run("ray up -y clusters/local.yaml")
        self.all_there()

    def all_there(self):
        wait(lambda: self.alive() == len(self.members))

    def mend(self):
        """Whatever a test left: every host that the file names is on and has joined."""
        for i in set(self.members) - set(self.hosts.running):
            self.hosts.power_on(i)
        self.all_there()

    def alive(self) -> int:
        """How many machines the head counts."""
        found = re.search(r"Active:\n (\d+) local", self.on(self.head, "ray status").stdout)
        return int(found[1]) if found else 0

    def submit(self, name: str, *arguments: str) -> Path:
        """A small sweep, or the rest of one; its folder on the head."""
        own = ("--resume", name) if self.folder(name).exists() else ("--name", name, *SMALL)
        self.run(f"make submit {VARIABLES} ARGS={shlex.quote(' '.join((*own, *arguments)))}")
        return self.folder(name)

    def folder(self, name: str) -> Path:
        return self.hosts.home(self.head) / "sweeps" / "results" / name

    def fetch(self, name: str) -> Path:
        self.run(f"make fetch {VARIABLES}")
        return self.project / "results" / name


@contextmanager
def three_hosts() -> Iterator[Site]:
    """Hosts of a cluster that is not up yet; their disks lie outside of /tmp, which each has for itself."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="sweeps-hosts-"))
    try:
        with Hosts(folder / "hosts", 3) as hosts:
            yield Site(folder, hosts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install(hosts: Hosts, i: int):
    """The virtual environment, seven gigabytes that need not be fetched by each."""
    home = hosts.home(i)
    for link, to in (("sweeps/.venv", Path(sys.prefix)), (".local/bin/uv", BIN / "uv")):
        (home / link).parent.mkdir(parents=True, exist_ok=True)
        (home / link).symlink_to(to)
