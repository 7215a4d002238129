"""Pasting cut-outs into scenes: exactly rounded colors, exact masks, layered depth, and jitter."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from .base import Sample

NEARER = 0.75  # depth of a cut-out, relative to the nearest depth that it hides


class Cutout(NamedTuple):
    """A cut-out prepared for integer blending: out = (premultiplied + scene · (255 − alpha)) / 255."""

    premultiplied: np.ndarray  # uint16 (h, w, 3): color · alpha + 128, for rounding
    inverse: np.ndarray  # uint16 (h, w, 3): 255 − alpha
    mask: np.ndarray  # bool (h, w)
    rows: int  # up to the lowest row that is not empty

    @classmethod
    def from_rgba(cls, rgba: np.ndarray) -> Cutout:
        """Prepare an image with an alpha channel, uint8 (h, w, 4)."""
        alpha = np.repeat(rgba[..., 3:].astype(np.uint16), 3, axis=2)
        rows = int(np.flatnonzero(rgba[..., 3].any(axis=1)).max(initial=-1)) + 1
        return cls(rgba[..., :3] * alpha + np.uint16(128), 255 - alpha, rgba[..., 3] >= 128, rows)

    def mirrored(self) -> Cutout:
        """The mirror image."""
        planes = (np.ascontiguousarray(plane[:, ::-1]) for plane in (self.premultiplied, self.inverse, self.mask))
        return Cutout(*planes, rows=self.rows)


class Scene(NamedTuple):
    """A scene for cut-outs."""

    image: np.ndarray  # uint8 (size, size, 3), or repeated, (size, size, 6)
    depth: np.ndarray  # float32 (size, size)
    rows: np.ndarray | None  # float32 (size,): the depth of each row, if it depends only on the row
    valid: np.ndarray | None  # bool (size, size): valid depth, for depth from a map

    def nearest(self, window: tuple[slice, slice], shape: np.ndarray, lowest: int) -> float:
        """The nearest depth in `shape`, a mask of the window; in the whole scene if none is valid there."""
        if self.rows is not None:
            return float(self.rows[lowest])
        valid = np.ones_like(self.depth, bool) if self.valid is None else self.valid
        hidden = self.depth[window][shape & valid[window]]
        return float(hidden.min() if hidden.size else self.depth[valid].min())


def paste(cutout: Cutout, scene: Scene, top: int, left: int) -> Sample:
    """Paste a cut-out into a scene: image, mask, depth and, with a depth map, the valid pixels.

    Args:
        cutout: The cut-out; parts beyond the right and lower border are clipped.
        scene: The scene.
        top: Row of the upper edge.
        left: Column of the left edge.
    """
    size = scene.depth.shape[0]
    bottom, right = min(top + cutout.mask.shape[0], size), min(left + cutout.mask.shape[1], size)
    # only the rectangle of the cut-out is blended; the rest is copied
    window, inner = (slice(top, bottom), slice(left, right)), (slice(0, bottom - top), slice(0, right - left))
    image, depth = scene.image.copy(), scene.depth.copy()
    mask = np.zeros((size, size), np.uint8)
    blend = image[window][..., :3] * cutout.inverse[inner]
    blend += cutout.premultiplied[inner]
    blend += blend >> 8  # with the half added before: exactly rounded division by 255
    blend >>= 8
    image[window][..., :3] = blend
    shape = cutout.mask[inner]
    mask[window] = shape
    lowest = min(top + cutout.rows, size) - 1
    np.copyto(depth[window], np.float32(NEARER) * scene.nearest(window, shape, lowest), where=shape)
    sample: Sample = {"image": image, "mask": mask, "depth": depth}
    if scene.valid is not None:
        sample["valid"] = scene.valid | mask.view(bool)
    return sample


def disturb(sample: Sample, rng: np.random.Generator, scene: np.ndarray | None = None) -> Sample:
    """Change brightness, contrast, position and JPEG quality of composite and scene independently.

    Args:
        sample: A composite with 3 channels; mask, depth and valid pixels are shifted with it.
        rng: Random numbers of the sample.
        scene: The scene, which becomes channels 3…5.
    """
    parts, moved = [], dict(sample)
    for image in (sample["image"],) if scene is None else (sample["image"], scene):
        dy, dx = rng.integers(-1, 2, 2).tolist()
        contrast, brightness = rng.uniform(0.85, 1.15), rng.uniform(-0.15, 0.15) * 255
        table = np.clip(np.rint((np.arange(256) - 127.5) * contrast + 127.5 + brightness), 0, 255).astype(np.uint8)
        light = shift(image, dy, dx).tobytes().translate(table.tobytes())  # look-up by NumPy takes twice as long
        parts.append(_through_jpeg(light, image.shape, int(rng.integers(60, 96))))
        if len(parts) == 1:
            moved |= {name: shift(sample[name], dy, dx) for name in ("mask", "depth", "valid") if name in sample}
    return {**moved, "image": beside(parts)}


def _through_jpeg(pixels: bytes, shape: tuple[int, ...], quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.frombytes("RGB", (shape[1], shape[0]), pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file, formats=("JPEG",)))


def beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join images (H, W, 3) along the channels.

    Examples:
        >>> beside([np.full((1, 1, 3), 7, np.uint8), np.zeros((1, 1, 3), np.uint8)]).tolist()
        [[[7, 7, 7, 0, 0, 0]]]
    """
    pixels = [np.ascontiguousarray(part).view("V3") for part in parts]  # whole pixels are copied in half the time
    return np.concatenate(pixels, axis=2).view(np.uint8)


def difference(image: np.ndarray) -> np.ndarray:
    """The largest difference of any color between the two halves of a 6-channel image.

    Examples:
        >>> difference(np.array([[[10, 10, 10, 12, 7, 10]]], np.uint8)).tolist()
        [[3]]
    """
    composite, scene = image[..., :3].astype(np.int16), image[..., 3:].astype(np.int16)
    return np.abs(composite - scene).max(axis=2)


def shift(array: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Shift an image down and right; the border pixels are repeated.

    Examples:
        >>> shift(np.array([[1, 2, 3]]), 0, 1).tolist()
        [[1, 1, 2]]
    """
    height, width = array.shape[:2]
    dy, dx = max(min(dy, height - 1), 1 - height), max(min(dx, width - 1), 1 - width)
    moved = np.empty(array.shape, array.dtype)
    top, bottom, left, right = max(dy, 0), height + min(dy, 0), max(dx, 0), width + min(dx, 0)
    moved[top:bottom, left:right] = array[top - dy : bottom - dy, left - dx : right - dx]
    moved[top:bottom, :left], moved[top:bottom, right:] = (
        moved[top:bottom, left : left + 1], moved[top:bottom, right - 1 : right],
    )  # fmt: skip
    moved[:top], moved[bottom:] = moved[top], moved[bottom - 1]
    return moved
