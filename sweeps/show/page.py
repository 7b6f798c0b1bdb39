"""report.html: a sweep in one file that needs no network, with the answer first.

The tables lie in it as JSON, once; charts are Vega-Lite's and name them, so that one filter reaches all. Whatever a user named
(classes, parameters, reasons) is text, never markup and never part of a Vega expression.
"""

import base64
import io
import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import vl_convert
from PIL import Image

from sweeps import stored
from sweeps.show import views
from sweeps.show.drawn import Drawn
from sweeps.show.judged import judges, name_of_val
from sweeps.show.summary import how_little
from sweeps.show.trained import PARTLY, epochs, mark, partly
from trainable import files
from trainable.engine import memory
from trainable.scores import interval

FILE = "report.html"
PICTURES = 48
SIDE = 96  # pixels of a picture at most
SAID = 3  # classes that a picture's probabilities are given of
# Where the project began, on Kaggle: what a sweep of the competition is also measured by.
BEGAN = {"digit-recognizer": ("resnet34 alone, where this project began (scored by Kaggle)", 0.00597)}


def page(folder: Path, wrong=None, missing: str = "", sent: list[dict] = (), honest: str = "") -> str:
    """A sweep's report, from its record or from the tables that are kept of one; it may be running.

    Args:
        wrong: its `choose.mistakes.Mistakes`.
        missing: why there is none.
        sent: what went to its competition, of whatever sweeps, the newest first; `honest`: how estimates and scores compare.
    """
    trials, curves = views.tables(folder)
    about, ensemble = there(folder)
    drawn = Drawn(folder, trials, curves, about, wrong)
    return render(
        "report.html",
        name=folder.name,
        state=_state(about, ensemble),
        answer=_answer(about, ensemble, drawn.searched),
        facts=_facts(about, ensemble, trials),
        ensemble=ensemble,
        partly=partly(ensemble),
        gallery=gallery(wrong) if wrong else [],
        errors=len(wrong.wrong) if wrong else 0,
        missing=missing,
        sent=sent,
        honest=honest,
        tables=drawn.tables,
        specs=drawn.specs,
        families=views.families(trials, curves),
        stops=views.stops(trials, curves),
        cost=views.cost(trials, curves),
        failures=views.failures(trials, curves),
    )


def render(template: str, **context) -> str:
    """A template with what it is given, of which `tables` and `specs` are for its charts; everything is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"epochs": epochs, "percent": percent, "number": number, "interval": _interval}
    environment.filters |= {"score": lambda value: _or_dash(value, ".5f")}
    environment.filters |= {"loss": lambda value: _or_dash(value, ".4f"), "tenths": lambda value: _or_dash(value, ".1f")}
    return environment.get_template(template).render(
        **context, script=library(), written=datetime.now(), data=_embed({k: context[k] for k in ("tables", "specs")})
    )


def library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script. To put them together takes a second, so they are kept."""
    path = memory() / f"vega-{vl_convert.__version__}.js"
    if not path.exists():
        bundle = vl_convert.javascript_bundle().replace("</script", "<\\/script")
        files.write(path, f"(() => {{{bundle}\n}})();")  # or its names would be the page's
    return path.read_text()


def _embed(value) -> str:
    """JSON for a script element: nothing in it can end the element, and NaN is null."""
    return json.dumps(_plain(value), ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, pd.DataFrame):
        return [_plain(row) for row in value.to_dict("records")]
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, np.generic):
        return _plain(value.item())
    return float(f"{value:.6g}") if isinstance(value, float) else value


def there(folder: Path) -> tuple[dict, dict]:
    """The contents of sweep.json and ensemble.json, {} for one that is not there; raises Damaged."""
    about = stored.sweep(folder) if (folder / stored.SWEEP).exists() else {}
    ensemble = stored.ensemble(folder) if (folder / stored.ENSEMBLE).exists() else {}
    return about, ensemble


def _state(about: dict, ensemble: dict) -> str:
    if "ended" in about and ensemble:
        return ""
    return "This sweep has not ended, or left no ensemble: what stands here is what its record had when this was written."


