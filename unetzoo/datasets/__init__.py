"""Datasets: one file each, and what they share.

Names are resolved when they are first used (PEP 562), so that this package alone imports neither torch
nor albumentations.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .archive import data_root
    from .augment import Transform
    from .base import Sample, SegmentationDataset, check_split, sample_rng
    from .cache import cached
    from .camvid import CamVid
    from .carvana import Carvana
    from .celebamask import CelebAMask
    from .cityscapes import Cityscapes
    from .compose import write_export
    from .composites import Composites
    from .exports import CompositesExport
    from .files import map_labels, read_image, read_mask
    from .folder import Folder
    from .helen import Helen
    from .isbi2012 import ISBI2012
    from .layout import FilePairs, by_name, paired, wrong_layout
    from .listing import list_folder, list_images
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
    "FilePairs": "layout",
    "Folder": "folder",
    "Helen": "helen",
    "ISBI2012": "isbi2012",
    "Sample": "base",
    "SegmentationDataset": "base",
    "Transform": "augment",
    "by_name": "layout",
    "cached": "cache",
    "check_split": "base",
    "data_root": "archive",
    "list_folder": "listing",
    "list_images": "listing",
    "map_labels": "files",
    "paired": "layout",
    "read_image": "files",
    "read_mask": "files",
    "sample_rng": "base",
    "statistics": "stats",
    "with_border_weights": "weights",
    "write_export": "compose",
    "wrong_layout": "layout",
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
    "FilePairs",
    "Folder",
    "Helen",
    "Sample",
    "SegmentationDataset",
    "Transform",
    "by_name",
    "cached",
    "check_split",
    "data_root",
    "list_folder",
    "list_images",
    "map_labels",
    "paired",
    "read_image",
    "read_mask",
    "sample_rng",
    "statistics",
    "with_border_weights",
    "write_export",
    "wrong_layout",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
