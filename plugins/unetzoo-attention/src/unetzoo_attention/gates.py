"""Attention gates and the decoder that uses them.

Oktay et al., arXiv:1804.03999, eq. 1: q = ψᵀ·relu(Wₓ·x + W_g·g + b_g) + b_ψ, α = sigmoid(q); the skip x is multiplied
by α, one number per pixel, before it meets the up-sampled map.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .blocks import resized


class Gate(nn.Module):
    """The common implementation's gate: at the skip's resolution, with batch norm after each 1×1 convolution.

    Args:
        channels: Of the skip, and of the up-sampled map that is the gating signal.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.gating = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.skip = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.attention = nn.Sequential(nn.ReLU(), nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, skip: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """The skip times its attention; `coarse`, the map before up-sampling, is not used."""
        return skip * self.attention(self.gating(fine) + self.skip(skip))


class GridGate(nn.Module):
    """The paper's gate: at the coarser map's resolution, which is the gating signal; α is up-sampled bilinearly.

    Args:
        channels: Of the skip.
        coarse_channels: Of the gating signal.
    """

    def __init__(self, channels: int, coarse_channels: int) -> None:
        super().__init__()
        self.gating = nn.Conv2d(coarse_channels, channels, 1)
        self.skip = nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        self.attention = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, skip: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """The skip times its attention; `fine`, the up-sampled map, is not used."""
        grid = self.attention(self.gating(coarse) + self.skip(skip))
        return skip * resized(interpolate(grid, scale_factor=2.0, mode="bilinear", align_corners=False), skip)


class Ungated(nn.Module):
    """The unchanged skip."""

    def forward(self, skip: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """The skip."""
        return skip


class AttentionDecoder(nn.Module):
    """From the coarsest map upwards: up-sample, gate the skip, concatenate (skip first), convolve.

    Args:
        ups: One up-sampling module per level, coarsest first.
        gates: One gate per level.
        blocks: One block per level.
    """

    def __init__(self, ups: Iterable[nn.Module], gates: Iterable[nn.Module], blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.ups, self.gates, self.blocks = nn.ModuleList(ups), nn.ModuleList(gates), nn.ModuleList(blocks)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps of all levels, finest first → one map at the finest size."""
        x = features[-1]
        for up, gate, block, skip in zip(self.ups, self.gates, self.blocks, reversed(features[:-1]), strict=True):
            fine = resized(up(x), skip)
            x = block(torch.cat([gate(skip, fine, x), fine], dim=1))
        return x
