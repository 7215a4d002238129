"""Draw charts with matplotlib, as PNG or as inline SVG with the colors of the page."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ..io import replacing
from ..wording import format_score, printable
from .curves import Chart
from .style import CURVES_LIGHT, LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = {"solid": "", "dashed": "6 3", "dotted": "2 3"}
DOTS = 60  # maximum number of points up to which each gets a marker
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
VARIABLES = {color: f"var(--c{n})" for n, color in enumerate(CURVES_LIGHT)} | {
    LIGHT[name]: f"var(--{name})" for name in ("quiet", "rule")
}


def figure(charts: Sequence[Chart], *, columns: int = 2) -> Figure:
    """Draw charts in one figure, each with a title and a legend."""
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    rows = -(-len(charts) // columns) or 1
    drawn = Figure(figsize=(5.5 * columns, 3.6 * rows), layout="constrained")
    every = drawn.subplots(rows, columns, squeeze=False).ravel()
    for axes, chart in zip(every, charts, strict=False):
        _draw(axes, chart)
        axes.set_title(_literal(chart.title), loc="left", fontsize=11, fontweight="bold", color=LIGHT["text"])
        if chart.curves:
            axes.legend(fontsize=8, frameon=False)
    for axes in every[len(charts) :]:
        axes.set_axis_off()
    return drawn


def save(drawn: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure. Characters missing from the font are drawn as boxes without a warning."""
    with warnings.catch_warnings(), replacing(path) as partial:
        warnings.filterwarnings("ignore", message="Glyph")
        drawn.savefig(partial, dpi=dpi)


def inline_svg(chart: Chart, number: int) -> str:
    """Draw a chart as SVG for a page that defines the colors of `style` as CSS variables; points have tooltips.

    Args:
        chart: The chart; the page adds title and legend.
        number: Number of the chart on the page, used in its ids.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn, file = Figure(figsize=(5, 3), layout="constrained"), io.StringIO()
    _draw(drawn.subplots(), chart)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": f"chart-{number}"}):
        drawn.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for curve, (name, values) in zip(_groups(root, "curve"), chart.curves.items(), strict=True):
        points = [(epoch, value) for epoch, value in enumerate(values, start=1) if math.isfinite(value)]
        marks = list(curve.iter(f"{SVG}use"))
        shown = points if len(marks) == len(points) else _alone(values)
        for mark, (epoch, value) in zip(marks, shown, strict=True):
            ElementTree.SubElement(mark, f"{SVG}title").text = printable(f"epoch {epoch}: {name} {format_score(value)}")
    return _embedded(root, chart, f"chart-{number}")


def _draw(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    for place, (name, values) in enumerate(chart.curves.items()):
        alone = [epoch - 1 for epoch, _ in _alone(values)]
        axes.plot(
            range(1, len(values) + 1),
            values,
            label=_literal(name),
            color=CURVES_LIGHT[chart.color(name)],
            linestyle=chart.style(name),
            marker="o",
            markersize=3,
            markevery=None if len(values) <= DOTS else alone,
            gid=f"curve-{place}",
            clip_on=False,
        )
    if chart.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        few = high / low < 1000
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        low, high = axes.get_ylim()
        values = [value for curve in chart.curves.values() for value in curve if math.isfinite(value)]
        if values and min(values) >= 0 and max(values) <= 1 and low < 0.5 * high:  # shares should start at zero
            axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:.0f}" if epoch >= 1 else ""))
    axes.set_xlabel("epoch", color=LIGHT["quiet"])
    axes.tick_params(colors=LIGHT["quiet"], length=0)
    axes.grid(axis="y", color=LIGHT["rule"], linewidth=0.8, alpha=0.6, clip_on=False)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT["quiet"])


def _alone(values: Sequence[float]) -> list[tuple[int, float]]:
    """Return isolated points, which no line connects to a neighbor, as (epoch, value)."""
    finite = [False, *map(math.isfinite, values), False]
    return [(n, values[n - 1]) for n in range(1, len(values) + 1) if finite[n] and not finite[n - 1] | finite[n + 1]]


def _literal(text: str) -> str:
    """Escape text that matplotlib would hide (`_…`) or parse as a formula (`$…$`)."""
    return (" " if text.startswith("_") else "") + printable(text).replace("$", r"\$")


def _groups(root: ElementTree.Element, prefix: str) -> list[ElementTree.Element]:
    return [group for group in root.iter(f"{SVG}g") if group.get("id", "").startswith(f"{prefix}-")]


def _embedded(root: ElementTree.Element, chart: Chart, prefix: str) -> str:
    """Prepare an SVG of matplotlib for a page: no namespaces, only ids in use, colors as CSS variables."""
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.rpartition("}")[2] in ("metadata", "style")]:
            parent.remove(child)
    used = {link[1:] for element in root.iter() if (link := element.get(f"{XLINK}href"))}
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        if (own := element.attrib.pop("id", None)) in used:
            element.set("id", f"{prefix}-{own}")
        if link := element.attrib.pop(f"{XLINK}href", None):
            element.set("href", f"#{prefix}-{link[1:]}")
        if style := element.get("style"):
            for color, variable in VARIABLES.items():
                style = style.replace(color, variable)
            element.set("style", style)
    title, course = ElementTree.Element("title", id=f"{prefix}-title"), ElementTree.Element("desc", id=f"{prefix}-desc")
    title.text = printable(f"{chart.title} over epochs" + (", logarithmic axis" if chart.log else ""))
    course.text = printable("; ".join(_course(name, values) for name, values in chart.curves.items()))
    root[:0] = [title, course]
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-labelledby": f"{prefix}-title {prefix}-desc"}
    return ElementTree.tostring(root, encoding="unicode")


def _course(name: str, values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    first, last, low, high = map(format_score, (finite[0], finite[-1], min(finite), max(finite)))
    return f"{name}: from {first} to {last}, between {low} and {high}"
