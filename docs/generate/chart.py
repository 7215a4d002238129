"""Small, reproducible line charts in SVG, legible on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

PAPER, INK, FAINT, GRID = "#fbfcfe", "#1f2937", "#5b6472", "#dde2ea"
COLORS = ("#2456c4", "#b4541a", "#2b7a57")
DASHES = ("", ' stroke-dasharray="7 3"', ' stroke-dasharray="2 3"')  # for those who do not see the colors
WIDTH, HEIGHT, LEFT, TOP = 330.0, 230.0, 56.0, 34.0
FONT = 'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"'


@dataclass(frozen=True)
class Panel:
    """One plot: x values, and lines of (name, y values); a y that is not finite leaves a gap."""

    title: str
    across: str
    x: Sequence[float]
    lines: Sequence[tuple[str, Sequence[float]]]


def chart(title: str, description: str, panels: Sequence[Panel]) -> str:
    """Panels side by side, with a legend below."""
    width, height = (WIDTH + 20) * len(panels) + 20, HEIGHT + 62
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-labelledby="title desc" {FONT}>',
        f'<title id="title">{escape(title)}</title><desc id="desc">{escape(description)}</desc>',
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="{PAPER}"/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({20 + number * (WIDTH + 20):.0f} 6)">', *_panel(panel), "</g>"]
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel.lines))
    x = 28.0
    for number, name in enumerate(names):
        y = height - 16
        parts.append(_path([(x, y - 4), (x + 22, y - 4)], number))
        parts.append(_text(x + 28, y, name, 11))
        x += 46 + 6.2 * len(name)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    values = [y for _, line in panel.lines for y in line if math.isfinite(y)]
    low, high, step = _range(min(values), max(values))
    left, right, top, bottom = LEFT, WIDTH - 6, TOP, HEIGHT - 34

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - panel.x[0]) / (panel.x[-1] - panel.x[0])
        return left + across * (right - left), bottom - (y - low) / (high - low) * (bottom - top)

    parts = [_text(left, 18, panel.title, 12.5, weight=600)]
    for n in range(round((high - low) / step) + 1):
        y = low + n * step
        at = place(panel.x[0], y)[1]
        parts.append(f'<path d="M{left} {at:.1f}H{right}" stroke="{GRID}"/>')
        parts.append(_text(left - 6, at + 3.5, f"{y:.4g}", 10, FAINT, "end"))
    start, end, across = _range(panel.x[0], panel.x[-1])
    for n in range(round((end - start) / across) + 1):
        x = start + n * across
        if panel.x[0] <= x <= panel.x[-1]:
            parts.append(_text(place(x, low)[0], bottom + 15, f"{x:.4g}", 10, FAINT, "middle"))
    parts.append(_text((left + right) / 2, bottom + 30, panel.across, 10.5, FAINT, "middle"))
    for number, (_, line) in enumerate(panel.lines):
        points = [place(x, y) for x, y in zip(panel.x, line, strict=True) if math.isfinite(y)]
        parts.append(_path(points, number))
    return parts


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Round ends and step that hold an interval, with about five steps."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step


def _path(points: Sequence[tuple[float, float]], number: int) -> str:
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    look = f'stroke="{COLORS[number % 3]}" stroke-width="2"{DASHES[number % 3]}'
    return f'<path d="M{line}" fill="none" {look} stroke-linejoin="round"/>'


def _text(x: float, y: float, text: str, size: float, fill: str = INK, anchor: str = "start", weight: int = 400) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
