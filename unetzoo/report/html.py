"""HTML, and charts in SVG, written so that no text can break out of its place."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence

from .curves import Chart
from .images import Pixels, encoded

VOID = ("img", "meta", "line", "polyline")
WIDTH, HEIGHT = 420, 260  # of a chart; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 8, 34
COLORS = 8
DOTS = 60  # most points of a curve that get a mark each


class Html(str):
    """Text that is HTML already."""


def tag(element: str, /, *content: object, **attributes: object) -> Html:
    """An element; what is not `Html` is escaped, and so are attributes.

    Args:
        element: Its name.
        content: Its children, one after the other; None and False are left out.
        attributes: `_` stands for `-`, a trailing one is dropped (`class_`); None and False leave the attribute out.

    Examples:
        >>> tag("td", "a < b", tag("b", 1), class_="n", title='"x"')
        '<td class="n" title="&quot;x&quot;">a &lt; b<b>1</b></td>'
    """
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    opening = "".join(
        f" {key}" if value is True else f' {key}="{_escaped(value)}"'
        for key, value in given
        if value is not None and value is not False
    )
    if element in VOID:
        return Html(f"<{element}{opening}>" if element in ("img", "meta") else f"<{element}{opening}/>")
    return Html(f"<{element}{opening}>{join(content)}</{element}>")


def join(parts: Iterable[object]) -> Html:
    """Parts one after the other; what is not `Html` is escaped."""
    return Html(
        "".join(
            part if isinstance(part, Html) else _escaped(part)
            for part in parts
            if part is not None and part is not False
        )
    )


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "", *, class_: str | None = None
) -> Html:
    """A table whose first row and first column are headers; wide ones scroll in their own box."""
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(cell if _is_cell(cell) else tag("td", cell) for cell in row[1:]))
        for row in rows
    ]
    first = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    whole = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", first) if any(head) else None,
        tag("tbody", *body),
        class_=class_,
    )
    return tag("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption or "table")


def image_tag(image: Pixels, alt: str, *, photo: bool, **attributes: object) -> Html:
    """An image inside the page."""
    kind, data = encoded(image, photo=photo)
    height, width = image.shape[:2]
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return tag("img", src=source, alt=alt, width=width, height=height, loading="lazy", **attributes)


def chart(drawn: Chart, number: int) -> Html:
    """A chart with its legend; each point says its value, and the description its course.

    Args:
        drawn: What to draw.
        number: Tells the charts of a page apart.
    """
    values = [value for curve in drawn.curves.values() for value in curve if math.isfinite(value)]
    epochs = max(len(curve) for curve in drawn.curves.values())
    axis = _Axis.of(values, log=drawn.log)
    parts = [_grid(axis), _epochs(epochs)]
    for name, curve in drawn.curves.items():
        parts += _curve(name, curve, drawn, axis)
    title, course = f"chart-{number}-title", f"chart-{number}-course"
    image = tag(
        "svg",
        tag("title", f"{drawn.title} over epochs" + (", logarithmic axis" if drawn.log else ""), id=title),
        tag("desc", "; ".join(_course(name, curve) for name, curve in drawn.curves.items()), id=course),
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{title} {course}",
    )
    keys = [
        tag("li", tag("svg", sample, viewBox="0 0 24 10", width=24, height=10, aria_hidden="true"), name)
        for name, sample in ((name, _stroke("line", name, drawn, x1=0, y1=5, x2=24, y2=5)) for name in drawn.curves)
    ]
    heading = tag("h3", drawn.title, tag("small", " (logarithmic)") if drawn.log else None)
    return tag("figure", heading, image, tag("ul", *keys, class_="keys"), class_="chart")


def number(value: float | None) -> str:
    """A score for a reader.

    Examples:
        >>> [number(v) for v in (0.61234, float("nan"), None, 12345.6, 2e-5, 7.0)]
        ['0.6123', '–', '–', '12,346', '2e-05', '7']
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value) or abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.3g}"


