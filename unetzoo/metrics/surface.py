"""Distances between outlines: Hausdorff, HD95, mean surface distance, surface Dice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..labels import LabelSpec
from .per_image import PerImageMetric

Mask = NDArray[np.bool_]


class Distances(NamedTuple):
    """Distances between the predicted and the true outline of one object."""

    hausdorff: float
    hd95: float
    assd: float
    nsd: float


class SurfaceMetric(PerImageMetric):
    """Distances between the outlines of predicted and true objects, for each class of each image.

    The outline of an object consists of its pixels that have a neighbor above, below, left or right outside the
    object; everything beyond the image is outside. With d the distance from a pixel of one outline to the nearest
    pixel of the other:

    - `hausdorff`: the largest d in either direction
    - `hd95`: the larger of the two directions' 95th percentiles of d
    - `assd`: average symmetric surface distance, the mean d over the pixels of both outlines
    - `nsd`: normalized surface Dice, the share of the pixels of both outlines with d ≤ tolerance

    Each is averaged over the images in which the class is in truth or prediction; `images/<class>` is their number.
    A class that is in neither is not scored. A class that is in only one of them gets the worst scores: its distances
    are the image's diagonal, more than the distance between any two pixels, and its surface Dice is 0;
    `missed/<class>` and `invented/<class>` count these images. `hausdorff`, `hd95`, `assd` and `nsd` without a class
    are means over the scored classes; `defined` is their number.

    SciPy computes the distances on the host, so `update` waits for the device.

    Args:
        num_classes: Number of classes; 1 means binary.
        ignore_index: Label of the pixels that do not count: they belong to no object, true or predicted.
            By default that of `labels`.
        labels: Names of the classes.
        tolerance: Distance up to which surface Dice considers outlines equal, in the unit of `spacing`.
        spacing: Size of a pixel, or its height and width.
        exclude: Classes not to score, by name or index, such as a background. With two classes only the second
            is ever scored.
        threshold: Binary: the probability above which a pixel is foreground.

    Raises:
        ConfigError: Neither num_classes nor labels; unusable settings.

    Examples:
        >>> import torch
        >>> truth, predicted = torch.zeros(2, 1, 8, 8, dtype=torch.long)
        >>> truth[0, 2:5, 2:5], predicted[0, 2:5, 3:6] = 1, 1
        >>> metric = SurfaceMetric(num_classes=1)
        >>> metric.update(predicted, truth)
        >>> scores = metric.compute()
        >>> scores["hausdorff"], scores["nsd"]
        (1.0, 1.0)

    Source:
        Nikolov et al., "Clinically Applicable Segmentation of Head and Neck Anatomy", 2021 (surface Dice); Maier-Hein
        et al., "Metrics reloaded", 2024.
    """

    fields = Distances._fields

    def __init__(
        self,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        labels: LabelSpec | None = None,
        tolerance: float = 1.0,
        spacing: float | Sequence[float] = 1.0,
        exclude: Sequence[str | int] = (),
        threshold: float = 0.5,
    ) -> None:
        super().__init__(num_classes, ignore_index, labels, exclude, threshold)
        sizes = (spacing, spacing) if isinstance(spacing, int | float) else tuple(spacing)
        if len(sizes) != 2 or not all(0.0 < size < math.inf for size in sizes):
            raise ConfigError("unusable spacing", expected="a positive number, or (height, width)", found=spacing)
        if not 0.0 <= tolerance < math.inf:
            raise ConfigError("unusable tolerance", expected="a distance ≥ 0", found=tolerance)
        self.spacing, self.tolerance = (float(sizes[0]), float(sizes[1])), float(tolerance)

    def rules(self) -> dict[str, Any]:
        """Return names of the scored classes, ignored label, threshold, tolerance and spacing."""
        return {**super().rules(), "tolerance": self.tolerance, "spacing": self.spacing}

    def measure(self, predicted: Mask, truth: Mask) -> Distances:
        """Measure one class of one image."""
        return distances(predicted, truth, spacing=self.spacing, tolerance=self.tolerance)


def distances(
    predicted: Mask, truth: Mask, *, spacing: Sequence[float] = (1.0, 1.0), tolerance: float = 1.0
) -> Distances:
    """Compute the distances between the outlines of a predicted and a true object.

    If one of them is empty, the distances are the image's diagonal and the surface Dice is 0. If both are empty, all
    are NaN.

    Args:
        predicted: The predicted object.
        truth: The true object.
        spacing: Size of a pixel, height and width.
        tolerance: See `SurfaceMetric`.

    Shape:
        - predicted, truth: bool (H, W)

    Examples:
        >>> one, two = np.zeros((2, 1, 9), bool)
        >>> one[0, 2], two[0, 6] = True, True
        >>> distances(one, two).hausdorff
        4.0
    """
    from scipy.ndimage import distance_transform_edt

    if not (predicted.any() and truth.any()):
        if not predicted.any() and not truth.any():
            return Distances(math.nan, math.nan, math.nan, math.nan)
        diagonal = math.hypot(*(side * size for side, size in zip(truth.shape, spacing, strict=True)))
        return Distances(diagonal, diagonal, diagonal, 0.0)
    box = _box(predicted | truth)  # pixels outside the box do not matter
    guess, true = outline(predicted[box]), outline(truth[box])
    to_true, to_guess = (np.asarray(distance_transform_edt(~edge, sampling=spacing)) for edge in (true, guess))
    out, back = to_true[guess], to_guess[true]
    both = np.concatenate([out, back])
    return Distances(
        hausdorff=float(both.max()),
        hd95=float(max(np.percentile(out, 95), np.percentile(back, 95))),
        assd=float(both.mean()),
        nsd=float((both <= tolerance).mean()),
    )


def outline(mask: Mask) -> Mask:
    """Return the pixels of an object that touch its outside; everything beyond the image is outside.

    Examples:
        >>> outline(np.ones((3, 4), bool)).astype(int)
        array([[1, 1, 1, 1],
               [1, 0, 0, 1],
               [1, 1, 1, 1]])
    """
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _box(mask: Mask) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
