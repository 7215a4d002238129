"""Render a layout as SVG with a background, explicit colors, a title and a description."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax import saxutils

from ..wording import printable
from .layout import ARC, LABEL, LOOP, MARGIN, RISE, Box, Item, Layout, output_names
from .stages import Edge

PAPER, INK, FAINT, LINE, OUTLINE = "#fbfcfe", "#1f2937", "#6b7280", "#d9dee7", "#27364f"
FILLS = {
    "input": "#ffffff",
    "map": "#ffffff",
    "conv": "#5b8def",
    "point": "#a9c5fb",
    "dilated": "#f0a63c",
    "attention": "#a57be0",
    "block": "#5b8def",
    "cat": "#cfe0c8",
    "skip": "#e3e7ee",
    "output": "#2b7a57",
}
EDGES = {"down": "#c4453c", "up": "#2c8a5b", "skip": "#7a8699", "layer": "#3d4a5f"}
NAMES = {
    "conv": "convolution",
    "point": "1×1 convolution",
    "dilated": "dilated convolution",
    "attention": "attention",
    "cat": "concatenation (gray: by skip)",
    "block": "several layers",
}
Point = tuple[float, float]


def escape(text: str) -> str:
    """Escape text for XML, without markup or control characters."""
    return saxutils.escape(printable(text))


def render(layout: Layout, title: str, subtitle: str, description: str) -> str:
    """Return the SVG text.

    Args:
        layout: The placed boxes and edges.
        title: Heading.
        subtitle: Line below the heading.
        description: The figure in words, for screen readers.
    """
    entries = _entries(layout)
    width = max(layout.width, _least_width(title, subtitle), *(2 * MARGIN + _room(name) for _, name in entries))
    legend, legend_height = _legend(entries, width, layout.height)
    height = layout.height + legend_height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-labelledby="title desc" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">',
        f'<title id="title">{escape(title)}: {escape(subtitle)}</title>',
        f'<desc id="desc">{escape(description)}</desc>',
        f"<defs>{''.join(_arrow_head(kind, color) for kind, color in EDGES.items())}</defs>",
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="10" fill="{PAPER}"/>',
        _text(MARGIN, 30, title, size=17, weight=650),
        _text(MARGIN, 48, subtitle, size=11.5, fill=FAINT),
        *_guides(layout, width),
        *(_edge(layout, edge) for edge in layout.edges),
    ]
    for box in layout.boxes.values():
        parts += _box(box)
    return "\n".join([*parts, *legend, "</svg>"]) + "\n"


def _least_width(title: str, subtitle: str) -> float:
    return 2 * MARGIN + max(9.6 * len(title), 6.1 * len(subtitle), 300)


def _guides(layout: Layout, width: float) -> list[str]:
    guides = []
    for row, (_, bottom) in enumerate(layout.rows):
        boxes = [box for box in layout.boxes.values() if box.row == row]
        factor = 2 ** boxes[0].stage.level
        guides.append(_text(MARGIN - 6, boxes[0].middle + 3.5, "1" if factor == 1 else f"1⁄{factor:.3g}", fill=FAINT))
        if row < len(layout.rows) - 1:
            guides.append(
                f'<line x1="{MARGIN - 6:.1f}" x2="{width - MARGIN + 6:.1f}" y1="{bottom:.1f}" y2="{bottom:.1f}" '
                f'stroke="{LINE}" stroke-dasharray="1 5" stroke-linecap="round"/>'
            )
    return guides


def _box(box: Box) -> list[str]:
    parts = []
    for item, following in zip(box.items, [*box.items[1:], None], strict=True):
        last = following is None and bool(box.stage.outputs)
        parts += _item(box, item, output=last)
        if following is not None:
            parts.append(_line([(item.x + item.width + 1.5, box.middle), (following.x - 1.5, box.middle)], "layer"))
    if box.stage.outputs:
        end = box.right + 24
        parts.append(_line([(box.right + 2, box.middle), (end, box.middle)], "layer"))
        parts.append(
            _text(end + 5, box.middle + 3.5, output_names(box.stage), size=11, weight=600, fill=FILLS["output"])
        )
    return parts + _captions(box)


def _captions(box: Box) -> list[str]:
    x, anchor = box.caption
    y = box.y + box.height + 12
    return [_text(x, y + 11.5 * n, line, size=9.5, fill=FAINT, anchor=anchor) for n, line in enumerate(box.captions)]


def _item(box: Box, item: Item, *, output: bool) -> list[str]:
    if item.kind == "sign":
        return _sign(item, box.middle)
    size = item.width, box.height
    offsets = (5, 2.5) if item.kind == "block" else ()
    parts = [_rect(item.x + by, box.y - by, *size, "#8fb2f5", line=".6", rx="1.5") for by in offsets]
    stroke = "#8b95a5" if item.kind in ("input", "map") and not output else OUTLINE
    parts.append(_rect(item.x, box.y, *size, FILLS["output" if output else item.kind], stroke, rx="1.5"))
    parts += _shares(box, item)
    rise = RISE if item.kind == "block" else 0
    if item.times > 1:
        parts += _loop(item, box.y - rise)
    y = box.y - 5 - rise - (LOOP if item.times > 1 else 0)
    if item.label:
        parts.append(_text(item.center, y, item.label, size=10, anchor="middle"))
    if item.kind == "dilated":
        parts.append(_text(item.center, box.y + box.height - 4, item.under, size=8.5, anchor="middle", weight=600))
    return parts


def _shares(box: Box, item: Item) -> list[str]:
    parts, x = [], item.x + 0.4
    for share, skipped in item.parts:
        width = share * (item.width - 0.8)
        parts.append(_rect(x, box.y + 0.4, width, box.height - 0.8, FILLS["skip" if skipped else "cat"], line=".4"))
        x += width
    return parts


def _sign(item: Item, y: float) -> list[str]:
    r = item.width / 2
    cross = f"M{item.center - r + 3:.1f} {y:.1f}h{2 * r - 6:.1f}M{item.center:.1f} {y - r + 3:.1f}v{2 * r - 6:.1f}"
    turn = "" if item.under == "+" else f' transform="rotate(45 {item.center:.1f} {y:.1f})"'
    return [
        f'<circle cx="{item.center:.1f}" cy="{y:.1f}" r="{r:.1f}" fill="#fff" stroke="{OUTLINE}"/>',
        f'<path d="{cross}"{turn} stroke="{OUTLINE}" fill="none"/>',
    ]


def _loop(item: Item, top: float) -> list[str]:
    """Draw an arrow from a map back to itself, with the number of times its weights are applied."""
    x, y = item.center, top - 2
    path = f"M{x + 5:.1f} {y:.1f}c5 -12 -15 -12 -10.5 -1.5"
    return [
        f'<path d="{path}" fill="none" stroke="{EDGES["layer"]}" stroke-width="1.1" marker-end="url(#arrow-layer)"/>',
        _text(x + 8, y - 2, f"{item.times}×", size=8.5, weight=600),
    ]


def _edge(layout: Layout, edge: Edge) -> str:
    source, target = layout.boxes[edge.source], layout.boxes[edge.target]
    if edge.kind == "skip" or source.row == target.row:
        return _line(_skip(layout, edge, source, target), "skip")
    last, first = source.items[-1], target.items[0]
    straight = abs(last.center - first.center) < 1
    if target.row < source.row:
        end = (first.center, target.y + target.height + 2)
        if straight:
            return _line([(last.center, source.y - source.crown), end], "up")
        side = RISE if last.kind == "block" else 0  # the sheets behind a block
        out, above = source.right + side + 5, source.y - source.crown - 3
        start = (source.right + side + 1, source.y + 5)
        return _line([start, (out, start[1]), (out, above), (first.center, above), end], "up")
    start, above = (last.center, source.y + source.height + 1), target.y - target.crown
    if straight:
        return _line([start, (last.center, above)], "down")
    return _line([start, (last.center, above - 7), (first.center, above - 7), (first.center, above)], "down")


def _skip(layout: Layout, edge: Edge, source: Box, target: Box) -> list[Point]:
    start, end = (source.right + 2, source.middle), (target.merge.x - 2, target.middle)
    if source.lane != target.lane:
        out = source.right + 7
        start, level = (source.right + 2, source.middle), [(out, source.middle), (out, target.middle)]
    else:
        level = []
    passed = layout.between(edge)
    if passed:
        y = min(box.y - box.crown for box in (*passed, source, target)) - ARC * len(passed)
        out, back = source.right + 4 + 3 * len(passed), target.merge.x - 7 - 3 * len(passed)
        return [start, (out, source.middle), (out, y), (back, y), (back, target.middle), end]
    if target.merge is not target.items[0]:  # pass over the maps before the merge and enter it from above
        y, out = target.y - LABEL - ARC / 2, target.x - 9
        top = target.y - LABEL + 3 if target.merge.label else target.middle - 8
        return [start, *level, (out, target.middle), (out, y), (target.merge.center, y), (target.merge.center, top)]
    return [start, *level, end]


def _line(points: Sequence[Point], kind: str) -> str:
    width = {"layer": 1.0, "skip": 1.4}.get(kind, 1.9)
    return (
        f'<path d="{_rounded(points)}" fill="none" stroke="{EDGES[kind]}" stroke-width="{width}" '
        f'marker-end="url(#arrow-{kind})"/>'
    )


def _rounded(points: Sequence[Point], radius: float = 6.0) -> str:
    """Return the path of a right-angled polyline with rounded corners."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        (ax, ay), (bx, by) = _towards(corner, before, radius), _towards(corner, after, radius)
        path += f"L{ax:.1f} {ay:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {bx:.1f} {by:.1f}"
    return f"{path}L{points[-1][0]:.1f} {points[-1][1]:.1f}"


