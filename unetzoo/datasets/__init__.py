"""Datasets: one file each, and what they share.

Names are resolved when they are first used (PEP 562), so that this package alone imports neither torch
nor albumentations.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .archive import data_root
    from .auditing import audit, recognise
    from .augment import Transform
    from .base import Sample, SegmentationDataset, sample_rng
    from .cache import cached
    from .camvid import CamVid
    from .carvana import Carvana
    from .celebamask import CelebAMask
    from .cityscapes import Cityscapes
    from .compose import write_export
    from .composites import Composites
    from .exports import CompositesExport
    from .folder import Folder
    from .helen import Helen
    from .isbi2012 import ISBI2012
    from .manifest import Csv
    from .stats import statistics
    from .transforms import Albumentations, BatchTransform
    from .weights import with_border_weights

_LAZY = {
    "Albumentations": "transforms",
    "BatchTransform": "transforms",
    "CamVid": "camvid",
    "Carvana": "carvana",
    "CelebAMask": "celebamask",
    "Cityscapes": "cityscapes",
    "Composites": "composites",
    "CompositesExport": "exports",
    "Csv": "manifest",
    "Folder": "folder",
    "Helen": "helen",
    "ISBI2012": "isbi2012",
    "Sample": "base",
    "SegmentationDataset": "base",
    "Transform": "augment",
    "audit": "auditing",
    "cached": "cache",
    "data_root": "archive",
    "recognise": "auditing",
    "sample_rng": "base",
    "statistics": "stats",
    "with_border_weights": "weights",
    "write_export": "compose",
}

__all__ = [
    "ISBI2012",
    "Albumentations",
    "BatchTransform",
    "CamVid",
    "Carvana",
    "CelebAMask",
    "Cityscapes",
    "Composites",
    "CompositesExport",
    "Csv",
    "Folder",
    "Helen",
    "Sample",
    "SegmentationDataset",
    "Transform",
    "audit",
    "cached",
    "data_root",
    "recognise",
    "sample_rng",
    "statistics",
    "with_border_weights",
    "write_export",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
