"""A small vision transformer: Dosovitskiy et al., arXiv:2010.11929.

Sine positions and the mean in place of a class token: Beyer et al., arXiv:2205.01580.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from trainable.archs import layers
from trainable.archs.layers import Patches, Residual
from trainable.errors import BadInput

family = "vit"

DEFAULTS = {
    "patch": 4,  # pixels; the image is padded to a multiple of it
    "stem": "conv",
    "dim": 96,
    "depth": 6,
    "heads": 3,
    "mlp": 2,  # width of the hidden layer, times dim
    "positions": "learned",
    "pool": "mean",
    "dropout": 0.0,
    "drop_path": 0.0,  # of the last block, rising linearly from 0: stochastic depth, arXiv:1603.09382
}

STEMS = ("patch", "conv")
POSITIONS = ("learned", "sincos")
POOLS = ("mean", "class")
# Tokens up to which a CPU does attention in plain steps: torch's fused one takes 10 times as long backward in bf16
# (49 tokens; a whole training step took 2.2 times as long).
FEW = 256


def space(trial) -> dict:
    return {
        "patch": trial.suggest_categorical("vit.patch", [4, 6]),
        "stem": trial.suggest_categorical("vit.stem", list(STEMS)),
        "dim": trial.suggest_int("vit.dim", 96, 192, step=48),
        "depth": trial.suggest_int("vit.depth", 4, 8),
        "heads": trial.suggest_categorical("vit.heads", [2, 3, 4, 6]),
        "mlp": trial.suggest_int("vit.mlp", 1, 4),
        "positions": trial.suggest_categorical("vit.positions", list(POSITIONS)),
        "pool": trial.suggest_categorical("vit.pool", list(POOLS)),
        "dropout": trial.suggest_float("vit.dropout", 0.0, 0.2),
        "drop_path": trial.suggest_float("vit.drop_path", 0.0, 0.2),
    }


def build(knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network whose time grows with the square of the number of patches, where there are hundreds.

    Raises:
        BadInput: a knob that cannot be.
    """
    names = {"stem": STEMS, "positions": POSITIONS, "pool": POOLS}
    whole = {"patch": (1, 32), "dim": (8, 1024), "depth": (1, 48), "heads": (1, 64), "mlp": (1, 8)}
    layers.check_knobs("vit", knobs, names, whole, shares=("dropout", "drop_path"))
    if knobs["dim"] % (4 * knobs["heads"]):
        raise BadInput(f"vit.dim is {knobs['dim']}; it should be a multiple of 4 * heads = {4 * knobs['heads']}")
    return Vit(knobs, in_shape, classes)


class Vit(nn.Module):
    def __init__(self, knobs: Mapping, in_shape: tuple[int, int, int], classes: int):
        super().__init__()
        dim, depth, drop = knobs["dim"], knobs["depth"], knobs["dropout"]
        self.patches = Patches("vit", knobs, in_shape)
        positions = sincos(dim, *self.patches.size)
        if knobs["positions"] == "learned":
            self.positions = nn.Parameter(torch.randn_like(positions) * 0.02)
        else:
            self.register_buffer("positions", positions, persistent=False)
        self.token = nn.Parameter(torch.zeros(1, 1, dim)) if knobs["pool"] == "class" else None
        blocks = []
        for i in range(depth):
            path = StochasticDepth(knobs["drop_path"] * i / max(1, depth - 1), "row")
            mlp = [nn.Linear(dim, knobs["mlp"] * dim), nn.GELU(), nn.Linear(knobs["mlp"] * dim, dim), nn.Dropout(drop)]
            blocks.append(Residual(nn.LayerNorm(dim), Attention(dim, knobs["heads"]), nn.Dropout(drop), path))
            blocks.append(Residual(nn.LayerNorm(dim), *mlp, path))
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(dim))
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # [n, patches, dim]
        if self.token is None:
            return self.head(self.blocks(x).mean(dim=1))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        return self.head(self.blocks(x)[:, 0])


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        if x.is_cpu and tokens <= FEW:
            mixed = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1).to(v.dtype) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, dim))


def sincos(dim: int, height: int, width: int) -> Tensor:
    """Positions [1, height * width, dim]: sines and cosines of y and x at dim / 4 frequencies."""
    frequencies = 10_000 ** -torch.linspace(0, 1, dim // 4)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (y, x)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)[None]
