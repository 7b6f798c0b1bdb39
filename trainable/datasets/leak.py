"""The competition and MNIST never meet.

Every image of the competition, those to predict included, is one of MNIST's 70,000, whose labels are public. What has
seen them, under whatever name, has seen the answers.
"""

from collections.abc import Iterable

from trainable.errors import BadInput

COMPETITION = {"digit-recognizer", "digits-sample"}
HAS_THE_ANSWERS = {"mnist", "emnist", "qmnist", "unknown"}  # unknown: weights of which nobody says what they have seen


def refuse_leak(names: Iterable[str]):
    """Raises BadInput if something of the competition meets something that has seen its answers.

    Args:
        names: every dataset that plays a part: the one at hand, and those that the networks were trained on,
            "unknown" where that is not known.
    """
    names = set(names)
    ours, theirs = sorted(names & COMPETITION), sorted(names & HAS_THE_ANSWERS)
    if ours and theirs:
        raise BadInput(
            f"{theirs[0]} may not meet {ours[0]}: the competition's images are among MNIST's 70,000, whose labels are "
            f"public, so {_reason(theirs[0])}"
        )


def _reason(name: str) -> str:
    return "weights of unknown origin may have seen the answers" if name == "unknown" else "it would have seen the answers"
