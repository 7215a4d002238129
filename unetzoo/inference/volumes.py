"""Predict volumes slice by slice, and join the label maps to a volume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..images import Pixels, decode_image
from ..images.decode import split_name
from ..images.volumes import is_nifti, volume_shape, write_volume
from ..io import write_text
from ..labels import LabelSpec
from .results import SegmentationResult


@dataclass(frozen=True)
class VolumeResult:
    """The segmentation of a volume.

    Args:
        label_map: The class of each voxel, uint8 (slices, H, W).
        labels: Names of the classes.
        axis: The axis along which the volume was cut.
        channels: Number of channels of the network's output.
    """

    label_map: np.ndarray
    labels: LabelSpec
    axis: str
    channels: int

    def facts(self) -> dict[str, Any]:
        """Return the shape and the number of voxels of each class, in JSON-serializable form."""
        slices, height, width = self.label_map.shape
        counts = np.bincount(self.label_map.ravel(), minlength=self.labels.classes).tolist()
        classes = {name: {"index": index, "voxels": counts[index], "share": counts[index] / self.label_map.size}
                   for index, name in enumerate(self.labels.names)}  # fmt: skip
        return {"axis": self.axis, "slices": slices, "height": height, "width": width, "classes": classes}

    def write(self, folder: Path, stem: str, source: Path, facts: dict[str, Any], products: tuple[str, ...]) -> None:
        """Write the label volume in the format of its source, and the facts as JSON.

        Raises:
            OSError: A file cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if "mask" in products:
            write_volume(folder / (stem + split_name(source)[1]), self.label_map, source, self.axis)
        if "json" in products:
            write_text(folder / f"{stem}.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def is_volume(path: Path, pixels: Pixels | None) -> bool:
    """Whether a file is cut into slices."""
    cut = pixels is not None and pixels.axis is not None
    return cut and (is_nifti(path) or path.name.lower().endswith((".tif", ".tiff")))


def predict_volume(path: Path, pixels: Pixels, segment: Callable[[np.ndarray], SegmentationResult]) -> VolumeResult:
    """Predict every slice of a volume.

    Args:
        path: The volume; if each channel is in a file of its own, the file of the first one.
        pixels: The channels, the range and the axis.
        segment: Predicts a decoded image.

    Raises:
        DataError: The volume cannot be read.
        ConfigError: A pixel may have several labels.
    """

    def predicted(index: int) -> SegmentationResult:
        result = segment(decode_image(path, pixels, index).image)
        if result.label_map.ndim != 2:
            raise ConfigError("volumes of several labels per voxel are not written", subject=path,
                              expected="one class per voxel", hint="predict slices with Predictor.segment")  # fmt: skip
        return result

    first = predicted(0)
    others = (predicted(index).mask for index in range(1, volume_shape(path, pixels.axis)[0]))
    return VolumeResult(np.stack([first.mask, *others]), first.labels, str(pixels.axis), first.channels)