def _towards(start: Point, end: Point, distance: float) -> Point:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = abs(dx) + abs(dy)
    share = min(distance, length / 2) / length if length else 0
    return start[0] + dx * share, start[1] + dy * share


def _arrow_head(kind: str, color: str) -> str:
    return (
        f'<marker id="arrow-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="{6 if kind == "layer" else 5}" '
        f'markerHeight="{6 if kind == "layer" else 5}" orient="auto-start-reverse">'
        f'<path d="M0 0.6 8 4 0 7.4z" fill="{color}"/></marker>'
    )


def _entries(layout: Layout) -> list[tuple[str, str]]:
    """Return the entries of the legend: the kinds that appear, with their names."""
    kinds = {
        item.kind for box in layout.boxes.values() for item in box.items[: len(box.items) - bool(box.stage.outputs)]
    }
    entries = [(kind, NAMES[kind]) for kind in NAMES if kind in kinds]
    for kind in ("down", "up", "skip"):
        labels = list(dict.fromkeys(edge.label for edge in layout.edges if edge.kind == kind))
        if labels:
            shown = "; ".join(labels[:3]) + ("; …" if len(labels) > 3 else "")
            entries.append((kind, shown or "skip"))
    if any(item.times > 1 for box in layout.boxes.values() for item in box.items):
        entries.append(("loop", "the same weights several times"))
    return entries


