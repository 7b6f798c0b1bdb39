"""A small convolutional network for small images, plain or residual: stem, stages that double the width, global pool.

The defaults are the residual network of He et al. (arXiv:1512.03385), cut down to about 0.4 million weights, with
max pooling where theirs has strides: like Doucet's (github.com/ttdoucet/mnist), which is four times as wide.
"""

from collections.abc import Mapping
from functools import partial

from torch import nn

from trainable.archs import layers
from trainable.archs.layers import ACTIVATIONS, NORMS, POOLS, Residual, SqueezeExcite
from trainable.errors import BadInput

family = "convnet"

DEFAULTS = {
    "width": 24,  # channels of the stem; each stage doubles them
    "stages": 2,  # each begins at half the size of the one before
    "blocks": 1,  # per stage
    "kernel": 3,
    "block": "residual",
    "stem": "full",  # the first convolution at full size, or with stride 2
    "pool": "max",  # how the size is halved
    "head": "max",  # how the last feature map becomes a vector
    "dropout": 0.0,
    "activation": "relu",
    "norm": "batch",
    "attention": "none",  # at the end of every block
}


def space(trial) -> dict:
    kernel = trial.suggest_categorical("convnet.kernel", [3, 5])
    return {
        "width": trial.suggest_int("convnet.width", 16, 40, step=8),
        "stages": trial.suggest_int("convnet.stages", 2, 3),
        "blocks": trial.suggest_int("convnet.blocks", 1, 2) if kernel == 3 else 1,
        "kernel": kernel,
        "block": trial.suggest_categorical("convnet.block", list(BLOCKS)),
        "stem": trial.suggest_categorical("convnet.stem", list(STEMS)),
        "pool": trial.suggest_categorical("convnet.pool", list(POOLS)),
        "head": trial.suggest_categorical("convnet.head", list(HEADS)),
        "dropout": trial.suggest_float("convnet.dropout", 0.0, 0.4),
        "activation": trial.suggest_categorical("convnet.activation", list(ACTIVATIONS)),
        "norm": trial.suggest_categorical("convnet.norm", list(NORMS)),
        "attention": trial.suggest_categorical("convnet.attention", list(ATTENTIONS)),
    }


def build(knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network for images of at least 2 ** stages pixels a side.

    Raises:
        BadInput: a knob that cannot be, or an image too small.
    """
    whole = {"width": (1, 1024), "stages": (1, 6), "blocks": (1, 100), "kernel": (1, 15)}
    layers.check_knobs("convnet", knobs, NAMES, whole, shares=("dropout",))
    layers.check_odd("convnet", knobs)
    if min(in_shape[1:]) < 2 ** knobs["stages"]:
        raise BadInput(f"convnet.stages is {knobs['stages']}: images of {min(in_shape[1:])} pixels cannot be halved so often")
    width, kernel = knobs["width"], knobs["kernel"]
    conv = partial(layers.conv, activation=knobs["activation"], norm=knobs["norm"])
    pool, attention, block = POOLS[knobs["pool"]], ATTENTIONS[knobs["attention"]], BLOCKS[knobs["block"]]
    stem_kernel, stride = STEMS[knobs["stem"]]
    body = [conv(in_shape[0], width, stem_kernel or kernel, stride)]
    for stage in range(knobs["stages"]):
        halve = stage > 0 or stride == 1
        if halve and pool:
            body.append(pool())
        body.append(conv(width, 2 * width, kernel, stride=2 if halve and not pool else 1))
        width *= 2
        for _ in range(knobs["blocks"]):
            body.append(block(conv, width, kernel, attention(width)))
    head = HEADS[knobs["head"]](1)
    return nn.Sequential(*body, head, nn.Flatten(), nn.Dropout(knobs["dropout"]), nn.Linear(width, classes))


# Each is (conv, width, kernel, layers to end with) -> a block that keeps the shape.
def plain(conv, width: int, kernel: int, end: list) -> nn.Module:
    return nn.Sequential(conv(width, width, kernel), conv(width, width, kernel), *end)


def residual(conv, width: int, kernel: int, end: list) -> nn.Module:
    return Residual(conv(width, width, kernel), conv(width, width, kernel), *end)


def bottleneck(conv, width: int, kernel: int, end: list) -> nn.Module:
    """Half the width in the middle: a quarter of the work of `residual` or less."""
    inner = max(1, width // 2)
    return Residual(conv(width, inner, 1), conv(inner, inner, kernel), conv(inner, width, 1), *end)


def inverted(conv, width: int, kernel: int, end: list) -> nn.Module:
    """Twice the width in the middle, depthwise there: Sandler et al., arXiv:1801.04381."""
    inner = 2 * width
    return Residual(conv(width, inner, 1), conv(inner, inner, kernel, groups=inner), conv(inner, width, 1), *end)


BLOCKS = {"plain": plain, "residual": residual, "bottleneck": bottleneck, "inverted": inverted}
STEMS = {"full": (None, 1), "strided": (5, 2)}  # kernel and stride
HEADS = {"max": nn.AdaptiveMaxPool2d, "average": nn.AdaptiveAvgPool2d}
ATTENTIONS = {"none": lambda width: [], "squeeze_excite": lambda width: [SqueezeExcite(width)]}
NAMES = {
    "block": BLOCKS,
    "stem": STEMS,
    "pool": POOLS,
    "head": HEADS,
    "activation": ACTIVATIONS,
    "norm": NORMS,
    "attention": ATTENTIONS,
}
