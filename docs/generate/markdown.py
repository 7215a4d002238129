"""Markdown in small pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MADE = "<!-- made by `python -m docs.generate`; change that, or what it reads -->"


def page(title: str, *parts: str) -> str:
    """A page: heading and paragraphs, with a blank line between."""
    return "\n\n".join([MADE, f"# {title}", *(part for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def source(text: str) -> str:
    """ArXiv numbers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def swatch(color: Sequence[int]) -> str:
    """A color as a swatch and as text."""
    red, green, blue = color
    box = "display:inline-block;width:1.2em;height:1.2em;vertical-align:middle;border:1px solid #8888"
    return f'<span style="{box};background:rgb({red},{green},{blue})"></span> {red}, {green}, {blue}'


def first_paragraph(doc: str | None) -> str:
    """A docstring's first paragraph, as one line of Markdown."""
    text = (doc or "").strip().split("\n\n")[0]
    return re.sub(r"\s+", " ", text)
