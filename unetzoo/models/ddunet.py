"""DDU-Net: a U-Net with three poolings and dilated convolutions at its coarse levels.

Self-designed in the Cityscapes comparison of U-Net, R2U-Net and DDU-Net; there is no paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .base import SegmentationModel, classification_head, segmentation_head
from .blocks import Act, Decoder, DoubleConv, Encoder, one_of, table_widths, widths
from .card import Card, Deviation
from .facts import dilations, halo, output_size, parameters, receptive_field
from .geometry import Geometry
from .layouts import DDUNET

WIDTHS = (64, 128, 256, 512)
DILATION = 3


class DDUNet(SegmentationModel):
    """Dilated U-Net: units are convolution → ReLU → batch norm, with dilation 3 at the two coarsest levels.

    Args:
        encoder_channels: As everywhere; dilated are the last two levels and the decoder level above them.
        variant: "padded" (any size), or "original": the printed network, whose dilated convolutions are padded by 1
            and repaired by up-convolutions of stride 3; it fits together at 256×256 alone.

    The other arguments are every network's: see `SegmentationModel`.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for H, W ≥ 8 at the default depth.

    Raises:
        ConfigError: Wrong arguments; `variant="original"` at another depth.
        InputShapeError: From `forward` of the original, at another size than 256×256.

    Examples:
        >>> import torch
        >>> DDUNet(classes=19, encoder_channels=(8, 16, 32, 64))(torch.zeros(1, 3, 64, 50)).shape
        torch.Size([1, 19, 64, 50])
    """

    card = Card(
        title="DDU-Net",
        paper="none: self-designed in a comparison of U-Nets on Cityscapes",
        authors="the authors of that comparison",
        year=2020,
        source="its code",
        figure="none",
        faithful="Stages, widths, dilations, unit order (ReLU before batch norm), kernels, initialization and the "
        'parameter count; variant="original" also paddings and strides.',
        deviations=(
            Deviation(
                paper="Dilated convolutions are padded by 1, so each such unit loses 8 pixels; two up-convolutions of "
                "stride 3 make up for it, at 256×256 alone.",
                ours="Dilated convolutions are padded by their dilation, up-convolutions have stride 2.",
                reason="Any size works, with the same parameters and the same level sizes.",
            ),
        ),
        facts=(
            parameters(10_805_267, classes=19),
            parameters(10_804_097),
            parameters(10_805_267, classes=19, variant="original"),
            dilations((1, 1, 3, 3), "encoder"),
            dilations((3, 1, 1), "decoder"),
            output_size(256, 256, classes=19),
            output_size(256, 256, classes=19, variant="original"),
            output_size(101, 101),
            receptive_field(164, part="encoder"),
            halo(118),
            receptive_field(236),
        ),
    )
    weight_layouts = DDUNET

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        variant: str = "padded",
        act: Act = "relu",
        align: str = "resize",
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("variant", variant, ("padded", "original"))
        channels = widths(encoder_channels)
        depth = len(channels) - 1
        if variant == "original":
            one_of("depth of the original", depth, (3,))
        self.encoder = encoder(in_channels, channels, variant, act)
        levels = range(depth - 1, -1, -1)
        self.decoder = Decoder(
            [up_convolution(channels[level + 1], level, depth, variant) for level in levels],
            [
                unit(channels[level + 1] + channels[level], channels[level], level == depth - 1, variant, act)
                for level in levels
            ],
            align,
            concat="up-skip",
        )
        self.segmentation_head = segmentation_head(channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "ddunet"
        self.geometry = geometry(depth, variant)
        self.initialize()

    def initialize(self) -> None:
        """Kaiming-normal convolutions and transposed convolutions (PyTorch's fan-in), biases 0, as in the original."""
        super().initialize()
        for layer in [*self.encoder.modules(), *self.decoder.modules(), *self.segmentation_head.modules()]:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def unit(in_channels: int, out_channels: int, dilated: bool, variant: str, act: Act) -> DoubleConv:
    """Twice: 3×3 convolution (bias) → non-linearity → batch norm."""
    dilation = DILATION if dilated else 1
    padding = 1 if variant == "original" else dilation
    return DoubleConv(
        in_channels, out_channels, act=act, order="conv-act-bn", bias=True, dilation=dilation, padding=padding
    )


def encoder(in_channels: int, channels: Sequence[int], variant: str, act: Act) -> Encoder:
    """The contracting path: the last two levels dilated."""
    return Encoder(in_channels, channels, lambda i, o, level: unit(i, o, level >= len(channels) - 2, variant, act))


def up_convolution(channels: int, level: int, depth: int, variant: str) -> nn.ConvTranspose2d:
    """Kernel 3 at the two coarsest levels (stride 3 in the original), kernel 2 below; channels stay."""
    if level < depth - 2:
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)
    if variant == "padded":
        return nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
    return nn.ConvTranspose2d(channels, channels, 3, stride=3, padding=2 if level == depth - 1 else 8)


def geometry(depth: int, variant: str) -> Geometry:
    """Sizes and reach; the original has one size, and no window of it is exact."""
    if variant == "original":
        return Geometry(minimum=256, maximum=256, stride=256)
    coarse, fine = 2 * DILATION, 2
    return Geometry.of_unet(
        encoder=[fine] * (depth - 1) + [coarse] * 2,
        decoder=[fine] * (depth - 1) + [coarse],
        up=[(0, 0)] * (depth - 2) + [(0, 1)] * 2,
    )


def dd_encoder(in_channels: int = 3, depth: int = 5, output_stride: int = 32) -> Encoder:
    """The encoder `unetzoo-dd` of SMP's table."""
    return encoder(in_channels, table_widths(WIDTHS, depth, output_stride), "padded", "relu")
