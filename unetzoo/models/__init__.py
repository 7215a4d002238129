"""The networks, one file a paper. Importing this package puts our encoders (and plugins') into SMP's table."""

import functools

import segmentation_models_pytorch as smp

from ..registry import ENCODERS
from .base import MaskDepth, SegmentationModel, classification_head, segmentation_head
from .bnunet import BNUNet
from .card import Card, Deviation, Fact
from .ddunet import DDUNet
from .dualunet import DualUNet
from .encoder_unet import EncoderUNet
from .foreign import from_foreign
from .geometry import Geometry
from .layouts import WeightLayout
from .r2unet import R2UNet
from .transfer import Transfer, start_from
from .unet import UNet
from .weights import from_pretrained

__all__ = [
    "BNUNet",
    "Card",
    "DDUNet",
    "Deviation",
    "DualUNet",
    "EncoderUNet",
    "Fact",
    "Geometry",
    "MaskDepth",
    "R2UNet",
    "SegmentationModel",
    "Transfer",
    "UNet",
    "WeightLayout",
    "classification_head",
    "from_foreign",
    "from_pretrained",
    "segmentation_head",
    "start_from",
]

for _name in ENCODERS.names():
    # SMP only ever calls the entry, so a plugin's encoder is imported when it is used
    smp.encoders.encoders.setdefault(
        _name, {"encoder": functools.partial(ENCODERS.build, _name), "params": {}, "pretrained_settings": {}}
    )
