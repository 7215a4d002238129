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
    Act,
    ConvUnit,
    Corners,
    Decoder,
    Encoder,
    UpsampleConv,
    hidden_act,
    join,
    one_of,
    table_widths,
    widths,
)
from .card import Card, Deviation
from .facts import applications, halo, output_size, parameters
from .geometry import Geometry
from .layouts import R2UNET

WIDTHS = (64, 128, 256, 512, 1024)


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

    card = Card(
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
                reason="The default loads published weights and gives their answers; "
                "one norm a step is Cooijmans et al.'s remedy (arXiv:1603.09025).",
            ),
            Deviation(
                paper="The residual adds x, whose channels differ from F(x)'s where the width changes.",
                ours="A 1×1 convolution with bias brings x to the unit's width.",
                reason="The sum needs equal widths; the common implementation does so at every unit.",
            ),
            Deviation(
                paper="About 1.04 M parameters for widths 16–128, by the paper's own count.",
                ours='1,046,529 (variant="paper", 1 channel in, 1 class).',
                reason="The paper does not give the layers exactly enough to reproduce its count.",
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
    weight_layouts = R2UNET

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        t: int = 2,
        variant: str = "shared",
        act: Act = "relu",
        align: str = "resize",
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("variant", variant, tuple(UNITS))
        if not isinstance(t, int) or t < 1:
            raise ConfigError("wrong t", expected="an integer ≥ 1", found=t)
        channels = widths(encoder_channels)
        unit = UNITS[variant]
        self.encoder = Encoder(in_channels, channels, lambda i, o, _: unit(i, o, t, act))
        upwards = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        if variant == "cityscapes":
            ups = [nn.ConvTranspose2d(coarse, coarse, 2, stride=2) for coarse, _ in upwards]
            self.decoder = AddingDecoder(ups, [unit(coarse, fine, t, act) for coarse, fine in upwards], align)
        else:
            ups = [up_sampling(variant, coarse, fine, act) for coarse, fine in upwards]
            self.decoder = Decoder(ups, [unit(2 * fine, fine, t, act) for _, fine in upwards], align)
        self.segmentation_head = segmentation_head(channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name = in_channels, "r2unet"
        self.geometry = geometry(len(upwards), t, variant)
        self.variant = variant
        self.initialize()

    def initialize(self) -> None:
        """N(0, √(2/N)) as in the U-Net paper, with N counting both kernels that feed a unit of equation 1.

        The Cityscapes variant keeps PyTorch's own, smaller weights, as its original does: without norm, its sums would
        grow from unit to unit.
        """
        if self.variant == "cityscapes":
            return
        super().initialize()
        for layer in self.modules():
            if isinstance(layer, PaperRecurrent):
                nodes = 9 * (layer.feed.in_channels + layer.recurrent.in_channels)
                for kernel in (layer.feed.weight, layer.recurrent.weight):
                    nn.init.normal_(kernel, 0.0, (2.0 / nodes) ** 0.5)


class Recurrent(nn.Module):
    """f(x), then f(x + previous) again and again: one convolution (with its norm) for every step."""

    def __init__(self, conv: nn.Module, steps: int) -> None:
        super().__init__()
        self.conv, self.steps = conv, steps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, after 1 + `steps` applications."""
        previous = self.conv(x)
        for _ in range(self.steps):
            previous = self.conv(x + previous)
        return previous


class StepwiseRecurrent(nn.Module):
    """As `Recurrent`, with one convolution for every step and a norm for each."""

    def __init__(self, channels: int, steps: int, act: Act) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(steps + 1))
        self.act = hidden_act(act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, after as many applications as norms."""
        first, *others = self.norms
        previous = self.act(first(self.conv(x)))
        for norm in others:
            previous = self.act(norm(self.conv(x + previous)))
        return previous


class PaperRecurrent(nn.Module):
    """Equation 1: w_f·x + w_r·O(t−1) + b, then the non-linearity; w_f·x is computed once."""

    def __init__(self, in_channels: int, out_channels: int, steps: int, act: Act) -> None:
        super().__init__()
        self.feed = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.recurrent = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.act, self.steps = hidden_act(act, inplace=False), steps

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        fed = self.feed(x)
        previous = self.act(fed)
        for _ in range(self.steps):
            previous = self.act(fed + self.recurrent(previous))
        return previous


class SharedUnit(nn.Module):
    """The common implementation's unit: 1×1 convolution, two recurrent layers, residual sum."""

    def __init__(self, in_channels: int, out_channels: int, t: int, act: Act) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.layers = nn.Sequential(*(self.layer(out_channels, t, act) for _ in range(2)))

    def layer(self, channels: int, t: int, act: Act) -> nn.Module:
        """One recurrent layer."""
        return Recurrent(ConvUnit(channels, channels, act=act, bias=True), t)

    def forward(self, *maps: Tensor) -> Tensor:
        """(N, in, H, W), in one map or several → (N, out, H, W)."""
        x = self.project(join(maps))
        return x + self.layers(x)


class StepwiseUnit(SharedUnit):
    """The same with a batch norm for each step."""

    def layer(self, channels: int, t: int, act: Act) -> nn.Module:
        """One recurrent layer."""
        return StepwiseRecurrent(channels, t, act)


class PaperUnit(nn.Module):
    """Two recurrent layers of equation 1 beside a 1×1 projection of x."""

    def __init__(self, in_channels: int, out_channels: int, t: int, act: Act) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, out_channels, 1)
        self.layers = nn.Sequential(
            PaperRecurrent(in_channels, out_channels, t, act), PaperRecurrent(out_channels, out_channels, t, act)
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """(N, in, H, W), in one map or several → (N, out, H, W)."""
        x = join(maps)
        return self.mix(x) + self.layers(x)


class CityscapesUnit(nn.Module):
    """The Cityscapes system's unit: 3×3 convolution, non-linearity, two recurrent layers of t steps, residual sum."""

    def __init__(self, in_channels: int, out_channels: int, t: int, act: Act) -> None:
        super().__init__()

        def conv(inputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, out_channels, 3, padding=1), hidden_act(act))

        self.feed = conv(in_channels)
        self.layers = nn.Sequential(*(Recurrent(conv(out_channels), t - 1) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        x = self.feed(x)
        return x + self.layers(x)


UNITS = {"shared": SharedUnit, "stepwise": StepwiseUnit, "paper": PaperUnit, "cityscapes": CityscapesUnit}


class AddingDecoder(Decoder):
    """Up-sample, unit, then add the skip: the Cityscapes system's order."""

    def forward(self, features: list[Tensor], corners: Corners | None = None) -> Tensor:
        """As `Decoder`."""
        x = features[-1]
        for number, (block, skip) in enumerate(zip(self.blocks, features[-2::-1], strict=True)):
            x = block(self.raised(number, x, skip.shape[-2:], corners)) + skip
        return x


def up_sampling(variant: str, in_channels: int, out_channels: int, act: Act) -> nn.Module:
    """Nearest ×2 and a 3×3 convolution, with norm and non-linearity in the common implementation."""
    if variant in ("shared", "stepwise"):
        return UpsampleConv(in_channels, out_channels, act=act, bias=True)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(in_channels, out_channels, 3, padding=1)
    )


def geometry(depth: int, t: int, variant: str) -> Geometry:
    """Sizes and reach: a unit reaches a pixel for each application of its two layers (and its forward convolution)."""
    reach = 2 * (t + 1) if variant != "cityscapes" else 2 * t + 1
    up = (0, 0) if variant == "cityscapes" else (1, 1)
    return Geometry.of_unet(encoder=[reach] * (depth + 1), decoder=[reach] * depth, up=[up] * depth)


def r2_encoder(in_channels: int = 3, depth: int = 5, output_stride: int = 32) -> Encoder:
    """The encoder `unetzoo-r2` of SMP's table (t = 2, the common implementation's units)."""
    channels = table_widths(WIDTHS, depth, output_stride)
    return Encoder(in_channels, channels, lambda i, o, _: SharedUnit(i, o, 2, "relu"))
