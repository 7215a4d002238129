"""Objects with a number each: the border class between touching ones, and objects from probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .borders import renumbered
from .errors import ConfigError, InputShapeError

Numbers = NDArray[np.integer[Any]]
Probability = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ObjectRule:
    """How the objects of an image are found in the output of a network.

    Args:
        threshold: Probability above which a pixel belongs to an object.
        seed: Probability of the inside above which a pixel belongs to a seed; see `separate`.
        min_size: Smaller objects are dropped, in pixels.
        border: Whether the last of three classes is the border between touching objects.
    """

    threshold: float = 0.5
    seed: float = 0.5
    min_size: int = 1
    border: bool = False


def touching_borders(instances: Numbers, width: int = 1) -> NDArray[np.bool_]:
    """Find the pixels with two different objects within `width` pixels, on the objects as well as between them.

    An object of which nothing else would remain keeps its pixels, so that it can be found.

    Args:
        instances: The number of the object of each pixel, 0 for the background. All pixels of a number are one object.
        width: Distance in pixels, horizontally, vertically and diagonally.

    Shape:
        - instances: (H, W)
        - result: bool (H, W)

    Raises:
        ConfigError: `width` is not an integer ≥ 1.
        InputShapeError: Instances that are not integers (H, W).

    Examples:
        >>> touching_borders(np.array([[1, 1, 1, 2, 2, 0]])).astype(int).tolist()
        [[0, 0, 1, 1, 0, 0]]
    """
    from scipy import ndimage

    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise ConfigError("wrong width of borders", expected="an integer ≥ 1", found=repr(width))
    if instances.ndim != 2 or instances.dtype.kind not in "iu":
        raise InputShapeError("unusable instances", expected="integers (H, W)",
                              found=f"{instances.dtype} {instances.shape}")  # fmt: skip
    if not instances.size:
        return np.zeros(instances.shape, bool)
    numbers = instances.astype(np.int64)
    if numbers.max() >= 2**53:  # the filters compute in float64
        numbers = renumbered(numbers)
    size = 2 * width + 1
    highest = ndimage.maximum_filter(numbers, size, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(numbers > 0, numbers, numbers.max() + 1), size, mode="nearest")
    border = (highest > 0) & (lowest != highest)
    lost = np.setdiff1d(numbers[border], numbers[~border])
    return border & ~(np.isin(numbers, lost) & (numbers > 0))


def separate(
    inside: Probability,
    border: Probability | None = None,
    *,
    threshold: float = 0.5,
    seed: float = 0.5,
    min_size: int = 1,
) -> NDArray[np.int32]:
    """Divide probabilities into objects, numbered 1, 2, 3, …

    Without `border`, objects are the connected pieces above `threshold`. With it, seeds are the connected pieces of
    `inside` above `seed`, and each pixel whose `inside` + `border` is above `threshold` belongs to the nearest seed of
    its connected piece; pieces without a seed are dropped. Neighbors are above, below, left and right.

    Args:
        inside: Probability of the inside of an object.
        border: Probability of the border between touching objects.
        threshold: Probability above which a pixel belongs to an object.
        seed: Probability above which a pixel belongs to a seed.
        min_size: Smaller objects are dropped, in pixels.

    Shape:
        - inside, border: (H, W)
        - result: int32 (H, W)

    Raises:
        ConfigError: Probabilities outside (0, 1), or a negative size.
        InputShapeError: Maps that are not (H, W), or of different sizes.

    Examples:
        >>> separate(np.array([[0.9, 0.8, 0.1, 0.2, 0.9]]), np.array([[0.0, 0.1, 0.8, 0.7, 0.0]]))
        array([[1, 1, 1, 2, 2]], dtype=int32)
    """
    if not (0 < threshold < 1 and 0 < seed < 1 and min_size >= 0):
        raise ConfigError("unusable thresholds", expected="probabilities in (0, 1) and a size ≥ 0",
                          found=f"threshold {threshold}, seed {seed}, min_size {min_size}")  # fmt: skip
    if inside.ndim != 2 or (border is not None and border.shape != inside.shape):
        found = f"{inside.shape}" + (f" and {border.shape}" if border is not None else "")
        raise InputShapeError("unusable probabilities", expected="(H, W)", found=found)
    if not inside.size:
        return np.zeros(inside.shape, np.int32)
    if border is None:
        return _large(_pieces(inside > threshold), min_size)
    seeds = _pieces(inside > seed)
    foreground = _pieces((inside + border > threshold) | (seeds > 0))
    if not seeds.any():
        return seeds
    nearest = nearest_seeds(foreground, seeds)
    own = (foreground > 0) & (foreground[nearest] == foreground)
    return _large(np.where(own, seeds[nearest], 0), min_size)


def nearest_seeds(foreground: Numbers, seeds: Numbers) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find the nearest pixel of a seed in the same connected piece, for each pixel of the foreground.

    Pixels of the background and of pieces without a seed get a seed of another piece. Among seeds at the same
    distance, the choice does not depend on what is farther away, so that it is the same in any part of an image that
    contains them.

    Args:
        foreground: The number of the connected piece of each pixel, 0 for the background.
        seeds: The number of the seed of each pixel, 0 elsewhere. There is at least one; seeds are in the foreground.

    Shape:
        - foreground, seeds: (H, W)
        - result: rows and columns, int32 (H, W) each

    Examples:
        >>> nearest_seeds(np.array([[1, 1, 1, 0, 2]]), np.array([[1, 0, 0, 0, 2]]))[1]
        array([[0, 0, 0, 4, 4]], dtype=int32)
    """
    from scipy import ndimage

    rows, columns = _nearest(seeds > 0)
    strangers = (foreground > 0) & (foreground[rows, columns] != foreground)
    boxes = ndimage.find_objects(foreground)
    for piece in np.intersect1d(foreground[strangers], foreground[seeds > 0]):
        box = boxes[piece - 1]
        own = foreground[box] == piece
        for places, found, axis in zip((rows, columns), _nearest(own & (seeds[box] > 0)), box, strict=True):
            places[box][own] = found[own] + axis.start
    return rows, columns


def _nearest(seeds: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    from scipy import ndimage

    rows, columns = np.asarray(ndimage.distance_transform_edt(~seeds, return_distances=False, return_indices=True))
    return rows, columns


def _pieces(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    from scipy import ndimage

    return ndimage.label(mask)[0].astype(np.int32)  # pyright: ignore


def _large(objects: NDArray[np.int32], min_size: int) -> NDArray[np.int32]:
    """Drop small objects, and number the others 1, 2, 3, …"""
    kept = np.bincount(objects.ravel()) >= max(min_size, 1)
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[objects]
