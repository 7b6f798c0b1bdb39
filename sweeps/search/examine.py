"""What is to be known of a machine before it trains. This runs there, sent as it is: nothing of the project is needed."""

import hashlib
import importlib
import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import time
from pathlib import Path

import psutil

PACKAGES = ("ray", "torch", "torchvision", "numpy", "optuna", "pyarrow")
ANYWHERE = ("0.0.0.0", "::")


def examine(session: str) -> dict:
    """The facts of this machine; what cannot be found out stands there as the reason.

    Args:
        session: Ray's folder, where it writes.
    """
    now = time.time()
    return {
        "time": now,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "code": _tried(_code),
        "gpus_of_torch": _tried(_gpus_of_torch),
        "gpus_of_driver": _gpus_of_driver(),
        "room": {where: shutil.disk_usage(where).free for where in (session, os.path.expanduser("~")) if os.path.isdir(where)},
        "shared": shutil.disk_usage("/dev/shm").total,
        "memory": psutil.virtual_memory().total,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "dashboard_open": _tried(_dashboard_open),
        "firewall": _firewall(),
    }


def _tried(look):
    """What it finds, or what went wrong, in one line."""
    try:
        return look()
    except Exception as wrong:
        return f"{type(wrong).__name__}: {wrong}".splitlines()[0]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _code() -> dict[str, str]:
    """The digest of the project's code, as a trial would import it."""
    root = Path(importlib.import_module("trainable.ray_trial").__file__).parents[1]
    paths = sorted([*root.glob("sweeps/**/*.py"), *root.glob("trainable/**/*.py")])
    content = [path.relative_to(root).as_posix().encode() + path.read_bytes() for path in paths]
    return {"root": str(root), "digest": hashlib.sha256(b"".join(content)).hexdigest()[:12]}


def _gpus_of_torch() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _gpus_of_driver() -> int:
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return told.stdout.count("GPU ") if told.returncode == 0 else 0


def _dashboard_open() -> bool:
    """Whether Ray's dashboard, which takes commands, listens to more than this machine."""
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    dashboards = [command for command in commands if any(part.endswith("dashboard/dashboard.py") for part in command)]
    return any(f"--host={where}" in command for command in dashboards for where in ANYWHERE)


def _firewall() -> bool | None:
    """Whether the rules of clusters/own.py are in force; None where that cannot be seen."""
    root = () if os.getuid() == 0 else ("sudo", "-n")
    try:
        told = subprocess.run([*root, "nft", "list", "table", "inet", "sweeps"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return True if told.returncode == 0 else False if "No such file" in told.stderr else None
