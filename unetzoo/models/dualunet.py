"""DualUNet: mask and depth from one encoder and two full decoders.

For the EVA task: a foreground composed over a known background; the image and its background (6 channels) in, the
foreground's mask and the scene's depth out. There is no paper; `variant="original"` is that system's printed network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .base import MaskDepth, SegmentationModel, classification_head, segmentation_head
from .blocks import DoubleConv, Encoder, HiddenAct, crop_center, one_of, widths
from .card import Card, Deviation
from .encoders import DECODER, foreign_encoder, plain_decoder
from .facts import halo, output_size, parameters, receptive_field
from .geometry import Geometry

WIDTHS = (64, 128, 256, 512, 1024)


class DualUNet(SegmentationModel):
    """Two-headed U-Net: `MaskDepth(mask, depth)`.

    Args:
        in_channels: Channels of the input: 6 for image and background, 3 for only the image.
        encoder_channels: Channels of each level, finest first (default 64…1024); excludes `encoder_name`.
        encoder_name: An encoder of SMP's table, or `tu-<timm name>`; excludes `encoder_channels`.
        encoder_depth: Poolings of that encoder.
        encoder_weights: Its pre-trained weights; None downloads nothing.
        decoder_channels: Output channels of the decoder levels, coarsest first.
        out_stride: 1, or 2 for heads at half the input's size.
        variant: "dual", or "original": the printed single-headed network (only the mask, 192 → 66).

    The other arguments are every network's: see `SegmentationModel`.

    Shape:
        (N, in_channels, H, W) → mask (N, classes, H/s, W/s) and depth (N, 1, H/s, W/s) in (0, 1), s = `out_stride`;
        the original: (N, classes, H − 126, W − 126) for H, W = 128 + 16k.

    Raises:
        ConfigError: Wrong or contradicting arguments; an encoder without a usable pyramid.

    Examples:
        >>> import torch
        >>> mask, depth = DualUNet(encoder_channels=(8, 16, 32))(torch.zeros(1, 6, 48, 50))
        >>> mask.shape, depth.shape
        (torch.Size([1, 1, 48, 50]), torch.Size([1, 1, 48, 50]))
    """

    plain_forward = True

    def __init__(
        self,
        in_channels: int = 6,
        classes: int = 1,
        encoder_channels: Sequence[int] | None = None,
        encoder_name: str | None = None,
        encoder_depth: int = 5,
        encoder_weights: str | None = None,
        decoder_channels: Sequence[int] | None = None,
        out_stride: int = 1,
        variant: str = "dual",
        hidden_act: HiddenAct = "relu",
        align: str = "resize",
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("variant", variant, tuple(VARIANTS))
        one_of("out_stride", out_stride, (1, 2))
        if encoder_name is not None and (encoder_channels is not None or variant == "original"):
            raise ConfigError(
                "contradicting arguments",
                subject="encoder_name and "
                + ("variant='original'" if encoder_channels is None else "encoder_channels"),
                hint="give one of them: encoder_name takes a ready encoder, encoder_channels builds our own",
            )
        if variant == "original" and (out_stride != 1 or decoder_channels is not None):
            raise ConfigError(
                "contradicting arguments",
                subject="variant='original'",
                expected="out_stride=1 and no decoder_channels",
                hint="the printed network has neither",
            )
        self.in_channels, self.name = in_channels, "dualunet"
        self.parts = VARIANTS[variant](hidden_act, align, out_stride)
        if encoder_name is not None:
            self.encoder = foreign_encoder(encoder_name, in_channels, encoder_depth, encoder_weights)
            decoded = tuple(decoder_channels or DECODER[:encoder_depth])
            self.geometry = Geometry(minimum=2**encoder_depth, stride=2**encoder_depth, out_stride=out_stride)
        else:
            own = widths(encoder_channels or WIDTHS)
            self.encoder = self.parts.encoder(in_channels, own)
            decoded = tuple(decoder_channels or own[-2::-1])
            self.geometry = self.parts.geometry(len(own) - 1)
        encoded = self.encoder.out_channels
        if len(decoded) != len(encoded) - 1:
            raise ConfigError("wrong decoder_channels", expected=f"{len(encoded) - 1} widths", found=list(decoded))
        self.decoder = self.parts.decoder(encoded, decoded)
        self.segmentation_head = self.parts.segmentation_head(self.decoder.out_channels, classes, activation)
        self.classification_head = classification_head(encoded[-1], aux_params)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """One encoder, two decoders over its skips, two heads."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        decoded = self.decoder([*skips, coarsest])
        return self.with_labels(self.parts.heads(self.segmentation_head, decoded), coarsest)


class Dual:
    """The parts of the network: a plain padded encoder, two decoders, a head for each.

    Args:
        hidden_act: Non-linearity of the units.
        align: How an up-sampled map is matched to a skip of odd size.
        out_stride: 1, or 2 for decoders that end at half the input's size.
    """

    bottom_padding = 1

    def __init__(self, hidden_act: HiddenAct, align: str, out_stride: int) -> None:
        self.hidden_act, self.align, self.out_stride = hidden_act, align, out_stride

    def encoder(self, in_channels: int, channels: Sequence[int]) -> Encoder:
        """Two convolution–norm–activation units per level."""

        def block(inputs: int, outputs: int, level: int) -> nn.Module:
            padding = self.bottom_padding if level == len(channels) - 1 else 1
            return DoubleConv(inputs, outputs, hidden_act=self.hidden_act, padding=padding)

        return Encoder(in_channels, channels, block)

    def decoder(self, encoded: Sequence[int], decoded: Sequence[int]) -> nn.Module:
        """Both decoders, of the given widths, coarsest first."""
        return TwoDecoders(encoded, decoded, self.out_stride, self.hidden_act, self.align)

    def segmentation_head(self, in_channels: int, classes: int, activation: str | None) -> nn.Sequential:
        """The mask's head: a 1×1 convolution."""
        return segmentation_head(in_channels, classes, activation)

    def heads(self, segmentation_head: nn.Module, decoded: Any) -> Any:
        """The output of `forward`: the mask from its features, and the depth."""
        features, depth = decoded
        return MaskDepth(segmentation_head(features), depth)

    def geometry(self, depth: int) -> Geometry:
        """Sizes and reach of the plain encoder with its decoders."""
        convolutions = [2] * depth
        return Geometry.of_unet(
            encoder=[*convolutions, 2], decoder=convolutions, up=[(0, 0)] * depth, out_stride=self.out_stride
        )