def _answer(about: dict, ensemble: dict, searched: pd.DataFrame) -> list[dict]:
    """Rows: what, errors and images where they were counted, the error, and on what."""
    out = []
    dataset, images = about.get("arguments", {}).get("dataset"), about.get("data", {}).get("images", {})
    if ensemble:
        on = judges(ensemble["judged_on"]) + (", which also chose" if ensemble["judged_on"]["split"] == "val" else "")
        members = ensemble["members"]
        networks = sum(len(member["networks"]) for member in members)
        out.append(
            {"what": f"The ensemble: {ensemble['method']} of {len(members)}, {networks} networks", **ensemble["judged"], "on": on}
        )
        if ensemble["test"]:
            out.append({"what": "The same on test, never used to choose", **ensemble["test"], "on": "test"})
        single = ensemble["best_single"]
        out.append(
            {
                "what": f"The best single member: trial {single['trial']}, {single['arch']}{mark(single)}",
                **single["judged"],
                "on": on,
            }
        )
    tried = searched.dropna(subset=["val_error", "val_loss"]) if len(searched) else searched
    count = images.get("val")
    for what, row in (
        ("The best trial of the search", tried.loc[tried["val_loss"].idxmin()] if len(tried) else None),
        ("Where it started", tried.iloc[0] if len(tried) else None),
    ):
        if row is not None:
            errors = {"errors": round(row["val_error"] * count), "images": count} if count else {}
            less = f" ({PARTLY})" if row["training"] == PARTLY else ""
            what = f"{what}: trial {row['trial']}, {row['arch']}, {row['budget']:.3g} epochs{less}"
            on = f"{name_of_val(about.get('data', {}))}, which also chose"
            out.append({"what": what, "error": row["val_error"], **errors, "on": on})
    if dataset in BEGAN:
        what, error = BEGAN[dataset]
        out.append({"what": what, "error": error, "on": "Kaggle's test"})
    return out


def _facts(about: dict, ensemble: dict, trials: pd.DataFrame) -> list[tuple[str, str]]:
    """What it took."""
    out, searched = [], views.searched(trials)
    ended = about.get("ended", {})
    if ended:
        out.append(("time", f"{ended['seconds'] / 60:.1f} minutes"))
        counted = "; of the time from the command until this was written" if "busy" in ended else ""
        out.append(("places busy training", percent(ended["cores_busy"]) + counted))
    counts = searched["state"].value_counts() if len(searched) else {}
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    out.append(("trials of the search", f"{len(searched)} ({states})" if len(searched) else "none"))
    most = about.get("arguments", {}).get("max_epochs")
    if len(trials) and most and (little := how_little(trials, most)):
        out.append(("trained", little))
    if len(trials) > len(searched):
        out.append(("networks of finalists", str(len(trials) - len(searched))))
    if len(trials):
        hours = (trials["train_s"] + trials["eval_s"]).sum() / 3600
        out.append(("place-hours of training", f"{hours:.2f}"))
    if ensemble:
        out.append(("a prediction", f"{number(ensemble['ms_per_image'])} ms an image, in batches of 128 on one place"))
        if cascade := ensemble.get("cascade"):
            words = f"{number(cascade['ms_per_image'])} ms an image, {cascade['judged']['errors']:,} errors, "
            out.append(("as a cascade", f"{words}{percent(cascade['share_passed_on'])} of the images passed on"))
    arguments = about.get("arguments", {})
    if arguments:
        images = ", ".join(f"{count:,} {name}" for name, count in about["data"]["images"].items() if count)
        given = " (given by the user: no network was trained on it)" if about["data"].get("val_given") else ""
        out.append(("data", f"{arguments['dataset']}: {images}{given}"))
        out.append(("commit, seed", f"{about.get('commit') or 'unknown'}, {arguments.get('seed')}"))
    return out


def gallery(wrong) -> list[dict]:
    """The worst: `image` (a data URI of a PNG), `id`, `label`, `said` (class and probability), `members` that are wrong."""
    classes, split, probs = wrong.data.classes, wrong.split, wrong.probs
    err = np.stack([member.val.argmax(axis=1) != split.labels for member in wrong.members])
    return [
        {
            "image": picture(split.images[row]),
            "id": str(split.ids[row]),
            "label": classes[split.labels[row]],
            "said": [(classes[c], float(probs[row, c])) for c in np.argsort(-probs[row])[:SAID] if probs[row, c] >= 0.005],
            "members": f"{err[:, row].sum()} of {len(err)}",
        }
        for row in wrong.wrong[:PICTURES]
    ]


def picture(image: np.ndarray) -> str:
    """A uint8 image [channels, height, width] as a data URI."""
    pixels = image[0] if len(image) == 1 else np.moveaxis(image[:3], 0, -1)
    shown = Image.fromarray(np.ascontiguousarray(pixels))
    shown.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def percent(share) -> str:
    return "-" if pd.isna(share) else f"{share:.2%}" if share < 0.1 else f"{share:.1%}"


def _or_dash(value, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)


def number(value) -> str:
    """Three digits, with commas."""
    if pd.isna(value):
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


def _interval(row: Mapping) -> str:
    if not row.get("images"):
        return ""
    low, high = interval(row["errors"], row["images"])
    return f"{low:.2%} to {high:.2%}"
