"""Hosts of their own on one Linux machine: each has its network, processes, home, /tmp and /dev/shm, and is reached by SSH alone.

They need root, network namespaces, and Debian's iproute2, openssh-server, rsync and nftables.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NET, BRIDGE = "10.78.0", "sweeps-br"
TOOLS = ("ip", "unshare", "sshd", "ssh", "ssh-keygen", "rsync", "nft")
# In the host's namespaces: its own home, /tmp and /dev/shm over the machine's, then the one service that it has.
BOOT = """
mount -t tmpfs tmpfs /dev/shm
mkdir -p /run/sshd && mount -t tmpfs -o mode=755 tmpfs /run/sshd
install -m 600 {folder}/hostkey {folder}/authorized_keys /run/sshd
for kept in {kept}; do
    mkdir -p {own}/home/$kept && mount --bind "$HOME/$kept" {own}/home/$kept
done
mount --rbind {own}/home "$HOME"
mount --rbind {own}/tmp /tmp
exec $(which sshd) -D -e -p 22 -h /run/sshd/hostkey -o PidFile=none -o StrictModes=no -o UsePAM=no \\
    -o PermitRootLogin=yes -o AuthorizedKeysFile=/run/sshd/authorized_keys
"""


def missing() -> str:
    """Why there can be no hosts here; empty where there can."""
    if sys.platform != "linux" or os.getuid():
        return "needs several hosts: of its own a machine has some with Linux and root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if not shutil.which(tool, path=path)]
    if absent:
        return f"needs several hosts: {', '.join(absent)} are absent"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"needs several hosts: no namespaces can be made here: {tried.stderr.strip()}" if tried.returncode else ""


class Hosts:
    """`count` hosts, numbered from 1, each at its `address`; this machine is at NET.254. Used as a context manager.

    Args:
        folder: where their disks lie, which outlive their power; not below /tmp.
    """

    def __init__(self, folder: Path, count: int):
        self.folder, self.numbers = folder.resolve(), range(1, count + 1)
        self.running: dict[int, subprocess.Popen] = {}
        self.key = self.folder / "key"

    def __enter__(self) -> "Hosts":
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("key", "hostkey"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        shutil.copy(self.folder / "key.pub", self.folder / "authorized_keys")
        self.down()  # what an earlier run left
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "add", f"{NET}.254/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        for i in self.numbers:
            _run("ip", "netns", "add", f"sweeps{i}")
            _run("ip", "link", "add", f"sweeps-v{i}", "type", "veth", "peer", "name", f"sweeps-e{i}")
            _run("ip", "link", "set", f"sweeps-v{i}", "master", BRIDGE, "up")
            _run("ip", "link", "set", f"sweeps-e{i}", "netns", f"sweeps{i}")
            _run("ip", "-n", f"sweeps{i}", "addr", "add", f"{self.address(i)}/24", "dev", f"sweeps-e{i}")
            _run("ip", "-n", f"sweeps{i}", "link", "set", f"sweeps-e{i}", "up")
            _run("ip", "-n", f"sweeps{i}", "link", "set", "lo", "up")
            self.power_on(i)

    def __exit__(self, *wrong):
        for i in list(self.running):
            self.power_off(i)
        self.down()

    def address(self, i: int) -> str:
        return f"{NET}.{i}"

    def home(self, i: int) -> Path:
        """Of its user, as this machine sees it."""
        return self.folder / f"host{i}" / "home"

    def power_on(self, i: int):
        own = self.folder / f"host{i}"
        for part in ("home", "tmp"):
            (own / part).mkdir(parents=True, exist_ok=True)
        boot = BOOT.format(folder=self.folder, own=own, kept=" ".join(map(shlex.quote, _kept())))
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private", "--kill-child"]
        with (own / "sshd.log").open("ab") as log:
            self.running[i] = subprocess.Popen(
                ["ip", "netns", "exec", f"sweeps{i}", *namespaces, "bash", "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while self.ssh(i, "true").returncode:
            if self.running[i].poll() is not None:
                raise RuntimeError(f"host {i} does not start: {(own / 'sshd.log').read_text()[-500:]}")
            time.sleep(0.2)

    def power_off(self, i: int):
        """All its processes end at once, as in a power cut; its disk stays."""
        host = self.running.pop(i)
        os.killpg(host.pid, signal.SIGKILL)  # and with the first of its process namespace every other
        host.wait()

    def cut(self, i: int):
        """Off the network, and alive."""
        _run("ip", "link", "set", f"sweeps-v{i}", "down")

    def heal(self, i: int):
        _run("ip", "link", "set", f"sweeps-v{i}", "up")

    def ssh(self, i: int, command: str) -> subprocess.CompletedProcess:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=2", "LogLevel=ERROR"]
        flags = [flag for option in options for flag in ("-o", option)]
        return subprocess.run(
            ["ssh", "-n", "-i", self.key, *flags, f"root@{self.address(i)}", f"bash -lc {shlex.quote(command)}"],
            capture_output=True,
            text=True,
        )

    def down(self):
        """Take the network away."""
        for i in self.numbers:
            _run("ip", "link", "del", f"sweeps-v{i}", check=False)  # lives on while a process of the host does
            _run("ip", "netns", "del", f"sweeps{i}", check=False)
        _run("ip", "link", "del", BRIDGE, check=False)


def _kept() -> list[str]:
    """What of Python lies in the machine's home, from there: each host needs it in its own."""
    home = Path.home().resolve()
    places = {Path(sys.prefix), Path(sys.base_prefix), home / ".cache"}
    return [str(place.resolve().relative_to(home)) for place in places if place.is_dir() and home in place.resolve().parents]


def _run(*command: Sequence[str | Path], check: bool = True):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