class TwoDecoders(nn.Module):
    """Two full decoders over the same features; the depth's ends in its head (3×3 convolution, sigmoid)."""

    def __init__(
        self, encoded: Sequence[int], decoded: Sequence[int], out_stride: int, hidden_act: HiddenAct, align: str
    ) -> None:
        super().__init__()
        self.levels = len(decoded) - (out_stride == 2)
        self.out_channels = decoded[self.levels - 1]
        self.mask, self.depth = (plain_decoder(encoded, decoded[: self.levels], hidden_act, align) for _ in range(2))
        self.depth_head = nn.Sequential(nn.Conv2d(self.out_channels, 1, 1), nn.Sigmoid())

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps of all levels, finest first → (mask features, depth)."""
        used = features[-self.levels - 1 :]
        return self.mask(used), self.depth_head(self.depth(used))


# --------------------------------------------------------------------------------------- the printed network's parts


class Original(Dual):
    """The printed network: one decoder of valid convolutions, and a head that ends in a ReLU."""

    bottom_padding = 0

    def decoder(self, encoded: Sequence[int], decoded: Sequence[int]) -> nn.Module:
        """The printed way up."""
        return OriginalDecoder(encoded, self.hidden_act)

    def segmentation_head(self, in_channels: int, classes: int, activation: str | None) -> nn.Sequential:
        """Valid 3×3 convolution, batch norm and the ReLU that keeps the logits ≥ 0."""
        output = segmentation_head(in_channels, classes, activation)[1]
        conv = nn.Conv2d(in_channels, classes, 3, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(classes), nn.ReLU(), output)

    def heads(self, segmentation_head: nn.Module, decoded: Any) -> Any:
        """The output of `forward`: only the mask."""
        return segmentation_head(decoded)

    def geometry(self, depth: int) -> Geometry:
        """Legal sizes are multiples of 2^depth; the output is 126 smaller at the printed depth.

        The bottleneck and each decoder level lose 4 pixels of their own size, the last convolution 2 pixels.
        """
        stride = 2**depth
        lost = 4 * (2 * stride - 1) + 2
        size = stride * 5
        while not _original_fits(size // stride, depth):
            size += stride
        # the encoder pads, so a window's border reaches further in than the margin
        reach = Geometry.of_unet(encoder=[2] * (depth + 1), decoder=[3] + [2] * (depth - 1), up=[(0, 1)] * depth)
        return Geometry(minimum=size, stride=stride, step=stride, margin=lost // 2, halo=reach.halo)


class OriginalDecoder(nn.Module):
    """Transposed convolution k3 s2, crop the skip, concatenate, two valid convolutions."""

    def __init__(self, channels: Sequence[int], hidden_act: HiddenAct) -> None:
        super().__init__()
        self.out_channels = channels[0]
        upwards = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 3, stride=2, padding=1, output_padding=1, bias=False)
            for coarse, fine in upwards
        )
        self.blocks = nn.ModuleList(DoubleConv(2 * fine, fine, hidden_act=hidden_act, padding=0) for _, fine in upwards)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of all levels, finest first → the finest decoded map."""
        x = features[-1]
        for up, block, skip in zip(self.ups, self.blocks, reversed(features[:-1]), strict=True):
            x = up(x)
            x = block(torch.cat([x, crop_center(skip, x.shape[-2:])], dim=1))
        return x


def _original_fits(bottom: int, depth: int) -> bool:
    size = bottom - 4
    for _ in range(depth):
        size = 2 * size - 4
        if size < 1:
            return False
    return size > 2


VARIANTS = {"dual": Dual, "original": Original}


DualUNet.card = Card(
    title="DualUNet",
    paper="none: mask and depth of composites, from the EVA course's task",
    authors="the authors of that system",
    year=2020,
    source="its code",
    figure="none",
    faithful='variant="original" is the printed network, layer by layer.',
    deviations=(
        Deviation(
            paper="One head; its last layer is convolution → batch norm → ReLU.",
            ours="Raw logits for the mask, a sigmoid for the depth, each from its own full decoder.",
            reason="After a ReLU every logit is ≥ 0, so no pixel is ever below probability 0.5; the defect stays "
            'in variant="original" only. Sharing the decoder and splitting the last layers did not help.',
        ),
        Deviation(
            paper="Valid convolutions in the decoder: 192 → 66.",
            ours="Padded convolutions: each head has the input's size (or half of it, `out_stride=2`).",
            reason="A value for every pixel.",
        ),
    ),
    facts=(
        parameters(34_520_514, "the printed network", variant="original"),
        output_size(192, 66, variant="original"),
        output_size(224, 98, variant="original"),
        output_size(192, 192),
        output_size(192, 96, out_stride=2),
        halo(94),
        receptive_field(204),
    ),
)
