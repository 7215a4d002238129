"""Bar charts for the documentation; the same results give the same file, byte by byte."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

LABELS, BARS, LINE, GAP = 300, 360, 20, 34
OURS, THEIRS, LOST = "#2a6f97", "#a9b4c2", "#c1440e"


def bars(record: dict[str, Any]) -> str:
    """One SVG per result: each race's times relative to the first contender (ours), on its own scale."""
    parts, y = [], 8
    for race in record["races"]:
        y += GAP - LINE
        parts.append(text(0, y + 12, race["name"], "bold"))
        y += LINE
        widest = max(row["ratio_to_first"] for row in race["rows"].values())
        for place, (name, row) in enumerate(race["rows"].items()):
            ratio = row["ratio_to_first"]
            color = OURS if place == 0 else LOST if ratio < 0.95 else THEIRS
            length = max(1.0, BARS * ratio / widest)
            parts.append(text(12, y + 13, shortened(name)))
            parts.append(f'<rect x="{LABELS}" y="{y + 2}" width="{length:.1f}" height="{LINE - 6}" fill="{color}"/>')
            parts.append(text(LABELS + length + 6, y + 13, f"{ratio:.2f}×"))
            y += LINE
    width, height = LABELS + BARS + 70, y + 12
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="12">', '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def text(x: float, y: float, words: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}" fill="#222">{escape(words)}</text>'


def shortened(name: str, longest: int = 44) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
