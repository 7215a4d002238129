"""A view of an image: its transformation, and the inverse for the output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.geometry import Region


class View(NamedTuple):
    """An image scaled, turned by less than a quarter, mirrored left to right, then turned by quarters.

    Args:
        scale: Size as a multiple of the image's.
        angle: Degrees, counter-clockwise, 0 ≤ angle < 90.
        mirror: Whether left and right are exchanged.
        turns: Quarter turns, counter-clockwise.
    """

    scale: float = 1.0
    angle: float = 0.0
    mirror: bool = False
    turns: int = 0

    @property
    def exact(self) -> bool:
        """Whether it only moves pixels."""
        return self.scale == 1 and self.angle == 0

    def turned(self, x: Tensor) -> Tensor:
        """Apply the part that only moves pixels to an image or a batch (…, H, W)."""
        return _quarters(x.flip(-1) if self.mirror else x, self.turns)

    def turned_region(self, region: Region, size: Sequence[int]) -> Region:
        """The position of a region of an output of (height, width) after `turned`."""
        (rows, columns), (height, width) = region, size
        columns = _mirrored(columns, width) if self.mirror else columns
        for _ in range(self.turns % 4):
            rows, columns, height, width = _mirrored(columns, width), rows, width, height
        return rows, columns

    def turned_back(self, output: Tensor) -> Tensor:
        """The inverse of `turned`."""
        output = _quarters(output, -self.turns)
        return output.flip(-1) if self.mirror else output

    def resampled(self, image: Tensor) -> Tensor:
        """Apply the other part to an image (C, H, W), bilinearly; corners are filled by reflection."""
        if self.scale != 1:
            size = [max(1, round(n * self.scale)) for n in image.shape[-2:]]
            image = _resized(image, size)
        if self.angle:
            height, width = image.shape[-2:]
            box = _box(height, width, self.angle)
            y, x = _grid(box, image)
            y, x = _rotated(y - _middle(box[0]), x - _middle(box[1]), -self.angle)
            image = _sampled(image, y + _middle(height), x + _middle(width), "reflection")
        return image

    def resampled_back(self, output: Tensor, size: tuple[int, int], out_stride: int = 1) -> Tensor:
        """The inverse of `resampled`, for an output (C, h, w) and an original image of `size`.

        Args:
            output: One value for `out_stride` pixels.
            size: Height and width of the image.
            out_stride: Pixels per value of the output along an axis.
        """
        wanted = [max(1, n // out_stride) for n in size]
        if self.angle:
            scaled = [max(1, round(n * self.scale)) for n in size]
            box = _box(scaled[0], scaled[1], self.angle)
            y, x = _grid([max(1, n // out_stride) for n in scaled], output)
            y, x = (_center(v, out_stride) - _middle(n) for v, n in zip((y, x), scaled, strict=True))
            y, x = _rotated(y, x, self.angle)
            y, x = (((v + _middle(n)) + 0.5) / out_stride - 0.5 for v, n in zip((y, x), box, strict=True))
            output = _sampled(output, y, x, "border")
        return output if list(output.shape[-2:]) == wanted else _resized(output, wanted)


UPRIGHT = View()


def _mirrored(span: range, size: int) -> range:
    return range(size - span.stop, size - span.start)


def _quarters(x: Tensor, turns: int) -> Tensor:
    return torch.rot90(x, turns, (-2, -1)) if turns else x  # rot90 copies even for no turn


def _resized(values: Tensor, size: list[int]) -> Tensor:
    wide = values.to(torch.promote_types(values.dtype, torch.float32))[None]
    return F.interpolate(wide, size=size, mode="bilinear", antialias=True)[0].to(values.dtype)


def _box(height: int, width: int, angle: float) -> tuple[int, int]:
    """The size of the bounding box of a turned rectangle."""
    sin, cos = abs(math.sin(math.radians(angle))), abs(math.cos(math.radians(angle)))
    return math.ceil(height * cos + width * sin), math.ceil(height * sin + width * cos)


def _middle(size: int) -> float:
    return (size - 1) / 2


def _center(position: Tensor, out_stride: int) -> Tensor:
    """The center of an output's pixel, in pixels of the image."""
    return (position + 0.5) * out_stride - 0.5


def _grid(size: tuple[int, int] | list[int], like: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = (
        torch.arange(n, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32)) for n in size
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return y, x


def _rotated(y: Tensor, x: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Offsets from the middle (y downwards), turned counter-clockwise as displayed."""
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    return y * cos - x * sin, y * sin + x * cos


def _sampled(values: Tensor, y: Tensor, x: Tensor, beyond: str) -> Tensor:
    """Bilinear samples at positions in pixels."""
    height, width = values.shape[-2:]
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    wide = values.to(grid.dtype)[None]
    found = F.grid_sample(wide, grid[None], mode="bilinear", padding_mode=beyond, align_corners=True)
    return found[0].to(values.dtype)
