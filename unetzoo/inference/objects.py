"""The objects of a prediction: a number per object, a table, and outlines on the image."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from ..errors import ConfigError
from ..images.display import as_rgb
from ..instances import ObjectRule, separate
from ..labels import LabelSpec

COLUMNS: tuple[str, ...] = ("id", "class", "area", "row", "column", "top", "left", "bottom", "right", "probability")
COLORS = np.array(
    [(230, 60, 60), (60, 180, 75), (255, 200, 25), (70, 130, 255), (245, 130, 48), (170, 80, 230), (70, 220, 240),
     (240, 80, 220), (190, 240, 70), (250, 160, 180), (0, 160, 150), (200, 160, 255)], np.uint8,
)  # fmt: skip


@dataclass(frozen=True)
class Objects:
    """The objects of an image.

    Args:
        numbers: The number of the object of each pixel, from 1; 0 for the background.
        classes: Name of the class of each object.
        probabilities: Mean probability of each object.

    Shape:
        - numbers: int32 (H, W)
    """

    numbers: np.ndarray
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per object: class, area, centroid, box (`bottom` and `right` excluded), mean probability.

        Examples:
            >>> found = Objects(np.array([[0, 1, 1], [0, 1, 1]], np.int32), ("cell",), (0.9,))
            >>> [found.rows()[0][key] for key in ("area", "row", "column", "left", "right")]
            [4, 0.5, 1.5, 1, 3]
        """
        from scipy import ndimage

        rows: list[dict[str, Any]] = []
        for index, box in enumerate(ndimage.find_objects(self.numbers)):
            inside = np.argwhere(self.numbers[box] == index + 1)
            (top, bottom), (left, right) = ((axis.start, axis.stop) for axis in box)
            row, column = inside.mean(0) + np.array([top, left])
            values = (index + 1, self.classes[index], len(inside), round(float(row), 2), round(float(column), 2), top,
                      left, bottom, right, round(self.probabilities[index], 4))  # fmt: skip
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        return rows

    def as_csv(self) -> str:
        """Return the rows as CSV."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows())
        return text.getvalue()

    def label_image(self) -> np.ndarray:
        """Return the numbers in 16 bits, or in 32 bits for more than 65,535 objects."""
        return self.numbers.astype(np.uint16 if len(self.classes) <= np.iinfo(np.uint16).max else np.uint32)

    def outlined(self, image: np.ndarray) -> Image.Image:
        """Return the image (H, W, C) with the outline of each object in one of twelve colors."""
        numbers = np.pad(self.numbers, 1, mode="edge")
        center = numbers[1:-1, 1:-1]
        sides = (numbers[:-2, 1:-1], numbers[2:, 1:-1], numbers[1:-1, :-2], numbers[1:-1, 2:])
        edge = (center > 0) & np.any([center != side for side in sides], 0)
        shown = as_rgb(image).copy()
        shown[edge] = COLORS[center[edge] % len(COLORS)]
        return Image.fromarray(shown.astype(np.uint8))


class Predicted(Protocol):
    """The part of a `SegmentationResult` that objects are found in."""

    @property
    def label_map(self) -> np.ndarray:
        """The class of each pixel."""
        ...

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities (C, H, W)."""
        ...

    @property
    def labels(self) -> LabelSpec:
        """Names of the classes."""
        ...

    @property
    def has_class(self) -> np.ndarray:
        """Where a pixel has data and a sure class, bool (H, W)."""
        ...


def objects_of(result: Predicted, rule: ObjectRule | None) -> Objects:
    """Find the objects of a prediction.

    With a border class, touching objects are separated by it. Otherwise objects are the connected pieces of each class
    but the first; pixels are connected through their sides.

    Args:
        result: The prediction.
        rule: How objects are separated; None for connected pieces of the label map.

    Raises:
        ConfigError: Pixels with several labels.
    """
    if result.label_map.ndim == 3:
        raise ConfigError("objects of pixels with several labels", expected="one class per pixel",
                          hint="write the masks, one per label")  # fmt: skip
    planes = result.probabilities.float().cpu().numpy()
    planes = np.concatenate([1 - planes, planes]) if len(planes) == 1 else planes
    present = result.has_class
    if rule is not None and rule.border:
        inside, border = (plane * present for plane in planes[1:3])
        numbers = separate(inside, border, threshold=rule.threshold, seed=rule.seed, min_size=rule.min_size)
        return _measured([(result.labels.names[1], numbers, inside + border)])
    least = 1 if rule is None else rule.min_size
    found = []
    for index, name in enumerate(result.labels.names[1:], start=1):
        of_class = ((result.label_map == index) & present).astype(np.float32)
        found.append((name, separate(of_class, min_size=least), planes[index]))
    return _measured(found)


def _measured(found: list[tuple[str, np.ndarray, np.ndarray]]) -> Objects:
    """Join the objects of several classes, and average their probabilities."""
    total = np.zeros_like(found[0][1])
    classes: list[str] = []
    probabilities: list[float] = []
    for name, numbers, probability in found:
        count = int(numbers.max(initial=0))
        sums = np.bincount(numbers.ravel(), probability.ravel().astype(np.float64), minlength=count + 1)[1:]
        areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        total = np.where(numbers > 0, numbers + len(classes), total).astype(np.int32)
        classes += [name] * count
        probabilities += (sums / np.maximum(areas, 1)).tolist()
    return Objects(total, tuple(classes), tuple(probabilities))
