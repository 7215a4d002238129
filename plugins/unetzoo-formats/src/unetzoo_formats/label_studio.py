"""Label Studio: its JSON export of tasks and annotations."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from unetzoo.datasets import ANNOTATION_LAYOUTS
from unetzoo.errors import DataError, SizeMismatchError

from .annotated import Annotated
from .places import IMAGES, Places
from .reading import Annotations, Entry, Region, part, read_json, short, size_of, unreadable
from .shapes import Canvas, Polygons, Shape, ellipse, polygon, rectangle

_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio adds to the names of uploaded files
_AREAS = {"polygon", "rectangle", "ellipse", "brush"}


class LabelStudio(Annotated):
    """Regions in Label Studio's JSON export: polygons, rectangles, ellipses and brush masks.

    Other results, such as keypoints and choices, are left out, as are tasks without an annotation. Of several
    annotations of a task, the one that is marked as ground truth is read, otherwise the last; canceled ones are not.
    Images are found by the name in the task, also without the prefix that an upload adds. Categories are the labels in
    use, sorted by name.

    The arguments are those of `Annotated`.
    """

    how_to_get: ClassVar[str] = 'export the project as "JSON", and put the file beside the images'
    layouts: ClassVar = (ANNOTATION_LAYOUTS["label-studio"],)

    def read(self, places: Places, split: str | None, annotations: str | None, images: str | None) -> Annotations:
        """Read the file of a split."""
        file, divided = places.annotation_file("label-studio", split, annotations, self.how_to_get)
        found = Annotations([self.root / file], divided)
        tasks = read_json(self.root / file)
        if not isinstance(tasks, list):
            raise unreadable(self.root / file, short(tasks), "a list of tasks")
        names: set[str] = set()
        for number, task in enumerate(tasks):
            name = short(task.get("id", f"number {number}")) if isinstance(task, dict) else f"number {number}"
            try:
                entry = _entry(task)
                if entry is None:
                    continue
                for region in _regions(task, entry):
                    entry.regions.append(region)
                    names.add(str(region.category))
            except ValueError as error:
                found.faults.add(f"task {name}: {error}")
            else:
                found.entries.append(entry)
        found.categories = sorted(names)
        return found


def _results(task: Any) -> list[Any] | None:
    """The results of the annotation of a task that counts; None if there is none."""
    found = [one for one in part(task, "annotations", list) if isinstance(one, dict) and not one.get("was_cancelled")]
    chosen = next((one for one in found if one.get("ground_truth")), found[-1] if found else None)
    return None if chosen is None else part(chosen, "result", list)


def _entry(task: Any) -> Entry | None:
    results = _results(task)
    if results is None:
        return None
    data = part(task, "data", dict)
    texts = [data.get("image"), *data.values()]
    paths = [_path(text) for text in texts if isinstance(text, str)]
    path = next((path for path in paths if posixpath.splitext(path)[1].lower() in IMAGES), None)
    if path is None:
        raise ValueError(f"no image in its data {short(data)}")
    name = posixpath.basename(path)
    sizes = (size_of(item, "original_height", "original_width") for item in results if isinstance(item, dict))
    return Entry(name, size=next(filter(None, sizes), None), other_names=(_UPLOAD.sub("", name), path))


def _path(text: str) -> str:
    """The path in the address of an image: of local files, in the query."""
    try:
        address = urlsplit(text)
        local = parse_qs(address.query).get("d", [])
    except ValueError:
        return ""
    return (local[0] if local else unquote(address.path)).lstrip("/")


def _regions(task: Any, entry: Entry) -> Iterator[Region]:
    results = _results(task) or []
    labels = {item.get("id"): item["value"]["labels"] for item in results
              if isinstance(item, dict) and item.get("type") == "labels" and isinstance(item.get("value"), dict)
              and isinstance(item.get("id"), str) and isinstance(item["value"].get("labels"), list)}  # fmt: skip
    for number, item in enumerate(results):
        kind = str(part(item, "type", str)).removesuffix("labels")
        if kind not in _AREAS:
            continue
        try:
            value = part(item, "value", dict)
            named = value.get(f"{kind}labels") or labels.get(str(item.get("id")))
            if not isinstance(named, list) or not named or not isinstance(named[0], str) or not named[0]:
                raise ValueError("no label")
            if item.get("image_rotation"):
                raise ValueError("the image was rotated in Label Studio")
            yield Region(named[0], (_shape(kind, value, entry.size),))
        except ValueError as error:
            raise ValueError(f"result {number}: {error}") from error


def _shape(kind: str, value: Any, size: tuple[int, int] | None) -> Shape:
    """The shape of a result; its numbers are percentages of width and height."""
    if kind == "polygon":
        return Polygons((polygon(part(value, "points", list)) / 100,), relative=True)
    if kind == "brush":
        return Brush(_bytes(part(value, "rle", list)))
    if size is None:
        raise ValueError("no original_width and original_height")
    scale = np.array([size[1], size[0]], np.float64) / 100
    sides = ("width", "height") if kind == "rectangle" else ("radiusX", "radiusY")
    x, y, width, height = (float(part(value, key, int | float)) for key in ("x", "y", *sides))  # type: ignore[arg-type]
    degrees = float(part(value, "rotation", int | float, 0))  # type: ignore[arg-type]
    (x, y), (width, height) = np.array([(x, y), (width, height)]) * scale
    if kind == "ellipse":
        return Polygons((polygon(ellipse(x, y, width, height, degrees)),))
    return Polygons((polygon(rectangle(x, y, x + width, y + height, degrees, about=(x, y))),))


def _bytes(values: list[Any]) -> bytes:
    try:
        return bytes(values)
    except (ValueError, TypeError) as error:
        raise ValueError("a brush mask that is no list of bytes") from error


@dataclass(frozen=True)
class Brush(Shape):
    """A brush mask: the run lengths of an RGBA image, in bits; pixels whose alpha is not 0 are inside.

    The bits are: the number of values (32), the bits per value − 1 (5), four sizes of counts − 1 (4 each); then for
    each group of values, whether it repeats one value (1), the size of its count (2), the count − 1, and one or all
    values.

    Args:
        data: The bits.
    """

    data: bytes

    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint the mask."""
        canvas.paint_patch(self._mask(canvas.height, canvas.width), 0, 0, number)

    def area(self, height: int, width: int) -> float:
        """Return the number of pixels."""
        return float(self._mask(height, width).sum())

    def _mask(self, height: int, width: int) -> np.ndarray:
        bits, place = "".join(f"{byte:08b}" for byte in self.data), 0

        def take(count: int) -> int:
            nonlocal place
            if place + count > len(bits):
                raise DataError("a brush mask that is cut off")
            place += count
            return int(bits[place - count : place], 2)

        total, size = take(32), take(5) + 1
        sizes = [take(4) + 1 for _ in range(4)]
        if total != height * width * 4:
            raise SizeMismatchError("a brush mask of another size", expected=f"{width}×{height}, as the image",
                                    found=f"{total / 4:g} pixels")  # fmt: skip
        values, done = np.zeros(total, bool), 0
        while done < total:
            repeats = take(1)
            end = done + 1 + take(sizes[take(2)])
            if repeats:
                values[done:end] = take(size) > 0
            else:
                for index in range(done, min(end, total)):
                    values[index] = take(size) > 0
            done = end
        return values.reshape(height, width, 4)[..., 3]
