"""3×3 convolutions with a quarter of the products, for processors.

Winograd's F(4×4, 3×3) as in Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, arXiv:1509.09308:
tiles of 6×6 pixels and the kernel are transformed, multiplied place by place (36 products of matrices, where 144 would
be needed), and transformed back to 4×4 pixels. The points are chosen as in Barabasz, Anderson, Soodhalter and Gregg,
*Error analysis and improving the accuracy of Winograd convolution*, arXiv:1803.10986.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE, EDGE = 4, 6  # pixels of a tile's answer, and of what it looks at
NARROWEST = 64  # channels: below, transforming costs what multiplying saves
FEWEST = 16  # tiles: below, reading four times the weights costs more than it saves
STRIP = 2**24  # bytes of tiles at a time, at least: smaller ones are fought over by cores that share no cache

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # a quarter of the rounding errors of 0, ±1, ±2; exact in binary


def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """For one axis, in double precision: of the input (6×6), of the kernel (6×3) and of the answer (4×6).

    Toom and Cook's: polynomials are multiplied by their values at five points and at infinity.
    """
    before, kernel, after = np.zeros((EDGE, EDGE)), np.zeros((EDGE, 3)), np.zeros((TILE, EDGE))
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        before[row, :-1] = np.poly(others)[::-1]
        kernel[row] = point ** np.arange(3) / np.prod(np.subtract(point, others))
        after[:, row] = point ** np.arange(TILE)
    before[-1] = np.poly(POINTS)[::-1]
    kernel[-1, -1] = after[-1, -1] = 1.0
    return torch.from_numpy(before), torch.from_numpy(kernel), torch.from_numpy(after)


class WinogradConv(nn.Module):
    """A 3×3 convolution of stride 1, and perhaps a ReLU, for inference in float32 on a processor.

    It holds the transformed weights (four times the kernel's) beside the kernel, which answers for maps of few tiles.
    Channels lie innermost; it works through the image in strips of 16 MB, or of the weights' size where that is more.

    Args:
        conv: The convolution.
        relu: Whether to clip the answer at 0.

    Shape:
        As the convolution's: (N, in, H, W) → (N, out, H + 2p − 2, W + 2p − 2), channels innermost.

    Examples:
        >>> conv = nn.Conv2d(64, 64, 3, padding=1)
        >>> x = torch.rand(1, 64, 17, 18)
        >>> torch.allclose(WinogradConv(conv)(x), conv(x), atol=1e-4)
        True
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        assert not isinstance(conv.padding, str)
        self.weight, self.bias, self.padding, self.relu = conv.weight, conv.bias, conv.padding, relu
        before, kernel, after = (torch.kron(axis, axis) for axis in transforms())
        weight = conv.weight.detach().double().permute(2, 3, 1, 0)
        self.register_buffer("kernel", (kernel @ weight.flatten(0, 1).flatten(1)).float().view(-1, *weight.shape[2:]),
                             persistent=False)  # fmt: skip
        self.register_buffer("before", before.float(), persistent=False)
        self.register_buffer("after", after.float(), persistent=False)
        self.kernel: Tensor
        self.before: Tensor
        self.after: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The convolution's answer."""
        batch, channels, height, width = x.shape
        rows, columns = self.padding
        height, width = height + 2 * rows - 2, width + 2 * columns - 2
        down, across = -(-height // TILE), -(-width // TILE)
        if batch * down * across < FEWEST:
            answer = F.conv2d(x, self.weight, self.bias, padding=self.padding)
            return answer.relu_() if self.relu else answer
        right, bottom = (TILE * across - width + columns, TILE * down - height + rows)
        x = F.pad(x, [columns, right, rows, bottom]).contiguous(memory_format=torch.channels_last)
        step, line, pixel, _ = x.permute(0, 2, 3, 1).stride()
        features = self.kernel.shape[2]
        out = x.new_empty(batch, TILE * down, TILE * across, features)
        row = batch * across * channels * EDGE * EDGE * x.element_size()
        strip = max(1, min(down, max(self.kernel.nbytes, STRIP) // row))
        for top in range(0, down, strip):
            tall = min(strip, down - top)
            tiles = x.as_strided(
                (EDGE, EDGE, batch, tall, across, channels),
                (line, pixel, step, TILE * line, TILE * pixel, 1),
                x.storage_offset() + TILE * top * line,
            )
            seen = (self.before @ tiles.reshape(EDGE * EDGE, -1)).view(EDGE * EDGE, -1, channels)
            answers = (self.after @ torch.bmm(seen, self.kernel).flatten(1)).view(TILE * TILE, -1, features)
            if self.bias is not None:
                answers += self.bias
            if self.relu:
                answers.relu_()
            place = out[:, TILE * top : TILE * (top + tall)].view(batch, tall, TILE, across, TILE, features)
            place.copy_(answers.view(TILE, TILE, batch, tall, across, features).permute(2, 3, 0, 4, 1, 5))
        return out[:, :height, :width].permute(0, 3, 1, 2)


def fits(conv: nn.Module) -> bool:
    """Whether a layer is a convolution that gains from it."""
    return (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (1, 1), (1, 1))
        and (conv.groups, conv.padding_mode) == (1, "zeros")
        and not isinstance(conv.padding, str)
        and min(conv.in_channels, conv.out_channels) >= NARROWEST
        and (conv.weight.device.type, conv.weight.dtype) == ("cpu", torch.float32)
    )
