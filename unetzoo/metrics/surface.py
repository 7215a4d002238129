"""Distances between outlines: Hausdorff, HD95, mean surface distance, surface Dice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..labels import LabelSpec
from . import inputs
from .counting import PixelBins
from .scores import mean, ratio
from .state import SummedState

Mask = NDArray[np.bool_]


class Distances(NamedTuple):
    """Distances between the predicted and the true outline of one object."""

    hausdorff: float
    hd95: float
    assd: float
    nsd: float


class SurfaceMetric(SummedState):
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
        self.names = inputs.class_names(num_classes, labels)
        self.ignore_index = inputs.ignored_label(ignore_index, labels)
        self.scored = self._kept(exclude)
        sizes = (spacing, spacing) if isinstance(spacing, int | float) else tuple(spacing)
        if len(sizes) != 2 or not all(0.0 < size < math.inf for size in sizes):
            raise ConfigError("unusable spacing", expected="a positive number, or (height, width)", found=spacing)
        if not 0.0 <= tolerance < math.inf:
            raise ConfigError("unusable tolerance", expected="a distance ≥ 0", found=tolerance)
        self.spacing, self.tolerance = (float(sizes[0]), float(sizes[1])), float(tolerance)
        self.threshold = inputs.check_probability(threshold, "threshold")
        self._bins = PixelBins(len(self.names), self.ignore_index)
        super().__init__(
            {
                "sums": torch.zeros(len(self.scored), len(Distances._fields), dtype=torch.float64),
                "counts": torch.zeros(len(self.scored), 3, dtype=torch.int64),  # images, missed, invented
            }
        )

    def rules(self) -> dict[str, Any]:
        """Return names of the scored classes, ignored label, tolerance, spacing and threshold."""
        return {
            "classes": [self.names[index] for index in self.scored],
            "ignore_index": self.ignore_index,
            "tolerance": self.tolerance,
            "spacing": self.spacing,
            "threshold": self.threshold,
        }

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Measure a batch.

        Args:
            output: Logits, or a map of predicted labels.
            target: The true labels.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.

        Shape:
            - output: floats (N, C, H, W), C = num_classes, or 1 for binary; or integers (N, H, W)
            - target: integers (N, H, W) or (N, 1, H, W)
            - weight: (N, H, W) or (N, 1, H, W)

        Raises:
            InputShapeError: An output of the wrong shape.
            SizeMismatchError: Output, target and weight of different sizes.
            DataError: A target without integer labels; weights other than 0 and 1.
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
        """
        predicted, logits = inputs.predicted_labels(output, len(self.names), self.threshold)
        truth = inputs.true_labels(target, predicted, output)
        counted = self._bins.counted(truth, predicted, inputs.counted_pixels(weight, truth), logits=logits)
        images = zip(*(labels.cpu().numpy() for labels in (predicted, truth, counted)), strict=True)
        found = [self._measured(*image) for image in images]
        if found:
            sums, counts = (np.sum(part, axis=0) for part in zip(*found, strict=True))
            self.add(sums=torch.from_numpy(sums), counts=torch.from_numpy(counts))

    def compute(self) -> dict[str, float]:
        """Compute all means of the images measured so far."""
        sums: list[list[float]] = self._sums["sums"].tolist()
        counts: list[list[int]] = self._sums["counts"].tolist()
        rows = [[ratio(s, n, math.nan) for s in row] for row, (n, *_) in zip(sums, counts, strict=True)]
        names = [self.names[index] for index in self.scored]
        scores = {field: mean(values) for field, values in zip(Distances._fields, zip(*rows, strict=True), strict=True)}
        scores["defined"] = float(sum(n > 0 for n, *_ in counts))
        for name, row, numbers in zip(names, rows, counts, strict=True):
            scores |= {f"{field}/{name}": value for field, value in zip(Distances._fields, row, strict=True)}
            counts_of_class = zip(("images", "missed", "invented"), numbers, strict=True)
            scores |= {f"{what}/{name}": float(number) for what, number in counts_of_class}
        return scores

    def _kept(self, exclude: Sequence[str | int]) -> tuple[int, ...]:
        if isinstance(exclude, str):
            raise ConfigError("unusable exclude", expected="a list of classes", found=repr(exclude))
        index = {name: place for place, name in enumerate(self.names)} | {i: i for i in range(len(self.names))}
        if unknown := [one for one in exclude if one not in index]:
            raise ConfigError("unknown class to exclude", found=unknown, hint="choose from: " + ", ".join(self.names))
        left = {*range(len(self.names))} - {index[one] for one in exclude} - ({0} if len(self.names) == 2 else set())
        if not left:
            raise ConfigError("no class is left to score", subject="exclude", found=list(exclude))
        return tuple(sorted(left))

    def _measured(
        self, predicted: NDArray[Any], truth: NDArray[Any], counted: Mask
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return distances and counts of one image, one row per class."""
        sums, counts = np.zeros((len(self.scored), 4)), np.zeros((len(self.scored), 3), np.int64)
        for row, label in enumerate(self.scored):
            guess, true = (predicted == label) & counted, (truth == label) & counted
            if guess.any() or true.any():
                sums[row] = distances(guess, true, spacing=self.spacing, tolerance=self.tolerance)
                counts[row] = 1, not guess.any(), not true.any()
        return sums, counts


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
