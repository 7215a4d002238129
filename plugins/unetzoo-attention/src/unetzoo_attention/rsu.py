"""The residual U-block of U²-Net (arXiv:2005.09007, figure 2)."""

import torch
from torch import Tensor, nn

from .blocks import ConvUnit, resized


class RSU(nn.Module):
    """A U-Net of `height` levels added to its own first layer.

    Args:
        height: Number of levels, the bottom one included.
        inputs: Channels of the input.
        inner: Channels inside.
        outputs: Channels of the output.
        dilated: Instead of pooling between levels, double the dilation from level to level ("RSU-4F").
    """

    def __init__(self, height: int, inputs: int, inner: int, outputs: int, dilated: bool = False) -> None:
        super().__init__()
        dilations = [2**level if dilated else 1 for level in range(height - 1)]
        widths = [outputs] + [inner] * (height - 2)
        self.entry = ConvUnit(inputs, outputs)
        self.down = nn.ModuleList(
            ConvUnit(width, inner, dilation=dilation) for width, dilation in zip(widths, dilations, strict=True)
        )
        self.bottom = ConvUnit(inner, inner, dilation=2 * dilations[-1] if dilated else 2)
        self.up = nn.ModuleList(
            ConvUnit(2 * inner, width, dilation=dilation)
            for width, dilation in zip(reversed(widths), reversed(dilations), strict=True)
        )
        self.pool = nn.Identity() if dilated else nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H, W)."""
        entry = x = self.entry(x)
        maps: list[Tensor] = []
        for layer in self.down:
            x = layer(self.pool(x) if maps else x)
            maps.append(x)
        x = self.bottom(x)
        for layer, skip in zip(self.up, reversed(maps), strict=True):
            x = layer(torch.cat([resized(x, skip), skip], dim=1))
        return x + entry
