"""All faults: of files, of pictures, of label values, of the set as a whole."""

from __future__ import annotations

from . import faults_files, faults_masks, faults_pictures, faults_sets  # noqa: F401 -- importing them fills the table
from .planting import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]
