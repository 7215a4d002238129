"""Scores from the four counts of a class against all others, for Python integers and tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

# Name → (tp, fp, fn, tn) → numerator and denominator.
FORMULAS: dict[str, Callable[[Any, Any, Any, Any], tuple[Any, Any]]] = {
    "iou": lambda tp, fp, fn, tn: (tp, tp + fp + fn),
    "f1": lambda tp, fp, fn, tn: (2 * tp, 2 * tp + fp + fn),
    "precision": lambda tp, fp, fn, tn: (tp, tp + fp),
    "sensitivity": lambda tp, fp, fn, tn: (tp, tp + fn),
    "specificity": lambda tp, fp, fn, tn: (tn, tn + fp),
    "accuracy": lambda tp, fp, fn, tn: (tp + tn, tp + fp + fn + tn),
}


class Table(NamedTuple):
    """Counts of one class, or several merged, against all others; Python integers, so that quotients are exact."""

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, matrix: Sequence[Sequence[int]], members: Sequence[int]) -> Table:
        """Return the counts of some classes, merged, in a confusion matrix with rows = truth."""
        truth = sum(sum(matrix[index]) for index in members)
        predicted = sum(row[index] for row in matrix for index in members)
        tp = sum(matrix[row][column] for row in members for column in members)
        return cls(tp, predicted - tp, truth - tp, sum(map(sum, matrix)) - truth - predicted + tp)

    @classmethod
    def sum(cls, tables: Sequence[Table]) -> Table:
        """Sum the counts of several classes, for micro averages."""
        return cls(*map(sum, zip(*tables, strict=True)))

    def defined(self, score: str) -> bool:
        """Whether the denominator of a score is not 0; for IoU and F1, if the class is in truth or prediction."""
        return FORMULAS[score](*self)[1] > 0

    def scores(self, empty: float) -> dict[str, float]:
        """Compute every score of `FORMULAS`; `empty` where the denominator is 0."""
        return {name: ratio(*formula(*self), empty) for name, formula in FORMULAS.items()}


class Curve(NamedTuple):
    """Scores at every threshold: a pixel is foreground if its probability is at least the threshold."""

    threshold: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    iou: Floats


class Calibration(NamedTuple):
    """Pixels by predicted probability: their number, mean probability, and share of foreground."""

    pixels: NDArray[np.int64]
    predicted: Floats
    true: Floats


def one_vs_rest(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute tp, fp, fn, tn of every class.

    Args:
        matrix: Confusion matrices, rows = truth.

    Shape:
        - matrix: integers (…, classes, classes)
        - results: (…, classes)
    """
    tp = matrix.diagonal(dim1=-2, dim2=-1)
    fp, fn = matrix.sum(-2) - tp, matrix.sum(-1) - tp
    return tp, fp, fn, matrix.sum((-2, -1)).unsqueeze(-1) - tp - fp - fn


def ratio(numerator: int | float, denominator: int | float, empty: float) -> float:
    """Return a quotient, or `empty` if the denominator is 0."""
    return numerator / denominator if denominator else empty


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Compute the weighted mean of the values that are not NaN; NaN if all are.

    Examples:
        >>> mean([0.5, math.nan, 1.0]), mean([0.5, 1.0], weights=[3, 1])
        (0.75, 0.625)
    """
    weights = [1.0] * len(values) if weights is None else weights
    pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
    return ratio(math.fsum(value * weight for value, weight in pairs), math.fsum(w for _, w in pairs), math.nan)
