"""CVAT for images: XML with the shapes of all images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from unetzoo.datasets import ANNOTATION_LAYOUTS

from .annotated import Annotated
from .places import Places, split_in
from .reading import Annotations, Entry, Region, read_bytes, short, unreadable
from .shapes import Patch, Polygons, Shape, edges_of, ellipse, polygon, rectangle

_AREAS = ("polygon", "box", "ellipse", "mask")


class Cvat(Annotated):
    """Shapes in the XML that CVAT exports as "CVAT for images 1.1".

    Polygons, boxes, ellipses and masks are painted in the order of `z_order`, then of the file; points, polylines and
    tags have no area and are left out. Categories are the labels of the task, in its order. The subsets of a project
    are the splits.

    The arguments are those of `Annotated`.
    """

    how_to_get: ClassVar[str] = 'export the task as "CVAT for images 1.1", and put its XML file beside the images'
    layouts: ClassVar = (ANNOTATION_LAYOUTS["cvat"],)

    def read(self, places: Places, split: str | None, annotations: str | None, images: str | None) -> Annotations:
        """Read the file of a split."""
        file, divided = places.annotation_file("cvat", split, annotations, self.how_to_get)
        found = Annotations([self.root / file], divided)
        tree = _tree(self.root / file)
        names = [label.findtext("name") or "" for labels in tree.iter("labels") for label in labels.findall("label")]
        used: dict[str, None] = {}
        for image in tree.findall("image"):
            name = image.get("name") or ""
            try:
                subset = image.get("subset")
                entry = Entry(name, size=_size(image), split=subset and (split_in(f"{subset.lower()}/") or subset))
                for number, item in enumerate(item for item in image if item.tag in _AREAS):
                    try:
                        region = _region(item, names)
                    except ValueError as error:
                        found.faults.add(f"image {short(name)}, {item.tag} {number}: {error}")
                    else:
                        entry.regions.append(region)
                        used[str(region.category)] = None
            except ValueError as error:
                found.faults.add(f"image {short(name)}: {error}")
            else:
                found.entries.append(entry)
        found.categories = list(dict.fromkeys(filter(None, names))) or sorted(used)
        return found


def _tree(path: Path) -> ElementTree.Element:
    data = read_bytes(path)
    if re.search(rb"<!\s*(?:DOCTYPE|ENTITY)", data):
        raise unreadable(path, "a document type", "XML as CVAT writes it")
    try:
        tree = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise unreadable(path, f"XML ({error})") from error
    if tree.tag != "annotations" or tree.find("track") is not None:
        found = "CVAT for video" if tree.find("track") is not None else f"<{short(tree.tag)}>"
        raise unreadable(path, found, 'annotations exported as "CVAT for images 1.1"')
    return tree


def _size(image: ElementTree.Element) -> tuple[int, int] | None:
    if image.get("width") is None and image.get("height") is None:
        return None
    height, width = _whole(image, ("height", "width"))
    if height < 1 or width < 1:
        raise ValueError(f"a size of {width}×{height}")
    return height, width


def _region(item: ElementTree.Element, names: Sequence[str]) -> Region:
    label = item.get("label") or ""
    if not label or (names and label not in names):
        raise ValueError(f"unknown label {short(label)}")
    return Region(label, (_shape(item),), depth=_whole(item, ("z_order",), "0")[0])


def _shape(item: ElementTree.Element) -> Shape:
    if item.tag == "polygon":
        return Polygons((polygon([_numbers(point, ",") for point in (item.get("points") or "").split(";")]),))
    if item.tag == "box":
        left, top, right, bottom = _attributes(item, ("xtl", "ytl", "xbr", "ybr"))
        return _checked(rectangle(left, top, right, bottom, *_attributes(item, ("rotation",), "0")))
    if item.tag == "ellipse":
        x, y, horizontal, vertical = _attributes(item, ("cx", "cy", "rx", "ry"))
        return _checked(ellipse(x, y, horizontal, vertical, *_attributes(item, ("rotation",), "0")))
    left, top, width, height = _whole(item, ("left", "top", "width", "height"))
    text = item.get("rle") or ""
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"rle is {short(text)}") from None
    if height < 1 or width < 1:
        raise ValueError(f"a mask of {width}×{height}")
    return Patch(edges_of(counts, height * width), top, left, height, width)


def _checked(points: Any) -> Polygons:
    return Polygons((polygon(points),))


def _attributes(item: ElementTree.Element, names: Sequence[str], default: str = "") -> list[float]:
    return [_numbers(item.get(name) or default, ",")[0] for name in names]


def _whole(item: ElementTree.Element, names: Sequence[str], default: str = "") -> list[int]:
    """Whole numbers in attributes."""
    found = []
    for name in names:
        text = (item.get(name) or default).strip()
        if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
            raise ValueError(f"{name} is {short(text)}")
        found.append(int(text))
    return found


def _numbers(text: str, separator: str) -> list[float]:
    try:
        return [float(word) for word in text.split(separator)]
    except ValueError:
        raise ValueError(f"no numbers: {short(text)}") from None
