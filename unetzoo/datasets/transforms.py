"""Transforms built on other libraries: albumentations per sample, kornia per batch. No other module imports them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError, PluginError, did_you_mean
from .augment import Transform, renamed
from .base import Sample
from .geometry import PLANES, Planes, orientation, planes_of, resample, resize_batch

# Data types of the planes in a batch, as the sample contract requires.
DTYPES = {
    "mask": torch.int64,
    "instances": torch.int64,
    "depth": torch.float32,
    "valid": torch.bool,
    "weight": torch.float32,
}

# Data types that OpenCV, on which albumentations is built, can resample.
_TYPES = {"valid": np.uint8, "instances": np.float32}


class BatchTransform:
    """The second half of a `Transform(on="device")`, and CutMix and copy-paste, for a whole batch on its device.

    Resizing, crop, flips, rotation and scale are one resampling with `kornia.geometry`, followed by light and
    normalization. The random numbers come with each sample, and left and right labels are swapped per sample. The
    result equals that of `on="loader"`, up to rounding. No step synchronizes with the device. Batches without random
    numbers are returned unchanged, so that validation can run in the loader.

    Args:
        transform: The transform of the samples: a `Transform`, or an `Albumentations` that ends in one. Samples may
            have a different `size` and `crop`, e.g. in stages with growing images.

    Shape:
        Takes a batch from the loader, with images of the same size. Returns `image` float32 (N, C, H, W), `mask`
        int64 (N, H, W), `depth` float32 (N, 1, H, W), `valid` bool (N, H, W), `weight` float32 (N, H, W).

    Raises:
        ConfigError: The transform is of another kind.

    Examples:
        >>> move = Transform(crop=16, rotate=20, on="device")
        >>> sample = {"image": np.zeros((20, 30, 3), np.uint8), "mask": np.zeros((20, 30), np.uint8), "id": "a"}
        >>> batch = torch.utils.data.default_collate([move(sample, np.random.default_rng(i)) for i in (0, 1)])
        >>> batch["image"].dtype, {k: tuple(v.shape) for k, v in BatchTransform(move)(batch).items() if k != "id"}
        (torch.uint8, {'image': (2, 3, 16, 16), 'mask': (2, 16, 16)})
    """

    def __init__(self, transform: Transform | Albumentations) -> None:
        last = transform.then if isinstance(transform, Albumentations) else transform
        if not isinstance(last, Transform) or (last.on != "device" and last.mixing is None):
            raise ConfigError(
                "not a transform for batches", found=repr(last),
                hint='use the Transform(…, on="device") of the samples, or one with cutmix or copy_paste',
            )  # fmt: skip
        self.transform = last

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Apply the transform, using the random numbers stored in the samples."""
        moved = self._moved(batch) if "moves" in batch else dict(batch)
        return self.transform.mixing(moved) if "mixing" in moved and self.transform.mixing else moved

    def _moved(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        move, moves = self.transform, batch["moves"]["numbers"].to(batch["image"].device, non_blocking=True)
        matrices, swap, light = moves[:, :6].unflatten(1, (2, 3)), moves[:, 6] > 0, moves[:, 7:]
        *resized, height, width = map(int, batch["moves"]["sizes"][0])  # on the host, so no synchronization
        with torch.autocast(moves.device.type, enabled=False):
            planes = {name: _as_planes(name, batch[name]) for name in PLANES if name in batch}
            if not move.bends_in_loader:
                planes = resize_batch(planes, *resized, rounds=batch["image"].dtype == torch.uint8)
            planes = _warp(planes, matrices, height, width)
            planes["image"] = move.painted(planes["image"], light)
        rest = {name: value for name, value in batch.items() if name != "moves"}
        result = rest | {name: plane.to(DTYPES.get(name, plane.dtype)) for name, plane in planes.items()}
        for name in ("mask", "instances", "valid", "weight"):
            if name in result and batch[name].ndim == 3:
                result[name] = result[name][:, 0]
        if "mask" in result and move.labels:
            result["mask"] = _swap_classes(result["mask"], move.labels.swap_pairs, swap)
        return result


def _as_planes(name: str, plane: Tensor) -> Tensor:
    """Convert (N, H, W) or (N, C, H, W) to (N, C, H, W), as float except for `valid`."""
    plane = plane if plane.ndim == 4 else plane[:, None]
    return plane if name == "valid" else plane.float()


def _warp(planes: Planes, matrices: Tensor, height: int, width: int) -> Planes:
    """Sample each output pixel with the matrix of its sample; images are mirrored beyond their borders."""
    from kornia.geometry import remap

    rows = torch.arange(height, device=matrices.device, dtype=torch.float32)[:, None]
    columns = torch.arange(width, device=matrices.device, dtype=torch.float32)
    down, right, start = matrices[..., None, None].unbind(2)
    places = (down * rows + right * columns + start).unbind(1)
    # normalized to −1…1: given pixels, kornia would copy the size to the device six times per batch and synchronize
    y, x = (2 * at / max(n - 1, 1) - 1 for at, n in zip(places, planes["image"].shape[-2:], strict=True))

    def sample(plane: Tensor, mode: str) -> Tensor:
        return remap(plane, x, y, mode, padding_mode="reflection", align_corners=True, normalized_coordinates=True)

    return resample(planes, sample)


def _swap_classes(mask: Tensor, pairs: Sequence[tuple[int, int]], swap: Tensor) -> Tensor:
    """Swap pairs of classes in masks (N, H, W) or (N, K, H, W), for the samples where `swap` (N,) is true."""
    chosen, result = swap.view(-1, 1, 1), mask.clone()
    for one, other in pairs:
        if mask.ndim == 4:
            result[:, one] = torch.where(chosen, mask[:, other], mask[:, one])
            result[:, other] = torch.where(chosen, mask[:, one], mask[:, other])
        else:
            result = torch.where(chosen & (mask == one), other, result)
            result = torch.where(chosen & (mask == other), one, result)
    return result


class Albumentations:
    """An albumentations pipeline, seeded per sample, followed by our `Transform`.

    Mask, depth, valid and weight are transformed as masks (nearest pixel). Left and right labels are swapped if any
    transform of the pipeline mirrored the image; the orientation is detected from pixel coordinates.

    Args:
        pipeline: An `albumentations.Compose`, a single transform, the output of `albumentations.to_dict`, or a list of
            dicts such as `[{"name": "GaussNoise", "p": 0.3}]`, with the name and keywords of each transform (the
            members of a group under "transforms").
        then: The transform that creates tensors and holds the labels; `Transform()` by default.

    Raises:
        ConfigError: Not a pipeline; an unknown transform or keyword. On access, a rotation by 90° with labels of the
            viewer's left and right.
        PluginError: The pipeline failed on a sample.

    Examples:
        >>> move = Albumentations([{"name": "HorizontalFlip", "p": 1.0}])
        >>> image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
        >>> move({"image": image, "id": "a"}, np.random.default_rng(0))["image"][:, 0, 0] * 255
        tensor([3., 4., 5.])
    """

    def __init__(self, pipeline: Any, then: Transform | None = None) -> None:
        albumentations = _import_albumentations()
        if isinstance(pipeline, Mapping | list | tuple):
            pipeline = _build_pipeline(albumentations, pipeline)
        if not isinstance(pipeline, albumentations.BasicTransform | albumentations.BaseCompose):
            raise ConfigError("not an albumentations pipeline", found=type(pipeline).__name__, hint="use a Compose")
        targets = dict.fromkeys(("instances", "depth", "valid", "weight", "places"), "mask")
        self.pipeline = albumentations.Compose([pipeline], additional_targets=targets)
        self.then = then or Transform()

    def __repr__(self) -> str:
        return f"Albumentations({self.pipeline!r}, {self.then!r})"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Apply the pipeline, seeded from `rng`."""
        planes = planes_of(sample)
        self.pipeline.set_random_seed(int(rng.integers(2**31)))
        arrays = {k: v.astype(_TYPES.get(k, v.dtype)) for k, v in planes.items()}
        labels = self.then.labels
        if labels and labels.swap_pairs and "mask" in planes:
            arrays["places"] = 1 + np.indices(planes["mask"].shape[:2]).transpose(1, 2, 0).astype(np.float32)
        try:
            moved = self.pipeline(**arrays)
        except Exception as error:  # third-party code
            raise PluginError(
                "the albumentations pipeline failed", subject=sample.get("id"),
                found=f"{type(error).__name__}: {error}", hint="run it on this sample",
            ) from error  # fmt: skip
        _check_scale(planes["image"], moved["image"], sample.get("id"))
        if moved["image"].dtype == np.float32:
            moved["image"] = moved["image"].clip(0, 1)
        if "valid" in moved:
            moved["valid"] = moved["valid"] > 0
        if "instances" in moved:
            moved["instances"] = moved["instances"].astype(np.int64)
        if labels and "places" in moved:
            hflip, turns = orientation(moved["places"])
            moved["mask"] = renamed(moved["mask"], labels.swapped_by(hflip=hflip, turns=turns))
        return self.then({**sample, **{k: moved[k] for k in planes}}, rng)


def _check_scale(before: np.ndarray, after: np.ndarray, subject: object) -> None:
    """Check that a pipeline has not normalized an image.

    Raises:
        DataError: Another data type, or floats outside 0…1.
    """
    scaled = after.dtype == np.float32 and (after.min() < -0.01 or after.max() > 1.01)
    if after.dtype != before.dtype or scaled:
        raise DataError(
            "the albumentations pipeline changes the scale of images", subject=subject,
            expected=f"{before.dtype}{' in 0…1' if scaled else ''}",
            found=f"{after.dtype} in {after.min():g}…{after.max():g}",
            hint="remove Normalize and ToFloat from the pipeline; normalize= of the transform does this",
        )  # fmt: skip


def _build_pipeline(albumentations: Any, pipeline: Mapping[str, Any] | Sequence[Any]) -> Any:
    """Build a pipeline from the output of `albumentations.to_dict`, or from a list of dicts.

    Raises:
        ConfigError: Unknown names or keywords, or invalid values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # raised for unknown keywords
            if isinstance(pipeline, Mapping):
                return albumentations.from_dict(dict(pipeline))
            return albumentations.Compose([_build_transform(albumentations, table) for table in pipeline])
    except ConfigError:
        raise
    except Exception as error:  # raised by its parsers
        raise ConfigError(
            "not an albumentations pipeline", found=f"{type(error).__name__}: {error}",
            hint='pass the output of albumentations.to_dict, or a list of {"name": …, keywords}',
        ) from error  # fmt: skip


def _build_transform(albumentations: Any, table: Any) -> Any:
    bases = albumentations.BasicTransform, albumentations.BaseCompose
    known = {k: v for k, v in vars(albumentations).items() if isinstance(v, type) and issubclass(v, bases)}
    if not isinstance(table, Mapping) or "name" not in table:
        raise ConfigError("not an albumentations transform", expected='{"name": …, keywords}', found=repr(table))
    options = {key: value for key, value in table.items() if key != "name"}
    if table["name"] not in known:
        hint = did_you_mean(str(table["name"]), known, "transform")
        raise ConfigError(f"unknown albumentations transform {table['name']!r}", hint=hint)
    if "transforms" in options:
        options["transforms"] = [_build_transform(albumentations, inner) for inner in options["transforms"]]
    return known[table["name"]](**options)


def _import_albumentations() -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise its import queries PyPI
    import albumentations

    return albumentations
