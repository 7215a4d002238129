"""Datasets: one file each, and what they share.

Names are resolved when they are first used (PEP 562), so that this package alone imports neither torch
nor albumentations.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .annotation_layouts import ANNOTATION_LAYOUTS
    from .annotations import SPLIT_WORDS, with_split
    from .archive import data_root
    from .augment import Transform
    from .base import Sample, SegmentationDataset, check_split, divided, refuse_division, sample_rng, seeded_split
    from .cache import cached
    from .camvid import CamVid
    from .carvana import Carvana
    from .celebamask import CelebAMask
    from .cityscapes import Cityscapes
    from .compose import write_export
    from .composites import Composites
    from .dsb2018 import DSB2018
    from .exports import CompositesExport
    from .file_dataset import FileDataset, FileSample
    from .files import map_labels, read_image, read_mask
    from .folder import Folder
    from .helen import Helen
    from .isbi2012 import ISBI2012
    from .layout import FileLayout, FilePattern, MaskValues
    from .manifest import Csv
    from .nnunet import NnUNet
    from .pairs import from_pairs
    from .repeat import RepeatedDataset
    from .stats import statistics
    from .transforms import Albumentations, BatchTransform
    from .weights import with_border_weights, with_borders

_LAZY = {
    "ANNOTATION_LAYOUTS": "annotation_layouts",
    "SPLIT_WORDS": "annotations",
    "Albumentations": "transforms",
    "BatchTransform": "transforms",
    "CamVid": "camvid",
    "Carvana": "carvana",
    "CelebAMask": "celebamask",
    "Cityscapes": "cityscapes",
    "Composites": "composites",
    "CompositesExport": "exports",
    "Csv": "manifest",
    "DSB2018": "dsb2018",
    "FileDataset": "file_dataset",
    "FileLayout": "layout",
    "FilePattern": "layout",
    "FileSample": "file_dataset",
    "MaskValues": "layout",
    "divided": "base",
    "from_pairs": "pairs",
    "Folder": "folder",
    "Helen": "helen",
    "ISBI2012": "isbi2012",
    "RepeatedDataset": "repeat",
    "NnUNet": "nnunet",
    "Sample": "base",
    "SegmentationDataset": "base",
    "Transform": "augment",
    "cached": "cache",
    "check_split": "base",
    "data_root": "archive",
    "map_labels": "files",
    "read_image": "files",
    "read_mask": "files",
    "sample_rng": "base",
    "refuse_division": "base",
    "seeded_split": "base",
    "statistics": "stats",
    "with_border_weights": "weights",
    "with_borders": "weights",
    "with_split": "annotations",
    "write_export": "compose",
}

__all__ = [
    "ANNOTATION_LAYOUTS",
    "DSB2018",
    "ISBI2012",
    "SPLIT_WORDS",
    "Albumentations",
    "BatchTransform",
    "CamVid",
    "Carvana",
    "CelebAMask",
    "Cityscapes",
    "Composites",
    "CompositesExport",
    "Csv",
    "FileDataset",
    "FileLayout",
    "FilePattern",
    "FileSample",
    "Folder",
    "Helen",
    "MaskValues",
    "NnUNet",
    "RepeatedDataset",
    "Sample",
    "SegmentationDataset",
    "Transform",
    "cached",
    "check_split",
    "data_root",
    "divided",
    "from_pairs",
    "map_labels",
    "read_image",
    "read_mask",
    "refuse_division",
    "sample_rng",
    "seeded_split",
    "statistics",
    "with_border_weights",
    "with_borders",
    "with_split",
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
