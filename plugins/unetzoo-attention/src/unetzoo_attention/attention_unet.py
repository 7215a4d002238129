"""Attention U-Net: additive attention gates on the skips of a U-Net.

Oktay, Schlemper, Le Folgoc, Lee, Heinrich, Misawa, Mori, McDonagh, Hammerla, Kainz, Glocker, Rueckert: *Attention
U-Net: Learning Where to Look for the Pancreas*, arXiv:1804.03999, figures 1 and 2. The common two-dimensional
implementation is LeeJunHyun's `AttU_Net` (github.com/LeeJunHyun/Image_Segmentation).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from unetzoo.models import Card, Deviation, Geometry, SegmentationModel, classification_head, segmentation_head

from .blocks import DoubleConv, Encoder, UpConv, one_of, widths
from .facts import output_size, parameters
from .gates import AttentionDecoder, Gate, GridGate, Ungated
from .layouts import ATTENTION

WIDTHS = (64, 128, 256, 512, 1024)


class AttentionUNet(SegmentationModel):
    """U-Net whose skips pass attention gates.

    Args:
        in_channels: Channels of the image.
        classes: Channels of the output.
        encoder_channels: Channels of each level, finest first; their number − 1 is the number of poolings.
        gates: "common": LeeJunHyun's, on every skip, at its resolution, gated by the up-sampled map, with batch norm;
            "paper": equation 1, at the coarser map's resolution, on every skip but the finest.
        activation: Of the output, by SMP's names.
        aux_params: Options of SMP's classification head.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for H, W ≥ 16 at the default depth.

    Raises:
        ConfigError: Wrong arguments.

    Examples:
        >>> import torch
        >>> AttentionUNet(classes=4, encoder_channels=(4, 8, 16))(torch.zeros(1, 3, 37, 50)).shape
        torch.Size([1, 4, 37, 50])
    """

    weight_layouts = ATTENTION

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        gates: str = "common",
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("gates", gates, ("common", "paper"))
        channels = widths("encoder_channels", encoder_channels)
        upwards = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.encoder = Encoder(in_channels, channels, lambda i, o, _: DoubleConv(i, o), nn.MaxPool2d(2))
        self.decoder = AttentionDecoder(
            [UpConv(coarse, fine) for coarse, fine in upwards],
            [Gate(fine) for _, fine in upwards] if gates == "common" else grid_gates(upwards),
            [DoubleConv(2 * fine, fine) for _, fine in upwards],
        )
        self.segmentation_head = segmentation_head(channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "attention-unet"
        depth = len(upwards)
        self.geometry = Geometry.of_unet(encoder=[2] * (depth + 1), decoder=[2] * depth, up=[(1, 1)] * depth)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """Encoder, decoder over its gated skips, 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        x = self.decoder([*skips, coarsest])
        return self.with_labels(self.segmentation_head(x), coarsest)


def grid_gates(upwards: Sequence[tuple[int, int]]) -> list[nn.Module]:
    """The paper's gates for (coarse, fine) widths, coarsest first; the finest skip is not gated."""
    return [*(GridGate(fine, coarse) for coarse, fine in upwards[:-1]), Ungated()]


AttentionUNet.card = Card(
    title="Attention U-Net",
    paper="Attention U-Net: Learning Where to Look for the Pancreas",
    authors="Ozan Oktay, Jo Schlemper, Loïc Le Folgoc, Matthew Lee, Mattias Heinrich, Kazunari Misawa, "
    "Kensaku Mori, Steven McDonagh, Nils Y. Hammerla, Bernhard Kainz, Ben Glocker, Daniel Rueckert",
    year=2018,
    source="arXiv:1804.03999",
    figure="Figures 1 and 2",
    faithful="Additive gates with one attention coefficient per pixel on the skips of a U-Net; "
    'gates="paper" computes equation 1 on the gating signal\'s grid.',
    deviations=(
        Deviation(
            paper="Three-dimensional, for CT volumes.",
            ours="Two-dimensional, with the U-Net paper's widths 64…1024.",
            reason="Images; the common implementation.",
        ),
        Deviation(
            paper="Gates work on the coarser map's grid; the skip is brought to it, the coefficients back.",
            ours='The up-sampled map is the signal, at the resolution of the skip (gates="common", default).',
            reason="The common implementation, which published comparisons use.",
        ),
        Deviation(
            paper="No gate on the finest skip.",
            ours='A gate on every skip (gates="common").',
            reason="The common implementation.",
        ),
        Deviation(
            paper="No batch normalization inside gates.",
            ours='Batch norm after each of their three convolutions (gates="common").',
            reason="The common implementation.",
        ),
        Deviation(
            paper="Deep supervision at every level.",
            ours="One output.",
            reason="The common implementation; see UNet++ and U²-Net for deep supervision.",
        ),
    ),
    facts=(
        parameters(34_878_573, "LeeJunHyun AttU_Net"),
        parameters(34_879_743, "19 classes: 18·65 more", classes=19),
        output_size(256),
        output_size(101),
    ),
)