class _Axis:
    """From values to heights in a chart."""

    def __init__(self, low: float, high: float, ticks: Sequence[float], *, log: bool) -> None:
        self.low, self.high, self.ticks, self.log = low, high, ticks, log

    @classmethod
    def of(cls, values: Sequence[float], *, log: bool) -> _Axis:
        low, high = min(values), max(values)
        if log:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            return cls(low, high, [10.0**d for d in decades if low <= 10.0**d <= high] or [low, high], log=True)
        if low >= 0 and high <= 1 and low < 0.5 * high:
            low = 0.0
        span = (high - low) or abs(high) or 1.0
        if high == low:
            low, high = low - span / 2, high + span / 2
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
        first = math.ceil(round(low / step, 9))
        return cls(low, high, [n * step for n in range(first, math.floor(round(high / step, 9)) + 1)], log=False)

    def place(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _grid(axis: _Axis) -> Html:
    lines: list[Html] = []
    for tick in axis.ticks:
        y = axis.place(tick)
        lines.append(tag("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="grid"))
        lines.append(tag("text", f"{tick:.3g}", x=LEFT - 6, y=y + 4, text_anchor="end"))
    return join(lines)


def _epochs(count: int) -> Html:
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**3, 10**4, 10**5, 10**9) if count / n <= 8)
    shown = [epoch for epoch in range(every, count + 1, every)] if every > 1 else list(range(1, count + 1))
    marks = (tag("text", epoch, x=_x(epoch, count), y=HEIGHT - BOTTOM + 16, text_anchor="middle") for epoch in shown)
    name = tag("text", "epoch", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 3, text_anchor="middle")
    base = HEIGHT - BOTTOM
    return join([tag("line", x1=LEFT, y1=base, x2=WIDTH - RIGHT, y2=base, class_="base"), *marks, name])


def _curve(name: str, curve: Sequence[float], drawn: Chart, axis: _Axis) -> list[Html]:
    epochs = max(len(other) for other in drawn.curves.values())
    pieces: list[list[str]] = [[]]
    for epoch, value in enumerate(curve, start=1):
        if math.isfinite(value):
            pieces[-1].append(f"{_x(epoch, epochs)},{axis.place(value)}")
        elif pieces[-1]:
            pieces.append([])
    lines = [_stroke("polyline", name, drawn, points=" ".join(piece)) for piece in pieces if len(piece) > 1]
    alone = {piece[0] for piece in pieces if len(piece) == 1}
    for epoch, value in enumerate(curve, start=1):
        if not math.isfinite(value):
            continue
        x, y = _x(epoch, epochs), axis.place(value)
        if len(curve) <= DOTS or f"{x},{y}" in alone:
            said = tag("title", f"epoch {epoch}: {name} {number(value)}")
            lines.append(tag("circle", said, cx=x, cy=y, r=2.5, class_=f"c{drawn.colors[name] % COLORS}"))
    return lines


def _stroke(element: str, name: str, drawn: Chart, **attributes: object) -> Html:
    """A line in a curve's color, dotted where the colors come round again."""
    place = drawn.colors[name]
    dashes = "2 3" if place >= COLORS else "6 3" if name in drawn.dashed else None
    return tag(element, **attributes, class_=f"s{place % COLORS}", stroke_dasharray=dashes)


def _x(epoch: int, epochs: int) -> float:
    width = WIDTH - LEFT - RIGHT - 16
    return round(LEFT + 8 + (width * (epoch - 1) / (epochs - 1) if epochs > 1 else width / 2), 1)


def _course(name: str, curve: Sequence[float]) -> str:
    finite = [value for value in curve if math.isfinite(value)]
    ends, limits = (number(finite[0]), number(finite[-1])), (number(min(finite)), number(max(finite)))
    return f"{name}: from {ends[0]} to {ends[1]}, between {limits[0]} and {limits[1]}"


def _escaped(value: object) -> str:
    """Text for content or attributes; control characters and halves of characters become a visible mark."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    seen = "".join(c if (c >= " " and c != "\x7f") or c in "\n\t" else "\ufffd" for c in text)
    return html.escape(seen)


def _is_cell(cell: object) -> bool:
    return isinstance(cell, Html) and cell.startswith(("<td", "<th"))


def facts(entries: Mapping[str, object]) -> Html:
    """Names and values, as a list of terms."""
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in entries.items()), class_="facts")
