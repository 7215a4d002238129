"""Select and convert what `predict_to` writes of a network's output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..images.georeference import Georeference, nodata_tag
from ..instances import ObjectRule
from ..labels import LabelSpec
from .decide import Decision, Threshold, ends_in_probabilities, labels_for, probabilities_of
from .objects import evidence_of
from .resumable_writer import Layer
from .window_predictor import Heads
from .windows import WindowPlan

KINDS = {"uint8": torch.uint8, "uint16": torch.int32, "float16": torch.float16, "float32": torch.float32}


class Outputs:
    """The files that a network's output is written to, and their values.

    Args:
        net: The network.
        heads: A sample of its output, which determines the number of channels.
        paths: Files for "classes", "depth", "probabilities" and "instances".
        threshold: Probability above which a pixel has a class; None for the most probable class.
        labels: Names of the classes.
        georeference: The position of the image on Earth; written to TIFF files.
        gaps: Whether the image declares pixels without data. In TIFF files, they get the largest value of the data
            type, or NaN.
        rule: How objects are separated.

    Raises:
        ConfigError: Depth of a network without a depth head; probabilities as TIFF; one file for two outputs; a border
            class of a network without three classes.
    """

    def __init__(
        self,
        net: nn.Module,
        heads: Heads,
        paths: Mapping[str, Path],
        threshold: Threshold = None,
        labels: LabelSpec | None = None,
        georeference: Georeference | None = None,
        *,
        gaps: bool = False,
        rule: ObjectRule | None = None,
    ) -> None:
        self.paths, self.georeference, self.rule = paths, georeference, rule
        self.channels, self._gaps = heads[0].shape[1], gaps
        filled = (name for name, path in paths.items() if _is_tiff(path) or name == "instances")
        self.fills = {name: self._fill(name) for name in filled if gaps}
        self.all_channels = sum(head.shape[1] for head in heads)
        self.labels = labels or LabelSpec.indexed(max(2, self.channels))
        self.probabilities = partial(probabilities_of, net)
        if "instances" in paths:
            self.labels = labels_for(labels, self.channels)
            if rule is not None and rule.border and self.channels != 3:
                raise ConfigError("objects separated by a border class", expected="3 classes", found=self.channels)
        needed = threshold is not None or "instances" in paths or (self.channels == 1 and ends_in_probabilities(net))
        self.decide = Decision.of(threshold, self.labels, self.channels) if needed else None
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
            name: Layer(path, (*size, self.channels), self.dtype(name)) if name == "probabilities"
            else Layer(path, size, np.dtype(np.uint32), self._tags(name), self.dtype(name)) if name == "instances"
            else Layer(path, size, self.dtype(name), self._tags(name))
            for name, path in self.paths.items()
        }  # fmt: skip

    def _tags(self, name: str) -> tuple[Any, ...]:
        if not _is_tiff(self.paths[name]):
            return ()
        nodata = [nodata_tag(self.fills[name])] if name in self.fills and name != "instances" else []
        return (*(self.georeference.to_write() if self.georeference else ()), *nodata)

    def without_missing(self, bands: Mapping[str, np.ndarray], missing: np.ndarray) -> None:
        """Fill the pixels (h, W) of bands where the image has no data."""
        for name, fill in self.fills.items():
            bands[name][missing] = fill

    def _fill(self, name: str) -> float:
        return {"depth": math.nan, "instances": 0}.get(name, float(np.iinfo(self.dtype("classes")).max))

    def dtype(self, name: str) -> np.dtype:
        """Data type of an output's values."""
        narrow = np.uint8 if self.channels <= 255 + (not self._gaps) else np.uint16
        return np.dtype(
            {"classes": narrow, "depth": np.float32, "probabilities": np.float16, "instances": np.float32}[name]
        )

    def row_bytes(self, plan: WindowPlan) -> int:
        """Bytes per row, summed over all files."""
        return sum(layer.dtype.itemsize * int(np.prod(layer.shape[1:])) for layer in self.layers(plan).values())

    def values(self, heads: Heads) -> Heads:
        """The values to write for heads (C, h, w), rows first; on the output's device, in small types."""
        mask = heads[0]
        single = len(mask) == 1
        found: dict[str, Tensor] = {}
        if self.decide is None:
            found["classes"] = mask[0] > 0 if single else mask.argmax(0)
        if self.decide or "probabilities" in self.paths:
            probabilities = self.probabilities(mask)
            found["probabilities"] = probabilities.permute(1, 2, 0)
            if self.decide is not None:
                found["classes"] = self.decide(probabilities)
            if "instances" in self.paths:
                found["instances"] = evidence_of(probabilities.float(), found["classes"], self.rule)
        if "depth" in self.paths:
            found["depth"] = heads[1][0]
        return tuple(found[name].to(KINDS[self.dtype(name).name]) for name in self.paths)

    def arrays(self, values: Heads) -> dict[str, np.ndarray]:
        """`values` as arrays of the files' data types."""
        written = zip(self.paths, values, strict=True)
        return {name: value.cpu().numpy().astype(self.dtype(name), copy=False) for name, value in written}


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")
