"""What the benchmarks share: the augmentation in torchvision's words, and what a figure is printed with."""

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import v2

from trainable import engine

# Those of a trial as shipped.
STRENGTHS = {"rotation": 12.0, "shift": 0.09, "scale": 0.12, "shear": 0.15, "elastic": 0.1}
# torchvision blurs noise where we interpolate between control points. A sigma of a tenth of the side makes
# neighbouring pixels move together over the same distance (correlation 0.59 four pixels apart at 28, 0.58 theirs), and
# this alpha moves a pixel as far: see `displacement`.
ELASTIC_SIGMA, ELASTIC_ALPHA = 0.1, 0.265  # sigma / side; alpha / (strength x side^2)
PERSPECTIVE = 0.7  # distortion_scale / slope, likewise


def torchvision_warps(strengths: dict[str, float], side: int) -> list[v2.Transform]:
    """Our `strengths` as torchvision's transforms, for images of `side` x `side` pixels."""
    bilinear = v2.InterpolationMode.BILINEAR
    affine = ("rotation", "shift", "scale", "shear")
    out = []
    if any(strengths.get(name) for name in affine):
        degrees, share, factor, slope = (strengths.get(name, 0.0) for name in affine)
        slant = float(torch.tensor(slope).atan().rad2deg())
        out.append(
            v2.RandomAffine(
                degrees, (share, share), (1 / (1 + factor), 1 + factor), shear=(-slant, slant), interpolation=bilinear
            )
        )
    if slope := strengths.get("perspective"):
        out.append(v2.RandomPerspective(PERSPECTIVE * slope, p=1.0))
    if strength := strengths.get("elastic"):
        out.append(v2.ElasticTransform(ELASTIC_ALPHA * strength * side**2, ELASTIC_SIGMA * side))
    return out


def torchvision_transform(strengths: dict[str, float], side: int) -> v2.Compose:
    """One uint8 image [c, side, side], or a batch with one transformation for all -> floats in [0, 1]."""
    return v2.Compose([*torchvision_warps(strengths, side), v2.ToDtype(torch.float32, scale=True)])


def displacement(warp: Callable[[Tensor], Tensor], side: int) -> float:
    """By how many pixels `warp`, floats [n, 3, side, side] -> the same, moves a pixel: mean over 512 draws.

    It is shown its own coordinates as images; bilinear interpolation of these is exact. The third channel is 1 and
    tells what came from outside, which is left out.
    """
    at = torch.arange(side, dtype=torch.float32).expand(side, side)
    before = torch.stack([at, at.T, torch.ones(side, side)])
    after = warp(before.repeat(512, 1, 1, 1))
    inside = after[:, 2] > 0.999
    return float((after - before)[:, :2].norm(dim=1)[inside].mean())


def about() -> dict:
    """What every figure is stated with: device, versions, commit, and what else ran."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "device": f"{_processor()}, {engine.cores()} cores",
        "torch": torch.__version__,
        "commit": git.stdout.strip() or None,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def spread(values: list[float], digits: int = 0) -> str:
    return f"{min(values):,.{digits}f}-{max(values):,.{digits}f}"


def table_of(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    return table


def show(table: Table):
    Console(width=130).print(table)
