"""A small convolutional network for small images, plain or residual: stem, stages that double the width, global pool.

The defaults are the residual network of He et al. (arXiv:1512.03385), cut down to about 0.4 million weights.
"""

from collections.abc import Mapping

from torch import Tensor, nn

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


def build(knobs: Mapping, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network for images of at least 2 ** stages pixels a side."""
    width, kernel = knobs["width"], knobs["kernel"]
    if knobs["stem"] == "full":
        layers = [conv(in_shape[0], width, kernel)]
    else:
        layers = [conv(in_shape[0], width, 5, stride=2)]
    for stage in range(knobs["stages"]):
        halve = stage > 0 or knobs["stem"] == "full"
        stride = 2 if halve and knobs["pool"] == "stride" else 1
        if halve and knobs["pool"] != "stride":
            layers.append(nn.MaxPool2d(2) if knobs["pool"] == "max" else nn.AvgPool2d(2))
        layers.append(conv(width, 2 * width, kernel, stride))
        width *= 2
        pair = [(width, width, kernel)] * 2
        for _ in range(knobs["blocks"]):
            body = nn.Sequential(*(conv(*shape) for shape in pair))
            layers.append(Residual(body) if knobs["block"] == "residual" else body)
    pool = nn.AdaptiveMaxPool2d(1) if knobs["head"] == "max" else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Dropout(knobs["dropout"]), nn.Linear(width, classes))


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
