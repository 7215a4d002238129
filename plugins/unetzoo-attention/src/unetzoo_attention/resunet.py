"""ResUNet (Deep ResUnet): a U-Net of pre-activation residual units with strided convolutions in the place of pooling.

Zhang, Liu, Wang: *Road Extraction by Deep Residual U-Net*, arXiv:1711.10684, figure 2 and table I.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from unetzoo.models import Card, Deviation, Geometry, SegmentationModel, classification_head, segmentation_head

from .blocks import Encoder, resized, widths
from .facts import output_size, parameters, weights_of
from .reach import Range, geometry_of

WIDTHS = (64, 128, 256, 512)


class ResUNet(SegmentationModel):
    """U-Net of residual units.

    Args:
        in_channels: Channels of the image.
        classes: Channels of the output.
        encoder_channels: Channels of each level, finest first, the last one being the bridge.
        activation: Of the output, by SMP's names.
        aux_params: Options of SMP's classification head.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for any H, W.

    Raises:
        ConfigError: Wrong arguments.

    Examples:
        >>> ResUNet(classes=4, encoder_channels=(4, 8, 16))(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 4, 37, 50])
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        channels = widths("encoder_channels", encoder_channels)
        self.encoder = Encoder(
            in_channels,
            channels,
            lambda i, o, level: ResidualUnit(i, o, stride=2 if level else 1, plain_start=level == 0),
        )
        self.decoder = ResidualDecoder(channels)
        self.segmentation_head = segmentation_head(channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "resunet"
        self.geometry = geometry(len(channels) - 1)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """Encoder, bridge and decoder of residual units, 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        x = self.decoder([*skips, coarsest])
        return self.with_labels(self.segmentation_head(x), coarsest)


class ResidualUnit(nn.Module):
    """Batch norm → ReLU → 3×3 convolution, twice, beside a 1×1 projection.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Of the first convolution and the projection.
        plain_start: Leave out the first batch norm and ReLU, before which there is only the image.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, plain_start: bool = False) -> None:
        super().__init__()
        start = [] if plain_start else [nn.BatchNorm2d(inputs), nn.ReLU()]
        self.layers = nn.Sequential(
            *start,
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.project = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return self.layers(x) + self.project(x)


class ResidualDecoder(nn.Module):
    """From the bridge upwards: nearest ×2, concatenate with the skip, residual unit."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        upwards = zip(channels[:0:-1], channels[-2::-1], strict=True)
        self.units = nn.ModuleList(ResidualUnit(coarse + fine, fine) for coarse, fine in upwards)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps of all levels, finest first → one map at the finest size."""
        x = features[-1]
        for unit, skip in zip(self.units, reversed(features[:-1]), strict=True):
            x = unit(torch.cat([resized(interpolate(x, scale_factor=2.0), skip), skip], dim=1))
        return x


def geometry(depth: int) -> Geometry:
    """Sizes and reach: two 3×3 convolutions a unit, of which the encoder's first have stride 2 below the top."""

    def needs(output: Range) -> Range:
        skips, x = [], output
        for _ in range(depth):
            x = x.widened(2)
            skips.append(x)
            x = x.nearest()
        for skip in reversed(skips):
            x = x.widened(1).strided().joined(skip)
        return x.widened(2)

    return geometry_of(needs, 2**depth)


ResUNet.card = Card(
    title="ResUNet",
    paper="Road Extraction by Deep Residual U-Net",
    authors="Zhengxin Zhang, Qingjie Liu, Yunhong Wang",
    year=2018,
    source="arXiv:1711.10684",
    figure="Figure 2 and table I",
    faithful="Three encoding units, a bridge and three decoding units of two 3×3 convolutions, each after batch "
    "norm and ReLU (the first of all straight on the image); strides instead of pooling.",
    deviations=(
        Deviation(
            paper="Identity mappings in every unit, though width or stride changes in each of them.",
            ours="1×1 convolutions, with the unit's stride, without bias or norm.",
            reason="The sum needs equal shapes; the paper's 7.8 M parameters are those without them.",
        ),
        Deviation(
            paper="The kind of up-sampling is not named.",
            ours="Nearest ×2, without weights.",
            reason="Table I gives it none, and none fit into 7.8 M.",
        ),
        Deviation(
            paper="Sizes are multiples of 8.",
            ours="Odd sizes are resized to their skip.",
            reason="Any image size works.",
        ),
        Deviation(
            paper="A sigmoid at the end.",
            ours="Logits.",
            reason='Losses and metrics apply it; activation="sigmoid" brings it back.',
        ),
    ),
    facts=(
        weights_of(3, 7_780_032, "7.8 M in the paper"),
        parameters(8_216_769, "7,780,032 + 430,272 for the 1×1 projections + batch norms and output"),
        output_size(224),
        output_size(101),
    ),
)
