"""The dataset: samples by index, `labels`, `transform=`."""

from typing import Any

import numpy as np

from unetzoo import LabelSpec
from unetzoo.datasets import SegmentationDataset
from unetzoo.errors import ConfigError

SPLITS = ("train", "val")


class Shapes(SegmentationDataset):
    """A disc or a square in noise; every image is drawn from its index.

    Args:
        split: "train" or "val"; they have no image in common.
        length: Number of images.
        size: Height and width.
        transform: `transform(sample, rng) -> sample`.
    """

    def __init__(self, split: str = "train", length: int = 200, size: int = 48, transform: Any = None) -> None:
        if split not in SPLITS:
            raise ConfigError("unknown split", subject="Shapes", expected=" | ".join(SPLITS), found=repr(split))
        super().__init__(labels=LabelSpec(("background", "disc", "square")), split=split, transform=transform)
        self.length, self.size = length, size

    def __len__(self) -> int:
        return self.length

    def sources(self) -> tuple[()]:
        """It reads no files."""
        return ()

    def load(self, index: int) -> dict[str, Any]:
        """One image: `image` uint8 (H, W, 3), `mask` of class indices (H, W), `id`."""
        rng = np.random.default_rng([SPLITS.index(str(self.split)), index])
        row, column = rng.integers(self.size // 4, 3 * self.size // 4, 2)
        radius = int(rng.integers(self.size // 8, self.size // 4))
        down, right = np.ogrid[: self.size, : self.size]
        down, right = abs(down - row), abs(right - column)
        square = rng.random() < 0.5
        inside = np.maximum(down, right) <= radius if square else down**2 + right**2 <= radius**2
        mask = np.where(inside, 2 if square else 1, 0).astype(np.uint8)
        color = np.array([40, 90, 160]) + 60 * inside[..., None] * np.array([2, 1, 0])
        image = np.clip(color + rng.normal(0, 20, (self.size, self.size, 3)), 0, 255).astype(np.uint8)
        return {"image": image, "mask": mask, "id": f"{self.split}-{index:05d}"}
