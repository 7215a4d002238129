"""U-Net as published: valid convolutions, cropped skips, no normalization.

Ronneberger, Fischer, Brox: *U-Net: Convolutional Networks for Biomedical Image Segmentation*, MICCAI 2015,
arXiv:1505.04597, figure 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import SegmentationModel, classification_head, segmentation_head
from .blocks import Decoder, Encoder, HiddenAct, JoinedLayers, crop_center, make_act, one_of, widths
from .card import Card, Deviation
from .facts import halo, init_std, layer_count, output_size, parameters, receptive_field
from .geometry import Geometry


class UNet(SegmentationModel):
    """The network of the paper's figure 1: 572² in, 388² out.

    Args:
        padding: "valid" as published, or "same": the output has the input's size, which may be any.
        dropout: Probability of dropping an activation at the end of the contracting path.

    The other arguments are every network's: see `SegmentationModel`.

    Shape:
        (N, in_channels, H, W) → (N, classes, H − 184, W − 184) for H, W = 188 + 16k at the published depth;
        (N, classes, H, W) for H, W ≥ 16 with `padding="same"`.

    Raises:
        ConfigError: Wrong arguments.
        InputShapeError: From `forward`, with the nearest legal sizes.

    Examples:
        >>> import torch
        >>> net = UNet(in_channels=1, classes=2, encoder_channels=(4, 8, 16, 32, 64))
        >>> net(torch.zeros(1, 1, 188, 204)).shape
        torch.Size([1, 2, 4, 20])

    Deviations from the paper:
        See `UNet.card.deviations`.
    """

    plain_forward = True

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = (64, 128, 256, 512, 1024),
        padding: str = "valid",
        dropout: float = 0.5,
        hidden_act: HiddenAct = "relu",
        align: str = "resize",
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("padding", padding, ("valid", "same"))
        channels = widths(encoder_channels)
        depth = len(channels) - 1

        def convs(inputs: int, outputs: int, *tail: nn.Module) -> JoinedLayers:
            pad = 1 if padding == "same" else 0
            first, second = nn.Conv2d(inputs, outputs, 3, padding=pad), nn.Conv2d(outputs, outputs, 3, padding=pad)
            return JoinedLayers(first, make_act(hidden_act), second, make_act(hidden_act), *tail)

        def level_convs(inputs: int, outputs: int, level: int) -> nn.Module:
            return convs(inputs, outputs, *[nn.Dropout(dropout)] * (level >= depth - 1))

        self.encoder = Encoder(in_channels, channels, level_convs)
        upwards = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        ups = [nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in upwards]
        blocks = [convs(2 * fine, fine) for _, fine in upwards]
        self.decoder = Decoder(ups, blocks, align) if padding == "same" else CroppingDecoder(ups, blocks)
        self.segmentation_head = segmentation_head(channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "unet"
        self.geometry = same_geometry(depth) if padding == "same" else valid_geometry(depth)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """Contracting path, expanding path over its skips, 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        x = self.decoder([*skips, coarsest])
        return self.with_labels(self.segmentation_head(x), coarsest)


class CroppingDecoder(nn.Module):
    """The expanding path: crop the skip to the up-sampled map, concatenate, convolve."""

    def __init__(self, ups: Iterable[nn.Module], blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.ups, self.blocks = nn.ModuleList(ups), nn.ModuleList(blocks)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps of all levels, finest first → the finest decoded map."""
        x = features[-1]
        for up, block, skip in zip(self.ups, self.blocks, reversed(features[:-1]), strict=True):
            x = up(x)
            x = block(torch.cat([crop_center(skip, x.shape[-2:]), x], dim=1))
        return x


def valid_geometry(depth: int) -> Geometry:
    """Legal sizes of the valid network: every pooling meets an even size and every level keeps a pixel.

    With b pixels entering the bottleneck the input has 2^d·b + 4·(2^d − 1), since each level undoes a pooling and
    two convolutions; the output loses 12·2^d − 8.
    """
    same = same_geometry(depth)
    bottom = 5
    while not _leaves_pixels(bottom, depth):
        bottom += 1
    stride = 2**depth
    margin = 6 * stride - 4
    return Geometry(
        minimum=stride * bottom + 4 * (stride - 1),
        stride=stride,
        step=stride,
        margin=margin,
        halo=margin,
        receptive_field=same.receptive_field,
    )


def same_geometry(depth: int) -> Geometry:
    """Geometry of the padded network."""
    return Geometry.of_unet(encoder=[2] * (depth + 1), decoder=[2] * depth, up=[(0, 0)] * depth)


def _leaves_pixels(bottom: int, depth: int) -> bool:
    size = bottom - 4
    for _ in range(depth):
        size = 2 * size - 4
        if size < 1:
            return False
    return True


UNet.card = Card(
    title="U-Net",
    paper="U-Net: Convolutional Networks for Biomedical Image Segmentation",
    authors="Olaf Ronneberger, Philipp Fischer, Thomas Brox",
    year=2015,
    source="arXiv:1505.04597",
    figure="Figure 1",
    faithful="Every layer, size and width of figure 1; the initialization of section 3; dropout at the end of "
    "the contracting path.",
    deviations=(
        Deviation(
            paper="The paper does not state exactly where dropout is applied.",
            ours="After the 512 level (before pooling and skip) and after the 1024 level, p = 0.5.",
            reason="As in the authors' released network.",
        ),
        Deviation(
            paper="The paper does not mention biases.",
            ours="Convolutions have biases, which start at 0.",
            reason="As in the authors' released network.",
        ),
        Deviation(
            paper="The released network applies ReLU after each up-convolution and keeps 128 channels in the last "
            "one (31,100,354 parameters at 2 classes).",
            ours="No ReLU there; every up-convolution halves the channels (31,030,658 parameters).",
            reason="The paper's text and figure are followed where the release differs.",
        ),
        Deviation(
            paper="The soft-max is part of the energy function.",
            ours="The network returns logits.",
            reason="The loss applies the soft-max in a numerically stable form.",
        ),
    ),
    facts=(
        parameters(31_030_658, in_channels=1, classes=2),
        parameters(31_030_593, in_channels=1, classes=1),
        parameters(31_031_745, in_channels=3, classes=1),
        parameters(31_031_810, in_channels=3, classes=2),
        layer_count(23, in_channels=1, classes=2),
        output_size(572, 388, in_channels=1, classes=2),
        output_size(188, 4, in_channels=1, classes=2),
        output_size(512, 512, in_channels=1, classes=2, padding="same"),
        halo(92),
        halo(94, padding="same"),
        receptive_field(204),
        init_std("encoder.blocks.1.2", (2 / (9 * 128)) ** 0.5),
        init_std("decoder.ups.0", (2 / 1024) ** 0.5),
    ),
)
