"""A small convolutional network for small images, plain or residual: stem, stages that double the width, global pool.

The defaults are the residual network of He et al. (arXiv:1512.03385), cut down to about 0.4 million weights.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from trainable.errors import BadInput, check, lookup

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
}


def space(trial) -> dict:
    return {
        "width": trial.suggest_int("convnet.width", 16, 40, step=8),
        "stages": trial.suggest_int("convnet.stages", 2, 3),
        "blocks": trial.suggest_int("convnet.blocks", 1, 2),
        "kernel": trial.suggest_categorical("convnet.kernel", [3, 5]),
        "block": trial.suggest_categorical("convnet.block", ["plain", "residual"]),
        "stem": trial.suggest_categorical("convnet.stem", ["full", "strided"]),
        "pool": trial.suggest_categorical("convnet.pool", ["max", "average", "stride"]),
        "head": trial.suggest_categorical("convnet.head", ["max", "average"]),
        "dropout": trial.suggest_float("convnet.dropout", 0.0, 0.4),
    }


# kernel and stride of the stem
STEMS = {"full": (None, 1), "strided": (5, 2)}
POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d, "stride": None}
HEADS = {"max": nn.AdaptiveMaxPool2d, "average": nn.AdaptiveAvgPool2d}


def build(knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network for images of at least 2 ** stages pixels a side.

    Raises:
        BadInput: a knob that cannot be, or an image too small.
    """
    for knob, high in (("width", 1024), ("stages", 6), ("blocks", 100), ("kernel", 15)):
        check(f"convnet.{knob}", knobs[knob], 1, high, whole=True)
    check("convnet.dropout", knobs["dropout"], 0, 1)
    if knobs["kernel"] % 2 == 0:
        raise BadInput(f"convnet.kernel is {knobs['kernel']}; it should be odd")
    if min(in_shape[1:]) < 2 ** knobs["stages"]:
        raise BadInput(f"convnet.stages is {knobs['stages']}: images of {min(in_shape[1:])} pixels cannot be halved so often")
    width, kernel = knobs["width"], knobs["kernel"]
    pool = lookup(POOLS, knobs["pool"], "convnet.pool")
    block = lookup(BLOCKS, knobs["block"], "convnet.block")
    stem_kernel, stride = lookup(STEMS, knobs["stem"], "convnet.stem")
    layers = [conv(in_shape[0], width, stem_kernel or kernel, stride)]
    for stage in range(knobs["stages"]):
        halve = stage > 0 or stride == 1
        if halve and pool:
            layers.append(pool(2))
        layers.append(conv(width, 2 * width, kernel, stride=2 if halve and not pool else 1))
        width *= 2
        for _ in range(knobs["blocks"]):
            layers.append(block(conv(width, width, kernel), conv(width, width, kernel)))
    head = lookup(HEADS, knobs["head"], "convnet.head")(1)
    return nn.Sequential(*layers, head, nn.Flatten(), nn.Dropout(knobs["dropout"]), nn.Linear(width, classes))


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


BLOCKS = {"plain": nn.Sequential, "residual": Residual}
