"""Losses: `loss(output, target, *, weight=None) -> scalar`, under SMP's parameter names.

`pixel` and `focal` hold what is a mean over pixels, `border` that with the original U-Net's weight map, `region` what
is a ratio of sums over a class, `composite` that together with cross entropy, `mcc` the correlation of the same sums
(all from `fused`, on CUDA by `kernels`), `lovasz` the extension of the hard IoU, `boundary` what weighs by distance,
`depth` what compares depth maps, `structure` what compares windows, `multitask` the weighted sum of several losses on
several heads, `smp` SMP's own.
"""

from __future__ import annotations

from .border import BorderCELoss, border_weights
from .boundary import BoundaryLoss, signed_distance
from .composite import DiceCELoss, JaccardCELoss
from .depth import BerHuLoss, DepthSSIMLoss, GradientLoss, L1Loss, RMSELoss, SILogLoss
from .focal import FocalLoss
from .lovasz import LovaszLoss
from .mcc import MCCLoss
from .multitask import MultiTaskLoss
from .pixel import BCELoss, CELoss
from .region import DiceLoss, JaccardLoss, TverskyLoss
from .structure import MSSSIMLoss, SSIMLoss

__all__ = [
    "BCELoss",
    "BerHuLoss",
    "BorderCELoss",
    "BoundaryLoss",
    "CELoss",
    "DepthSSIMLoss",
    "DiceCELoss",
    "DiceLoss",
    "FocalLoss",
    "GradientLoss",
    "JaccardCELoss",
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
    "signed_distance",
]
