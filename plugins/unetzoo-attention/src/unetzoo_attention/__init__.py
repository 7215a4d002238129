"""A plugin for unetzoo: Attention U-Net, R2 Attention U-Net, UNet++, ResUNet, U²-Net."""

from .attention_unet import AttentionUNet
from .r2attention_unet import R2AttentionUNet
from .resunet import ResUNet
from .supervision import DeepSupervision, Supervised
from .u2net import U2Net, U2NetSmall
from .unetplusplus import UNetPlusPlus

__all__ = [
    "AttentionUNet",
    "DeepSupervision",
    "R2AttentionUNet",
    "ResUNet",
    "Supervised",
    "U2Net",
    "U2NetSmall",
    "UNetPlusPlus",
]
