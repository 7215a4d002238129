"""The results of a prediction: masks, overlays, depth, statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..cleaning import Cleaning
from ..images.display import as_rgb
from ..images.georeference import Georeference
from ..instances import ObjectRule
from ..labels import LabelSpec
from .decide import Decision, confidence_of, unsure_value
from .images import palette_image
from .objects import Objects, objects_of

OPACITY = 0.5
NO_CLASS = 255  # value of pixels without data in a GeoTIFF
SCALE = "viridis"  # color map for depth; its lightness increases monotonically, so it remains readable in grayscale


class Prediction(NamedTuple):
    """Images of one prediction, at the size of the input file.

    Args:
        mask: Palette image (mode "P") whose pixel values are class indices.
        overlay: The image blended with the class colors; black classes (background) are transparent.
        depth: 16-bit grayscale image, 0…65535 for 0…1; None for networks without a depth head.
    """

    mask: Image.Image
    overlay: Image.Image
    depth: Image.Image | None


@dataclass(frozen=True)
class SegmentationResult:
    """The segmentation of one image.

    Args:
        image: uint8 (H, W, C), or float32 in 0…1.
        label_map: The class of each pixel, uint8 (H, W); or 0 and 1 (K, H, W) if multilabel.
        labels: Names and colors of the classes.
        probabilities: Class probabilities (C, H, W).
        depth: float32 (H, W), if the network has a depth head.
        missing: bool (H, W), where the image has no data; these pixels are not counted in `facts`.
        georeference: The position of the image on Earth, if its file has one.
        rule: How objects are separated; by default they are connected pieces of a class.
        unsure: Probability below which no class is sure; such pixels get `unsure_value` in masks, no color, and are
            not counted.
    """

    image: np.ndarray
    label_map: np.ndarray
    labels: LabelSpec
    probabilities: Tensor
    depth: np.ndarray | None = None
    missing: np.ndarray | None = None
    georeference: Georeference | None = None
    rule: ObjectRule | None = None
    unsure: float | None = None

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        probabilities: Tensor,
        labels: LabelSpec,
        decision: Decision,
        cleaning: Cleaning | None = None,
        depth: Tensor | None = None,
        rule: ObjectRule | None = None,
        unsure: float | None = None,
    ) -> SegmentationResult:
        """Build a result from probabilities (C, H, W)."""
        label_map = decision(probabilities).cpu().numpy()
        if cleaning is not None:
            label_map = cleaning.apply(label_map, labels, decision.mode)
        plane = None if depth is None else depth.reshape(depth.shape[-2:]).float().cpu().numpy()
        return cls(image, label_map, labels, probabilities, plane, rule=rule, unsure=unsure)

    @property
    def channels(self) -> int:
        """Number of channels of the network's output."""
        return len(self.probabilities)

    @cached_property
    def unsure_pixels(self) -> np.ndarray | None:
        """Where no class is sure, bool (H, W); None if `unsure` is not given."""
        return None if self.unsure is None else (confidence_of(self.probabilities) < self.unsure).cpu().numpy()

    @property
    def has_class(self) -> np.ndarray:
        """Where a pixel has data and a sure class, bool (H, W)."""
        without = [plane for plane in (self.missing, self.unsure_pixels) if plane is not None]
        return ~np.any(without, 0) if without else np.ones(self.image.shape[:2], bool)

    @property
    def mask(self) -> np.ndarray:
        """The label map, with `unsure_value` where no class is sure.

        Raises:
            ConfigError: The labels leave no value for it.
        """
        if self.unsure_pixels is None:
            return self.label_map
        return np.where(self.unsure_pixels, np.uint8(unsure_value(self.labels)), self.label_map)

    @cached_property
    def shown(self) -> np.ndarray:
        """One class per pixel; the last label if a pixel has several."""
        if self.label_map.ndim == 2:
            return self.label_map
        last = len(self.label_map) - 1 - self.label_map[::-1].argmax(0)
        return last.astype(np.uint8)

    @cached_property
    def colors(self) -> np.ndarray:
        """The colors of the classes, uint8 (H, W, 3); black where there is no label, or no sure one."""
        colors = np.asarray(self.labels.palette, np.uint8)[self.shown]
        if self.unsure_pixels is not None:
            colors[self.unsure_pixels] = 0
        return colors if self.label_map.ndim == 2 else colors * self.label_map.max(0)[..., None]

    def masks(self) -> dict[str, Image.Image]:
        """Return the palette image under the key "", or if multilabel, one image of 0 and 255 per label name."""
        if self.label_map.ndim == 2:
            return {"": palette_image(self.mask, self.labels)}
        planes = zip(self.labels.names, self.label_map, strict=True)
        return {name: Image.fromarray(plane * np.uint8(255)) for name, plane in planes}

    @cached_property
    def objects(self) -> Objects:
        """The objects in the image.

        Raises:
            ConfigError: Pixels may have several labels.
        """
        return objects_of(self, self.rule)

    def overlay(self) -> Image.Image:
        """Return the image blended with the class colors."""
        rgb = as_rgb(self.image)
        covered = np.where(self.colors.any(axis=2, keepdims=True), np.float32(OPACITY), np.float32(0))
        return Image.fromarray(np.rint(rgb * (1 - covered) + self.colors * covered).astype(np.uint8))

    def depth_levels(self) -> Image.Image | None:
        """Return the depth as a 16-bit grayscale image, 0…65535 for 0…1."""
        if self.depth is None:
            return None
        return Image.fromarray(np.rint(np.clip(self.depth, 0, 1) * np.float32(65535)).astype(np.uint16))

    def depth_colors(self) -> Image.Image | None:
        """Return the depth in colors, scaled from its minimum to its maximum."""
        if self.depth is None:
            return None
        from matplotlib import colormaps

        low, high = float(self.depth.min()), float(self.depth.max())
        places = np.rint((self.depth - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        return Image.fromarray(np.rint(colormaps[SCALE](np.arange(256))[:, :3] * 255).astype(np.uint8)[places])

    def prediction(self) -> Prediction:
        """Return the three images of `Predictor.predict_file`."""
        return Prediction(palette_image(self.shown, self.labels), self.overlay(), self.depth_levels())

    def facts(self) -> dict[str, Any]:
        """Return the size, and per class the area and its mean probability, in JSON-serializable form.

        Examples:
            >>> spec = LabelSpec(("background", "cell"))
            >>> result = SegmentationResult(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]], np.uint8), spec,
            ...                 torch.tensor([[[0.25, 0.75]]]))
            >>> result.facts()["classes"]["cell"]
            {'index': 1, 'pixels': 1, 'share': 0.5, 'confidence': 0.75}
        """
        height, width = self.image.shape[:2]
        pixels = int(self.has_class.sum())
        counts, sums = self._areas(), self._sums()
        classes = {
            name: {
                "index": index,
                "pixels": int(counts[index]),
                "share": int(counts[index]) / max(pixels, 1),
                "confidence": float(sums[index] / counts[index]) if counts[index] else None,
            }
            for index, name in enumerate(self.labels.names)
        }
        total = int(counts.sum())
        found: dict[str, Any] = {
            "height": height,
            "width": width,
            "confidence": float(sums.sum() / total) if total else None,
            "classes": classes,
        }
        if self.missing is not None:
            found["missing"] = int(self.missing.sum())
        if self.unsure_pixels is not None:
            found["unsure"] = int((self.unsure_pixels & (True if self.missing is None else ~self.missing)).sum())
        if self.depth is not None:
            statistics = {"minimum": self.depth.min(), "mean": self.depth.mean(), "maximum": self.depth.max()}
            found["depth"] = {key: float(value) for key, value in statistics.items()}
        return found

    def georeferenced(self) -> Callable[[Path], Any] | None:
        """Return how to write the label map as GeoTIFF: a palette, or one channel per label if multilabel.

        Pixels without data, or without a sure class, have the value 255. None if the image has no georeference.
        """
        if self.georeference is None:
            return None
        labels, options = self.label_map, {"photometric": "minisblack", "planarconfig": "separate"}
        if labels.ndim == 2:
            colors = np.zeros((3, 256), np.uint16)
            colors[:, : self.labels.classes] = np.asarray(self.labels.palette, np.uint16).T * 257
            options = {"photometric": "palette", "colormap": colors}
        gaps = self.missing is not None or self.unsure is not None
        filled = gaps and self.labels.classes < NO_CLASS
        if filled:
            labels = np.where(self.has_class, labels, np.uint8(NO_CLASS))
        tags = self.georeference.to_write(NO_CLASS if filled else None)
        return partial(
            tifffile.imwrite, data=labels, extratags=tags, tile=(256, 256), compression="zlib", metadata=None, **options
        )

    def _areas(self) -> np.ndarray:
        if self.label_map.ndim == 3:
            return (self.label_map * self.has_class).reshape(len(self.label_map), -1).sum(1, dtype=np.int64)
        return np.bincount(self.label_map[self.has_class], minlength=self.labels.classes)

    def _sums(self) -> np.ndarray:
        """Sum the probability of each class over its pixels."""
        planes = self.probabilities.float().cpu()
        if self.label_map.ndim == 3:
            return (planes.numpy() * (self.label_map * self.has_class)).sum((1, 2), dtype=np.float64)
        if len(planes) == 1:
            planes = torch.cat([1 - planes, planes])
        index = torch.from_numpy(self.label_map.astype(np.int64))[None]
        chosen = planes.gather(0, index)[0].double().numpy()
        counted = self.has_class
        return np.bincount(self.label_map[counted], weights=chosen[counted], minlength=self.labels.classes)


Drawn = Image.Image | np.ndarray | str | None  # a PNG, a TIFF, a text, or nothing to write
PRODUCTS: Mapping[str, tuple[str, Callable[[SegmentationResult], Drawn] | None]] = {
    "mask": ("{}.png", None),
    "color": ("{}_color.png", lambda result: Image.fromarray(result.colors)),
    "overlay": ("{}_overlay.png", SegmentationResult.overlay),
    "depth": ("{}_depth.png", SegmentationResult.depth_levels),
    "depth_color": ("{}_depth_color.png", SegmentationResult.depth_colors),
    "instances": ("{}_instances.tif", lambda result: result.objects.label_image()),
    "objects": ("{}_objects.csv", lambda result: result.objects.as_csv()),
    "outlines": ("{}_outlines.png", lambda result: result.objects.outlined(result.image)),
    "geotiff": ("{}.tif", None),
    "json": ("{}.json", None),
}
# Written by `instances` together, and not by "all".
OBJECT_PRODUCTS = ("instances", "objects", "outlines")
DEFAULT_PRODUCTS = ("mask", "overlay", "depth", "geotiff", "json")


def resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize planes (C, h, w) to an image's size if necessary."""
    if tuple(planes.shape[-2:]) == size:
        return planes
    return F.interpolate(planes[None].float(), size=size, mode="bilinear", align_corners=False)[0]
