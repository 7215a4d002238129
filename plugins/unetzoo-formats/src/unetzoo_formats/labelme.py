"""LabelMe: a JSON file per image, with its shapes."""

from __future__ import annotations

import base64
import posixpath
from typing import Any, ClassVar

from unetzoo.datasets import ANNOTATION_LAYOUTS

from .annotated import Annotated
from .places import Places, split_in
from .reading import Annotations, Entry, Region, inside, part, read_json, size_of
from .shapes import MaskFile, Polygons, Shape, ellipse, polygon, rectangle

IGNORED, BACKGROUND = "__ignore__", "_background_"  # labels with a meaning of their own in LabelMe


class LabelMe(Annotated):
    """Shapes in LabelMe's JSON files, one per image, anywhere below `root` or in the folder `annotations`.

    The image is the one that `imagePath` names, relative to the JSON file; if there is none, it is the image beside the
    JSON file with the same stem. Polygons, rectangles, circles and masks are painted; points and lines have no area and
    are left out. Shapes with the same label and `group_id` are one object. `__ignore__` is ignored, and `_background_`
    is the background. Categories are the labels in use, sorted by name. Splits are folders with the name of a split.

    The arguments are those of `Annotated`.
    """

    how_to_get: ClassVar[str] = "put LabelMe's JSON files beside the images"
    layouts: ClassVar = (ANNOTATION_LAYOUTS["labelme"],)

    def read(self, places: Places, split: str | None, annotations: str | None, images: str | None) -> Annotations:
        """Read all JSON files."""
        files = places.with_suffix({".json"}, annotations or "")
        found = Annotations([self.root / file for file in files])
        names: set[str] = set()
        for file in files:
            content = read_json(self.root / file)
            try:
                entry = _entry(content, file, images)
                groups: dict[Any, Region] = {}
                for number, item in enumerate(part(content, "shapes", list)):
                    _add(groups, item, number, self.background)
            except ValueError as error:
                found.faults.add(f"{file}: {error}")
                continue
            entry.regions = list(groups.values())
            names.update(region.category for region in entry.regions if region.category)
            found.entries.append(entry)
        found.categories = sorted(names)
        return found


def _entry(content: Any, file: str, images: str | None) -> Entry:
    name = part(content, "imagePath", str, "") or ""
    size = size_of(content, "imageHeight", "imageWidth")
    if images is not None:
        return Entry(posixpath.basename(name.replace("\\", "/")), size=size, split=split_in(file))
    folder, stem = posixpath.dirname(file), posixpath.splitext(file)[0]
    try:
        first = inside(folder, name)
    except ValueError:  # a path on another computer
        first = stem
    return Entry(first, size=size, split=split_in(file), placed=True, other_names=(stem,))


def _add(groups: dict[Any, Region], item: Any, number: int, background: str) -> None:
    """Add a shape to the objects of an image."""
    try:
        label = part(item, "label", str)
        shape = _shape(item)
    except ValueError as error:
        raise ValueError(f"shape {number}: {error}") from error
    if shape is None:
        return
    group = item.get("group_id")
    key = (label, group) if isinstance(group, int) else number
    before = groups[key].shapes if key in groups else ()
    category = background if label == BACKGROUND and background else label
    groups[key] = Region(None if label == IGNORED else category, (*before, shape), label == IGNORED)


def _shape(item: Any) -> Shape | None:
    """The shape of an item; None if it has no area."""
    kind = part(item, "shape_type", str, "polygon") or "polygon"
    if kind in ("point", "points", "line", "linestrip"):
        return None
    points = part(item, "points", list)
    if kind == "polygon":
        return Polygons((polygon(points),))
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"unknown shape_type {kind!r}")
    corners = polygon([*points, points[0]] if points else points)[:-1]
    if len(corners) == 4 and kind == "rectangle":
        return Polygons((corners,))
    if len(corners) != 2:
        raise ValueError(f"a {kind} of {len(corners)} points")
    (x, y), (x2, y2) = corners.tolist()
    if kind == "rectangle":
        return Polygons((rectangle(x, y, x2, y2),))
    if kind == "circle":
        radius = ((x2 - x) ** 2 + (y2 - y) ** 2) ** 0.5
        return Polygons((ellipse(x, y, radius, radius),))
    text = part(item, "mask", str)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"a mask that is not base64 ({error})") from error
    return MaskFile(data, round(min(y, y2)), round(min(x, x2)))
