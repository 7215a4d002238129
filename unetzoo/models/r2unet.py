"""R2U-Net: recurrent residual units on the U-Net.

Alom, Hasan, Yakopcic, Taha, Asari: *Recurrent Residual Convolutional Neural Network based on U-Net (R2U-Net) for
Medical Image Segmentation*, arXiv:1802.06955, figures 2–4. The recurrent convolution is Liang and Hu's (CVPR 2015):
O(t) = w_f·x + w_r·O(t−1) + b, with the same weights at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from .base import SegmentationModel, classification_head, segmentation_head
from .blocks import (
    ConvUnit,
    Decoder,
    Encoder,
    HiddenAct,
    Recurrent,
    UpsampleConv,
    join,
    make_act,
    one_of,
    table_widths,
    widths,
)
from .card import Card, Deviation
from .cityscapes_r2unet import Cityscapes
from .facts import applications, halo, output_size, parameters
from .geometry import Geometry
from .layouts import R2UNET

WIDTHS = (64, 128, 256, 512, 1024)


class RecurrentConv(nn.Module):
    """Equation 1: O(t) = act(w_f·x + w_r·O(t−1) + b); w_f·x is computed once."""

    def __init__(self, in_channels: int, out_channels: int, steps: int, hidden_act: HiddenAct) -> None:
        super().__init__()
        self.feed = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.recurrent = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.act, self.steps = make_act(hidden_act, inplace=False), steps

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        fed = self.feed(x)
        previous = self.act(fed)
        for _ in range(self.steps):
            previous = self.act(fed + self.recurrent(previous))
        return previous


class RecurrentResidualUnit(nn.Module):
    """Figure 4 (d): two recurrent layers, and x added to their output; a 1×1 convolution brings x to its width."""

    def __init__(self, in_channels: int, out_channels: int, t: int, hidden_act: HiddenAct) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, out_channels, 1)
        self.layers = nn.Sequential(
            RecurrentConv(in_channels, out_channels, t, hidden_act),
            RecurrentConv(out_channels, out_channels, t, hidden_act),
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """(N, in, H, W), in one map or several → (N, out, H, W)."""
        x = join(maps)
        return self.mix(x) + self.layers(x)


class R2UNet(SegmentationModel):
    """U-Net whose units are recurrent and residual.

    Args:
        t: Recurrent steps; a layer computes t + 1 times ("cityscapes": t times).
        variant: "shared", the common implementation: one convolution with its batch norm serves x and every step,
            units start with a 1×1 convolution; "stepwise", the same with a batch norm for each step, which evaluates as
            it trains (see the deviations); "paper", the equation itself with separate w_f and w_r and no norm;
            "cityscapes", the Cityscapes system's: no norm, t applications, skips added after the unit.

    The other arguments are every network's: see `SegmentationModel`.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for H, W ≥ 16 at the default depth.

    Raises:
        ConfigError: Wrong arguments.

    Examples:
        >>> import torch
        >>> R2UNet(classes=19, encoder_channels=(8, 16, 32))(torch.zeros(1, 3, 32, 33)).shape
        torch.Size([1, 19, 32, 33])
    """

    plain_forward = True
    weight_layouts = R2UNET

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        t: int = 2,
        variant: str = "shared",
        hidden_act: HiddenAct = "relu",
        align: str = "resize",
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("variant", variant, tuple(VARIANTS))
        if not isinstance(t, int) or t < 1:
            raise ConfigError("wrong t", expected="an integer ≥ 1", found=t)
        channels = widths(encoder_channels)
        self.parts = VARIANTS[variant](t, hidden_act)
        self.encoder = Encoder(in_channels, channels, lambda i, o, _: self.parts.unit(i, o))
        self.decoder = self.parts.decoder(list(zip(channels[:0:-1], channels[-2::-1], strict=True)), align)
        self.segmentation_head = segmentation_head(channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "r2unet"
        self.geometry = self.parts.geometry(len(channels) - 1)
        self.initialize()

    def initialize(self) -> None:
        """N(0, √(2/N)) as in the U-Net paper, with N counting both kernels that feed a unit of equation 1."""
        if not self.parts.draws_weights:
            return
        super().initialize()
        for layer in self.modules():
            if isinstance(layer, RecurrentConv):
                nodes = 9 * (layer.feed.in_channels + layer.recurrent.in_channels)
                for kernel in (layer.feed.weight, layer.recurrent.weight):
                    nn.init.normal_(kernel, 0.0, (2.0 / nodes) ** 0.5)

    def forward(self, x: Tensor) -> Any:
        """Figure 2: encoder and decoder of recurrent residual units, skips concatenated, 1×1 convolution."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        x = self.decoder([*skips, coarsest])
        return self.with_labels(self.segmentation_head(x), coarsest)


