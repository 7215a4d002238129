"""Helpers for tests of composites."""

from __future__ import annotations

import numpy as np


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
