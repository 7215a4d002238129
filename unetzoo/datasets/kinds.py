"""Kinds of images that look unlike each other, and how often an epoch sees each kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

DISTANCE = 0.1  # gap between the mean colors of kinds, in units of the range of values
GRAY = 0.01  # mean difference between the channels of gray images, which are never of the same kind as colored ones
LEAST_SHARE, LEAST_IMAGES = 0.02, 3  # fewer images are no kind
MOST_COMPARED = 500  # images, evenly spread; the others belong to the kind of the nearest one
MOST_TIMES = 8


def appearance(image: np.ndarray) -> np.ndarray:
    """The mean of every channel in 0…1, and whether the image is colored.

    Args:
        image: (H, W, C), uint8 or floats in 0…1.
    """
    thinned = image[::4, ::4].astype(np.float64) / (255.0 if image.dtype == np.uint8 else 1.0)
    colored = thinned.shape[-1] == 3 and np.ptp(thinned, axis=-1).mean() > GRAY
    return np.append(thinned.mean((0, 1)), float(colored))


def kinds_of(appearances: np.ndarray) -> np.ndarray:
    """Divide images into kinds that a gap in color separates.

    Args:
        appearances: (N, C + 1), from `appearance`.

    Returns:
        (N,): the kind of each image, the most common first, from 0; −1 for the few that belong to none.

    Examples:
        >>> kinds_of(np.array([[0.1, 0.0]] * 4 + [[0.8, 0.0]] * 3 + [[0.5, 0.0]])).tolist()
        [0, 0, 0, 0, 1, 1, 1, -1]
    """
    count = len(appearances)
    if count < 2:
        return np.zeros(count, np.int64)
    compared = appearances[np.arange(min(count, MOST_COMPARED)) * count // min(count, MOST_COMPARED)]
    groups = fcluster(linkage(compared, "single"), DISTANCE, "distance")
    if len(compared) < count:
        groups = groups[cdist(appearances, compared).argmin(1)]
    numbers, sizes = np.unique(groups, return_counts=True)
    ordered = numbers[np.argsort(-sizes, kind="stable")]
    kinds = np.full(count, -1)
    large = [number for number in ordered if (groups == number).sum() >= max(LEAST_IMAGES, LEAST_SHARE * count)]
    for kind, number in enumerate(large):
        kinds[groups == number] = kind
    return kinds


def times_of(sizes: Any) -> list[int]:
    """How often an epoch sees the images of each kind: the root of how much rarer they are than the most common.

    Args:
        sizes: Numbers or shares of the images of each kind.

    Examples:
        >>> times_of([300, 60, 9])
        [1, 2, 6]
    """
    return [min(MOST_TIMES, round(math.sqrt(max(sizes) / size))) for size in sizes]


def balanced(dataset: Any) -> list[int]:
    """How often an epoch sees each image, so that rare kinds of images are seen more often. Reads every image.

    Args:
        dataset: The training set, without a transform.
    """
    kinds = kinds_of(np.array([appearance(np.asarray(dataset[index]["image"])) for index in range(len(dataset))]))
    if kinds.max(initial=-1) < 1:
        return [1] * len(kinds)
    times = [*times_of(np.bincount(kinds[kinds >= 0]).tolist()), 1]  # the last for those of no kind
    return [times[kind] for kind in kinds]
