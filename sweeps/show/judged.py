"""Words for the images that a number was judged on."""

from collections.abc import Mapping

GIVEN = "validation images given by the user"


def judges(judged_on: Mapping) -> str:
    """Return which images judge an ensemble, from `judged_on` of its ensemble.json."""
    if judged_on["split"] != "val":
        return judged_on["split"]
    return GIVEN if judged_on.get("given") else "val"


def name_of_val(data: Mapping) -> str:
    """Return what val is called, from `data` of a sweep's sweep.json."""
    return f"val, {GIVEN}" if data.get("val_given") else "val"
