"""R2 Attention U-Net: recurrent residual units and attention gates.

There is no paper of it. LeeJunHyun's `R2AttU_Net` (github.com/LeeJunHyun/Image_Segmentation) puts together R2U-Net
(Alom et al., arXiv:1802.06955) and Attention U-Net (Oktay et al., arXiv:1804.03999).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from unetzoo.errors import ConfigError
from unetzoo.models import Card, Deviation, Geometry, SegmentationModel, classification_head, segmentation_head

from .blocks import ConvUnit, Encoder, UpConv, widths
from .facts import output_size, parameters
from .gates import AttentionDecoder, Gate
from .layouts import R2ATTENTION

WIDTHS = (64, 128, 256, 512, 1024)


class R2AttentionUNet(SegmentationModel):
    """U-Net of recurrent residual units whose skips pass attention gates.

    Args:
        in_channels: Channels of the image.
        classes: Channels of the output.
        encoder_channels: Channels of each level, finest first; their number − 1 is the number of poolings.
        t: Recurrent steps; a layer computes t + 1 times.
        activation: Of the output, by SMP's names.
        aux_params: Options of SMP's classification head.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for H, W ≥ 16 at the default depth.

    Raises:
        ConfigError: Wrong arguments.

    Examples:
        >>> import torch
        >>> R2AttentionUNet(encoder_channels=(4, 8, 16), t=1)(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 1, 37, 50])
    """

    weight_layouts = R2ATTENTION

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        t: int = 2,
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(t, bool) or not isinstance(t, int) or t < 1:
            raise ConfigError("wrong t", expected="an integer ≥ 1", found=t)
        channels = widths("encoder_channels", encoder_channels)
        upwards = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.encoder = Encoder(in_channels, channels, lambda i, o, _: RecurrentUnit(i, o, t), nn.MaxPool2d(2))
        self.decoder = AttentionDecoder(
            [UpConv(coarse, fine) for coarse, fine in upwards],
            [Gate(fine) for _, fine in upwards],
            [RecurrentUnit(2 * fine, fine, t) for _, fine in upwards],
        )
        self.segmentation_head = segmentation_head(channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "r2attention-unet"
        depth, reach = len(upwards), 2 * (t + 1)
        self.geometry = Geometry.of_unet(encoder=[reach] * (depth + 1), decoder=[reach] * depth, up=[(1, 1)] * depth)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """Recurrent residual encoder, decoder over its gated skips, 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        x = self.decoder([*skips, coarsest])
        return self.with_labels(self.segmentation_head(x), coarsest)


class Recurrent(nn.Module):
    """f(x), then `steps` times f(x + previous), with one f."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.unit, self.steps = ConvUnit(channels, channels), steps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        previous = self.unit(x)
        for _ in range(self.steps):
            previous = self.unit(x + previous)
        return previous


class RecurrentUnit(nn.Module):
    """1×1 convolution, then two recurrent layers and a residual sum."""

    def __init__(self, inputs: int, outputs: int, t: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, outputs, 1)
        self.layers = nn.Sequential(Recurrent(outputs, t), Recurrent(outputs, t))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H, W)."""
        x = self.project(x)
        return x + self.layers(x)


R2AttentionUNet.card = Card(
    title="R2 Attention U-Net",
    paper="none; R2U-Net (arXiv:1802.06955) with the gates of Attention U-Net (arXiv:1804.03999)",
    authors="LeeJunHyun",
    year=2018,
    source="github.com/LeeJunHyun/Image_Segmentation, R2AttU_Net",
    figure="none",
    faithful="The implementation, layer by layer.",
    deviations=(
        Deviation(
            paper="R2U-Net: O(t) = w_f·x + w_r·O(t−1) + b with two kernels, no batch norm.",
            ours="One convolution with its batch norm for x and every step, as in the implementation.",
            reason="It has no other definition; see unetzoo's `r2unet` for the equation itself.",
        ),
        Deviation(
            paper="Attention U-Net: gates on the coarser map's grid, none on the finest skip.",
            ours="Gates at each skip's own resolution, on every skip, as in the implementation.",
            reason="It has no other definition; see `attention-unet` for the paper's gates.",
        ),
        Deviation(
            paper="The implementation takes multiples of 16.",
            ours="Odd sizes are resized to their skip.",
            reason="Any image size works.",
        ),
    ),
    facts=(
        parameters(39_442_925, "LeeJunHyun R2AttU_Net"),
        output_size(256),
        output_size(101),
    ),
)
