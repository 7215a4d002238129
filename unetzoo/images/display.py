"""Rendering of images with any number of channels."""

from __future__ import annotations

import numpy as np

SAMPLES = 10**6  # values from which the range of an image is estimated


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Render an image as RGB: its first three channels, or the first one as gray if it has fewer.

    8-bit values are shown as they are, and others from their 1st to their 99th percentile.

    Shape:
        image: (H, W, C), uint8 or float32. Returns uint8 (H, W, 3).

    Examples:
        >>> as_rgb(np.array([[[0.0, 1], [0.5, 0]]], np.float32)).tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if shown.dtype != np.uint8:
        step = max(1, int(np.ceil((shown.size / SAMPLES) ** 0.5)))
        low, high = np.percentile(shown[::step, ::step], (1, 99))
        shown = ((shown - low) * (255 / max(high - low, 1e-6))).clip(0, 255).astype(np.uint8)
    return np.broadcast_to(shown, (*shown.shape[:2], 3))
