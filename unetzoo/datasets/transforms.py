"""From a dataset's arrays to a network's tensors, with augmentation; the only file that knows albumentations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..errors import ConfigError, PluginError, SizeMismatchError
from ..labels import LabelSpec
from .base import Sample
from .geometry import Planes, elastic_displacement, planes_of, reflect, resize, source_grid, warp

Normalize = Literal["unit", "minmax", "standard"] | Mapping[str, Sequence[float]]


class Transform:
    """The built-in pipeline: geometry, light, scaling, tensors. Each step is off unless asked for.

    In this order: `size` → `mirror` → `crop`, with `rotate` and `elastic` resampled together in one go → `hflip`,
    `vflip`, `rot90` → `brightness`, `contrast` → `normalize`. All chance comes from the `rng` of the call; with
    `train=False` there is none: the crop is taken from the centre, and only size, mirror, crop and
    normalize act. Any number of channels.

    Pictures and weights are interpolated bilinearly (averaged when shrinking), masks take the nearest pixel, depth
    never mixes with invalid pixels.

    Args:
        size: Resize to this side, or to (height, width).
        mirror: Reflect this many pixels beyond every edge: image, mask, weight and all. For valid convolutions.
        crop: Cut a window of this side, or (height, width): a random place in training.
        hflip: Chance of mirroring left and right.
        vflip: Chance of mirroring top and bottom.
        rot90: Turn by a random multiple of 90°.
        rotate: Largest turn in degrees, both ways; what comes in from outside is mirrored.
        elastic: σ in pixels of the U-Net paper's deformation (10 there).
        brightness: Largest change, as a share of full scale.
        contrast: Largest relative change about the picture's mean.
        normalize: "unit" (0…1), "minmax" (each picture to 0…1), "standard" (each picture to mean 0, deviation 1), or
            {"mean": …, "std": …} one a channel, or one for all, of pictures scaled to 0…1.
        train: Whether to augment.
        labels: The dataset's label set, or its `to_dict()`; needed only where it has swap pairs. The *subject's*
            sides change places under every reflection; the *viewer's* under a horizontal flip and a half turn.

    Shape:
        Takes `image` uint8 (H, W, C), `mask` (H, W), `depth`, `valid`, `weight` (H, W); gives `image` float32
        (C, H, W), `mask` int64 (H, W), `depth` float32 (1, H, W), `valid` bool (H, W), `weight` float32 (H, W).

    Raises:
        ConfigError: Values out of range or at odds.
        SizeMismatchError: On a picture smaller than the crop, or planes of several sizes.

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
        hflip: float = 0.0,
        vflip: float = 0.0,
        rot90: bool = False,
        rotate: float = 0.0,
        elastic: float | None = None,
        brightness: float = 0.0,
        contrast: float = 0.0,
        normalize: Normalize = "unit",
        train: bool = True,
        labels: LabelSpec | Mapping[str, Any] | None = None,
    ) -> None:
        self.size, self.crop = _pair("size", size), _pair("crop", crop)
        if not isinstance(mirror, int) or mirror < 0:
            raise _wrong("mirror", mirror, "a whole number ≥ 0")
        for name, value, top in (
            ("hflip", hflip, 1), ("vflip", vflip, 1), ("rotate", rotate, 180), ("elastic", elastic or 0, 1e4),
            ("brightness", brightness, 1), ("contrast", contrast, 1),
        ):  # fmt: skip
            if not isinstance(value, int | float) or not 0 <= value <= top:
                raise _wrong(name, value, f"a number in 0…{top:g}")
        self.mirror, self.hflip, self.vflip, self.rot90, self.rotate = mirror, hflip, vflip, rot90, rotate
        self.elastic, self.brightness, self.contrast, self.train = elastic or 0.0, brightness, contrast, train
        self.normalize = _checked_normalize(normalize)
        self.labels = LabelSpec.from_dict(labels) if isinstance(labels, Mapping) else labels
        pairs = self.labels.swap_pairs if self.labels else ()
        self._swap, self._side = pairs, self.labels.side if self.labels else None
        if train and pairs and self._side == "viewer" and (rot90 or rotate > 45):
            raise ConfigError(
                "turning makes the viewer's left and right meaningless",
                subject="Transform",
                found="rot90=True" if rot90 else f"rotate={rotate}",
                hint="leave rot90 out and keep rotate at most 45",
            )
        window = self.crop or self.size
        if train and rot90 and window and window[0] != window[1]:
            raise _wrong("rot90", f"a window of {window[0]}×{window[1]}", "a square one")

    def __repr__(self) -> str:
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "labels" and v}
        return f"Transform({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Apply the pipeline with the random numbers of `rng` alone."""
        planes = planes_of(sample)
        if self.size:
            planes = resize(planes, *self.size)
        if self.mirror:
            planes = {k: reflect(v, self.mirror) for k, v in planes.items()}
        planes = self._window(planes, rng)
        if self.train:
            planes = self._reflections(planes, rng)
        image = planes["image"].astype(np.float32)
        if self.train and (self.brightness or self.contrast):
            gain, lift = rng.uniform(-self.contrast, self.contrast), rng.uniform(-self.brightness, self.brightness)
            mean = image.mean()
            image = np.clip((image - mean) * np.float32(1 + gain) + mean + np.float32(255 * lift), 0, 255)
        return {**sample, **_tensors({**planes, "image": self._scaled(image)})}

    def _window(self, planes: Planes, rng: np.random.Generator) -> Planes:
        """Crop, rotation and deformation: one resampling, or none."""
        height, width = planes["image"].shape[:2]
        h, w = self.crop or (height, width)
        if h > height or w > width:
            raise SizeMismatchError(
                "picture smaller than the crop",
                expected=f"at least {h}×{w} (height × width)",
                found=f"{height}×{width}",
                hint="lower crop, or enlarge the picture with size= or mirror=",
            )
        if not self.train:
            top, left = (height - h) // 2, (width - w) // 2
        else:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            degrees = float(rng.uniform(-self.rotate, self.rotate)) if self.rotate else 0.0
            shifts = elastic_displacement(rng, h, w, self.elastic) if self.elastic else None
            if degrees or shifts is not None:
                return warp(planes, *source_grid(top, left, h, w, degrees, shifts))
        return {k: v[top : top + h, left : left + w] for k, v in planes.items()}

    def _reflections(self, planes: Planes, rng: np.random.Generator) -> Planes:
        flip_columns, flip_rows = rng.random(2) < (self.hflip, self.vflip)
        turns = int(rng.integers(4)) if self.rot90 else 0
        height, width = planes["image"].shape[:2]
        if self.rot90 and height != width:
            raise SizeMismatchError(
                "rot90 needs square pictures", expected=f"{height}×{height}", found=f"{height}×{width}",
                hint="set a square crop or size",
            )  # fmt: skip
        if flip_columns:
            planes = {k: v[:, ::-1] for k, v in planes.items()}
        if flip_rows:
            planes = {k: v[::-1] for k, v in planes.items()}
        if turns:
            planes = {k: np.rot90(v, turns) for k, v in planes.items()}
        # a viewer's left is lost when columns run backwards; a subject's, when the picture is a mirror image
        crossed = flip_columns if self._side == "viewer" else flip_columns != flip_rows
        if crossed and self._swap and "mask" in planes:
            mask = planes["mask"]
            swapped = mask.copy()
            for a, b in self._swap:
                swapped[mask == a], swapped[mask == b] = b, a
            planes = {**planes, "mask": swapped}
        return planes

    def _scaled(self, image: np.ndarray) -> np.ndarray:
        if self.normalize == "minmax":
            low, high = image.min(), image.max()
            return (image - low) / max(high - low, np.float32(1e-6))
        if self.normalize == "standard":
            return (image - image.mean()) / max(image.std(), np.float32(1e-6))
        if isinstance(self.normalize, str):
            return image / np.float32(255)
        mean, std = (np.asarray(self.normalize[k], np.float32) for k in ("mean", "std"))
        if mean.size not in (1, image.shape[2]):
            raise ConfigError(
                "normalize does not fit the picture", subject="Transform", expected=f"{image.shape[2]} channels",
                found=f"{mean.size} means", hint="give one mean and std a channel, or one for all",
            )  # fmt: skip
        return (image / np.float32(255) - mean) / std


