"""Preprocessing of images in validation, as an object that can be saved and exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .normalize import normalize


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of an image in validation: resizing, rounding to 8-bit levels if the image has them, normalization.

    Args:
        size: (height, width) that images are resized to; None keeps their size.
        normalize: "unit", "minmax", "standard" or {"mean": …, "std": …}; see `unetzoo.images.normalize`.

    Shape:
        Takes an array (H, W, C), uint8 or float32 in 0…1, returns float32 (C, h, w).

    Examples:
        >>> Preprocess(size=(2, 2))(np.full((4, 6, 1), 51, np.uint8))
        tensor([[[0.2000, 0.2000],
                 [0.2000, 0.2000]]])
    """

    size: tuple[int, int] | None = None
    normalize: Any = "unit"

    def __call__(self, image: np.ndarray) -> Tensor:
        """Preprocess one image."""
        levels = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32, order="C"))[None]
        floats = image.dtype.kind == "f"
        return self.scaled(self.resized(levels.mul_(255) if floats else levels, rounds=not floats))[0]

    def resized(self, levels: Tensor, *, rounds: bool = True) -> Tensor:
        """Resize images (N, C, H, W) in 0…255 to the input size of the network, and round them to integer levels."""
        return self.unrounded(levels).round() if rounds and self.size is not None else self.unrounded(levels)

    def unrounded(self, levels: Tensor) -> Tensor:
        """Resize images without rounding.

        Images that already have this size take no shortcut, since such a branch would specialize exported programs on
        the input size.
        """
        if self.size is None:
            return levels
        return F.interpolate(levels, self.size, mode="bilinear", align_corners=False, antialias=True)

    def scaled(self, levels: Tensor) -> Tensor:
        """Normalize images in 0…255; the input may be overwritten."""
        return normalize(levels, self.normalize)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON-serializable dict."""
        how = self.normalize
        plain = {key: list(values) for key, values in how.items()} if isinstance(how, Mapping) else how
        return {"size": None if self.size is None else list(self.size), "normalize": plain}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Create an instance from the output of `to_dict`."""
        size, how = values["size"], values["normalize"]
        how = {key: tuple(numbers) for key, numbers in how.items()} if isinstance(how, Mapping) else how
        return cls(None if size is None else (int(size[0]), int(size[1])), how)
