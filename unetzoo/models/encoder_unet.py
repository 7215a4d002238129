"""U-Net decoder over any encoder of SMP's table or of timm, pretrained or not.

Ronneberger, Fischer, Brox: *U-Net*, arXiv:1505.04597, whose contracting path is replaced with a network trained for
another task, as in Iglovikov, Shvets: *TernausNet*, arXiv:1801.05746.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from .base import SegmentationModel, classification_head, segmentation_head
from .blocks import HiddenAct
from .encoders import DECODER, foreign_encoder, plain_decoder
from .geometry import Geometry


class EncoderUNet(SegmentationModel):
    """U-Net over a ready encoder: any size in, the same size out.

    Args:
        encoder_name: An encoder of SMP's table, or `tu-<timm name>`; also a plain vision transformer of timm.
        encoder_depth: Poolings of the encoder.
        encoder_weights: Name of pretrained weights, e.g. "imagenet", which may be downloaded, or a file of weights of
            timm, torchvision or SMP; None trains from scratch.
        decoder_channels: Output channels of the decoder levels, coarsest first.

    The other arguments are every network's: see `SegmentationModel`.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for H, W ≥ 2^encoder_depth.

    Raises:
        ConfigError: Wrong arguments, or an encoder without a usable pyramid.
        CheckpointMismatchError: Weights of another architecture.

    Examples:
        >>> import torch
        >>> net = EncoderUNet("tu-mobilenetv3_small_050", classes=11, encoder_depth=4)
        >>> net(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 11, 37, 50])
    """

    plain_forward = True

    def __init__(
        self,
        encoder_name: str = "resnet18",
        in_channels: int = 3,
        classes: int = 1,
        encoder_depth: int = 5,
        encoder_weights: str | None = None,
        decoder_channels: Sequence[int] | None = None,
        hidden_act: HiddenAct = "relu",
        align: str = "resize",
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = foreign_encoder(encoder_name, in_channels, encoder_depth, encoder_weights)
        encoded = self.encoder.out_channels
        decoded = tuple(decoder_channels or DECODER[: len(encoded) - 1])
        if len(decoded) != len(encoded) - 1:
            raise ConfigError("wrong decoder_channels", expected=f"{len(encoded) - 1} widths", found=list(decoded))
        self.decoder = plain_decoder(encoded, decoded, hidden_act, align)
        self.segmentation_head = segmentation_head(decoded[-1], classes, activation)
        self.classification_head = classification_head(encoded[-1], aux_params)
        self.in_channels, self.name = in_channels, "encoder-unet"
        self.geometry = Geometry(minimum=2**encoder_depth, stride=2**encoder_depth)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """Encoder, decoder over its skips, 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        x = self.decoder([*skips, coarsest])
        return self.with_labels(self.segmentation_head(x), coarsest)
