"""The weight map of the original U-Net: pixels in narrow gaps between cells weigh more."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ConfigError, InputShapeError

# A cell this many σ away adds less than 10⁻⁹·w0.
REACH = 6.5


def border_weights(
    labels: ArrayLike, w0: float = 10.0, sigma: float = 5.0, *, instances: bool = False
) -> NDArray[np.float32]:
    """Compute the weight of every pixel: `w(x) = 1 + w0·exp(−(d₁ + d₂)² / 2σ²)` on the background, 1 on cells.

    d₁ and d₂ are the distances to the nearest and the second-nearest cell, in pixels between centers. With fewer than
    two cells nearby, a pixel has weight 1.

    Args:
        labels: Integers, 0 for the background.
        w0: Peak of the weight.
        sigma: Its width, in pixels.
        instances: What a cell is. False: a 4-connected piece of equal labels, so touching cells of one class count as
            one. True: all pixels of a number, so touching cells are distinguished, and a cell that another one or the
            border of a crop divides remains one.

    Shape:
        - labels: (H, W)
        - result: (H, W), float32

    Raises:
        InputShapeError: Labels that are not (H, W).
        ConfigError: Invalid w0 or sigma.

    Examples:
        >>> print(border_weights([[1, 0, 2]]))  # 1 + 10·exp(−(1 + 1)² / 50)
        [[ 1.       10.231163  1.      ]]

    Source:
        Ronneberger et al., "U-Net", 2015, eq. 2, with w_c = 1.
    """
    from scipy import ndimage

    check_constants(w0, sigma)
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise InputShapeError("unusable labels", expected="shape (H, W)", found=labels.shape)
    labels = np.maximum(labels, 0).astype(np.int64)
    if labels.size and labels.max() > labels.size:  # the numbers have gaps, for which memory would be allocated
        labels = renumbered(labels)
    nearest, second = np.full((2, *labels.shape), np.inf)
    margin = math.ceil(REACH * sigma)
    for value, box in enumerate(ndimage.find_objects(labels) if labels.size else [], start=1):
        if box is None:
            continue
        pieces = (labels[box] == value).astype(np.int32)
        if not instances:
            ndimage.label(labels[box] == value, output=pieces)
        for index, piece in enumerate(ndimage.find_objects(pieces), start=1):
            start = [outer.start + inner.start for outer, inner in zip(box, piece, strict=True)]
            size = [inner.stop - inner.start for inner in piece]
            around = tuple(
                slice(max(0, s - margin), min(s + n + margin, whole))
                for s, n, whole in zip(start, size, labels.shape, strict=True)
            )
            elsewhere = np.ones([s.stop - s.start for s in around], bool)
            own = tuple(slice(s - a.start, s - a.start + n) for s, n, a in zip(start, size, around, strict=True))
            elsewhere[own] = pieces[piece] != index
            distance = np.asarray(ndimage.distance_transform_edt(elsewhere))
            second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
            nearest[around] = np.minimum(nearest[around], distance)
    border = w0 * np.exp(-((nearest + second) ** 2) / (2.0 * sigma**2))
    return (1.0 + np.where(labels == 0, border, 0.0)).astype(np.float32)


def renumbered(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number objects 1, 2, 3, … in the order of their numbers; 0 remains the background.

    Args:
        labels: Integers ≥ 0.

    Examples:
        >>> renumbered(np.array([[0, 9, 4, 9]]))
        array([[0, 2, 1, 2]])
    """
    _, places = np.unique(np.append(labels, 0), return_inverse=True)
    return places[:-1].reshape(labels.shape)


def check_constants(w0: float, sigma: float) -> None:
    """Check the constants of the map.

    Raises:
        ConfigError: Unless w0 ≥ 0 and sigma > 0.
    """
    if not (0 <= w0 < math.inf and 0 < sigma < math.inf):
        raise ConfigError("unusable constants", expected="w0 ≥ 0 and sigma > 0", found=f"{w0}, {sigma}")