class Albumentations:
    """An albumentations pipeline as a transform, seeded for each sample, then our scaling and tensors.

    Mask, depth, valid and weight are moved as masks are (nearest pixel), so nothing is mixed. Left and right labels are
    not swapped by albumentations' flips: use `Transform(hflip=…, labels=…)` for those.

    Args:
        pipeline: An `albumentations.Compose`, any single transform, or what `albumentations.to_dict` gave.
        then: What turns the arrays into tensors; `Transform()` by default.

    Raises:
        ConfigError: Not a pipeline.
        PluginError: The pipeline failed on a sample.

    Examples:
        >>> pipeline = {"transform": {"__class_fullname__": "HorizontalFlip", "p": 1.0}}
        >>> move = Albumentations(pipeline)
        >>> picture = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
        >>> move({"image": picture, "id": "a"}, np.random.default_rng(0))["image"][:, 0, 0] * 255
        tensor([3., 4., 5.])
    """

    def __init__(self, pipeline: Any, then: Transform | None = None) -> None:
        albumentations = _albumentations()
        if isinstance(pipeline, Mapping):
            try:
                pipeline = albumentations.from_dict(dict(pipeline))
            except Exception as error:  # whatever its parser meets
                raise ConfigError("not an albumentations pipeline", found=f"{type(error).__name__}: {error}",
                                  hint="write it with albumentations.to_dict") from error  # fmt: skip
        if not isinstance(pipeline, albumentations.BasicTransform | albumentations.BaseCompose):
            raise ConfigError("not an albumentations pipeline", found=type(pipeline).__name__, hint="give a Compose")
        targets = dict.fromkeys(("depth", "valid", "weight"), "mask")
        self.pipeline = albumentations.Compose([pipeline], additional_targets=targets)
        self.then = then or Transform()

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Apply the pipeline with a seed drawn from `rng`."""
        planes = planes_of(sample)
        self.pipeline.set_random_seed(int(rng.integers(2**31)))
        arrays = {k: v.astype(np.uint8) if v.dtype == bool else v for k, v in planes.items()}
        try:
            moved = self.pipeline(**arrays)
        except Exception as error:  # third-party code, and a pipeline we did not write
            raise PluginError(
                "the albumentations pipeline failed", subject=sample.get("id"),
                found=f"{type(error).__name__}: {error}", hint="try it on this sample alone",
            ) from error  # fmt: skip
        if "valid" in moved:
            moved["valid"] = moved["valid"] > 0
        return self.then({**sample, **{k: moved[k] for k in planes}}, rng)


def _albumentations() -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its import asks PyPI for news otherwise
    import albumentations

    return albumentations


def _tensors(planes: Planes) -> Sample:
    # converted by NumPy, as torch would start its threads for every small plane; `array` copies the dataset's own
    out: Sample = {"image": torch.from_numpy(np.ascontiguousarray(planes["image"].transpose(2, 0, 1), np.float32))}
    for name, kind in (("mask", np.int64), ("depth", np.float32), ("valid", np.bool_), ("weight", np.float32)):
        if name in planes:
            plane = torch.from_numpy(np.array(planes[name], kind, order="C"))
            out[name] = plane[None] if name == "depth" else plane
    return out


def _pair(name: str, value: int | Sequence[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, int):
        sides: tuple[object, ...] = value, value
    else:
        sides = tuple(value) if isinstance(value, Sequence) else (value,)
    match sides:
        case (int(height), int(width)) if min(height, width) > 0:
            return height, width
    raise _wrong(name, value, "a side ≥ 1, or (height, width)")


def _checked_normalize(value: Normalize) -> str | dict[str, tuple[float, ...]]:
    if value in ("unit", "minmax", "standard"):
        return str(value)
    if isinstance(value, Mapping) and set(value) == {"mean", "std"}:
        stats = {key: tuple(map(float, np.atleast_1d(value[key]))) for key in ("mean", "std")}
        if len(stats["mean"]) == len(stats["std"]) and min(stats["std"]) > 0:
            return stats
    raise _wrong("normalize", value, '"unit", "minmax", "standard" or {"mean": […], "std": […]} with std > 0')


def _wrong(name: str, found: object, expected: str) -> ConfigError:
    return ConfigError(
        f"wrong {name}", subject="Transform", expected=expected, found=repr(found), hint=f"give {expected}"
    )