def _room(name: str) -> float:
    return 30 + 5.9 * len(name)


def _legend(entries: list[tuple[str, str]], width: float, top: float) -> tuple[list[str], float]:
    """Return the lines and height of the legend."""
    parts, x, y = [], MARGIN, top + 18
    for kind, name in entries:
        if x + _room(name) > width - MARGIN + 12:
            x, y = MARGIN, y + 20
        parts += _legend_entry(kind, name, x, y)
        x += _room(name)
    return parts, y - top + 20


def _legend_entry(kind: str, name: str, x: float, y: float) -> list[str]:
    if kind in ("down", "up", "skip"):
        mark = _line([(x, y), (x + 16, y)], kind)
    elif kind == "loop":
        mark = "".join(_loop(Item("conv", 0, x=x + 7, times=0), y + 5)[:1])
    elif kind == "cat":
        mark = "".join(_rect(x + at, y - 6, 6, 12, FILLS[part], line=".6") for at, part in ((2, "skip"), (8, "cat")))
    else:
        mark = _rect(x + 3, y - 6, 10, 12, FILLS[kind], rx="1.5")
    return [mark, _text(x + 21, y + 3.5, name, size=10.5, fill="#4b5563")]


def _rect(
    x: float, y: float, width: float, height: float, fill: str, stroke: str = OUTLINE, line: str = ".8", rx: str = ""
) -> str:
    wide, high = (f"{side:.1f}" if isinstance(side, float) else side for side in (width, height))
    corners = f' rx="{rx}"' if rx else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide}" height="{high}"{corners} fill="{fill}" stroke="{stroke}" '
        f'stroke-width="{line}"/>'
    )


def _text(
    x: float, y: float, text: str, *, size: float = 10, fill: str = INK, anchor: str = "start", weight: int = 400
) -> str:
    extra = ("" if anchor == "start" else f' text-anchor="{anchor}"') + (
        "" if weight == 400 else f' font-weight="{weight}"'
    )
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}"{extra}>{escape(text)}</text>'
