"""SPACES: what is searched. A space is a pure function of an Optuna trial: it returns a flat TrialConfig."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainable.archs import ARCHS
from trainable.augment import AUGMENTS
from trainable.optim import LR_SCHEDULES, OPTIMIZERS

# Where every search begins: this recipe on the first architecture of each family, and on a second network of the
# first family. Parameters are named as in `recipe_space`; what is absent is drawn.
START = {
    "batch_size": 128,
    "optimizer": "adamw",
    "adamw.lr": 4e-3,
    "weight_decay": 0.01,
    "lr_schedule": "onecycle",
    "warmup": 0.15,
    "label_smoothing": 0.05,
    "average": 0.998,
    **{f"augment.{name}": a.default for name, a in AUGMENTS.items()},
    **{f"convnet.{knob}": value for knob, value in ARCHS["convnet"].DEFAULTS.items()},
}
SECOND = {"convnet.block": "plain", "adamw.lr": 6e-3}


@dataclass(frozen=True)
class Space:
    draw: Callable[[object], dict]
    start: tuple[dict, ...] = ()  # parameters of the first trials; what is absent is drawn


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
        "average": trial.suggest_categorical("average", [0.0, 0.99, 0.998]),
        **{f"augment.{name}": trial.suggest_float(f"augment.{name}", 0.0, a.high) for name, a in AUGMENTS.items()},
    }


def space_of(archs: Mapping[str, Callable[[object], dict]]) -> Space:
    """The space over these architectures, each with the function that draws its knobs."""

    def draw(trial) -> dict:
        arch = trial.suggest_categorical("arch", list(archs))
        knobs = archs[arch](trial)
        return {"arch": arch, **{f"{arch}.{knob}": value for knob, value in knobs.items()}, **recipe_space(trial)}

    families: dict[str, str] = {}
    for arch in archs:
        families.setdefault(ARCHS[arch].family, arch)
    first, *others = families.values()
    starts = [{"arch": first, **START}, {"arch": first, **START, **SECOND}, *({"arch": arch, **START} for arch in others)]
    return Space(draw, tuple(starts))


def _small_convnet(trial) -> dict:
    return {
        "width": trial.suggest_int("convnet.width", 16, 32, step=8),
        "blocks": trial.suggest_int("convnet.blocks", 1, 2),
        "block": trial.suggest_categorical("convnet.block", ["plain", "residual"]),
        "pool": trial.suggest_categorical("convnet.pool", ["max", "average", "stride"]),
        "head": trial.suggest_categorical("convnet.head", ["max", "average"]),
        "dropout": trial.suggest_float("convnet.dropout", 0.0, 0.4),
    }


SPACES = {
    "default": space_of({name: arch.space for name, arch in ARCHS.items()}),
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
