"""Helpers for tests of the cache: data, and comparison of samples."""

from __future__ import annotations

import functools
from pathlib import Path

import layouts
import numpy as np
import torch

from unetzoo.datasets import Folder, SegmentationDataset, cached
from unetzoo.labels import LabelSpec

PLANES = ("image", "mask", "depth", "valid", "weight")
quiet = functools.partial(cached, progress=False, workers=0)


def write_pairs(root, count=6):
    """Images of different sizes and their masks of 0 and 255."""
    rng = np.random.default_rng(0)
    for i in range(count):
        height, width = 20 + i, 30 - i
        layouts.save(root / "images" / f"{i}.png", rng.integers(0, 256, (height, width, 3), np.uint8))
        layouts.save(root / "masks" / f"{i}.png", rng.integers(0, 2, (height, width), np.uint8) * 255)
    return Folder(root, classes=2, ids=(0, 255))


class All(SegmentationDataset):
    """Every plane, of several sizes, and something beside them."""

    def __init__(self, count=5, negative=False):
        super().__init__(labels=LabelSpec.indexed(3, -100 if negative else 255), split="s/1")
        self.count, self.negative = count, negative

    def __len__(self):
        return self.count

    def sources(self):
        return ()

    def load(self, index):
        rng = np.random.default_rng(index)
        height, width = 9 + index, 14
        valid = rng.uniform(size=(height, width)) < 0.8
        mask = rng.integers(0, 3, (height, width)).astype(np.int32)
        mask[0, 0] = self.labels.ignore_index
        depth = np.where(valid, rng.uniform(0.1, 9, (height, width)), np.nan).astype(np.float32)
        sample = {"image": rng.integers(0, 256, (height, width, 2), np.uint8), "mask": mask, "depth": depth,
                  "valid": valid, "weight": rng.uniform(size=(height, width)).astype(np.float32)}  # fmt: skip
        if index == 2:
            del sample["depth"], sample["weight"]
        return sample | {"id": f"№ {index}", "car": {"doors": [index, 1.5]}}


def same(a, b):
    assert set(a) == set(b)
    for name, value in a.items():
        if isinstance(value, np.ndarray | torch.Tensor):
            first, second = np.asarray(value), np.asarray(b[name])
            assert type(value) is type(b[name]) and (name == "mask" or first.dtype == second.dtype)
            np.testing.assert_array_equal(first, second, strict=name != "mask")
        else:
            assert value == b[name]


def caches(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.suffix == ".cache")


def debris(folder):
    return [path for path in Path(folder).rglob("*") if path.name.endswith(".tmp")]
