"""Helpers for tests of exported composites."""

from __future__ import annotations

import numpy as np
from PIL import Image

SMALL = {"size": 32, "foregrounds": 10, "backgrounds": 10}


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image)
