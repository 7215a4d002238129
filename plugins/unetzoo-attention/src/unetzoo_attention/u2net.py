"""U²-Net: a U-Net whose every stage is a small residual U-Net, with six side outputs that are fused.

Qin, Zhang, Huang, Dehghan, Zaiane, Jagersand: *U²-Net: Going Deeper with Nested U-Structure for Salient Object
Detection*, Pattern Recognition 106 (2020), arXiv:2005.09007, figures 2 and 5. The authors' code is
github.com/xuebinqin/U-2-Net (`U2NET`, `U2NETP`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unetzoo.models import Card, Deviation, SegmentationModel, classification_head, segmentation_head

from .blocks import Encoder, resized, widths
from .facts import output_size, parameters
from .layouts import U2NET
from .rsu import RSU
from .supervision import supervised
from .u2reach import geometry

HEIGHTS = (7, 6, 5, 4, 4, 4)  # of the stages' units, finest first; the last two are dilated
DEVIATIONS = (
    Deviation(
        paper="A sigmoid on the fused map and on each side output.",
        ours="Logits.",
        reason='Losses and metrics apply it; activation="sigmoid" brings it back to the mask.',
    ),
    Deviation(
        paper="Seven outputs at all times.",
        ours="The fused mask; with deep_supervision=True in training mode `Supervised(mask, sides)`.",
        reason="Prediction needs only the mask.",
    ),
    Deviation(
        paper="One channel out, for salient objects.",
        ours="Any number of classes; side outputs are fused by one 1×1 convolution over all of them.",
        reason="Segmentation.",
    ),
    Deviation(
        paper="Weights drawn by Xavier's rule.",
        ours="By He's, N(0, √(2/N)), as all networks of the library.",
        reason="Every convolution is followed by a ReLU.",
    ),
)


class U2Net(SegmentationModel):
    """Six encoder and five decoder stages of residual U-blocks.

    Args:
        in_channels: Channels of the image.
        classes: Channels of the output.
        encoder_channels: Channels out of each of the six encoder stages, finest first.
        mid_channels: Channels inside them.
        decoder_mid_channels: Channels inside the five decoder stages, finest first; what comes out of them is as wide
            as the encoder stage above (the finest: as its own).
        deep_supervision: In training mode return `Supervised(mask, sides)`, for the loss `DeepSupervision`.
        activation: Of the mask, by SMP's names; side outputs stay logits.
        aux_params: Options of SMP's classification head.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for any H, W.

    Raises:
        ConfigError: Wrong arguments.

    Examples:
        >>> net = U2Net(encoder_channels=[4] * 6, mid_channels=[2] * 6, decoder_mid_channels=[2] * 5).eval()
        >>> net(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 1, 37, 50])
    """

    weight_layouts = U2NET

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = (64, 128, 256, 512, 512, 512),
        mid_channels: Sequence[int] = (32, 32, 64, 128, 256, 256),
        decoder_mid_channels: Sequence[int] = (16, 32, 64, 128, 256),
        deep_supervision: bool = False,
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        channels = widths("encoder_channels", encoder_channels, 6, 6)
        inner = widths("mid_channels", mid_channels, 6, 6)
        decoder_inner = widths("decoder_mid_channels", decoder_mid_channels, 5, 5)
        self.encoder = Encoder(
            in_channels, channels, lambda i, o, n: stage(n, i, inner[n], o), nn.MaxPool2d(2, ceil_mode=True)
        )
        self.segmentation_head = segmentation_head(6 * classes, classes, activation)
        self.decoder = SideDecoder(channels, decoder_inner, classes)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name, self.deep_supervision = in_channels, "u2net", deep_supervision
        self.geometry = geometry(HEIGHTS)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """Encoder and decoder of residual U-blocks; the side outputs, fused by a 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        sides = self.decoder([*skips, coarsest])
        mask = self.segmentation_head(torch.cat(sides, dim=1))
        deep = self.training and self.deep_supervision
        return self.with_labels(supervised(mask, sides) if deep else mask, coarsest)


class U2NetSmall(U2Net):
    """U²-Net†, the small one: every stage 64 channels wide, 16 inside.

    Arguments, shapes and errors are those of `U2Net`.

    Examples:
        >>> sum(p.numel() for p in U2NetSmall().parameters())
        1131181
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = (64, 64, 64, 64, 64, 64),
        mid_channels: Sequence[int] = (16, 16, 16, 16, 16, 16),
        decoder_mid_channels: Sequence[int] = (16, 16, 16, 16, 16),
        deep_supervision: bool = False,
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            classes,
            encoder_channels,
            mid_channels,
            decoder_mid_channels,
            deep_supervision,
            activation,
            aux_params,
        )
        self.name = "u2net-small"


class SideDecoder(nn.Module):
    """The decoder stages, and a 3×3 convolution to the classes on each of their maps and on the encoder's last.

    Args:
        channels: Of the encoder stages, finest first.
        inner: Channels inside the decoder stages, finest first.
        classes: Channels of each side output.
    """

    def __init__(self, channels: Sequence[int], inner: Sequence[int], classes: int) -> None:
        super().__init__()
        outputs = (channels[0], *channels[:4])
        inputs = [below + skip for below, skip in zip((*outputs[1:], channels[5]), channels[:5], strict=True)]
        self.stages = nn.ModuleList(stage(n, inputs[n], inner[n], outputs[n]) for n in range(5))
        self.sides = nn.ModuleList(nn.Conv2d(width, classes, 3, padding=1) for width in (*outputs, channels[5]))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps of the six stages, finest first → six side outputs of the image's size, finest first."""
        maps = [features[-1]]
        for unit, skip in zip(reversed(self.stages), reversed(features[:-1]), strict=True):
            maps.insert(0, unit(torch.cat([resized(maps[0], skip), skip], dim=1)))
        return [resized(side(x), maps[0]) for side, x in zip(self.sides, maps, strict=True)]


def stage(level: int, inputs: int, inner: int, outputs: int) -> RSU:
    """The unit of a level; below the fourth pooling nothing is left to pool, so they are dilated instead."""
    return RSU(HEIGHTS[level], inputs, inner, outputs, dilated=level > 3)


U2Net.card = Card(
    title="U²-Net",
    paper="U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection",
    authors="Xuebin Qin, Zichen Zhang, Chenyang Huang, Masood Dehghan, Osmar R. Zaiane, Martin Jagersand",
    year=2020,
    source="arXiv:2005.09007",
    figure="Figures 2 and 5",
    faithful="The authors' network, layer by layer; 176.3 MB in the paper.",
    deviations=DEVIATIONS,
    facts=(
        parameters(44_009_869, "the authors' U2NET, 44.0 M"),
        output_size(320),
        output_size(101),
    ),
)
U2NetSmall.card = replace(
    U2Net.card,
    title="U²-Net† (small)",
    figure="Figures 2 and 5; table 1 for its widths",
    faithful="The authors' network, layer by layer; 4.7 MB in the paper.",
    facts=(parameters(1_131_181, "the authors' U2NETP, 1.13 M"), *U2Net.card.facts[1:]),
)
