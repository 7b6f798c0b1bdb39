"""Marks of networks that are not full trainings."""

from collections.abc import Mapping

import pandas as pd

FULL, PARTLY = "full", "partly trained"


def training(trials: pd.DataFrame) -> pd.Series:
    """Return FULL for trials that were trained to their last epoch, PARTLY for others that have a result, else nothing."""
    words = trials["state"].map(lambda state: FULL if state == "complete" else PARTLY)
    return words.where(trials["val_loss"].notna(), "").astype(str)


def epochs(member: Mapping) -> str:
    """Return how long a member of an ensemble.json was trained, and that it was not to the end."""
    if not member.get("full", True):
        return f"{share(member)}, {PARTLY}"
    return "-" if member["epochs"] is None else f"{member['epochs']:.3g}"


def share(member: Mapping) -> str:
    """Return how many of its epochs a partly trained member was trained for; files written by hand may not say."""
    if member["epochs"] is None or member["of_epochs"] is None:
        return "some"
    return f"{member['epochs']:.3g} of {member['of_epochs']:.3g}"


def mark(member: Mapping) -> str:
    """Return what is put behind the name of such a member, nothing behind others."""
    return "" if member.get("full", True) else f" ({PARTLY}: {share(member)} epochs)"


def partly(ensemble: Mapping) -> str:
    """Return what became of partly trained networks, in a sentence; nothing where there were none."""
    about = ensemble.get("partly_trained")
    if not about:
        return ""
    many = f"{about['networks']} partly trained network{'s' * (about['networks'] > 1)}"
    return f"{many} {'may take part' if about['taken'] else 'left out'}: {about['why']}."
