"""TrialConfig: the one description of a trial, from the sampler through the loop into the record."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from trainable.align import ALIGNMENTS
from trainable.archs import ARCHS
from trainable.augment import AUGMENTS
from trainable.engine import SETTINGS
from trainable.errors import BadInput, check, listed, lookup, meant, positive, short
from trainable.optim import LR_SCHEDULES, OPTIMIZERS

ONLY_FINALISTS = "unlabelled is 1, and only finalists of a sweep with --use-unlabelled have somebody to label them; write 0"
EPOCHS = 1e-6, 1e5  # the least and the most; a step is made of the least
as_epochs = positive(float, EPOCHS[1], low=EPOCHS[0])  # an argparse type
DEFAULT_AUGMENT = {name: a.default for name, a in AUGMENTS.items()}


@dataclass(frozen=True)
class TrialConfig:
    """How one network is built and trained. Every field has a default: `TrialConfig()` trains.

    Raises:
        BadInput: a name that no table has, or a value outside its range.
    """

    arch: str = "convnet"
    knobs: Mapping = field(default_factory=dict)  # of the architecture; what is absent gets the architecture's default
    epochs: float = 8.0  # the whole schedule; fractions are allowed
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 4e-3  # peak
    momentum: float = 0.9  # beta1 where the optimiser is of Adam's family
    weight_decay: float = 0.01  # of matrices and kernels only, not of biases and normalisation
    lr_schedule: str = "onecycle"
    warmup: float = 0.15  # share of the training during which the learning rate rises, where the schedule has one
    label_smoothing: float = 0.05
    average: float = 0.998  # decay of the running average of the weights; 0: none
    augment: Mapping = field(default_factory=lambda: dict(DEFAULT_AUGMENT))  # what is absent is off
    clip: float = 0.0  # the gradient's largest norm; 0: not clipped
    align: str = "none"  # how images are brought into one frame, before the augmentation: a name of ALIGNMENTS
    input_size: int = 0  # pixels a side that images are resized to before the network; 0: as they are
    weights: str = ""  # to start from: "torchvision", or the path of a saved network; "": none, a random start
    accumulate: int = 1  # parts that a batch is computed in, for want of memory; BatchNorm sees them one by one
    engine: str = "auto"  # precision and memory layout: a name of engine.SETTINGS, or found by a probe
    folds: int = 0  # that train, and val unless the user gave it, are cut into; 0: they stay as they are
    fold: int = 0  # from 0: the one that is left out of train, and is val unless the user gave one
    unlabelled: int = 0  # 1: it learns from unlabelled images too, with labels that other networks gave them
    seed: int = 0

    def __post_init__(self):
        arch = lookup(ARCHS, self.arch, "architecture")
        lookup(OPTIMIZERS, self.optimizer, "optimizer")
        lookup(LR_SCHEDULES, self.lr_schedule, "lr_schedule")
        lookup(ALIGNMENTS, self.align, "align")
        for knob in self.knobs:
            lookup(arch.DEFAULTS, knob, f"knob of {self.arch}")
        for name, strength in self.augment.items():
            check(f"augment.{name}", strength, 0, lookup(AUGMENTS, name, "augmentation").limit)
        object.__setattr__(self, "knobs", {**arch.DEFAULTS, **self.knobs})
        object.__setattr__(self, "augment", {name: self.augment.get(name, 0.0) for name in AUGMENTS})
        check("epochs", self.epochs, *EPOCHS)
        check("batch_size", self.batch_size, 2, 1 << 20, whole=True)  # one image has no variance
        check("accumulate", self.accumulate, 1, self.batch_size // 2, whole=True)
        check("lr", self.lr, 0, 1e3)
        check("clip", self.clip, 0, 1e6)
        check("input_size", self.input_size, 0, 1024, whole=True)
        lookup({"auto": None, **SETTINGS}, self.engine, "engine")
        if not isinstance(self.weights, str):
            raise BadInput(f"weights is {self.weights!r}; write torchvision or the path of a saved network")
        check("folds", self.folds, 0, 1000, whole=True)
        if self.folds == 1:
            raise BadInput("folds is 1, which would leave nothing to train on; write 0 or at least 2")
        check("unlabelled", self.unlabelled, 0, 1, whole=True)
        check("fold", self.fold, 0, max(0, self.folds - 1), whole=True)
        check("seed", self.seed, 0, 2**63 - 1, whole=True)
        for name in ("momentum", "average"):
            check(name, getattr(self, name), 0, 0.999999)
        for name in ("weight_decay", "warmup", "label_smoothing"):
            check(name, getattr(self, name), 0, 1)

    def flat(self) -> dict:
        """As a flat dict of str, int and float: knobs as `<arch>.<knob>`, augmentation as `augment.<name>`."""
        out = {}
        for f in fields(self):
            value = getattr(self, f.name)
            prefix = self.arch if f.name == "knobs" else f.name
            out |= {f"{prefix}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {f.name: value}
        return out

    @classmethod
    def from_flat(cls, flat: Mapping) -> "TrialConfig":
        """The inverse of `flat`; absent keys have their defaults.

        Raises:
            BadInput: an unknown key; the message lists the known ones.
        """
        arch = flat.get("arch", cls.arch)
        plain = {f.name for f in fields(cls)} - {"knobs", "augment"}
        known = [
            *sorted(plain),
            *(f"augment.{name}" for name in AUGMENTS),
            *(f"{arch}.{knob}" for knob in lookup(ARCHS, arch, "architecture").DEFAULTS),
        ]
        for key in flat:
            if key not in known:
                names = f"known: {listed(known, key)}{meant(key, known)}"
                raise BadInput(f"unknown key {short(repr(key))} in a trial's configuration; {names}")
        given = {key: flat[key] for key in flat if key in plain}
        knobs = {key.split(".", 1)[1]: value for key, value in flat.items() if key.startswith(f"{arch}.")}
        augment = {key.split(".", 1)[1]: value for key, value in flat.items() if key.startswith("augment.")}
        return cls(**given, knobs=knobs, augment={**DEFAULT_AUGMENT, **augment})
