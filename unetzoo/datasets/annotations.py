"""Annotation files: one file that holds the outlines of many images, or one such file per image.

The core recognizes them, so that `unetzoo doctor` can name the format; the datasets that read them are in the plugin
`unetzoo-formats`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .layout import FileLayout, FilePattern

PLUGIN = "unetzoo-formats"
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


def _layout(name: str, about: str, files: AnnotationFiles, certainty: float = 0.95) -> FileLayout:
    return FileLayout(name, about, (FilePattern("image", "{name}.jpg"),), annotations=files, certainty=certainty)


ANNOTATION_LAYOUTS = {
    layout.name: layout
    for layout in (
        _layout(
            "coco", "COCO JSON: images, annotations and categories in one file",
            AnnotationFiles(".json", (r"^\s*\{", r'"images"\s*:\s*\[', r'"(?:annotations|category_id)"\s*:',
                                      r'"(?:categories|category_id)"\s*:'), "annotations"),
        ),
        _layout(
            "labelme", "LabelMe: a JSON file per image, with its shapes",
            AnnotationFiles(".json", (r"^\s*\{", r'"shapes"\s*:\s*\[', r'"image(?:Path|Height|Data)"\s*:')),
        ),
        _layout(
            "yolo-seg", "YOLO segmentation: a text file per image, with a class and the points of a polygon per line",
            AnnotationFiles(".txt", (r"(?m)^\d+(?: [-+.\de]+){6,} *\r?$",)), 0.9,
        ),
        _layout(
            "rle-csv", "run lengths in a CSV file, as on Kaggle",
            AnnotationFiles(".csv", (r"(?i)^[^\n]*(?:encodedpixels|rle|annotation|segmentation)", r"\d+ \d+"),
                            "annotations"), 0.9,
        ),
        _layout(
            "cvat", "CVAT for images: XML with the shapes of all images",
            AnnotationFiles(".xml", (r"<annotations>", r"<image\s[^>]{0,400}\bname="), "annotations"),
        ),
        _layout(
            "label-studio", "Label Studio: its JSON export of tasks and annotations",
            AnnotationFiles(".json", (r"^\s*\[", r'"annotations"\s*:\s*\[', r'"result"\s*:', r'"data"\s*:'),
                            "annotations"),
        ),
    )
}  # fmt: skip