class Paper:
    """The paper's parts: separate w_f and w_r, no norm.

    Args:
        t: Recurrent steps.
        hidden_act: Non-linearity.
    """

    draws_weights = True

    def __init__(self, t: int, hidden_act: HiddenAct) -> None:
        self.t, self.hidden_act = t, hidden_act

    def unit(self, in_channels: int, out_channels: int) -> nn.Module:
        """The unit of a level."""
        return RecurrentResidualUnit(in_channels, out_channels, self.t, self.hidden_act)

    def up_sampling(self, in_channels: int, out_channels: int) -> nn.Module:
        """Nearest ×2 and a 3×3 convolution."""
        nearest = nn.Upsample(scale_factor=2, mode="nearest")
        return nn.Sequential(nearest, nn.Conv2d(in_channels, out_channels, 3, padding=1))

    def decoder(self, upwards: Sequence[tuple[int, int]], align: str) -> Decoder:
        """The decoder for (coarse, fine) widths, coarsest first."""
        ups = [self.up_sampling(coarse, fine) for coarse, fine in upwards]
        return Decoder(ups, [self.unit(2 * fine, fine) for _, fine in upwards], align)

    def geometry(self, depth: int) -> Geometry:
        """Sizes and reach: a unit reaches a pixel for each application of its two layers."""
        reach = 2 * (self.t + 1)
        return Geometry.of_unet(encoder=[reach] * (depth + 1), decoder=[reach] * depth, up=[(1, 1)] * depth)


# ------------------------------------------------------------------------------------ the common implementation's parts


class SharedUnit(nn.Module):
    """The common implementation's unit: 1×1 convolution, two recurrent layers, residual sum."""

    def __init__(self, in_channels: int, out_channels: int, t: int, hidden_act: HiddenAct) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.layers = nn.Sequential(*(self.layer(out_channels, t, hidden_act) for _ in range(2)))

    def layer(self, channels: int, t: int, hidden_act: HiddenAct) -> nn.Module:
        """One recurrent layer."""
        return Recurrent(ConvUnit(channels, channels, hidden_act=hidden_act, bias=True), t)

    def forward(self, *maps: Tensor) -> Tensor:
        """(N, in, H, W), in one map or several → (N, out, H, W)."""
        x = self.project(join(maps))
        return x + self.layers(x)


class Shared(Paper):
    """The common implementation: one convolution with its batch norm for x and every step; norms in up-sampling."""

    def unit(self, in_channels: int, out_channels: int) -> nn.Module:
        """The unit of a level."""
        return SharedUnit(in_channels, out_channels, self.t, self.hidden_act)

    def up_sampling(self, in_channels: int, out_channels: int) -> nn.Module:
        """Nearest ×2 and a 3×3 convolution with norm and non-linearity."""
        return UpsampleConv(in_channels, out_channels, hidden_act=self.hidden_act, bias=True)


