"""Resizing and resampling images, masks, depth and weights together.

Images and weights are sampled bilinearly, class indices use the nearest pixel, and depth is the mean of the valid
pixels among the neighbors. Beyond its border an image is mirrored, without repeating the border pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError, SizeMismatchError
from .base import MOST_OBJECTS, Sample

Planes = dict[str, Any]
Sampler = Callable[[Tensor, str], Tensor]
PLANES = ("image", "mask", "instances", "depth", "valid", "weight")


def planes_of(sample: Sample) -> Planes:
    """The planes of a sample: its arrays with height and width.

    Raises:
        DataError: An unknown array, or an image that is not uint8 or float32 (H, W, C).
        SizeMismatchError: Arrays of different sizes.
    """
    planes = {name: sample[name] for name in PLANES if sample.get(name) is not None}
    strange = [k for k, v in sample.items() if isinstance(v, np.ndarray) and k not in PLANES]
    image = planes.get("image")
    if not _is_image(image):
        found = "none" if image is None else f"{image.dtype} {image.shape}"
        found += f" in {image.min():g}…{image.max():g}" if image is not None and image.size else ""
        raise DataError("not an image", subject=sample.get("id"), expected="uint8 (H, W, C), or float32 in 0…1",
                        found=found, hint="datasets return uint8 images; others declare a range of values")  # fmt: skip
    if strange:
        raise DataError("unknown array in a sample", subject=sample.get("id"), expected=", ".join(PLANES),
                        found=", ".join(strange), hint="rename it to one of these, or remove it")  # fmt: skip
    sizes = {name: plane.shape[:2] for name, plane in planes.items()}
    if len(set(sizes.values())) > 1:
        raise SizeMismatchError(
            "planes of different sizes", subject=sample.get("id"), found=sizes, hint="correct the dataset"
        )
    if "instances" in planes:
        check_instances(planes["instances"], sample.get("id"))
    return planes


def check_instances(numbers: np.ndarray, subject: object) -> None:
    """Check the numbers of objects.

    Raises:
        DataError: Other than integers (H, W) in 0…2²⁴ − 1.
    """
    if numbers.ndim != 2 or numbers.dtype.kind not in "iu":
        raise DataError("invalid instances", subject=subject, expected="integers (H, W)",
                        found=f"{numbers.dtype} {numbers.shape}", hint="give 0 or the number of an object")  # fmt: skip
    if numbers.size and (numbers.min() < 0 or numbers.max() >= MOST_OBJECTS):
        raise DataError("invalid instances", subject=subject, expected=f"0…{MOST_OBJECTS - 1:,}",
                        found=f"{numbers.min():,}…{numbers.max():,}", hint="number the objects 1, 2, 3, …")  # fmt: skip


def _is_image(image: Any) -> bool:
    if image is None or image.ndim != 3 or not image.size:
        return False
    return image.dtype == np.uint8 or (image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1)


def cut(planes: Planes, top: int, left: int, height: int, width: int) -> Planes:
    """Crop a window; beyond its border the image is mirrored."""
    rows, columns = planes["image"].shape[:2]
    above, before = max(-top, 0), max(-left, 0)
    beyond = (above, max(top + height - rows, 0)), (before, max(left + width - columns, 0))
    if any(map(any, beyond)):
        planes = {k: np.pad(v, [*beyond, (0, 0)][: v.ndim], mode="reflect") for k, v in planes.items()}
    window = slice(top + above, top + above + height), slice(left + before, left + before + width)
    return {k: v[window] for k, v in planes.items()}


def resize(planes: Planes, height: int, width: int) -> Planes:
    """Resize all planes, with antialiasing; masks use the nearest pixel."""
    if planes["image"].shape[:2] == (height, width):
        return planes
    kind = planes["image"].dtype
    resized = _as_arrays(resize_batch(_as_batch(planes), height, width, rounds=kind == np.uint8), planes)
    return resized | {"image": resized["image"].astype(kind)}


def resize_batch(planes: Planes, height: int, width: int, *, rounds: bool = True) -> Planes:
    """`resize` for float tensors (N, C, H, W), `valid` bool; `rounds`: whether images keep integer levels."""
    if tuple(planes["image"].shape[-2:]) == (height, width):
        return planes

    def sample(plane: Tensor, mode: str) -> Tensor:
        if mode == "nearest":
            return F.interpolate(plane, (height, width), mode="nearest-exact")
        return F.interpolate(plane, (height, width), mode="bilinear", align_corners=False, antialias=True)

    resized = resample(planes, sample)
    return resized | {"image": resized["image"].round()} if rounds else resized


def warp(planes: Planes, rows: np.ndarray, columns: np.ndarray) -> Planes:
    """Sample each output pixel at (row, column) of the input; beyond its border the image is mirrored.

    Args:
        planes: Arrays with the same height and width.
        rows: Source rows, (h, w), in pixels.
        columns: Source columns, (h, w), in pixels.
    """
    height, width = planes["image"].shape[:2]
    grid = np.empty((1, *rows.shape, 2), np.float32)
    grid[0, ..., 0] = 2 * columns / max(width - 1, 1) - 1
    grid[0, ..., 1] = 2 * rows / max(height - 1, 1) - 1
    places = torch.from_numpy(grid)

    def sample(plane: Tensor, mode: str) -> Tensor:
        return F.grid_sample(plane, places, mode=mode, padding_mode="reflection", align_corners=True)

    return _as_arrays(resample(_as_batch(planes), sample), planes)


def resample(planes: Planes, sample: Sampler) -> Planes:
    """Apply a sampler to float tensors (N, C, H, W), `valid` bool, with the rule of each kind of plane."""
    moved = dict(planes)
    for name in ("image", "weight"):
        if name in planes:
            moved[name] = sample(planes[name], "bilinear")
    for name in ("mask", "instances"):
        if name in planes:
            moved[name] = sample(planes[name], "nearest")
    if "depth" in planes and "valid" in planes:
        valid = planes["valid"]
        # an invalid pixel may be NaN, and NaN · 0 is NaN
        pair = torch.cat([planes["depth"].masked_fill(~valid, 0), valid.to(planes["depth"].dtype)], 1)
        total, share = sample(pair, "bilinear").split(1, dim=1)
        moved["valid"] = share >= 0.5
        moved["depth"] = (total / share.clamp(min=1e-6)).masked_fill(~moved["valid"], 0)
    elif "depth" in planes:
        moved["depth"] = sample(planes["depth"], "bilinear")
    elif "valid" in planes:
        moved["valid"] = sample(planes["valid"].float(), "nearest") > 0.5
    return moved


def _as_batch(planes: Planes) -> Planes:
    """Arrays (H, W[, C]) → float tensors (1, C, H, W), `valid` bool; integers below 2²⁴ are exact."""

    def tensor(name: str, array: np.ndarray) -> Tensor:
        stack = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        kind = np.bool_ if name == "valid" else np.float32
        return torch.from_numpy(np.ascontiguousarray(stack, dtype=kind))[None]

    return {name: tensor(name, array) for name, array in planes.items()}


def _as_arrays(batch: Planes, like: Planes) -> Planes:
    """The inverse of `_as_batch`; masks and instances get their original data types."""

    def array(name: str, tensor: Tensor) -> np.ndarray:
        stack = tensor[0].numpy()
        moved = stack[0] if like[name].ndim == 2 else stack.transpose(1, 2, 0)
        return moved.astype(like[name].dtype) if name in ("mask", "instances") else moved

    return {name: array(name, tensor) for name, tensor in batch.items()}


def elastic_displacement(knots: np.ndarray, height: int, width: int) -> np.ndarray:
    """The deformation of the U-Net paper: (2, height, width) displacements in pixels, rows first.

    Vectors on a 3×3 grid over the window, (2, 3, 3), are interpolated bicubically; in the paper they are from N(0, 10
    px).

    Source:
        Ronneberger et al. 2015, arXiv 1505.04597, section 3.1.

    Examples:
        >>> field = elastic_displacement(np.full((2, 3, 3), 4.0), 8, 9)
        >>> field.shape, bool(np.allclose(field, 4))
        ((2, 8, 9), True)
    """
    coarse = torch.from_numpy(np.asarray(knots, np.float32))[None]
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0].numpy()


def source_matrix(
    top: float, left: float, height: int, width: int, degrees: float = 0.0, scale: float = 1.0
) -> np.ndarray:
    """Matrix (2, 3) from (row, column, 1) in a window to row and column in the source.

    The content is rotated counter-clockwise about the center of the window and enlarged by `scale`.

    Examples:
        >>> source_matrix(5, 7, 3, 3, degrees=90) @ (0, 0, 1)  # the top left shows the top right
        array([5., 9.])
    """
    cy, cx, turn = (height - 1) / 2, (width - 1) / 2, np.deg2rad(degrees)
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    return np.array([
        [cos, sin, top + cy - cy * cos - cx * sin],
        [-sin, cos, left + cx + cy * sin - cx * cos],
    ])  # fmt: skip


def source_grid(matrix: np.ndarray, height: int, width: int, displacement: np.ndarray | None = None) -> Any:
    """Source (rows, columns) of the pixels of a window, each (height, width), after a displacement in the window."""
    y, x = np.arange(height, dtype=np.float64)[:, None], np.arange(width, dtype=np.float64)[None]
    if displacement is not None:
        y, x = y + displacement[0], x + displacement[1]
    return [a * y + b * x + c for a, b, c in matrix]


def reflection_matrix(hflip: bool, vflip: bool, turns: int, height: int, width: int) -> np.ndarray:
    """Matrix (3, 3) from (row, column, 1) in a flipped, then rotated image to row and column before that.

    Examples:
        >>> reflection_matrix(False, False, 1, 3, 3) @ (0, 0, 1)  # turned once, the top left is the former top right
        array([0., 2., 1.])
    """
    quarter = np.array([[0.0, 1, 0], [-1, 0, width - 1], [0, 0, 1]])
    flip = np.diag([-1.0 if vflip else 1.0, -1.0 if hflip else 1.0, 1.0])
    flip[0, 2], flip[1, 2] = (height - 1) * vflip, (width - 1) * hflip
    return flip @ np.linalg.matrix_power(quarter, turns % 4)


def orientation(places: np.ndarray) -> tuple[bool, int]:
    """Whether an image was mirrored left to right, and the number of rotations by 90° after that.

    Args:
        places: Original row and column of each pixel, (H, W, 2), counted from 1; 0 if it has none.

    Examples:
        >>> places = 1 + np.stack(np.mgrid[:8, :8], -1)
        >>> orientation(places), orientation(places[:, ::-1]), orientation(places[::-1]), orientation(np.rot90(places))
        ((False, 0), (True, 0), (True, 2), (False, 1))
    """
    step = max(min(places.shape[:2]) // 4, 1)
    known = np.all(places > 0, axis=-1)
    down = (places[step:] - places[:-step].astype(np.float64))[known[step:] & known[:-step]]
    right = (places[:, step:] - places[:, :-step].astype(np.float64))[known[:, step:] & known[:, :-step]]
    if not len(down) or not len(right):
        return False, 0
    # medians ignore mirrored borders and holes
    (a, c), (b, d) = np.median(down, axis=0), np.median(right, axis=0)
    mirrored = a * d - b * c < 0
    sign = -1 if mirrored else 1
    return bool(mirrored), round(np.degrees(np.arctan2(b - sign * c, a + sign * d)) / 90) % 4
