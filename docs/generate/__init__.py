"""Pages and figures generated from the library itself, so they are always up to date.

`python -m docs.generate` writes them, `python -m docs.generate --check` lists those that are out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

DOCS = Path(__file__).parents[1]


def pages(pattern: str = "*") -> Iterator[tuple[str, str]]:
    """Path below docs/ and text of every generated file whose path matches a shell pattern."""
    from . import datasets, losses, models

    for room in (models, datasets, losses):
        for name, make in room.files():
            if fnmatchcase(name, pattern):
                yield name, make()


def stale(pattern: str = "*") -> list[str]:
    """Generated files that are missing or out of date."""
    return [name for name, text in pages(pattern) if not _is(DOCS / name, text)]


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text
