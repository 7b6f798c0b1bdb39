"""Who may import whom."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p.relative_to(ROOT) for room in ("sweeps", "trainable") for p in (ROOT / room).rglob("*.py"))
ROOMS = ("search", "choose", "show", "compete")  # in the order in which data flows


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function; `from a import b` counts as a and a.b."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def uses(path: Path, *packages: str) -> set[str]:
    return {name for name in imports(path) for package in packages if name == package or name.startswith(f"{package}.")}


def forbidden(path: Path) -> set[str]:
    """What a file imports and may not."""
    room = path.parts[0]
    if room == "trainable":
        wrong = uses(path, "sweeps", "optuna", "mlflow")
        return wrong if path.name == "ray_trial.py" else wrong | uses(path, "ray", "trainable.ray_trial")
    wrong = uses(path, "sweeps.arch_sweep") | (uses(path, "sweeps.arguments") if len(path.parts) == 3 else set())
    if path.name in ("space.py", "combine.py"):
        wrong |= uses(path, "ray", "mlflow", "sqlite3", "pathlib", "os", "io")
    if path.name in ("searcher.py", "scheduler.py", "record.py", "progress.py"):
        wrong |= uses(path, "ray", "mlflow")
    if len(path.parts) == 3:
        own = path.parts[1]
        others = [f"sweeps.{other}" for other in ROOMS if other != own]
        later = [f"sweeps.{other}" for other in ROOMS[ROOMS.index(own) + 1 :]]
        # An earlier room is seen through the record alone.
        wrong |= {name for name in uses(path, *others) if not name.startswith("sweeps.search.record")} - {"sweeps.search"}
        wrong |= uses(path, *later)
    return wrong


@pytest.mark.parametrize("path", FILES, ids=str)
def test_arrows(path):
    assert not forbidden(path)


def test_the_rule_can_be_broken():
    """The check sees what it should see."""
    assert len(FILES) > 25
    assert uses(Path("trainable/ray_trial.py"), "ray")
    assert uses(Path("sweeps/arch_sweep.py"), "sweeps.choose", "sweeps.search")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nothing_on_disk_is_unpickled(path):
    assert not uses(path, "pickle", "cloudpickle", "joblib", "dill")
    assert not re.search(r"(?<!safetensors\.)torch\.load\(", (ROOT / path).read_text())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_are_small(path):
    assert len((ROOT / path).read_text().splitlines()) <= 300
