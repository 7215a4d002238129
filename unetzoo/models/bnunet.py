"""BN-UNet: the padded U-Net with batch normalization, as practitioners build it.

Ioffe, Szegedy: *Batch Normalization*, arXiv:1502.03167, in the network of arXiv:1505.04597. There is no paper of this
variant; its parameters reach the widely used implementations (see the card's facts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .base import SegmentationModel, classification_head, segmentation_head
from .blocks import Decoder, DoubleConv, Encoder, HiddenAct, UpsampleConv, one_of, table_widths, widths
from .card import Card, Deviation
from .facts import halo, output_size, parameters, receptive_field
from .geometry import Geometry
from .layouts import BNUNET

WIDTHS = (64, 128, 256, 512, 1024)
UPS = ("transpose", "bilinear", "upsample_conv")


class BNUNet(SegmentationModel):
    """U-Net with zero padding and batch normalization: any size in, the same size out.

    Args:
        up: "transpose" (2×2 transposed convolution), "bilinear" (corners aligned, no convolution) or
            "upsample_conv" (nearest ×2, then 3×3 convolution, norm and non-linearity).
        order: Order in each unit: "conv-bn-act" or "conv-act-bn".
        conv_bias: Whether the 3×3 convolutions have biases (batch norm makes them superfluous).
        concat: "skip-up" or "up-skip": which map comes first.
        width_factor: Divides the channels of the bottleneck and of the decoder's outputs (2 with bilinear
            up-sampling in common implementations).

    The other arguments are every network's: see `SegmentationModel`.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for H, W ≥ 16 at the default depth.

    Raises:
        ConfigError: Wrong arguments.

    Examples:
        >>> import torch
        >>> BNUNet(classes=11, encoder_channels=(8, 16, 32))(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 11, 37, 50])
    """

    plain_forward = True
    weight_layouts = BNUNET

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        hidden_act: HiddenAct = "relu",
        up: str = "transpose",
        order: str = "conv-bn-act",
        conv_bias: bool = False,
        align: str = "resize",
        concat: str = "skip-up",
        width_factor: int = 1,
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("up", up, UPS)
        one_of("width_factor", width_factor, (1, 2, 4))
        unit = {"hidden_act": hidden_act, "order": order, "bias": conv_bias}
        skips = widths(encoder_channels)
        channels = (*skips[:-1], skips[-1] // width_factor)
        decoded = (skips[0], *(c // width_factor for c in skips[1:-1]), channels[-1])
        self.encoder = Encoder(in_channels, channels, lambda i, o, _: DoubleConv(i, o, **unit))
        levels = range(len(skips) - 2, -1, -1)
        self.decoder = Decoder(
            [up_sampling(up, decoded[level + 1], skips[level], unit) for level in levels],
            [
                DoubleConv(
                    skips[level] + (decoded[level + 1] if up == "bilinear" else skips[level]),
                    decoded[level],
                    mid_channels=skips[level],
                    **unit,
                )
                for level in levels
            ],
            align,
            concat,
        )
        self.segmentation_head = segmentation_head(skips[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "bnunet"
        self.geometry = geometry(len(levels), up)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """Encoder, decoder over its skips, 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        x = self.decoder([*skips, coarsest])
        return self.with_labels(self.segmentation_head(x), coarsest)


def up_sampling(up: str, in_channels: int, out_channels: int, unit: Mapping[str, Any]) -> nn.Module:
    """One of `UPS`."""
    if up == "transpose":
        return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
    if up == "upsample_conv":
        return UpsampleConv(in_channels, out_channels, **unit)
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


def geometry(depth: int, up: str) -> Geometry:
    """Sizes and reach; bilinear weights with aligned corners depend on the image's size, so no window is exact."""
    reach = (1, 1) if up == "upsample_conv" else (0, 0)
    unbounded = {"halo": None, "receptive_field": None} if up == "bilinear" else {}
    return Geometry.of_unet(encoder=[2] * (depth + 1), decoder=[2] * depth, up=[reach] * depth, **unbounded)


def bn_encoder(in_channels: int = 3, depth: int = 5, output_stride: int = 32) -> Encoder:
    """The encoder `unetzoo-bn` of SMP's table."""
    return Encoder(in_channels, table_widths(WIDTHS, depth, output_stride), lambda i, o, _: DoubleConv(i, o))


BNUNet.card = Card(
    title="BN-UNet",
    paper="U-Net with batch normalization and zero padding (mainstream practice)",
    authors="after Ronneberger et al. (2015); Ioffe and Szegedy (2015)",
    year=2015,
    source="arXiv:1505.04597, arXiv:1502.03167",
    figure="Figure 1 of arXiv:1505.04597, padded",
    faithful="The levels, widths, poolings and concatenations of the U-Net paper.",
    deviations=(
        Deviation(
            paper="Valid convolutions; the output is smaller than the input.",
            ours="Zero padding; the output has the input's size.",
            reason="A mask for every pixel, without mirrored tiles.",
        ),
        Deviation(
            paper="No normalization; dropout at the end of the contracting path.",
            ours="Batch normalization after each 3×3 convolution, which then needs no bias; no dropout.",
            reason="Trains faster and at larger learning rates.",
        ),
        Deviation(
            paper="Sizes must be even at every pooling.",
            ours="Odd sizes are resized (or padded) to their skip.",
            reason="Any image size works.",
        ),
    ),
    facts=(
        parameters(31_037_633),
        parameters(31_037_698, classes=2),
        parameters(31_043_521, conv_bias=True),
        parameters(17_262_977, up="bilinear", width_factor=2),
        parameters(
            31_044_171,
            "Helen system",
            classes=11,
            conv_bias=True,
            hidden_act={"type": "leaky_relu", "negative_slope": 0.05},
        ),
        parameters(34_527_041, "LeeJunHyun U_Net", conv_bias=True, up="upsample_conv"),
        parameters(31_391_891, "Cityscapes system", classes=19, conv_bias=True, up="bilinear", order="conv-act-bn"),
        output_size(256, 256),
        output_size(101, 101),
        halo(94),
        halo(110, up="upsample_conv"),
        receptive_field(204),
    ),
)
