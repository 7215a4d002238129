"""Windows of an image on disk, prepared as the network was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ..bundle import Preprocess
from ..errors import ConfigError, DataError
from ..images.arrays import as_tensor
from .geometry import Plan, Span
from .padding import mirror_positions
from .raster import Raster

PROBE = (48, 64)  # pixels of the corner that is looked at before any work
BLOCK = 2**24  # pixels that are read at once for statistics


class Reader:
    """Prepared parts of an image.

    Args:
        raster: The image.
        preprocess: Array (h, w, C) → float tensor (C, h, w); by default integers are divided by their full scale. A
            `Preprocess` that scales by the whole image's values gets those of the image.

    Raises:
        DataError: A run's `Preprocess` for an image of more than 8 bits.
    """

    def __init__(self, raster: Raster, preprocess: Callable[[np.ndarray], Tensor] | None) -> None:
        self.raster = raster
        self.preprocess: Callable[[np.ndarray], Tensor] = preprocess or as_tensor
        if isinstance(preprocess, Preprocess):
            if raster.dtype != np.uint8:
                raise DataError(
                    "the run was trained on 8-bit images",
                    subject=raster.name,
                    expected="uint8",
                    found=raster.dtype,
                    hint="scale the image to 0…255 as in training",
                )
            self.preprocess = replace(preprocess, normalize=_of_the_whole(raster, preprocess.normalize))

    def corner(self) -> Tensor:
        """A small part, to see what preparation makes of it.

        Raises:
            ConfigError: Another size.
        """
        height, width = (min(n, most) for n, most in zip(self.raster.shape[:2], PROBE, strict=True))
        prepared = self.preprocess(self.raster.read(0, height, 0, width))
        if not isinstance(prepared, Tensor) or tuple(prepared.shape[1:]) != (height, width):
            raise ConfigError(
                "windows must keep their size when they are prepared",
                expected=f"a tensor (C, {height}, {width})",
                found=tuple(getattr(prepared, "shape", ())) or type(prepared).__name__,
                hint="a preparation without resizing, cropping and padding (scale the image beforehand)",
            )
        return prepared

    def cut(self, plan: Plan) -> Callable[[Span, Span], Tensor]:
        """How to read the windows of a plan."""
        rows, columns = (mirror_positions(axis.size, axis.before, axis.length).numpy() for axis in plan)

        def cut(row: Span, column: Span) -> Tensor:
            y, x = rows[row.start : row.stop], columns[column.start : column.stop]
            part = self.raster.read(y.min(), y.max() + 1, x.min(), x.max() + 1)
            return self.preprocess(part[y - y.min()][:, x - x.min()])

        return cut


def _of_the_whole(raster: Raster, normalize: Any) -> Any:
    """The same scaling with the numbers of the whole image in it, where they are the image's own."""
    if normalize == "minmax":
        bounds = [(int(block.min()), int(block.max())) for block in _blocks(raster)]
        low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
        return {"mean": [low / 255], "std": [max(high - low, 1e-6) / 255]}
    if normalize == "standard":
        counts = sum(np.bincount(block.reshape(-1), minlength=256) for block in _blocks(raster))
        levels = np.arange(256)
        mean = np.average(levels, weights=counts)
        std = np.average((levels - mean) ** 2, weights=counts) ** 0.5
        return {"mean": [mean / 255], "std": [max(std, 1e-6) / 255]}
    return normalize


def _blocks(raster: Raster) -> Iterator[np.ndarray]:
    height, width, channels = raster.shape
    rows = max(1, BLOCK // (width * channels))
    raster.held(rows)
    return (raster.read(top, min(top + rows, height), 0, width) for top in range(0, height, rows))
