"""Strided convolutions in place of pooling: Deotte, kaggle.com/code/cdeotte/25-million-images-0-99757-mnist.

The defaults are his 32C3-32C3-32C5S2-64C3-64C3-64C5S2-128C4 with dropout 0.4 after each strided convolution and before the
linear layer; the normalisation comes after the activation; only strided convolutions pad.
"""

from collections.abc import Mapping

from torch import nn

from trainable.archs import layers
from trainable.archs.layers import ACTIVATIONS, NORMS
from trainable.errors import BadInput

family = "strided"

DEFAULTS = {
    "width": 32,  # channels of the first stage; each doubles them, and the last convolution again
    "stages": 2,  # each ends with a strided convolution
    "depth": 2,  # convolutions of a stage before the strided one
    "kernel": 3,
    "padding": "none",  # of the others
    "activation": "relu",
    "norm": "batch",
    "dropout": 0.4,
}

PADDINGS = {"none": 0, "same": 1}
LAST = 4  # kernel of the last convolution, or the whole map if that is smaller
SHRINK = 5  # kernel of the strided ones


def space(trial) -> dict:
    return {
        "width": trial.suggest_int("strided.width", 16, 48, step=16),
        "depth": trial.suggest_int("strided.depth", 1, 2),
        "kernel": trial.suggest_categorical("strided.kernel", [3, 5]),
        "padding": trial.suggest_categorical("strided.padding", list(PADDINGS)),
        "activation": trial.suggest_categorical("strided.activation", list(ACTIVATIONS)),
        "norm": trial.suggest_categorical("strided.norm", list(NORMS)),
        "dropout": trial.suggest_float("strided.dropout", 0.0, 0.5),
    }


def build(knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network; a last map above 8x8 is averaged to 8x8.

    Raises:
        BadInput: a knob that cannot be, or an image too small.
    """
    names = {"padding": PADDINGS, "activation": ACTIVATIONS, "norm": NORMS}
    whole = {"width": (1, 1024), "stages": (1, 6), "depth": (0, 100), "kernel": (1, 15)}
    layers.check_knobs("strided", knobs, names, whole, shares=("dropout",))
    layers.check_odd("strided", knobs)
    kernel, width, sides, channels = knobs["kernel"], knobs["width"], list(in_shape[1:]), in_shape[0]
    padding = kernel // 2 * PADDINGS[knobs["padding"]]
    body = []

    def add(outputs: int, kernel, **options):
        nonlocal channels
        convolution = nn.Conv2d(channels, outputs, kernel, **options)
        body.extend([convolution, ACTIVATIONS[knobs["activation"]](), NORMS[knobs["norm"]](outputs)])
        channels = outputs

    for _ in range(knobs["stages"]):
        for _ in range(knobs["depth"]):
            add(width, kernel, padding=padding)
        add(width, SHRINK, stride=2, padding=SHRINK // 2)
        body.append(nn.Dropout(knobs["dropout"]))
        sides = [(side - knobs["depth"] * (kernel - 1 - 2 * padding) + 1) // 2 for side in sides]
        if min(sides) < 1:
            raise BadInput(
                f"strided.stages is {knobs['stages']}: nothing is left of images of {min(in_shape[1:])} pixels; "
                "padding 'same', fewer stages or a larger input_size would do"
            )
        width *= 2
    last = [min(LAST, side) for side in sides]
    add(width, last)
    flat, features = layers.flatten(width, *(side - size + 1 for side, size in zip(sides, last, strict=True)))
    return nn.Sequential(*body, flat, nn.Dropout(knobs["dropout"]), nn.Linear(features, classes))
