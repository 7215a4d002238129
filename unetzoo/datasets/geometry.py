"""Moving pictures, masks, depth and weights together: resizing, and resampling on a deformed grid.

Pictures and weights are sampled bilinearly, class indices take the nearest pixel, depth is the mean of the valid pixels
among its neighbours, so that no value of an invalid pixel ever enters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import DataError, SizeMismatchError
from .base import Sample

Planes = dict[str, Any]
Sampler = Callable[[torch.Tensor, str], torch.Tensor]
PLANES = ("image", "mask", "depth", "valid", "weight")


def planes_of(sample: Sample) -> Planes:
    """The arrays of a sample that share its geometry.

    Raises:
        DataError: An array nobody knows how to move, or a picture that is not uint8 (H, W, C).
        SizeMismatchError: Arrays of several sizes.
    """
    planes = {name: sample[name] for name in PLANES if sample.get(name) is not None}
    strange = [k for k, v in sample.items() if isinstance(v, np.ndarray) and k not in PLANES]
    image = planes.get("image")
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        found = "none" if image is None else f"{image.dtype} {image.shape}"
        raise DataError("not a picture", subject=sample.get("id"), expected="uint8 (H, W, C)", found=found,
                        hint="datasets give pictures as uint8; scaling comes last")  # fmt: skip
    if strange:
        raise DataError("unknown array in a sample", subject=sample.get("id"), expected=", ".join(PLANES),
                        found=", ".join(strange), hint="no transform knows how to move it")  # fmt: skip
    sizes = {name: plane.shape[:2] for name, plane in planes.items()}
    if len(set(sizes.values())) > 1:
        raise SizeMismatchError(
            "planes of several sizes", subject=sample.get("id"), found=sizes, hint="correct the dataset"
        )
    return planes


def reflect(plane: np.ndarray, width: int) -> np.ndarray:
    """Go on mirrored for `width` pixels beyond every edge; the edge itself is not repeated."""
    return np.pad(plane, [(width, width)] * 2 + [(0, 0)] * (plane.ndim - 2), mode="reflect")


def resize(planes: Planes, height: int, width: int) -> Planes:
    """Resize all planes; shrinking averages (antialias), masks take the nearest pixel."""
    if planes["image"].shape[:2] == (height, width):
        return planes

    def sample(plane: torch.Tensor, mode: str) -> torch.Tensor:
        if mode == "nearest":
            return F.interpolate(plane, (height, width), mode="nearest-exact")
        return F.interpolate(plane, (height, width), mode="bilinear", align_corners=False, antialias=True)

    return _sampled(planes, sample)


def warp(planes: Planes, rows: np.ndarray, columns: np.ndarray) -> Planes:
    """Take each output pixel from (row, column) of the input; beyond the edge the picture goes on mirrored.

    Args:
        planes: Arrays that share height and width.
        rows: Source rows, (h, w), in pixels.
        columns: Source columns, (h, w), in pixels.
    """
    height, width = planes["image"].shape[:2]
    y = 2 * rows / max(height - 1, 1) - 1
    x = 2 * columns / max(width - 1, 1) - 1
    grid = torch.from_numpy(np.stack([x, y], axis=-1).astype(np.float32))[None]

    def sample(plane: torch.Tensor, mode: str) -> torch.Tensor:
        return F.grid_sample(plane, grid, mode=mode, padding_mode="reflection", align_corners=True)

    return _sampled(planes, sample)


def _sampled(planes: Planes, sample: Sampler) -> Planes:
    def apply(array: np.ndarray, mode: str) -> np.ndarray:
        array = np.ascontiguousarray(array, dtype=np.float32)  # class indices fit exactly below 2²⁴
        stack = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        result = sample(torch.from_numpy(np.ascontiguousarray(stack))[None], mode)[0].numpy()
        return result[0] if array.ndim == 2 else result.transpose(1, 2, 0)

    moved = dict(planes)
    moved["image"] = apply(planes["image"], "bilinear")
    if "mask" in planes:
        moved["mask"] = apply(planes["mask"], "nearest").astype(planes["mask"].dtype)
    if "weight" in planes:
        moved["weight"] = apply(planes["weight"], "bilinear")
    if "depth" in planes and "valid" in planes:
        valid = planes["valid"].astype(np.float32)
        # an invalid pixel may hold anything, NaN too, and NaN · 0 is NaN
        total, share = apply(np.where(planes["valid"], planes["depth"], 0), "bilinear"), apply(valid, "bilinear")
        moved["valid"] = share >= 0.5
        moved["depth"] = np.where(moved["valid"], total / np.maximum(share, 1e-6), 0).astype(np.float32)
    elif "depth" in planes:
        moved["depth"] = apply(planes["depth"], "bilinear")
    elif "valid" in planes:
        moved["valid"] = apply(planes["valid"], "nearest") > 0.5
    return moved


def elastic_displacement(rng: np.random.Generator, height: int, width: int, sigma: float) -> np.ndarray:
    """The U-Net paper's deformation: (2, height, width) displacements in pixels, rows first.

    Vectors from N(0, sigma) on a 3×3 grid over the window, interpolated bicubically.

    Args:
        rng: The sample's random numbers.
        height: The window's height.
        width: The window's width.
        sigma: Standard deviation in pixels; 10 in the paper.

    Source:
        Ronneberger et al. 2015, arXiv 1505.04597, section 3.1.

    Examples:
        >>> float(np.abs(elastic_displacement(np.random.default_rng(0), 8, 8, 0.0)).max())
        0.0
    """
    coarse = torch.from_numpy((rng.standard_normal((1, 2, 3, 3)) * sigma).astype(np.float32))
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0].numpy()


def source_grid(
    top: int, left: int, height: int, width: int, degrees: float = 0.0, displacement: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns from which a window takes its pixels, turned counter-clockwise about its centre.

    Examples:
        >>> rows, columns = source_grid(0, 0, 3, 3, degrees=90)
        >>> round(float(rows[0, 0])), round(float(columns[0, 0]))  # the top left comes from the top right
        (0, 2)
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    if displacement is not None:
        y, x = y + displacement[0], x + displacement[1]
    if degrees:
        cy, cx, turn = (height - 1) / 2, (width - 1) / 2, np.deg2rad(degrees)
        y, x = y - cy, x - cx
        y, x = cy + y * np.cos(turn) + x * np.sin(turn), cx + x * np.cos(turn) - y * np.sin(turn)
    return y + top, x + left
