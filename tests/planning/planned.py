"""Drawn data and a laptop for the tests of plans."""

import numpy as np
from PIL import Image

from unetzoo.planning import Timing

NAMES = ("background", "cell")
LAPTOP = Timing("cpu", 16 * 10**9, 2, {16: 60.0, 32: 120.0, 64: 400.0}, {16: 1500.0, 32: 4000.0, 64: 13000.0})


def draw(root, images=12, size=(96, 128), side=12, value=255, light=lambda n: 60, masks=True):
    """Squares of one size on plain images, in both halves alike."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for n in range(images):
        mask = np.zeros(size, np.uint8)
        for top in (size[0] // 8, size[0] - size[0] // 8 - side):
            left = int(rng.integers(size[1] - side))
            mask[top : top + side, left : left + side] = value
        image = np.full((*size, 3), light(n), np.uint8) + rng.integers(0, 9, (*size, 3), np.uint8)
        image[mask > 0] += 80
        Image.fromarray(image).save(root / "images" / f"{n:03d}.png")
        if masks:
            Image.fromarray(mask).save(root / "masks" / f"{n:03d}.png")
    return root
