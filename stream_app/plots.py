"""Scorecards as pictures: PNG, SVG, or an HTML page that needs nothing else.

The numbers are those of ``core.learning.measures``. Matplotlib is imported when something is drawn, without a display.
"""

import html
import io
import logging
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from core.learning.baselines import PLATFORM_MEAN
from core.learning.measures import BLOCK, Measures, by_window, curve, measures
from core.learning.scorecard import VOLUMES, Scorecard
from core.learning.walk import DEFAULT, MODEL
from stream_app.errors import ParallaxError, SetupError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS: Final = (".png", ".svg", ".html")
INCHES: Final = (12.0, 9.0)
DPI: Final = 100
COLOURS: Final = {DEFAULT: "#1f5fa8", MODEL: "#d9730d"}
OTHERS: Final = "#9aa3ad"
NOMINAL: Final = 0.9
SHOWN_WORSE: Final = 2.0
"""A bar is cut where it is this many times as far on the worse side as the best is on the better one."""
BELOW: Final[dict[str, Any]] = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.24),
    "ncols": 3,
    "columnspacing": 1.2,
    "handlelength": 1.6,
    "frameon": False,
    "fontsize": 9,
}
"""A legend where no point can be."""
STYLE: Final = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    # Text stays text, and the same card gives the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "parallax",
}


class Plot(msgspec.Struct, frozen=True):
    """What is drawn: ``title`` says of what, ``notes`` are sentences for below it; ``day_of`` gives a window's first
    day, ``window_name`` what a window is, such as "day".
    """

    card: Scorecard
    title: str
    notes: Sequence[str]
    day_of: Callable[[int], date]
    window_name: str


def checked_target(path: Path) -> Path:
    """The path, if it can be a picture's: asked before long work begins. Raises ``SetupError``."""
    if path.suffix.lower() not in KINDS:
        raise SetupError(f"--plot {path}: the file's name must end in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if not path.parent.is_dir():
        raise SetupError(f"--plot {path}: there is no folder {path.parent}")
    return path


def write(path: Path, plot: Plot) -> None:
    """Draw a scorecard. Raises ``ParallaxError`` where nothing was scored, ``SetupError`` for a wrong path."""
    if not plot.card.windows:
        raise ParallaxError(f"nothing was scored, so {path} was not written")
    payload = render(plot, checked_target(path).suffix.lower())
    try:
        path.write_bytes(payload)
    except OSError as error:
        raise SetupError(f"--plot {path} cannot be written: {error.strerror or error}") from None


def render(plot: Plot, kind: str) -> bytes:
    """The picture's bytes; ``kind`` is one of ``KINDS``."""
    # What it says is about its cache of fonts.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl

    style: Any = {**mpl.rcParamsDefault, **STYLE}
    with mpl.rc_context(style):
        figure = _figure(plot)
        written = io.BytesIO()
        if kind == ".png":
            figure.savefig(written, format="png", dpi=DPI)
            return written.getvalue()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing)
    return written.getvalue() if kind == ".svg" else _page(plot, written.getvalue().decode()).encode()


def _figure(plot: Plot) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.15, h_pad=0.12, hspace=0.04, wspace=0.04)
    panels = figure.subplots(2, 2, gridspec_kw={"width_ratios": (1.15, 1.0)})
    judged = measures(plot.card)
    whole = [one for one in judged if one.axis == "all"]
    figure.suptitle("\n".join((plot.title, _extent(plot, whole[0]))), x=0.012, ha="left", fontsize=13)
    _bars(panels[0, 0], whole)
    _calibration(panels[0, 1], plot.card)
    _coverage(panels[1, 0], [one for one in judged if one.axis == "volume"])
    _over_days(panels[1, 1], plot)
    return figure


