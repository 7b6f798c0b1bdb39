"""The competition and MNIST never meet.

Every image of the competition, those to predict included, is one of MNIST's 70,000, whose labels are public. What has
seen them, under whatever name, has seen the answers.
"""

from collections.abc import Iterable

from trainable.errors import BadInput

COMPETITION = {"digit-recognizer", "digits-sample"}
HAS_THE_ANSWERS = {"mnist", "emnist", "qmnist"}


def refuse_leak(taught: Iterable[str], asked: str | None = None):
    """Raises BadInput if something of the competition meets something that has seen its answers, or may have.

    Args:
        taught: every dataset that networks were trained on, "unknown" where that is not known.
        asked: the dataset at hand.
    """
    taught = set(taught)
    names = taught | {asked} if asked else taught
    ours, theirs = sorted(names & COMPETITION), sorted(names & HAS_THE_ANSWERS)
    if ours and theirs:
        raise BadInput(
            f"{theirs[0]} may not meet {ours[0]}: the competition's images are among MNIST's 70,000, whose labels are "
            "public, so it would have seen the answers"
        )
    # What a folder or a file holds, nobody says.
    unknown = sorted(name for name in taught if name.startswith(("unknown", "folder-", "csv-")))
    if asked in COMPETITION and unknown:
        raise BadInput(
            f"weights that learned from {unknown[0]} may not meet {asked}: nobody says whether MNIST's images were among "
            "that, and with them the competition's answers"
        )


def refuse_seen(taught: Iterable[str], asked: str, split: str):
    """Raises BadInput if images that are to judge have been trained on.

    Args:
        taught: as `after_training` names them.
        asked, split: the dataset and the split whose labels judge.
    """
    taught = set(taught)
    if _with_val(asked) in taught and split == "val":
        raise BadInput(f"a network that was trained with --all-labels has seen the val of {asked}; name other images")
    if asked in COMPETITION and taught & COMPETITION - {asked}:
        raise BadInput("digits-sample and digit-recognizer share images, so what one trained on would judge the other")


def after_training(asked: str, taught: Iterable[str], on_val: bool) -> tuple[str, ...]:
    """What has taught a network once it has been trained on the dataset `asked` too, and on its val if `on_val`."""
    return tuple(sorted({*taught, asked, *([_with_val(asked)] if on_val else [])}))


def _with_val(name: str) -> str:
    return f"{name} with val"
