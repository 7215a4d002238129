"""The built-in transform: augmentation, and conversion from arrays to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError, SizeMismatchError
from ..images.normalize import Normalize, normalize
from ..labels import LabelSpec
from .base import Sample
from .color import shift_color, shift_light
from .focus import Focus
from .geometry import (
    Planes,
    cut,
    elastic_displacement,
    planes_of,
    reflection_matrix,
    resize,
    source_grid,
    source_matrix,
    warp,
)
from .mixing import Mixing
from .settings import check, pair, span, statistics, wrong


class AugmentParams(NamedTuple):
    """The random parameters of one sample.

    Args:
        window: top, left, height and width of the crop of the resized image; it may extend beyond the image.
        degrees: Counter-clockwise rotation.
        scale: Enlargement.
        knots: The 3×3 vectors of the elastic deformation, or None.
        hflip: Flip left and right.
        vflip: Flip top and bottom.
        turns: Counter-clockwise rotations by 90° after the flips.
        names: The new class of each class; empty if unchanged.
        light: brightness, contrast, saturation, hue.
    """

    window: tuple[int, int, int, int]
    degrees: float = 0.0
    scale: float = 1.0
    knots: np.ndarray | None = None
    hflip: bool = False
    vflip: bool = False
    turns: int = 0
    names: tuple[int, ...] = ()
    light: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @property
    def bends(self) -> bool:
        """Whether pixels are interpolated."""
        return bool(self.degrees) or self.scale != 1 or self.knots is not None


class Transform:
    """The built-in pipeline: geometry, light, normalization, tensors. Every step is optional.

    The order is `size` → `mirror` → `crop`, with `rotate`, `scale` and `elastic` in the same resampling → `hflip`,
    `vflip`, `rot90` → `saturation`, `hue` → `brightness`, `contrast` → `normalize`. All random numbers come from the
    `rng` of the call. With `train=False` there are none: the crop is centered, and only size, mirror, crop and
    normalize are applied. Images may have any number of channels.

    Images and weights are interpolated bilinearly (averaged when shrinking), masks use the nearest pixel, and depth is
    never mixed with invalid pixels. Outside the image, its mirror image is used.

    Args:
        size: Side, or (height, width), to resize to.
        mirror: Number of mirrored pixels to add at every border of all planes, for valid convolutions.
        crop: Side, or (height, width), of the crop; at a random position in training.
        focus: Probability of centering the crop on a random pixel of a class, by name or index of the class, e.g.
            {"crack": 0.33}; or "balanced": always on a pixel of a random class among those in the image. Images without
            the class are cropped at random.
        hflip: Probability of a left-right flip.
        vflip: Probability of a top-bottom flip.
        rot90: Rotate by a random multiple of 90°.
        rotate: Maximum rotation in degrees, in both directions.
        scale: Minimum and maximum enlargement, e.g. (0.8, 1.25).
        elastic: σ in pixels of the deformation of the U-Net paper (10 there).
        brightness: Maximum change, relative to full scale.
        contrast: Maximum relative change about the mean of the image.
        saturation: Maximum relative change of colors about gray.
        hue: Maximum rotation of hue in degrees, in both directions.
        cutmix: Probability that a rectangle of another sample of the batch replaces part of the sample.
        copy_paste: Probability that the pixels of a class in another sample of the batch are pasted into the sample, by
            name or index of the class, e.g. {"crack": 0.5}. Like `cutmix`, it needs a `BatchTransform`, which recipes
            have.
        normalize: "unit" (0…1), "minmax" (each image to 0…1), "standard" (each image to mean 0, deviation 1), or
            {"mean": …, "std": …} per channel, or one for all, of images scaled to 0…1.
        train: Whether to augment.
        labels: The label set of the dataset, or its `to_dict()`; needed only with swap pairs, which
            `LabelSpec.swapped_by` exchanges.
        on: "loader" applies everything when a sample is loaded. "device" only draws the random numbers, which are in
            the sample as `moves`; `BatchTransform` does the rest for a whole batch. `elastic` and the steps before it
            remain in the loader.

    Shape:
        Takes `image` (H, W, C), uint8 or float32 in 0…1, `mask` (H, W), or (H, W, K) multilabel, `depth`, `valid`,
        `weight` (H, W); returns `image` float32 (C, H, W), `mask` int64 (H, W) or (K, H, W), `depth` float32 (1, H, W),
        `valid` bool (H, W), `weight` float32 (H, W).

    Raises:
        ConfigError: Invalid or inconsistent values.
        SizeMismatchError: On access, an image smaller than the crop, or planes of different sizes.

    Examples:
        >>> move = Transform(crop=16, hflip=0.5, normalize="unit")
        >>> sample = {"image": np.zeros((20, 30, 3), np.uint8), "mask": np.zeros((20, 30), np.uint8), "id": "a"}
        >>> out = move(sample, np.random.default_rng(0))
        >>> tuple(out["image"].shape), out["mask"].dtype
        ((3, 16, 16), torch.int64)
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        mirror: int = 0,
        crop: int | Sequence[int] | None = None,
        *,
        focus: Mapping[str | int, float] | Literal["balanced"] | None = None,
        hflip: float = 0.0,
        vflip: float = 0.0,
        rot90: bool = False,
        rotate: float = 0.0,
        scale: Sequence[float] | None = None,
        elastic: float | None = None,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        cutmix: float = 0.0,
        copy_paste: Mapping[str | int, float] | None = None,
        normalize: Normalize = "unit",
        train: bool = True,
        labels: LabelSpec | Mapping[str, Any] | None = None,
        on: Literal["loader", "device"] = "loader",
    ) -> None:
        self.size, self.crop = pair("size", size), pair("crop", crop)
        self.hflip, self.vflip, self.rotate, self.elastic = hflip, vflip, rotate, elastic or 0.0
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.mirror, self.rot90, self.train, self.on = mirror, rot90, train, on
        check(vars(self))
        self.scale = span("scale", scale)
        self.normalize: Normalize = statistics(normalize)
        self.labels = LabelSpec.from_dict(labels) if isinstance(labels, Mapping) else labels
        if not isinstance(self.labels, LabelSpec | None):
            raise wrong("labels", labels, "a LabelSpec, or its to_dict()")
        self.focus = Focus.of(focus, self.labels)
        self.mixing = Mixing.of(cutmix, copy_paste, self.labels) if train else None
        if self.focus and self.crop is None:
            raise ConfigError("focus without crop", subject="Transform", found=f"focus = {focus!r}",
                              hint="set crop as well, e.g. crop = 256")  # fmt: skip
        if train and self.labels and (rot90 or rotate > 45):
            self.labels.swapped_by(turns=1)  # raises if a rotation by 90° is undefined
        window = self.crop or self.size
        if train and rot90 and window and window[0] != window[1]:
            raise wrong("rot90", f"a window of {window[0]}×{window[1]}", "a square one")

    def __repr__(self) -> str:
        shown = {k: v for k, v in vars(self).items() if k != "labels" and v and (k, v) != ("on", "loader")}
        return f"Transform({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    @property
    def bends_in_loader(self) -> bool:
        """Whether geometry up to the crop is applied in the loader, even with `on="device"`."""
        return self.on == "loader" or (self.train and self.elastic > 0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Apply the pipeline with the random numbers of `rng`."""
        planes = planes_of(sample)
        if planes["image"].dtype == np.float32:  # from here on, levels of 0…255, as of 8 bits
            planes["image"] = planes["image"] * np.float32(255)
        height, width = self.size or planes["image"].shape[:2]
        params = self.draw(height, width, rng, planes.get("mask"))
        if self.mixing:
            sample = {**sample, "mixing": self.mixing.draw(rng)}
        if self.bends_in_loader:
            planes = self._windowed(planes, params)
        if self.on == "device":
            return {**sample, **_raw_tensors(planes), "moves": self._packed(params, planes)}
        planes = _mirrored(planes, params)
        image = torch.from_numpy(planes["image"].transpose(2, 0, 1).copy())[None].float()
        light = torch.tensor([params.light]) if any(params.light) else None
        return {**sample, **_tensors(planes), "image": self.painted(image, light)[0]}

    def draw(self, height: int, width: int, rng: np.random.Generator, mask: np.ndarray | None = None) -> AugmentParams:
        """Draw the random parameters for a (resized) image of this size.

        Args:
            height: Height of the image.
            width: Width of the image.
            rng: Random generator.
            mask: Mask of the image before resizing, for `focus`.

        Raises:
            SizeMismatchError: The image is smaller than the crop, or not square with `rot90`.
        """
        rows, columns = height + 2 * self.mirror, width + 2 * self.mirror
        h, w = self.crop or (rows, columns)
        if h > rows or w > columns:
            raise SizeMismatchError(
                "image smaller than the crop",
                expected=f"at least {h}×{w} (height × width)",
                found=f"{rows}×{columns}",
                hint="lower crop, or enlarge the image with size= or mirror=",
            )
        if not self.train:
            return AugmentParams(((rows - h) // 2 - self.mirror, (columns - w) // 2 - self.mirror, h, w))
        if self.rot90 and h != w:
            raise SizeMismatchError(
                "rot90 needs square images", expected=f"{h}×{h}", found=f"{h}×{w}", hint="set a square crop or size"
            )
        top, left = int(rng.integers(rows - h + 1)), int(rng.integers(columns - w + 1))
        if self.focus and mask is not None and (center := self.focus.draw(mask, rng)) is not None:
            top, left = (
                min(max(int(share * side) + self.mirror - window // 2, 0), most - window)
                for share, side, window, most in zip(center, (height, width), (h, w), (rows, columns), strict=True)
            )
        degrees = _within(self.rotate, rng)
        scale = float(rng.uniform(*self.scale)) if self.scale else 1.0
        knots = rng.standard_normal((2, 3, 3)) * self.elastic if self.elastic else None
        hflip, vflip = (rng.random(2) < (self.hflip, self.vflip)).tolist()
        turns = int(rng.integers(4)) if self.rot90 else 0
        contrast, brightness, saturation, hue = (
            _within(most, rng) for most in (self.contrast, self.brightness, self.saturation, self.hue)
        )
        return AugmentParams(
            (top - self.mirror, left - self.mirror, h, w), degrees, scale, knots, hflip, vflip, turns,
            self.labels.swapped_by(hflip, vflip, turns) if self.labels else (),
            (brightness, contrast, saturation, hue),
        )  # fmt: skip

    def painted(self, images: Tensor, light: Tensor | None) -> Tensor:
        """Apply color, light (N, 4) and normalization to float images (N, C, H, W) of 0…255, in place."""
        colors, lights = self.saturation or self.hue, self.brightness or self.contrast
        if light is not None and self.train and (colors or lights):
            brightness, contrast, saturation, hue = light.unbind(1)
            images = shift_color(images, saturation, hue) if colors else images
            images = shift_light(images, brightness, contrast) if lights else images
            images.clamp_(0, 255)
        return normalize(images, self.normalize)

    def _windowed(self, planes: Planes, params: AugmentParams) -> Planes:
        """Resize, then crop, rotate, scale and deform with at most one resampling."""
        if self.size:
            planes = resize(planes, *self.size)
        top, left, height, width = params.window
        if not params.bends:
            return cut(planes, top, left, height, width)
        shift = None if params.knots is None else elastic_displacement(params.knots, height, width)
        matrix = source_matrix(top, left, height, width, params.degrees, params.scale)
        return warp(planes, *source_grid(matrix, height, width, shift))

    def _packed(self, params: AugmentParams, planes: Planes) -> dict[str, Tensor]:
        """The parameters for `BatchTransform`: matrix (output → source), swap, light; and sizes for the host."""
        top, left, height, width = params.window
        if self.bends_in_loader:
            matrix = source_matrix(0, 0, height, width)
        else:
            matrix = source_matrix(top, left, height, width, params.degrees, params.scale)
        matrix = matrix @ reflection_matrix(params.hflip, params.vflip, params.turns, height, width)
        numbers = [*matrix.ravel(), float(_renames(params.names)), *params.light]
        sizes = [*(self.size or planes["image"].shape[:2]), height, width]
        return {"numbers": torch.tensor(numbers, dtype=torch.float32), "sizes": torch.tensor(sizes)}


def _mirrored(planes: Planes, params: AugmentParams) -> Planes:
    """Flip, then rotate by multiples of 90°, and swap classes accordingly."""
    if params.hflip:
        planes = {k: v[:, ::-1] for k, v in planes.items()}
    if params.vflip:
        planes = {k: v[::-1] for k, v in planes.items()}
    if params.turns:
        planes = {k: np.rot90(v, params.turns) for k, v in planes.items()}
    if "mask" in planes and _renames(params.names):
        planes = {**planes, "mask": renamed(planes["mask"], params.names)}
    return planes


def renamed(mask: np.ndarray, names: Sequence[int]) -> np.ndarray:
    """Rename class i of a mask (H, W) to `names[i]`, or permute the planes of a mask (H, W, K).

    Raises:
        DataError: Wrong number of planes.
    """
    if mask.ndim == 3:
        if mask.shape[2] != len(names):
            raise DataError(
                "a multilabel mask with other classes", expected=f"{len(names)} planes", found=mask.shape[2]
            )
        return mask[..., list(names)]
    swapped = mask.copy()
    for old, new in enumerate(names):
        if old != new:
            swapped[mask == old] = new
    return swapped


def _renames(names: Sequence[int]) -> bool:
    return any(old != new for old, new in enumerate(names))


def _within(most: float, rng: np.random.Generator) -> float:
    return float(rng.uniform(-most, most)) if most else 0.0


_TYPES = {"mask": np.int64, "instances": np.int64, "depth": np.float32, "valid": np.bool_, "weight": np.float32}


def _tensors(planes: Planes) -> Sample:
    # converted by NumPy, since torch would start threads for small planes; `array` copies the dataset's planes
    out: Sample = {}
    for name, kind in _TYPES.items():
        if name in planes:
            plane = torch.from_numpy(np.array(_planes_first(planes[name]), kind, order="C"))
            out[name] = plane[None] if name == "depth" else plane
    return out


def _raw_tensors(planes: Planes) -> Sample:
    """Unchanged arrays as tensors, channels first."""
    arrays = {name: np.array(_planes_first(plane), order="C") for name, plane in planes.items()}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _planes_first(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 0, 1) if array.ndim == 3 else array
