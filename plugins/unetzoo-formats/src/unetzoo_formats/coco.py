"""COCO JSON: images, annotations and categories in one file."""

from __future__ import annotations

from typing import Any, ClassVar

from unetzoo.datasets import ANNOTATION_LAYOUTS

from .annotated import Annotated
from .places import Places
from .reading import Annotations, Entry, Region, part, read_json, short, size_of, unreadable
from .shapes import Polygons, Runs, Shape, decode_counts, edges_of, polygon


class Coco(Annotated):
    """Objects in COCO JSON, as polygons, compressed or uncompressed run lengths.

    Categories are numbered in the order of the file, whatever their ids; categories of the same name are one class.
    Regions with `iscrowd` or `ignore` are ignored where no object covers them. Several polygons of an annotation are
    united; holes need run lengths. Annotations with only a bounding box are an error.

    The arguments are those of `Annotated`.

    Examples:
        >>> import json, tempfile; from pathlib import Path; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 6)).save(root / "a.png")
        >>> _ = (root / "coco.json").write_text(json.dumps({
        ...     "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        ...     "categories": [{"id": 7, "name": "cell"}],
        ...     "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0,
        ...                      "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}]}))
        >>> data = Coco(root)
        >>> data.labels.names, int(data[0]["mask"].sum())
        (('background', 'cell'), 6)
    """

    how_to_get: ClassVar[str] = "export the annotations as COCO JSON with segmentations, and put them beside the images"
    layouts: ClassVar = (ANNOTATION_LAYOUTS["coco"],)

    def read(self, places: Places, split: str | None, annotations: str | None, images: str | None) -> Annotations:
        """Read the file of a split."""
        file, divided = places.annotation_file("coco", split, annotations, self.how_to_get)
        path = self.root / file
        content = read_json(path)
        lists = "images", "annotations", "categories"
        if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
            raise unreadable(path, short(list(content) if isinstance(content, dict) else content),
                             "an object with the lists images, annotations and categories")  # fmt: skip
        found = Annotations([path], divided)
        categories = _by_id(found, "category", content["categories"], lambda item: part(item, "name", str))
        found.categories = list(dict.fromkeys(categories.values()))
        entries = _by_id(found, "image", content["images"], _entry)
        found.entries = list(entries.values())
        for number, item in enumerate(content["annotations"]):
            try:
                entry, region = _region(item, entries, categories)
            except ValueError as error:
                name = item.get("id", f"number {number}") if isinstance(item, dict) else f"number {number}"
                found.faults.add(f"annotation {short(name)}: {error}")
            else:
                entry.regions.append(region)
        return found


def _by_id(found: Annotations, kind: str, items: list[Any], read: Any) -> dict[Any, Any]:
    """Read the objects of a list; the results by id."""
    table: dict[Any, Any] = {}
    for number, item in enumerate(items):
        try:
            key = part(item, "id", int | str)  # pyright: ignore[reportArgumentType]
            if key in table:
                raise ValueError(f"the id {short(key)} twice")
            table[key] = read(item)
        except ValueError as error:
            found.faults.add(f"{kind} number {number}: {error}")
    return table


def _entry(item: Any) -> Entry:
    return Entry(part(item, "file_name", str), size=size_of(item, "height", "width"))


def _region(item: Any, entries: dict[Any, Entry], categories: dict[Any, str]) -> tuple[Entry, Region]:
    """An annotation, and the image it belongs to."""
    image, category = (part(item, key, int | str) for key in ("image_id", "category_id"))  # type: ignore[arg-type]
    if image not in entries:
        raise ValueError(f"unknown image {short(image)}")
    if category not in categories:
        raise ValueError(f"unknown category {short(category)}")
    entry = entries[image]
    shape = _shape(item.get("segmentation"), entry)
    return entry, Region(categories[category], (shape,), bool(item.get("iscrowd") or item.get("ignore")))


def _shape(segmentation: Any, entry: Entry) -> Shape:
    if isinstance(segmentation, list) and segmentation:
        return Polygons(tuple(map(polygon, segmentation)))
    if not isinstance(segmentation, dict):
        raise ValueError("no segmentation" if not segmentation else f"segmentation is {short(segmentation)}")
    size = part(segmentation, "size", list)
    counts = segmentation.get("counts")
    if len(size) != 2 or not all(isinstance(side, int) and 0 < side < 2**31 for side in size):
        raise ValueError(f"size {short(size)} of run lengths")
    if not isinstance(counts, str | list):
        raise ValueError(f"counts {short(counts)} of run lengths")
    height, width = size
    if entry.size not in (None, (height, width)):
        assert entry.size is not None
        raise ValueError(f"run lengths of {width}×{height}, but the image has {entry.size[1]}×{entry.size[0]}")
    runs = decode_counts(counts) if isinstance(counts, str) else counts
    return Runs(edges_of(runs, height * width), (height, width))