def _extent(plot: Plot, one: Measures) -> str:
    days = sorted(plot.card.windows)
    first, last = plot.day_of(days[0]), plot.day_of(days[-1])
    begin = "" if plot.window_name == "day" else f"{plot.window_name}s that begin "
    return f"{one.rows:,} rows, {one.impressions:,.0f} impressions, {begin}{first} to {last}"


def _bars(axes: "Axes", whole: Sequence[Measures]) -> None:
    mean = next(one.log_loss for one in whole if one.predictor == PLATFORM_MEAN)
    order = sorted(whole, key=lambda one: -one.log_loss)
    change = [100 * (one.log_loss / mean - 1) for one in order]
    best = max(-min(change), 0.01)
    right = min(max(*change, 0.25 * best), SHOWN_WORSE * best)
    axes.barh(
        [one.predictor for one in order],
        [min(value, right) for value in change],
        color=[COLOURS.get(one.predictor, OTHERS) for one in order],
        height=0.68,
    )
    for at, (one, value) in enumerate(zip(order, change, strict=True)):
        cut = " (bar cut)" if value > right else ""
        text = f" {value:+.2f} %  {one.log_loss:.5f}{cut} "
        # Beside the zero line, where the bar is not.
        axes.text(0, at, text, va="center", ha="left" if value < 0 else "right", fontsize=9)
    room = 0.75 * (best + right)
    axes.set_xlim(min(-1.05 * best, -room), max(1.05 * right, room))
    axes.axvline(0, color="#444", linewidth=1)
    axes.set_title("Log-loss per impression, relative to the platform mean")
    axes.set_xlabel("% of the platform mean's log-loss; nats beside it.  ← left is better")
    axes.grid(axis="y", visible=False)


def _calibration(axes: "Axes", card: Scorecard) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ends: list[float] = []
    silent = False
    for name in (DEFAULT, MODEL):
        points = curve(card, name)
        silent = silent or any(point.observed <= 0 for point in points)
        # A logarithmic axis has no place for none.
        points = [point for point in points if point.observed > 0]
        if not points:
            continue
        most = max(point.impressions for point in points)
        predicted, observed = [point.predicted for point in points], [point.observed for point in points]
        colour = COLOURS[name]
        axes.plot(predicted, observed, color=colour, linewidth=1.2, alpha=0.7, label=name)
        sizes = [12 + 110 * point.impressions / most for point in points]
        axes.scatter(predicted, observed, s=sizes, color=colour, alpha=0.65, linewidths=0)
        ends += predicted + observed
    axes.set_title("Calibration curve: predicted against observed CTR")
    axes.set_xlabel("predicted CTR; a larger dot has more impressions")
    axes.set_ylabel("observed CTR" + (" (bins without a click left out)" if silent else ""))
    if not ends:
        axes.text(0.5, 0.5, "no click was observed", ha="center", transform=axes.transAxes)
        return
    limits = (min(ends) / 1.25, max(ends) * 1.25)
    axes.plot(limits, limits, color="#444", linewidth=1, linestyle="--", label="perfectly calibrated")
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    steps = (1.0, 2.0, 5.0) if limits[1] < 50 * limits[0] else (1.0,)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, subs=steps))
        axis.set_major_formatter(FuncFormatter(lambda value, _at: f"{100 * value:.3g} %"))
        axis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper left", frameon=False)


