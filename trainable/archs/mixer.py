"""A small mixer: mixes over places, then over channels. MLP-Mixer (arXiv:2105.01601) or ConvMixer (arXiv:2201.09792)."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from trainable.archs import layers
from trainable.archs.layers import Patches, Residual, conv
from trainable.errors import BadInput

family = "mixer"

DEFAULTS = {
    "mixing": "conv",  # over places: a layer that sees them all, or a depthwise convolution
    "patch": 4,  # pixels; the image is padded to a multiple of it
    "stem": "conv",
    "dim": 96,
    "depth": 4,
    "kernel": 5,  # of the depthwise convolution
    "mlp": 2,  # width of the hidden layers, times their inputs, where mixing is mlp
    "dropout": 0.0,
}

STEMS = ("patch", "conv")
MOST = 1024  # patches: a layer that sees them all has mlp times their square as weights


def space(trial) -> dict:
    knobs = {
        "mixing": trial.suggest_categorical("mixer.mixing", list(MIXINGS)),
        "stem": trial.suggest_categorical("mixer.stem", list(STEMS)),
        "dim": trial.suggest_int("mixer.dim", 64, 128, step=32),
        "depth": trial.suggest_int("mixer.depth", 4, 6),
        "dropout": trial.suggest_float("mixer.dropout", 0.0, 0.3),
    }
    if knobs["mixing"] == "conv":
        return {
            **knobs,
            "kernel": trial.suggest_categorical("mixer.kernel", [3, 5, 7]),
            "patch": trial.suggest_categorical("mixer.patch", [2, 4]),
        }
    return {**knobs, "mlp": trial.suggest_int("mixer.mlp", 1, 3)}


def build(knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Raises BadInput: a knob that cannot be."""
    names = {"mixing": MIXINGS, "stem": STEMS}
    whole = {"patch": (1, 32), "dim": (8, 1024), "depth": (1, 48), "kernel": (1, 15), "mlp": (1, 8)}
    layers.check_knobs("mixer", knobs, names, whole, shares=("dropout",))
    layers.check_odd("mixer", knobs)
    patches = Patches("mixer", knobs, in_shape)
    body = MIXINGS[knobs["mixing"]](knobs, knobs["dim"], math.prod(patches.size))
    return nn.Sequential(patches, *body, nn.Dropout(knobs["dropout"]), nn.Linear(knobs["dim"], classes))


class Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


# Each is (knobs, dim, number of patches) -> layers from a map [n, dim, h, w] to vectors [n, dim].
def mlp(knobs: Mapping, dim: int, places: int) -> list[nn.Module]:
    if places > MOST:
        raise BadInput(
            f"mixer.patch is {knobs['patch']}, which makes {places} patches, above {MOST}; "
            f"a patch of {2 * math.ceil(knobs['patch'] * math.sqrt(places / MOST) / 2)} or a smaller input_size would do"
        )

    def perceptron(width: int) -> list:
        return [nn.Linear(width, knobs["mlp"] * width), nn.GELU(), nn.Linear(knobs["mlp"] * width, width)]

    body = [nn.Flatten(2), Transpose()]  # [n, places, dim]
    for _ in range(knobs["depth"]):
        body.append(Residual(nn.LayerNorm(dim), Transpose(), *perceptron(places), Transpose()))
        body.append(Residual(nn.LayerNorm(dim), *perceptron(dim)))
    return [*body, nn.LayerNorm(dim), Mean()]


def depthwise(knobs: Mapping, dim: int, places: int) -> list[nn.Module]:
    body = [nn.GELU(), nn.BatchNorm2d(dim)]
    for _ in range(knobs["depth"]):
        body.append(Residual(conv(dim, dim, knobs["kernel"], groups=dim, activation="gelu")))
        body.append(conv(dim, dim, 1, activation="gelu"))
    return [*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()]


MIXINGS = {"mlp": mlp, "conv": depthwise}
