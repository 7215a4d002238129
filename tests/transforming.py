"""Helpers for tests of transforms."""

from __future__ import annotations

import numpy as np
import torch

from unetzoo.labels import LabelSpec

SIDES = ("bg", "left", "right", "nose")


def spec(side):
    return LabelSpec(SIDES, swap_pairs=((1, 2),), side=side)


def sample_of(height=12, width=16, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (height, width, channels), np.uint8),
        "mask": rng.integers(0, 4, (height, width), np.uint8),
        "depth": rng.uniform(0.1, 1, (height, width)).astype(np.float32),
        "valid": rng.uniform(size=(height, width)) < 0.9,
        "weight": rng.uniform(size=(height, width)).astype(np.float32),
        "instances": rng.integers(0, 2**24, (height, width)),
        "id": "s",
    }


def marked(row, column, height=8, width=8):
    """One bright pixel of class 1 that is also deep, valid and heavy."""
    sample = {"image": np.zeros((height, width, 6), np.uint8), "id": "m"}
    for name, kind in (
        ("mask", np.uint8),
        ("instances", np.int32),
        ("depth", np.float32),
        ("valid", bool),
        ("weight", np.float32),
    ):
        sample[name] = np.zeros((height, width), kind)
        sample[name][row, column] = 1
    sample["image"][row, column] = 255
    return sample


def where(out):
    """The one place all planes agree on."""
    places = {tuple(torch.nonzero(p == p.max())[0].tolist())
              for p in (*out["image"], out["mask"], out["depth"][0], out["weight"])}  # fmt: skip
    assert len(places) == 1
    return places.pop()