def _coverage(axes: "Axes", segments: Sequence[Measures]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    rows = {one.segment: one.rows for one in segments}
    volumes = [volume for volume in VOLUMES if volume in rows]
    lowest = NOMINAL
    for first, name in ((-0.21, DEFAULT), (0.07, MODEL)):
        found = {one.segment: one for one in segments if one.predictor == name}
        plain = [found[volume].coverage for volume in volumes]
        exact = [found[volume].coverage_exact for volume in volumes]
        for shift, values, inside, label in (
            (first, plain, COLOURS[name], f"{name}: rows inside"),
            (first + 0.14, exact, "white", f"{name}: exact"),
        ):
            known = [(at + shift, value) for at, value in enumerate(values) if value is not None]
            axes.scatter(
                [place for place, _ in known],
                [value for _, value in known],
                s=70,
                zorder=3,
                label=label,
                facecolors=inside,
                edgecolors=COLOURS[name],
            )
            lowest = min([lowest, *(value for _, value in known)])
    axes.axhline(NOMINAL, color="#444", linewidth=1, linestyle="--", label="90 % line")
    axes.set_xticks(range(len(volumes)), [f"{volume}\n{rows[volume]:,} rows" for volume in volumes], fontsize=8.5)
    axes.set_xlim(-0.5, len(volumes) - 0.5)
    axes.set_ylim(min(0.8, lowest - 0.02), 1.005)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_title("Coverage of the 90 % interval, by volume of the row")
    axes.set_xlabel("impressions of the row; exact splits a count that straddles an end")
    axes.grid(axis="x", visible=False)
    axes.legend(**BELOW)


def _over_days(axes: "Axes", plot: Plot) -> None:
    from matplotlib import dates

    locators: Any = dates
    many = len(plot.card.windows) > 2 * BLOCK
    days: Any = [plot.day_of(one.window) for one in by_window(plot.card)]
    # One may lie exactly on the other.
    for name, width in ((DEFAULT, 4.0), (MODEL, 1.8)):
        for trailing in (1, BLOCK) if many else (1,):
            losses = by_window(plot.card, trailing)
            change = [100 * (one.log_loss[name] / one.log_loss[PLATFORM_MEAN] - 1) for one in losses]
            thick = trailing > 1 or not many
            label = f"{name}, trailing {trailing} {plot.window_name}s" if trailing > 1 else name
            axes.plot(
                days,
                change,
                color=COLOURS[name],
                linewidth=width if thick else 0.2 * width,
                alpha=1 if thick else 0.35,
                marker="o" if len(days) == 1 else None,
                label=label if thick else f"{name}, each {plot.window_name}",
            )
    axes.axhline(0, color="#444", linewidth=1, linestyle="--", label="platform mean")
    locator = locators.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(locators.ConciseDateFormatter(locator))
    axes.set_title("Log-loss over days, relative to the platform mean")
    axes.set_ylabel("% of the platform mean's;  ↓ lower is better")
    axes.set_xlabel(f"first day of the {plot.window_name}" if plot.window_name != "day" else "day")
    axes.legend(**BELOW | {"ncols": 2})


def _page(plot: Plot, drawn: str) -> str:
    """A page with the picture, the sentences and the measures as a table; it loads nothing."""
    drawing = drawn[drawn.index("<svg") :]
    columns = [field for field in Measures.__struct_fields__ if field not in ("axis", "segment")]
    head = "".join(f"<th>{html.escape(column.replace('_', ' '))}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(getattr(one, column)))}</td>" for column in columns) + "</tr>\n"
        for one in measures(plot.card)
        if one.axis == "all"
    )
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in plot.notes)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(plot.title)}</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 1200px; margin: 1rem auto; padding: 0 1rem; color: #222 }}
svg {{ width: 100%; height: auto }}
table {{ border-collapse: collapse; font-size: 13px }}
th, td {{ text-align: right; padding: .2rem .6rem; border-bottom: 1px solid #e6e8eb }}
th:first-child, td:first-child {{ text-align: left }}
</style></head><body>
{drawing}
<h2>Measures</h2>
<p>log loss: nats per impression; normalized entropy: over the rows' own CTR; calibration: clicks predicted over actual;
mae: of the CTR, rows of 50 and more impressions; deviance explained: of the platform mean's; coverage: of the 90 %
interval, and exact.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}</tbody></table>
<h2>Verdict</h2>
<ul>
{notes}</ul>
</body></html>
"""


def _cell(value: str | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value == int(value) and abs(value) > 1 else f"{value:.6f}"
