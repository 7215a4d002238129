"""The objects of a prediction: a number per object, a table, and outlines on the image."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
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
        table = ObjectTable(len(self.classes))
        table.add(self.numbers)
        return table.rows(self.classes, self.probabilities)

    def as_csv(self) -> str:
        """Return the rows as CSV."""
        return as_csv(self.rows())

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


class ObjectTable:
    """Area, centroid, box and mean probability of each object, added up over the parts of an image.

    Args:
        count: Number of objects.

    Examples:
        >>> table = ObjectTable(1)
        >>> for top in (0, 1):
        ...     table.add(np.array([[0, 1, 1]]), np.array([[0.1, 0.9, 0.7]]), top)
        >>> [table.rows(["cell"])[0][key] for key in ("area", "row", "column", "probability")]
        [4, 0.5, 1.5, 0.8]
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._sums = np.zeros((4, count))  # pixels, rows, columns, probabilities
        self._first = np.full((2, count), np.iinfo(np.int64).max)
        self._last = np.zeros((2, count), np.int64)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each object."""
        return self._sums[0]

    def add(self, numbers: np.ndarray, probabilities: np.ndarray | None = None, top: int = 0) -> None:
        """Add rows of the image.

        Args:
            numbers: The number of the object of each pixel, from 1; 0 for the background.
            probabilities: The probability of each pixel.
            top: The first row.

        Shape:
            - numbers, probabilities: (h, W)
        """
        places = np.nonzero(numbers)
        index = numbers[places] - 1
        rows, columns = places[0] + top, places[1]
        of_pixels = 0.0 if probabilities is None else probabilities[places].astype(np.float64)
        for total, values in zip(self._sums, (1.0, rows, columns, of_pixels), strict=True):
            np.add.at(total, index, values)
        for axis, values in enumerate((rows, columns)):
            np.minimum.at(self._first[axis], index, values)
            np.maximum.at(self._last[axis], index, values)

    def rows(
        self,
        classes: Sequence[str],
        probabilities: Sequence[float] | None = None,
        kept: np.ndarray | None = None,
    ) -> list[dict[str, Any]]:
        """Return one row per object, see `COLUMNS`.

        Args:
            classes: Name of the class of each object.
            probabilities: Mean probability of each object, by default of the pixels that were added.
            kept: Which objects to keep, by default all.
        """
        chosen = slice(None) if kept is None else kept
        area, *sums = self._sums[:, chosen]
        row, column, mean = (total / area for total in sums)
        (top, left), (bottom, right) = self._first[:, chosen].tolist(), (self._last[:, chosen] + 1).tolist()
        values = zip(
            range(1, len(area) + 1), classes, area.astype(np.int64).tolist(), row.round(2).tolist(),
            column.round(2).tolist(), top, left, bottom, right,
            np.round(mean if probabilities is None else probabilities, 4).tolist(), strict=True,
        )  # fmt: skip
        return [dict(zip(COLUMNS, line, strict=True)) for line in values]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of objects as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def evidence_of(probabilities: Tensor, classes: Tensor, rule: ObjectRule | None) -> Tensor:
    """Return what objects are found in: the probability of pixels of objects, negative outside of seeds, else 0.

    Args:
        probabilities: Class probabilities.
        classes: The class of each pixel.
        rule: How objects are separated; see `objects_of`.

    Shape:
        - probabilities: (C, H, W)
        - classes: (H, W)
        - result: (H, W)

    Examples:
        >>> evidence_of(torch.tensor([[[0.25, 0.75]]]), torch.tensor([[0, 1]]), None)
        tensor([[0.0000, 0.7500]])
    """
    if rule is not None and rule.border:
        inside, total = probabilities[1], probabilities[1] + probabilities[2]
        return torch.where(inside > rule.seed, total, torch.where(total > rule.threshold, -total, 0))
    planes = torch.cat([1 - probabilities, probabilities]) if len(probabilities) == 1 else probabilities
    chosen = planes.gather(0, classes[None].long())[0]
    return torch.where(classes > 0, chosen, 0)


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
