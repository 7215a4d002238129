"""YOLO segmentation: a text file per image, with a class and the points of a polygon per line."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, ClassVar

import yaml

from unetzoo.datasets import ANNOTATION_LAYOUTS
from unetzoo.errors import LayoutError

from .annotated import Annotated
from .places import IMAGES, Places, split_in
from .reading import Annotations, Entry, Region, read_bytes, short, unreadable
from .shapes import Polygons, polygon

LISTS = ("classes.txt", "obj.names", "_classes.txt", "labels.txt")  # a class name per line


class YoloSeg(Annotated):
    """Polygons in text files, one per image, in coordinates relative to the width and height of the image.

    The labels of `images/…/NAME.jpg` are in `labels/…/NAME.txt`; where there is no folder `images`, they are beside the
    image. Images without a file are background. Class names come from `annotations` (a YAML file with `names`, or a
    list of names), by default the only YAML file of that kind or `classes.txt`; without one, classes are named by
    number. Splits are folders with the name of a split. Lines with only a box are an error.

    The arguments are those of `Annotated`.
    """

    how_to_get: ClassVar[str] = "put images into images/ and YOLO's text files of the same stems into labels/"
    layouts: ClassVar = (ANNOTATION_LAYOUTS["yolo-seg"],)

    def read(self, places: Places, split: str | None, annotations: str | None, images: str | None) -> Annotations:
        """Read all text files."""
        found = Annotations([])
        listed = self._names(places, annotations, found)
        texts = set(places.with_suffix({".txt"})) - {
            path for path in places.files() if posixpath.basename(path) in LISTS
        }
        folders = {posixpath.dirname(text) for text in texts}
        numbers: set[int] = set()
        used: set[str] = set()
        for image in places.with_suffix(IMAGES, images or ""):
            text = f"{posixpath.splitext(labels_of(image))[0]}.txt"
            if posixpath.dirname(text) not in folders:
                continue
            used.add(posixpath.dirname(text))
            entry = Entry(image, split=split_in(image), placed=True)
            found.entries.append(entry)
            if text in texts:
                texts.discard(text)
                found.files.append(self.root / text)
                for number, region in self._regions(text, listed, found):
                    numbers.add(number)
                    entry.regions.append(region)
        for text in sorted(texts):
            if posixpath.dirname(text) in used:  # others may be lists of images, or notes
                found.faults.add(f"{text} has no image")
        if not found.entries:
            raise LayoutError("no labeled images", subject=self.root, expected=self.layouts[0].about,
                              found=f"{len(texts)} text files", hint=self.how_to_get)  # fmt: skip
        found.categories = list(listed.values()) if listed else [str(n) for n in range(max(numbers, default=-1) + 1)]
        return found

    def _names(self, places: Places, given: str | None, found: Annotations) -> dict[int, str]:
        """The class names by number; empty if they are not listed."""
        files = [given] if given else sorted(
            (file for file in places.files() if file.endswith((".yaml", ".yml")) or posixpath.basename(file) in LISTS),
            key=lambda file: (file.count("/"), not file.endswith((".yaml", ".yml"))),
        )  # fmt: skip
        for file in files:
            path = self.root / file
            text = read_bytes(path).decode("utf-8", errors="replace")
            names: Any = dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
            if file.endswith((".yaml", ".yml")):
                try:
                    content = yaml.safe_load(text)
                except (yaml.YAMLError, ValueError, RecursionError) as error:
                    raise unreadable(path, f"YAML ({str(error)[:200]})") from error
                names = content.get("names") if isinstance(content, dict) else None
                names = dict(enumerate(names)) if isinstance(names, list) else names
                if names is None and not given:
                    continue
            if not isinstance(names, dict) or not all(_is_name(*pair) for pair in names.items()):
                raise unreadable(path, short(names), "names, a list or a table of numbers and names")
            found.files.append(path)
            return {number: str(name) for number, name in sorted(names.items())}
        return {}

    def _regions(self, file: str, names: dict[int, str], found: Annotations) -> Iterator[tuple[int, Region]]:
        text = read_bytes(self.root / file).decode("utf-8", errors="replace")
        for line, words in enumerate((row.split() for row in text.splitlines()), start=1):
            if not words:
                continue
            try:
                number = int(words[0]) if words[0].isascii() and words[0].isdigit() and len(words[0]) < 7 else -1
                if number < 0 or (names and number not in names):
                    raise ValueError(f"unknown class {short(words[0])}")
                if len(words) == 5:
                    raise ValueError("a box instead of a polygon")
                points = polygon([float(word) for word in words[1:]])
                if points.min() < -1 or points.max() > 2:
                    raise ValueError("coordinates that are not relative to the size of the image")
            except ValueError as error:
                found.faults.add(f"{file}, line {line}: {error}")
            else:
                yield number, Region(names.get(number, str(number)), (Polygons((points,), relative=True),))


def _is_name(number: Any, name: Any) -> bool:
    return type(number) is int and number >= 0 and isinstance(name, str | int) and bool(str(name))


def labels_of(image: str) -> str:
    """The path of the labels of an image, with its suffix: the last folder `images` becomes `labels`.

    Examples:
        >>> labels_of("train/images/a.jpg"), labels_of("a.jpg")
        ('train/labels/a.jpg', 'a.jpg')
    """
    folders = image.split("/")
    places = [place for place, folder in enumerate(folders[:-1]) if folder == "images"]
    if places:
        folders[places[-1]] = "labels"
    return "/".join(folders)
