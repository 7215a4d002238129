"""DDU-Net: a U-Net with three poolings and dilated convolutions at its coarse levels.

Self-designed in the Cityscapes comparison of U-Net, R2U-Net and DDU-Net; there is no paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .base import SegmentationModel, classification_head, segmentation_head
from .blocks import Decoder, DoubleConv, Encoder, HiddenAct, one_of, table_widths, widths
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
            and repaired by up-convolutions of stride 3; its sizes fit only at 256×256.

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

    plain_forward = True
    weight_layouts = DDUNET

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        variant: str = "padded",
        hidden_act: HiddenAct = "relu",
        align: str = "resize",
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("variant", variant, tuple(VARIANTS))
        channels = widths(encoder_channels)
        depth = len(channels) - 1
        parts = VARIANTS[variant](depth, hidden_act)
        self.encoder = encoder(in_channels, channels, parts)
        levels = range(depth - 1, -1, -1)
        self.decoder = Decoder(
            [parts.up_convolution(channels[level + 1], level) for level in levels],
            [
                parts.unit(channels[level + 1] + channels[level], channels[level], level == depth - 1)
                for level in levels
            ],
            align,
            concat="up-skip",
        )
        self.segmentation_head = segmentation_head(channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "ddunet"
        self.geometry = parts.geometry()
        self.initialize()

    def initialize(self) -> None:
        """Kaiming-normal convolutions and transposed convolutions (PyTorch's fan-in), biases 0, as in the original."""
        super().initialize()
        for layer in [*self.encoder.modules(), *self.decoder.modules(), *self.segmentation_head.modules()]:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Any:
        """Encoder, decoder over its skips, 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        x = self.decoder([*skips, coarsest])
        return self.with_labels(self.segmentation_head(x), coarsest)


class Padded:
    """Padding equal to the dilation, and up-convolutions of stride 2: any size.

    Args:
        depth: Number of poolings.
        hidden_act: Non-linearity of the units.
    """

    def __init__(self, depth: int, hidden_act: HiddenAct) -> None:
        self.depth, self.hidden_act = depth, hidden_act

    def unit(self, in_channels: int, out_channels: int, dilated: bool) -> DoubleConv:
        """Twice: 3×3 convolution (bias) → non-linearity → batch norm."""
        dilation = DILATION if dilated else 1
        options: dict[str, Any] = {"hidden_act": self.hidden_act, "order": "conv-act-bn", "bias": True}
        return DoubleConv(in_channels, out_channels, dilation=dilation, padding=self.padding(dilation), **options)

    def padding(self, dilation: int) -> int:
        """Of a convolution with this dilation."""
        return dilation

    def up_convolution(self, channels: int, level: int) -> nn.ConvTranspose2d:
        """Kernel 3 at the two coarsest levels, kernel 2 below; the channels stay."""
        if level < self.depth - 2:
            return nn.ConvTranspose2d(channels, channels, 2, stride=2)
        return nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)

    def geometry(self) -> Geometry:
        """Sizes and reach."""
        coarse, fine = 2 * DILATION, 2
        return Geometry.of_unet(
            encoder=[fine] * (self.depth - 1) + [coarse] * 2,
            decoder=[fine] * (self.depth - 1) + [coarse],
            up=[(0, 0)] * (self.depth - 2) + [(0, 1)] * 2,
        )


class Original(Padded):
    """The printed network: padding 1 everywhere, repaired by up-convolutions of stride 3; only for 256×256."""

    def __init__(self, depth: int, hidden_act: HiddenAct) -> None:
        one_of("depth of the original", depth, (3,))
        super().__init__(depth, hidden_act)

    def padding(self, dilation: int) -> int:
        """Of a convolution with this dilation."""
        return 1

    def up_convolution(self, channels: int, level: int) -> nn.ConvTranspose2d:
        """Kernel and stride 3 at the two coarsest levels, kernel and stride 2 below."""
        if level < self.depth - 2:
            return super().up_convolution(channels, level)
        return nn.ConvTranspose2d(channels, channels, 3, stride=3, padding=2 if level == self.depth - 1 else 8)

    def geometry(self) -> Geometry:
        """One size, of which no window is exact."""
        return Geometry(minimum=256, maximum=256, stride=256)


VARIANTS: dict[str, type[Padded]] = {"padded": Padded, "original": Original}


def encoder(in_channels: int, channels: Sequence[int], parts: Padded) -> Encoder:
    """The contracting path: the last two levels dilated."""
    return Encoder(in_channels, channels, lambda i, o, level: parts.unit(i, o, level >= len(channels) - 2))


def dd_encoder(in_channels: int = 3, depth: int = 5, output_stride: int = 32) -> Encoder:
    """The encoder `unetzoo-dd` of SMP's table."""
    return encoder(in_channels, table_widths(WIDTHS, depth, output_stride), Padded(depth, "relu"))


DDUNet.card = Card(
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
            "stride 3 compensate for it, only at 256×256.",
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
