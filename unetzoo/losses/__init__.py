"""Losses, called as `loss(output, target, *, weight=None) -> scalar`, with SMP's parameter names.

`pixel` and `focal` are means over pixels, and `border` is one with the original U-Net's weight map. `region` contains
ratios of sums per class, `composite` adds cross entropy to them, and `mcc` is a correlation of the same sums. `fused`
computes these sums block by block (`blocks`), on CUDA with `kernels`. `lovasz` extends the hard IoU, `boundary` weights
by distance, `thin` follows center lines, `depth` compares depth maps and `structure` compares windows. `multitask` is a
weighted sum over heads, and `smp` contains SMP's losses.
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
from .thin import ClDiceLoss, SkeletonRecallLoss

__all__ = [
    "BCELoss",
    "BerHuLoss",
    "BorderCELoss",
    "BoundaryLoss",
    "CELoss",
    "ClDiceLoss",
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
    "SkeletonRecallLoss",
    "TverskyLoss",
    "border_weights",
    "signed_distance",
]
