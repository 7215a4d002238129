"""Skeletons of masks, by scikit-image (an extra: `pip install unetzoo[thin]`)."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ConfigError


def require_skeletons(subject: str) -> None:
    """Check that scikit-image is installed.

    Args:
        subject: What needs it.

    Raises:
        ConfigError: It is not.
    """
    if find_spec("skimage") is None:
        hint = 'pip install "unetzoo[thin]"'
        raise ConfigError("scikit-image is not installed", subject=subject, hint=hint)


def skeleton(mask: ArrayLike) -> NDArray[np.bool_]:
    """Thin the objects of a mask to lines of one pixel.

    Args:
        mask: True inside.

    Shape:
        - mask, result: (H, W)

    Examples:
        >>> skeleton([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]).sum(1)
        array([0, 1, 1, 1, 0])
    """
    from skimage.morphology import skeletonize

    inside = np.asarray(mask, dtype=bool)
    return skeletonize(inside) if inside.any() else np.zeros_like(inside)
