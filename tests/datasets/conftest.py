from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def real() -> Path:
    if "UNETZOO_DATA" not in os.environ:
        pytest.skip("UNETZOO_DATA is not set")
    return Path(os.environ["UNETZOO_DATA"])


@pytest.fixture
def make_pairs(tmp_path):
    """Write images/ and masks/ with the given stems; masks hold 0 and 255."""

    def make(stems, root=tmp_path, images="images", masks="masks"):
        for i, stem in enumerate(stems):
            for folder in (images, masks):
                (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(root / images / f"{stem}.png")
            mask = np.zeros((6, 8), np.uint8)
            mask[:, 4:] = 255
            Image.fromarray(mask).save(root / masks / f"{stem}.png")
        return root

    return make
