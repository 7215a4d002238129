"""Annotation files: one file that holds the outlines of many images, or one such file per image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLIT_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_ENDS = 1 << 16  # bytes at the start and at the end of a file in which its format is recognized
_WORD = re.compile("(?<![a-z])(?:training|train|validation|valid|val|testing|test)(?![a-z])")


@dataclass(frozen=True)
class AnnotationFiles:
    """The annotation files of a layout.

    Args:
        suffix: Their suffix.
        holds: Regular expressions, all of which match in the first or the last 64 KB of such a file.
        option: The argument of the dataset that selects the file; "" if there is one file per image.
    """

    suffix: str
    holds: tuple[str, ...]
    option: str = ""

    def match(self, path: Path) -> bool:
        """Whether a file is of this format, judged by its start and its end."""
        try:
            with open(path, "rb") as file:
                text = file.read(_ENDS)
                file.seek(max(os.fstat(file.fileno()).st_size - _ENDS, len(text)))
                text += b"\n" + file.read(_ENDS)
        except OSError:
            return False
        shown = text.decode("utf-8", errors="replace")
        return all(re.search(pattern, shown) for pattern in self.holds)

    def among(self, root: Path, files: Iterable[str], limit: int = 200) -> list[str]:
        """The files of this format, of at most `limit` with the suffix.

        Args:
            root: The folder.
            files: Paths relative to it.
            limit: Number of files to open.
        """
        named = [file for file in files if file.lower().endswith(self.suffix)]
        return [file for file in named[:limit] if self.match(root / file)]


def with_split(files: Sequence[str]) -> str | None:
    """The path with `{split}` for the word of a split that all of several files follow; None if they follow none.

    Examples:
        >>> with_split(["annotations/instances_train2017.json", "annotations/instances_val2017.json"])
        'annotations/instances_{split}2017.json'
        >>> with_split(["train/a.json", "b.json"]) is None
        True
    """
    patterns = {_WORD.sub("{split}", file) for file in files}
    return patterns.pop() if len(patterns) == 1 and "{split}" in next(iter(patterns)) else None
