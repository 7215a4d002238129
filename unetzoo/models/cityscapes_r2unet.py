"""The R2U-Net of the Cityscapes comparison, another author's network: `R2UNet(variant="cityscapes")`.

It differs from the common implementation in that nothing is normalized, a layer is applied t times instead of t + 1, a
3×3 convolution leads each unit instead of a 1×1, and skips are added after the unit instead of concatenated before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .blocks import Decoder, HiddenAct, Recurrent, make_act
from .geometry import Geometry


class CityscapesUnit(nn.Module):
    """3×3 convolution and non-linearity, then two recurrent layers of t applications, residual sum; no norm."""

    def __init__(self, in_channels: int, out_channels: int, t: int, hidden_act: HiddenAct) -> None:
        super().__init__()

        def conv(inputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, out_channels, 3, padding=1), make_act(hidden_act))

        self.feed = conv(in_channels)
        self.layers = nn.Sequential(*(Recurrent(conv(out_channels), t - 1) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        x = self.feed(x)
        return x + self.layers(x)


class AddingDecoder(Decoder):
    """Up-sample, unit, then add the skip."""

    def merge(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        """The level's block on the up-sampled map; the skip is added to its output."""
        return self.blocks[level](x) + skip


class Cityscapes:
    """The parts of the network. It keeps PyTorch's initial weights: without norms, larger ones would grow.

    Args:
        t: Applications of each recurrent layer.
        hidden_act: Non-linearity.
    """

    draws_weights = False

    def __init__(self, t: int, hidden_act: HiddenAct) -> None:
        self.t, self.hidden_act = t, hidden_act

    def unit(self, in_channels: int, out_channels: int) -> nn.Module:
        """The unit of a level."""
        return CityscapesUnit(in_channels, out_channels, self.t, self.hidden_act)

    def decoder(self, upwards: Sequence[tuple[int, int]], align: str) -> Decoder:
        """Transposed convolutions, and skips that are added after the unit."""
        ups = [nn.ConvTranspose2d(coarse, coarse, 2, stride=2) for coarse, _ in upwards]
        return AddingDecoder(ups, [self.unit(coarse, fine) for coarse, fine in upwards], align)

    def geometry(self, depth: int) -> Geometry:
        """Sizes and reach: a layer is applied t times, after a 3×3 convolution."""
        reach = 2 * self.t + 1
        return Geometry.of_unet(encoder=[reach] * (depth + 1), decoder=[reach] * depth, up=[(0, 0)] * depth)
