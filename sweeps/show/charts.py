"""The charts of a report, in Vega-Lite. They name their data, `trials`, `curves` and so on, which the page has once."""

import altair as alt

from sweeps.show.figures import COLOURS

alt.data_transformers.disable_max_rows()
SHAPES = {"complete": "circle", "stopped": "cross", "interrupted": "triangle-down", "failed": "square", "running": "diamond"}
PERCENT = ".2~%"


def _of(name: str, height: int) -> alt.Chart:
    return alt.Chart(alt.NamedData(name), width="container", height=height)


def _family(families: list[str], legend: bool = True) -> alt.Color:
    scale = alt.Scale(domain=families, range=[COLOURS[i % len(COLOURS)] for i in range(len(families))])
    return alt.Color("family:N", scale=scale, legend=alt.Legend(title=None, orient="top") if legend else None)


def _state(states: list[str]) -> alt.Shape:
    scale = alt.Scale(domain=states, range=[SHAPES[state] for state in states])
    return alt.Shape("state:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def _log(nice: bool = False) -> alt.Scale:
    return alt.Scale(type="log", nice=nice)


ABOUT = [
    alt.Tooltip("trial:N"),
    alt.Tooltip("arch:N", title="architecture"),
    alt.Tooltip("state:N"),
    alt.Tooltip("epochs:Q", format=".3~g"),
    alt.Tooltip("error:Q", format=PERCENT),
    alt.Tooltip("loss:Q", format=".4f"),
]


def curves(families: list[str], states: list[str], rungs: list[float]) -> alt.LayerChart:
    """The error of every trial of the search at each rung; the mark at a line's end says how the trial ended."""
    ticks = alt.Axis(values=rungs, format="~g")
    x = alt.X("epochs:Q", scale=_log(), axis=ticks, title="epochs (logarithmic)")
    y = alt.Y("shown:Q", scale=_log(), axis=alt.Axis(format="~%"), title="error on val (logarithmic)")
    lines = _of("curves", 340).mark_line(strokeWidth=1.2, opacity=0.6).encode(x=x, y=y, color=_family(families), detail="trial:N")
    ends = (
        _of("curves", 340)
        .mark_point(size=45, filled=True, opacity=0.9)
        .encode(x=x, y=y, color=_family(families), shape=_state(states), tooltip=ABOUT)
    )
    return lines + ends.transform_filter("datum.last")


def progress(legend: bool = False) -> alt.LayerChart:
    """The lowest val loss so far, against the time of the sweep."""
    colour = alt.Color(
        "sweep:N", scale=alt.Scale(range=list(COLOURS)), legend=alt.Legend(title=None, orient="top") if legend else None
    )
    x = alt.X("minutes:Q", title="minutes of the sweep")
    y = alt.Y("best:Q", scale=_log(True), axis=alt.Axis(format="~g"), title="lowest loss so far (cross-entropy on val)")
    base = _of("progress", 220)
    about = [
        alt.Tooltip("minutes:Q", format=".1f"),
        alt.Tooltip("best:Q", format=".4f"),
        alt.Tooltip("trial:N"),
        alt.Tooltip("arch:N"),
    ]
    line = base.mark_line(interpolate="step-after").encode(x=x, y=y, color=colour)
    return line + base.mark_point(size=40, filled=True).encode(x=x, y=y, color=colour, tooltip=about)


def pareto(field: str, title: str, form: str, families: list[str], states: list[str]) -> alt.LayerChart:
    """Error against a cost; the line joins the complete trials that none betters in both."""
    x = alt.X(f"{field}:Q", scale=_log(), axis=alt.Axis(format=form, labelOverlap=True), title=title)
    y = alt.Y("shown:Q", scale=_log(), axis=alt.Axis(format="~%"), title="error on val")
    base = _of("trials", 280).transform_filter(f"isValid(datum.{field}) && isValid(datum.shown)")
    front = base.transform_filter(f"datum.front_{field}").mark_line(interpolate="step-after", color="grey", strokeWidth=1.5)
    about = [*ABOUT, alt.Tooltip("parameters:Q", format=",d"), alt.Tooltip("ms:Q", format=".3~g", title="ms an image")]
    points = base.mark_point(size=55, filled=True, opacity=0.85)
    return front.encode(x=x, y=y) + points.encode(x=x, y=y, color=_family(families), shape=_state(states), tooltip=about)


def importance(bars: int) -> alt.Chart:
    y = alt.Y("parameter:N", sort=alt.SortField("rank"), title=None, axis=alt.Axis(labelLimit=180))
    x = alt.X("importance:Q", axis=alt.Axis(format="~%"), title="importance")
    about = [alt.Tooltip("parameter:N"), alt.Tooltip("importance:Q", format=".1%"), alt.Tooltip("good:N", title="good values"),
             alt.Tooltip("tried:N"), alt.Tooltip("trials:Q")]  # fmt: skip
    return _of("importance", 20 * bars).mark_bar(color=COLOURS[0]).encode(x=x, y=y, tooltip=about)


def drawn(families: list[str]) -> alt.Chart:
    """The loss at equal budget against a parameter, which the page chooses."""
    y = alt.Y("loss:Q", scale=_log(True), axis=alt.Axis(format="~g"), title="loss, equally trained")
    about = [
        alt.Tooltip("trial:N"),
        alt.Tooltip("arch:N", title="architecture"),
        alt.Tooltip("value:N"),
        alt.Tooltip("loss:Q", format=".4f"),
    ]
    points = _of("drawn", 280).mark_point(size=55, filled=True, opacity=0.85)
    return points.encode(x=alt.X("value:Q", title=None), y=y, color=_family(families), tooltip=about)


def parallel() -> alt.Chart:
    """A line a trial through its parameters, each from its lowest value tried to its highest."""
    x = alt.X("parameter:N", sort=alt.SortField("rank"), title=None, axis=alt.Axis(labelAngle=-30, labelLimit=140, grid=True))
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[0, 1], padding=6))
    # From a colour that stands out on white and on black to one that does on neither.
    scale = alt.Scale(domain=[0, 0.5, 1], range=[COLOURS[1], "#c9a68f", "#a3adb8"])
    legend = alt.Legend(title="loss, from the best to the worst", orient="top", format="~%", type="gradient", gradientLength=140)
    colour = alt.Color("quantile:Q", scale=scale, legend=legend)
    about = [alt.Tooltip("trial:N"), alt.Tooltip("parameter:N"), alt.Tooltip("value:N"), alt.Tooltip("loss:Q", format=".4f")]
    line = _of("parallel", 300).mark_line(point=alt.OverlayMarkDef(size=25), strokeWidth=1.4, opacity=0.75)
    return line.encode(x=x, y=y, color=colour, detail="trial:N", order="rank:Q", tooltip=about)


