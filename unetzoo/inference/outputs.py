"""Select and convert what `predict_to` writes of a network's output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..images.georeference import Georeference, nodata_tag
from ..labels import LabelSpec
from .decide import Decision, Threshold
from .resumable_writer import Layer
from .window_predictor import Heads
from .windows import WindowPlan

KINDS = {"uint8": torch.uint8, "uint16": torch.int32, "float16": torch.float16, "float32": torch.float32}


class Outputs:
    """The files that a network's output is written to, and their values.

    Args:
        heads: A sample output of the network, which determines the number of channels.
        paths: Files for "classes", "depth" and "probabilities".
        threshold: Probability above which a pixel has a class; None for the most probable class.
        labels: Names of the classes.
        georeference: The position of the image on Earth; written to TIFF files.
        gaps: Whether the image declares pixels without data. In TIFF files, they get the largest value of the data
            type, or NaN.

    Raises:
        ConfigError: Depth of a network without a depth head; probabilities as TIFF; one file for two outputs.
    """

    def __init__(
        self,
        heads: Heads,
        paths: Mapping[str, Path],
        threshold: Threshold = None,
        labels: LabelSpec | None = None,
        georeference: Georeference | None = None,
        *,
        gaps: bool = False,
    ) -> None:
        self.paths, self.georeference = paths, georeference
        self.channels, self._gaps = heads[0].shape[1], gaps
        self.fills = {name: self._fill(name) for name, path in paths.items() if gaps and _is_tiff(path)}
        self.all_channels = sum(head.shape[1] for head in heads)
        labels = labels or LabelSpec.indexed(max(2, self.channels))
        self.decide = None if threshold is None else Decision.of(threshold, labels, self.channels)
        if "depth" in paths and len(heads) < 2:
            raise ConfigError("this network has no depth", subject=paths["depth"])
        if "probabilities" in paths and paths["probabilities"].suffix.lower() != ".npy":
            raise ConfigError("probabilities are written as .npy", found=paths["probabilities"])
        if len({path.resolve() for path in paths.values()}) < len(paths):
            raise ConfigError("two results would be written to one file", found=", ".join(map(str, paths.values())))

    def layers(self, plan: WindowPlan) -> dict[str, Layer]:
        """The files to write, by output."""
        size = plan.rows.output, plan.columns.output
        return {
            name: Layer(path, (*size, self.channels) if name == "probabilities" else size, self.dtype(name),
                        self._tags(name))
            for name, path in self.paths.items()
        }  # fmt: skip

    def _tags(self, name: str) -> tuple[Any, ...]:
        if not _is_tiff(self.paths[name]):
            return ()
        nodata = [nodata_tag(self.fills[name])] if name in self.fills else []
        return (*(self.georeference.to_write() if self.georeference else ()), *nodata)

    def without_missing(self, bands: Mapping[str, np.ndarray], missing: np.ndarray) -> None:
        """Fill the pixels (h, W) of bands where the image has no data."""
        for name, fill in self.fills.items():
            bands[name][missing] = fill

    def _fill(self, name: str) -> float:
        return float("nan") if name == "depth" else float(np.iinfo(self.dtype(name)).max)

    def dtype(self, name: str) -> np.dtype:
        """Data type of an output's values."""
        narrow = np.uint8 if self.channels <= 255 + (not self._gaps) else np.uint16
        return np.dtype({"classes": narrow, "depth": np.float32, "probabilities": np.float16}[name])

    def row_bytes(self, plan: WindowPlan) -> int:
        """Bytes per row, summed over all files."""
        return sum(layer.dtype.itemsize * int(np.prod(layer.shape[1:])) for layer in self.layers(plan).values())

    def values(self, heads: Heads) -> Heads:
        """The values to write for heads (C, h, w), rows first; on the output's device, in small types."""
        mask = heads[0]
        single = len(mask) == 1
        found: dict[str, Tensor] = {}
        found["classes"] = mask[0] > 0 if single else mask.argmax(0)
        if self.decide or "probabilities" in self.paths:
            probabilities = mask.float().sigmoid() if single else mask.float().softmax(0)
            found["probabilities"] = probabilities.permute(1, 2, 0)
            found["classes"] = self.decide(probabilities) if self.decide else found["classes"]
        if "depth" in self.paths:
            found["depth"] = heads[1][0]
        return tuple(found[name].to(KINDS[self.dtype(name).name]) for name in self.paths)

    def arrays(self, values: Heads) -> dict[str, np.ndarray]:
        """`values` as arrays of the files' data types."""
        written = zip(self.paths, values, strict=True)
        return {name: value.cpu().numpy().astype(self.dtype(name), copy=False) for name, value in written}


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")