class StepwiseRecurrent(nn.Module):
    """As `Recurrent`, with one convolution for every step and a norm for each."""

    def __init__(self, channels: int, steps: int, hidden_act: HiddenAct) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(steps + 1))
        self.act = make_act(hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, after as many applications as norms."""
        first, *others = self.norms
        previous = self.act(first(self.conv(x)))
        for norm in others:
            previous = self.act(norm(self.conv(x + previous)))
        return previous


class StepwiseUnit(SharedUnit):
    """The common implementation's unit with a batch norm for each step."""

    def layer(self, channels: int, t: int, hidden_act: HiddenAct) -> nn.Module:
        """One recurrent layer."""
        return StepwiseRecurrent(channels, t, hidden_act)


class Stepwise(Shared):
    """The common implementation with a batch norm for each step."""

    def unit(self, in_channels: int, out_channels: int) -> nn.Module:
        """The unit of a level."""
        return StepwiseUnit(in_channels, out_channels, self.t, self.hidden_act)


VARIANTS: dict[str, Any] = {"shared": Shared, "stepwise": Stepwise, "paper": Paper, "cityscapes": Cityscapes}


def r2_encoder(in_channels: int = 3, depth: int = 5, output_stride: int = 32) -> Encoder:
    """The encoder `unetzoo-r2` of SMP's table (t = 2, the common implementation's units)."""
    channels = table_widths(WIDTHS, depth, output_stride)
    return Encoder(in_channels, channels, lambda i, o, _: SharedUnit(i, o, 2, "relu"))


R2UNet.card = Card(
    title="R2U-Net",
    paper="Recurrent Residual Convolutional Neural Network based on U-Net (R2U-Net) for Medical Image Segmentation",
    authors="Md Zahangir Alom, Mahmudul Hasan, Chris Yakopcic, Tarek M. Taha, Vijayan K. Asari",
    year=2018,
    source="arXiv:1802.06955",
    figure="Figures 2–4",
    faithful="Two recurrent convolution layers in a residual unit at every level, weights shared over the steps, "
    'concatenated skips; variant="paper" computes equation 1 with separate w_f and w_r.',
    deviations=(
        Deviation(
            paper="O(t) = w_f·x + w_r·O(t−1) + b with two kernels.",
            ours='One kernel for both, f(x + O(t−1)) (variant="shared", the default).',
            reason="The common implementation, which published comparisons and weights use.",
        ),
        Deviation(
            paper="No batch normalization in the equations.",
            ours="Batch norm after each convolution, shared over the steps (default variant).",
            reason="The common implementation; the recurrence is hard to train without.",
        ),
        Deviation(
            paper="No word on the statistics of a norm that serves several steps.",
            ours="One norm's running statistics mix all steps (default variant), while training normalizes each "
            'step by its own: scores in evaluation fall behind the training loss. variant="stepwise" keeps a norm '
            "for each step.",
            reason="The default loads published weights and reproduces their outputs; "
            "one norm per step is Cooijmans et al.'s remedy (arXiv:1603.09025).",
        ),
        Deviation(
            paper="The residual adds x, whose channels differ from F(x)'s where the width changes.",
            ours="A 1×1 convolution with bias brings x to the unit's width.",
            reason="The sum needs equal widths; the common implementation does so at every unit.",
        ),
        Deviation(
            paper="About 1.04 M parameters for widths 16–128, by the paper's own count.",
            ours='1,046,529 (variant="paper", 1 channel in, 1 class).',
            reason="The paper does not specify the layers exactly enough to reproduce its count.",
        ),
    ),
    facts=(
        parameters(39_092_563, classes=19),
        parameters(39_091_393),
        parameters(39_091_458, classes=2),
        parameters(39_116_115, variant="stepwise", classes=19),
        parameters(49_526_163, variant="cityscapes", classes=19),
        parameters(
            1_046_529, "paper's small network", variant="paper", in_channels=1, encoder_channels=(16, 32, 64, 128)
        ),
        applications("encoder.blocks.0.layers.0.conv", 3),
        applications("encoder.blocks.0.layers.0.recurrent", 2, variant="paper"),
        applications("encoder.blocks.0.layers.0.conv", 2, variant="cityscapes"),
        output_size(256, 256, classes=19),
        output_size(101, 101),
        halo(298),
    ),
)