def timeline(families: list[str], lanes: int) -> alt.Chart:
    """Who trained when, a row a place; what is blank was idle. Finalists are framed."""
    x = alt.X("from:Q", title="minutes of the sweep")
    y = alt.Y("lane:O", title="place", scale=alt.Scale(padding=0.15))
    frame = alt.condition("datum.finalist", alt.value("#888888"), alt.value(None))
    about = [
        *ABOUT[:3],
        alt.Tooltip("from:Q", format=".1f", title="from minute"),
        alt.Tooltip("to:Q", format=".1f", title="to minute"),
    ]
    bar = _of("timeline", max(70, 16 * lanes)).mark_bar(cornerRadius=1, strokeWidth=1.5)
    return bar.encode(x=x, x2="to:Q", y=y, color=_family(families), stroke=frame, tooltip=about)


def diversity(members: int) -> alt.LayerChart:
    """Of two members, how many of the images that either gets wrong both do."""
    place = {
        "x": alt.X("a:N", sort=None, title=None, axis=alt.Axis(labelAngle=0, labelOverlap=False, labelLimit=90)),
        "y": alt.Y("b:N", sort=None, title=None),
    }
    base = _of("diversity", 30 * members).encode(**place)
    shade = alt.Color("shared:Q", scale=alt.Scale(scheme="blues", domain=[0, 1]), legend=None)
    about = [alt.Tooltip("a:N", title="member"), alt.Tooltip("b:N", title="and"), alt.Tooltip("both:Q", title="both wrong"),
             alt.Tooltip("either:Q", title="either wrong"), alt.Tooltip("shared:Q", format=".0%")]  # fmt: skip
    ink = alt.condition("datum.shared > 0.55", alt.value("white"), alt.value("#222222"))
    said = base.mark_text().encode(text=alt.Text("shared:Q", format=".0%"), color=ink)
    return base.mark_rect().encode(color=shade, tooltip=about) + said


def confusion(classes: list[str]) -> alt.LayerChart:
    """How often the ensemble took one class for another."""
    place = {
        "x": alt.X("said:N", sort=classes, title="what the ensemble said", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        "y": alt.Y("label:N", sort=classes, title="label", axis=alt.Axis(labelOverlap=True)),
    }
    base = _of("confusion", min(600, max(200, 26 * len(classes)))).encode(**place)
    shade = alt.Color("count:Q", scale=alt.Scale(scheme="oranges"), legend=None)
    about = [alt.Tooltip("label:N"), alt.Tooltip("said:N"), alt.Tooltip("count:Q")]
    table = base.mark_rect().encode(color=shade, tooltip=about)
    return table + base.mark_text(color="#222222").encode(text="count:Q", tooltip=about) if len(classes) <= 30 else table
