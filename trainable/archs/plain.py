"""Plain convolutions without padding or pooling: M3, M5 and M7 of An et al., arXiv:2008.10400.

Every layer is wider than the one before by the same number of channels; BatchNorm follows every layer, the last linear
one too. A last map above 8x8 (the published ones are 8x8 and 4x4 at 28 pixels) is averaged to 8x8. Nothing makes the
maps small early: the time grows with the image's area.
"""

from collections.abc import Mapping
from itertools import pairwise

from torch import nn

from trainable.archs import layers
from trainable.archs.layers import ACTIVATIONS
from trainable.errors import BadInput, check

family = "plain"

# kernel: depth, channels of the first layer, channels that each further one adds
PUBLISHED = {3: (10, 32, 16), 5: (5, 32, 32), 7: (4, 48, 48)}

DEFAULTS = {
    "kernel": 3,
    "depth": 0,  # convolutions; 0: as published for the kernel: 10, 5 or 4
    "width": 1.0,  # times the published channels of the first layer
    "growth": 1.0,  # times the channels that each further layer adds
    "activation": "relu",
    "dropout": 0.0,  # before the linear layer
}


def space(trial) -> dict:
    """Narrower than published: the full widths train 100 to 200 images a second on a core."""
    return {
        "kernel": trial.suggest_categorical("plain.kernel", list(PUBLISHED)),
        "width": trial.suggest_float("plain.width", 0.25, 1.0, step=0.25),
        "growth": trial.suggest_float("plain.growth", 0.25, 0.75, step=0.25),
        "activation": trial.suggest_categorical("plain.activation", list(ACTIVATIONS)),
        "dropout": trial.suggest_float("plain.dropout", 0.0, 0.4),
    }


def build(knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network for images of more than depth * (kernel - 1) pixels a side.

    Raises:
        BadInput: a knob that cannot be, or an image too small.
    """
    names = {"kernel": PUBLISHED, "activation": ACTIVATIONS}
    layers.check_knobs("plain", knobs, names, {"depth": (0, 100)}, shares=("dropout",))
    check("plain.width", knobs["width"], 0.05, 16)
    check("plain.growth", knobs["growth"], 0, 16)
    kernel = knobs["kernel"]
    depth, first, more = PUBLISHED[kernel]
    depth = knobs["depth"] or depth
    height, width = (side - depth * (kernel - 1) for side in in_shape[1:])
    if min(height, width) < 1:
        side, fits = min(in_shape[1:]), (min(in_shape[1:]) - 1) // (kernel - 1)
        raise BadInput(
            f"plain.depth is {depth}: so many unpadded convolutions of {kernel}x{kernel} need {depth * (kernel - 1) + 1} pixels, "
            f"not {side}; a depth of {fits} or a larger input_size would do"
        )
    channels = [in_shape[0], *(max(1, round(first * knobs["width"] + i * more * knobs["growth"])) for i in range(depth))]
    body = []
    for inputs, outputs in pairwise(channels):
        body += [nn.Conv2d(inputs, outputs, kernel, bias=False), nn.BatchNorm2d(outputs), ACTIVATIONS[knobs["activation"]]()]
    flat, features = layers.flatten(channels[-1], height, width)
    linear = nn.Linear(features, classes, bias=False)
    return nn.Sequential(*body, flat, nn.Dropout(knobs["dropout"]), linear, nn.BatchNorm1d(classes))
