"""Predictions as COCO JSON, one file for all images, to be corrected in labeling tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from .._version import __version__
from ..io import replacing
from .results import SegmentationResult

Entries = Callable[[], Iterable[tuple[int, dict[str, Any]]]]


def coco_record(image: Path, result: SegmentationResult, *, polygons: bool) -> dict[str, Any]:
    """Return what a COCO file holds of one image.

    Annotations are connected regions of a class (pixels that share a side), with their mean probability as `score`.
    Polygons follow the sides of pixels, so that they cover exactly the pixels of the region; regions with holes are run
    lengths. The background, a black class, has no annotations; labels of a multilabel network all have. Pixels without
    data, or without a sure class, belong to no region.

    Args:
        image: The image file.
        result: Its prediction.
        polygons: Write polygons where regions have no holes; otherwise all regions are run lengths.
    """
    height, width = result.image.shape[:2]
    categories = categories_of(result)
    return {
        "file": {"file_name": image.name, "width": width, "height": height},
        "categories": [{"id": key, "name": result.labels.names[index]} for index, key in categories.items()],
        "annotations": list(_annotations(result, categories, polygons)),
    }


def write_coco(path: Path, entries: Entries) -> None:
    """Write a COCO file.

    Args:
        path: The file.
        entries: Returns number and `coco_record` of each image, in order. It is called twice, so that only one record
            is held in memory.

    Raises:
        OSError: The disk is full.
    """
    images: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    for number, record in entries():
        images.append({"id": number, **record["file"]})
        categories = record["categories"]
    head = {"info": {"description": f"unetzoo {__version__}"}, "images": images, "categories": categories}
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(json.dumps(head, ensure_ascii=False).encode("utf-8", "backslashreplace")[:-1])
        file.write(b', "annotations": [')
        annotations = ((number, annotation) for number, record in entries() for annotation in record["annotations"])
        for written, (number, annotation) in enumerate(annotations, start=1):
            line = json.dumps({"id": written, "image_id": number, **annotation})
            file.write((b"\n" if written == 1 else b",\n") + line.encode())
        file.write(b"]}\n")


def _annotations(result: SegmentationResult, categories: dict[int, int], polygons: bool) -> Iterator[dict[str, Any]]:
    several = result.label_map.ndim == 3
    for index, category in categories.items():
        plane = result.label_map[index] > 0 if several else result.label_map == index
        plane &= result.has_class
        regions = np.zeros(plane.shape, np.int32)
        ndimage.label(plane, output=regions)
        scores = _probability_of(result, index)
        for region, place in enumerate(ndimage.find_objects(regions), start=1):
            mask, top, left = regions[place] == region, place[0].start, place[1].start
            loops = outline(mask) if polygons else []
            if len(loops) == 1:
                segmentation: Any = [(loops[0] + (left, top)).ravel().tolist()]
            else:
                height, width = plane.shape
                segmentation = {"size": [height, width], "counts": run_lengths(mask, top, left, height, width)}
            yield {
                "category_id": category, "segmentation": segmentation, "area": int(mask.sum()),
                "bbox": [left, top, mask.shape[1], mask.shape[0]], "iscrowd": 0,
                "score": round(float(scores[place][mask].mean()), 4),
            }  # fmt: skip


def categories_of(result: SegmentationResult) -> dict[int, int]:
    """The category id of each class that has annotations: 1, 2, … without the background, which is black."""
    several = result.label_map.ndim == 3
    classes = [index for index, color in enumerate(result.labels.palette) if several or any(color)]
    return {index: key for key, index in enumerate(classes, start=1)}


def outline(mask: np.ndarray) -> list[np.ndarray]:
    """Trace the sides of the pixels of a region.

    Args:
        mask: bool (H, W), a region whose pixels share sides.

    Returns:
        Closed loops of corners (x, y), clockwise around the region; more than one if it has holes. By the even-odd rule
        they cover exactly the pixels of the region.

    Examples:
        >>> [loop.tolist() for loop in outline(np.array([[True, True], [True, False]]))]
        [[[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]]]
    """
    padded = np.pad(mask, 1)
    inner, (above, below) = padded[1:-1, 1:-1], (padded[:-2, 1:-1], padded[2:, 1:-1])
    before, after = padded[1:-1, :-2], padded[1:-1, 2:]
    height, width = mask.shape
    sides = np.zeros((height + 1, width + 1), np.uint8)  # bits of the sides that start at a corner
    sides[:-1, :-1] |= (inner & ~above).view(np.uint8)  # to the right
    sides[:-1, 1:] |= (inner & ~after).view(np.uint8) << 1  # down
    sides[1:, 1:] |= (inner & ~below).view(np.uint8) << 2  # to the left
    sides[1:, :-1] |= (inner & ~before).view(np.uint8) << 3  # up
    left, steps = bytearray(sides.tobytes()), (1, width + 1, -1, -width - 1)
    loops = []
    for start in np.flatnonzero(sides & 1).tolist():
        place, heading, corners = start, 0, []
        if not left[start] & 1:
            continue
        while left[place]:
            # where two pixels touch at a corner, a right turn stays at the same pixel
            turned = next(way for way in ((heading + 1) % 4, heading, (heading + 3) % 4) if left[place] >> way & 1)
            if turned != heading or not corners:
                corners.append(place)
            heading = turned
            left[place] ^= 1 << heading
            place += steps[heading]
        loops.append(np.stack(np.divmod(corners, width + 1)[::-1], axis=1))
    return loops


def run_lengths(mask: np.ndarray, top: int, left: int, height: int, width: int) -> list[int]:
    """The run lengths of a region down the columns of an image, of background and region in turn.

    Args:
        mask: bool (h, w), the region.
        top: Its first row in the image.
        left: Its first column in the image.
        height: Height of the image.
        width: Width of the image.

    Examples:
        >>> run_lengths(np.array([[True], [True]]), 1, 2, 4, 4)
        [9, 2, 5]
    """
    changes = np.diff(np.pad(mask.T.view(np.int8), ((0, 0), (1, 1))), axis=1)
    columns, rows = np.nonzero(changes)
    edges = (left + columns) * height + top + rows
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2])  # from the bottom of a column to the top of the next
    edges = np.delete(edges, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    counts = np.diff(np.concatenate([[0], edges, [height * width]])).tolist()
    return counts if counts[-1] else counts[:-1]


def _probability_of(result: SegmentationResult, index: int) -> np.ndarray:
    """The probability of a class, float32 (H, W)."""
    planes = result.probabilities.float().cpu().numpy()
    if len(planes) == 1 and result.label_map.ndim == 2:
        return planes[0] if index else 1 - planes[0]
    return planes[index]
