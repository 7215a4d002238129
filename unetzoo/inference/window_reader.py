"""Windows of an image source, preprocessed as for validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ..bundle import Preprocess
from ..errors import ConfigError, DataError
from ..images.array_source import ImageSource
from ..images.source import ScaledSource
from .windows import Span, WindowPlan, host_positions

PROBE = (48, 64)  # pixels of the corner that is preprocessed before any work


class WindowReader:
    """Preprocessed windows of an image.

    Args:
        source: The image.
        preprocess: Array (h, w, C) → float tensor (C, h, w). A `Preprocess` that normalizes by the whole image's
            values gets those of the image.

    Raises:
        DataError: A `Preprocess` for an image of more than 8 bits without a declared range.
    """

    def __init__(self, source: ImageSource, preprocess: Callable[[np.ndarray], Tensor]) -> None:
        self.source, self.preprocess = source, preprocess
        if isinstance(preprocess, Preprocess):
            if source.dtype != np.uint8 and not isinstance(source, ScaledSource):
                raise DataError(
                    "the network was trained on 8-bit images",
                    subject=source.name,
                    expected="uint8",
                    found=source.dtype,
                    hint="declare the range of values in training, or convert the image to 8 bits with the scale that "
                    "the training images had",
                )
            self.preprocess = replace(preprocess, normalize=_of_the_whole(source, preprocess.normalize))

    def corner(self) -> Tensor:
        """A small part, to see what preprocessing makes of it.

        Raises:
            ConfigError: Another size.
        """
        height, width = (min(n, most) for n, most in zip(self.source.shape[:2], PROBE, strict=True))
        prepared = self.preprocess(self.source.read(0, height, 0, width))
        if not isinstance(prepared, Tensor) or tuple(prepared.shape[1:]) != (height, width):
            raise ConfigError(
                "windows must keep their size when they are preprocessed",
                expected=f"a tensor (C, {height}, {width})",
                found=tuple(getattr(prepared, "shape", ())) or type(prepared).__name__,
                hint="preprocessing without resizing, cropping and padding (resize the image beforehand)",
            )
        return prepared

    def cut(self, plan: WindowPlan) -> Callable[[Span, Span], Tensor]:
        """How to read the windows of a plan."""
        rows, columns = (host_positions(axis.size, axis.before, axis.length) for axis in plan)

        def cut(row: Span, column: Span) -> Tensor:
            y, x = rows[row.start : row.stop], columns[column.start : column.stop]
            part = self.source.read(y.min(), y.max() + 1, x.min(), x.max() + 1)
            return self.preprocess(part[y - y.min()][:, x - x.min()])

        return cut


def _of_the_whole(source: ImageSource, normalize: Any) -> Any:
    """The same normalization with the statistics of the whole image in it, where they are the image's own."""
    if normalize not in ("minmax", "standard"):
        return normalize
    if source.dtype != np.uint8:
        return _of_floats(source, normalize)
    counts = sum(np.bincount(block.reshape(-1), minlength=256) for block in source.blocks())
    levels, seen = np.arange(256), np.flatnonzero(counts)
    if normalize == "minmax":
        return {"mean": [seen[0] / 255], "std": [max(float(seen[-1] - seen[0]), 1e-6) / 255]}
    mean = np.average(levels, weights=counts)
    std = np.average((levels - mean) ** 2, weights=counts) ** 0.5
    return {"mean": [mean / 255], "std": [max(std, 1e-6) / 255]}


def _of_floats(source: ImageSource, normalize: str) -> Any:
    """The statistics of an image in 0…1."""
    low, high, count, total, squares = np.inf, -np.inf, 0, 0.0, 0.0
    for block in source.blocks():
        low, high, count = (
            min(low, block.min(initial=np.inf)),
            max(high, block.max(initial=-np.inf)),
            count + block.size,
        )
        total, squares = total + block.sum(dtype=np.float64), squares + np.square(block, dtype=np.float64).sum()
    if normalize == "minmax":
        return {"mean": [float(low)], "std": [max(float(high - low), 1e-6 / 255)]}
    mean = total / count
    return {"mean": [mean], "std": [max((squares / count - mean**2) ** 0.5, 1e-6 / 255)]}
