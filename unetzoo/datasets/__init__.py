"""Datasets: one file each, and what they share.

Names are resolved when they are first used (PEP 562), so that this package alone imports neither torch
nor albumentations.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Sample, SegmentationDataset, sample_rng
    from .camvid import CamVid
    from .carvana import Carvana
    from .celebamask import CelebAMask
    from .cityscapes import Cityscapes
    from .composites import Composites
    from .folder import Folder
    from .helen import Helen
    from .isbi2012 import ISBI2012
    from .transforms import Albumentations, Transform

_LAZY = {
    "Albumentations": "transforms",
    "CamVid": "camvid",
    "Carvana": "carvana",
    "CelebAMask": "celebamask",
    "Cityscapes": "cityscapes",
    "Composites": "composites",
    "Folder": "folder",
    "Helen": "helen",
    "ISBI2012": "isbi2012",
    "Sample": "base",
    "SegmentationDataset": "base",
    "Transform": "transforms",
    "sample_rng": "base",
}

__all__ = [
    "ISBI2012",
    "Albumentations",
    "CamVid",
    "Carvana",
    "CelebAMask",
    "Cityscapes",
    "Composites",
    "Folder",
    "Helen",
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
