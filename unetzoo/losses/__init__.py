"""Losses: `loss(output, target, *, weight=None) -> scalar`, under SMP's parameter names.

`pixel` holds what is a mean over pixels, `region` what is a ratio of sums over a class, `depth` what compares
depth maps, `multitask` the weighted sum of several losses on several heads.
"""

from __future__ import annotations

from .depth import L1Loss
from .multitask import MultiTaskLoss
from .pixel import BCELoss, CELoss
from .region import DiceLoss, JaccardLoss

__all__ = ["BCELoss", "CELoss", "DiceLoss", "JaccardLoss", "L1Loss", "MultiTaskLoss"]
