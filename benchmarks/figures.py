"""The bar chart at the top of the benchmarks page; the same results give the same file, byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

LABELS, BARS, LINE = 400, 260, 24
OURS, LOST, FAINT = "#2a6f97", "#c1440e", "#666666"


def bars(rows: Sequence[tuple[str, str, float]]) -> str:
    """One bar for each (work, peer, how many times faster than the peer), on a common scale that ends at 8."""
    most = min(max((value for *_, value in rows), default=1.0), 8.0)
    one, parts = LABELS + BARS / most, []
    for number, (work, peer, value) in enumerate(rows):
        y = 30 + number * LINE
        length = BARS * min(value, most) / most
        parts.append(text(8, y + 14, f"{work} ", f"vs. {peer}"))
        color = OURS if value >= 0.95 else LOST
        parts.append(f'<rect x="{LABELS}" y="{y + 2}" width="{length:.1f}" height="{LINE - 7}" fill="{color}"/>')
        parts.append(text(LABELS + length + 6, y + 14, f"{value:.3g}×"))
    height = 38 + len(rows) * LINE
    parts.append(f'<path d="M{one:.1f} 26V{height - 6}" stroke="{FAINT}" stroke-dasharray="3 3"/>')
    parts.append(text(8, 18, "Speed relative to other libraries"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LABELS + BARS + 70} {height}" '
    head += 'font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def text(x: float, y: float, words: str, faint: str = "") -> str:
    rest = f'<tspan fill="{FAINT}">{escape(faint)}</tspan>' if faint else ""
    return f'<text x="{x:.1f}" y="{y}" fill="#222">{escape(words)}{rest}</text>'
