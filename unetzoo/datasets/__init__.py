"""Datasets: one file each, and what they share.

Names are resolved when they are first used (PEP 562), so that this package alone imports neither torch
nor albumentations.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Sample, SegmentationDataset, sample_rng
    from .composites import Composites
    from .folder import Folder
    from .isbi2012 import ISBI2012
    from .transforms import Albumentations, Transform

_LAZY = {
    "Albumentations": "transforms",
    "Composites": "composites",
    "Folder": "folder",
    "ISBI2012": "isbi2012",
    "Sample": "base",
    "SegmentationDataset": "base",
    "Transform": "transforms",
    "sample_rng": "base",
}

__all__ = [
    "ISBI2012",
    "Albumentations",
    "Composites",
    "Folder",
    "Sample",
    "SegmentationDataset",
    "Transform",
    "sample_rng",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
