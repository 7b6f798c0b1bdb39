"""SPACES: what is searched. A space is a pure function of an Optuna trial: it returns a flat TrialConfig."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainable.align import ALIGNMENTS
from trainable.archs import ARCHS
from trainable.archs.torchvision_zoo import ZOO
from trainable.augment import AUGMENTS
from trainable.optim import LR_SCHEDULES, OPTIMIZERS

# The recipe that every search begins with. Parameters are named as in `recipe_space`; what is absent is drawn.
START = {
    "batch_size": 128,
    "optimizer": "muon",
    "muon.lr": 4e-3,
    "weight_decay": 0.01,
    "lr_schedule": "onecycle",
    "warmup": 0.15,
    "label_smoothing": 0.05,
    "clip": 1.0,  # without, squeezenet dies at this learning rate
    "average": 0.998,
    "align": "none",
    **{f"augment.{name}": a.default for name, a in AUGMENTS.items() if a.high},
}
# Ten errors of sixty fewer than at full strength, with either of two seeds; convnet does not care (LOG.md).
WEAKER = {f"augment.{name}": 0.7 * a.default for name, a in AUGMENTS.items() if a.high}
# What is tried first, in this order, and how it differs from the recipe and the architecture's defaults: what trains fast and
# well comes first, for searches that last minutes; differently aligned, networks err on different images (LOG.md).
# The first of these are known to be good in the end, whatever their first epochs look like.
SURE = (
    ("wide", {**WEAKER, "align": "slant"}),
    ("wide", {**WEAKER, "align": "moments"}),
    ("strided", {**WEAKER, "strided.dropout": 0.2, "align": "slant"}),
    ("wide", WEAKER),
    ("strided", {**WEAKER, "strided.dropout": 0.2}),
)
STARTS = (
    *SURE,
    ("convnet", {"convnet.width": 32}),
    ("plain", {"plain.kernel": 3, "plain.width": 0.5, "plain.growth": 0.5}),  # the published one takes ten times as long
)
ADAMW = {"optimizer": "adamw", "adamw.lr": 4e-3}  # of torchvision's networks


@dataclass(frozen=True)
class Space:
    draw: Callable[[object], dict]
    start: tuple[dict, ...] = ()  # parameters of the first trials; what is absent is drawn
    sure: int = 0  # so many of these are known to be good in the end, and good together: see Search


def recipe_space(trial) -> dict:
    """Everything but the architecture."""
    name = trial.suggest_categorical("optimizer", list(OPTIMIZERS))
    optimizer = OPTIMIZERS[name]
    return {
        "optimizer": name,
        # Under the optimiser's name: their ranges differ.
        "lr": trial.suggest_float(f"{name}.lr", optimizer.low, optimizer.high, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128, 256]),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 5e-2, log=True),
        "lr_schedule": trial.suggest_categorical("lr_schedule", list(LR_SCHEDULES)),
        "warmup": trial.suggest_float("warmup", 0.05, 0.3),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.15),
        "clip": trial.suggest_categorical("clip", [0.0, 1.0]),
        "average": trial.suggest_categorical("average", [0.0, 0.99, 0.998]),
        "align": trial.suggest_categorical("align", list(ALIGNMENTS)),
        **{f"augment.{name}": trial.suggest_float(f"augment.{name}", 0.0, a.high) for name, a in AUGMENTS.items() if a.high},
    }


def space_of(archs: Mapping[str, Callable[[object], dict]]) -> Space:
    """The space over these architectures, each with the function that draws its knobs."""

    def draw(trial) -> dict:
        arch = trial.suggest_categorical("arch", list(archs))
        knobs = archs[arch](trial)
        return {"arch": arch, **{f"{arch}.{knob}": value for knob, value in knobs.items()}, **recipe_space(trial)}

    starts = [(arch, own) for arch, own in STARTS if arch in archs]
    begun = {ARCHS[arch].family for arch, _ in starts}
    for arch in archs:  # and one of every other family
        if ARCHS[arch].family not in begun:
            begun.add(ARCHS[arch].family)
            starts.append((arch, ADAMW if arch in ZOO else {}))
    return Space(draw, tuple(_start(arch, own) for arch, own in starts), sum(arch in archs for arch, _ in SURE))


def _start(arch: str, own: dict) -> dict:
    knobs = {f"{arch}.{knob}": value for knob, value in ARCHS[arch].DEFAULTS.items()}
    if arch in ZOO:
        knobs[f"{arch}.stem_stride"] = 4  # the cheapest: the search draws numbers, and no rule
    return {"arch": arch, **knobs, **START, **own}


def _small_convnet(trial) -> dict:
    return {
        "width": trial.suggest_int("convnet.width", 16, 32, step=8),
        "blocks": trial.suggest_int("convnet.blocks", 1, 2),
        "block": trial.suggest_categorical("convnet.block", ["plain", "residual"]),
        "pool": trial.suggest_categorical("convnet.pool", ["max", "average", "stride"]),
        "head": trial.suggest_categorical("convnet.head", ["max", "average"]),
        "dropout": trial.suggest_float("convnet.dropout", 0.0, 0.4),
    }


# Of torchvision's networks those that can be trained in minutes, a cheap one of each family first.
SMALL_ZOO = (
    *("resnet18", "resnet34", "squeezenet1_1", "squeezenet1_0", "mobilenet_v3_small", "mobilenet_v3_large", "mobilenet_v2"),
    *("mnasnet0_5", "mnasnet1_0", "efficientnet_b0", "efficientnet_b3"),
)
OWN = tuple(name for name in ARCHS if name not in ZOO)

SPACES = {
    # On images of 28 pixels none of torchvision's came near these, in half of the time of a search; and the best of 22 vits
    # made three times the errors of the best of any other family, which are faster (LOG.md).
    "default": space_of({name: ARCHS[name].space for name in OWN if name != "vit"}),
    "all": space_of({name: ARCHS[name].space for name in (*OWN, *SMALL_ZOO)}),
    # One cheap network a family: an epoch of each on 10,000 digits takes one core below half a minute.
    "quick": space_of(
        {
            "convnet": _small_convnet,
            "resnet18": lambda trial: {"stem_stride": 4},
            "squeezenet1_1": lambda trial: {"stem_stride": 2},
            "mobilenet_v3_small": lambda trial: {"stem_stride": 2},
            "mnasnet0_5": lambda trial: {"stem_stride": 2},
        }
    ),
}
