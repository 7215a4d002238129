"""All faults: of files, of images, of label values, of the set as a whole."""

from __future__ import annotations

from . import faults_files, faults_images, faults_masks, faults_sets  # noqa: F401 -- importing them fills the table
from .planting import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]
