"""Losses: `loss(output, target, *, weight=None) -> scalar`, under SMP's parameter names.

`pixel` holds what is a mean over pixels, `border` that with the original U-Net's weight map, `region` what is a ratio
of sums over a class, `mcc` the correlation of the same sums, `lovasz` the extension of the hard IoU, `depth` what
compares depth maps, `structure` what compares windows, `multitask` the weighted sum of several losses on several heads.
"""

from __future__ import annotations

from .border import BorderCELoss, border_weights
from .depth import BerHuLoss, DepthSSIMLoss, GradientLoss, L1Loss, RMSELoss, SILogLoss
from .lovasz import LovaszLoss
from .mcc import MCCLoss
from .multitask import MultiTaskLoss
from .pixel import BCELoss, CELoss, FocalLoss
from .region import DiceLoss, JaccardLoss, TverskyLoss
from .structure import MSSSIMLoss, SSIMLoss

__all__ = [
    "BCELoss",
    "BerHuLoss",
    "BorderCELoss",
    "CELoss",
    "DepthSSIMLoss",
    "DiceLoss",
    "FocalLoss",
    "GradientLoss",
    "JaccardLoss",
    "L1Loss",
    "LovaszLoss",
    "MCCLoss",
    "MSSSIMLoss",
    "MultiTaskLoss",
    "RMSELoss",
    "SILogLoss",
    "SSIMLoss",
    "TverskyLoss",
    "border_weights",
]
