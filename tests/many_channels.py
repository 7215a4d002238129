"""Drawn folders of images with many channels or more than 8 bits."""

import numpy as np
import tifffile
from PIL import Image

TWO = {"names": ("background", "cell"), "ids": (0, 255)}
FIVE = {"channels": 5, "range": [100, 4000]}


def draw(folder, count=6, channels=5, side=32, dtype=np.uint16, suffix=".tif"):
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        mask = np.zeros((side, side), np.uint8)
        top, left = rng.integers(0, side // 2, 2)
        mask[top : top + side // 2, left : left + side // 2] = 255
        values = rng.integers(100, 1000, (side, side, channels)) + (mask[..., None] > 0) * 2000
        if suffix == ".tif":
            options = {"photometric": "minisblack", **({"planarconfig": "contig"} if channels > 1 else {})}
            tifffile.imwrite(folder / "images" / f"{index}.tif", values.astype(dtype), **options)
        else:
            np.save(folder / "images" / f"{index}.npy", values.astype(dtype))
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    return folder
