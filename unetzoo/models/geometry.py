"""Spatial relation of a network's output to its input: legal sizes, border loss, pooling grid and reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Region = tuple[range, range]  # rows and columns of a map
ALIGNED = 4  # pixels, 16 bytes: CPU convolutions take up to twice as long for other row lengths


@dataclass(frozen=True)
class Geometry:
    """Spatial relation of a network's output to its input, the same along both axes.

    Args:
        minimum: Smallest input size.
        stride: Windows at offsets that are multiples of it have the same pooling grid as the whole image.
        step: Legal sizes are `minimum + k·step`.
        maximum: Largest input size, if any.
        margin: Number of pixels by which the output is smaller than the input on each side.
        out_stride: Input pixels per output pixel.
        halo: Context in pixels required for exact windows on the stride grid; None if windows are never exact.
        receptive_field: Input pixels along one axis that one output pixel can depend on; None if unbounded.
        decoder: Reach of each decoder block on each side in pixels of its own level, finest first; empty if the decoder
            always computes the whole map.
        up: Reach of each up-sampling before and after in pixels of its output, finest first.

    Examples:
        >>> paper = Geometry(minimum=188, stride=16, step=16, margin=92, halo=92)
        >>> paper.output(572), paper.neighbors(256), paper.fit(512)
        (388, (252, 268), 524)
    """

    minimum: int
    stride: int
    step: int = 1
    maximum: int | None = None
    margin: int = 0
    out_stride: int = 1
    halo: int | None = None
    receptive_field: int | None = None
    decoder: tuple[int, ...] = field(default=(), repr=False)
    up: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    def accepts(self, size: int) -> bool:
        """Whether an input of this size is legal."""
        inside = size >= self.minimum and (self.maximum is None or size <= self.maximum)
        return inside and (size - self.minimum) % self.step == 0

    def output(self, size: int) -> int:
        """Return the output size for a legal input size."""
        return (size - 2 * self.margin) // self.out_stride

    def fit(self, size: int) -> int:
        """Return the smallest legal size that is at least `size`, or `maximum` if there is none."""
        steps = max(0, -(-(size - self.minimum) // self.step))
        fitting = self.minimum + steps * self.step
        return fitting if self.maximum is None else min(fitting, self.maximum)

    def neighbors(self, size: int) -> tuple[int, ...]:
        """Return the nearest legal sizes below and above."""
        above = self.fit(size)
        below = above - self.step if above > size else above
        return tuple(sorted({n for n in (below, above) if self.accepts(n)}))

    def frames(self, region: Region, size: Sequence[int]) -> list[Region]:
        """Return the part of each level's map that the decoder needs for a region of the output, coarsest first.

        Args:
            region: Rows and columns of the output.
            size: Height and width of the input, multiples of the stride.

        Examples:
            >>> same = Geometry.of_unet(encoder=[2] * 3, decoder=[2] * 2, up=[(0, 0)] * 2)
            >>> same.frames((range(40, 60), range(0, 60)), (100, 60))
            [(range(8, 20), range(0, 15)), (range(16, 36), range(0, 30)), (range(36, 64), range(0, 60))]
        """
        rows, columns = (self._spans(*axis) for axis in zip(region, size, strict=True))
        return list(zip(rows, columns, strict=True))

    def _spans(self, wanted: range, size: int) -> list[range]:
        low, high = wanted.start * self.out_stride, wanted.stop * self.out_stride - 1
        spans = []
        for reach, (before, after) in zip((*self.decoder, 0), (*self.up, (0, 0)), strict=True):
            low, high = low - reach, high + reach
            spans.append(range(max(low // ALIGNED * ALIGNED, 0), min(-(-(high + 1) // ALIGNED) * ALIGNED, size)))
            low, high, size = (low - before) // 2, (high + after) // 2, size // 2
        return spans[::-1]

    @classmethod
    def of_unet(
        cls,
        encoder: Sequence[int],
        decoder: Sequence[int],
        up: Sequence[tuple[int, int]],
        **rest: Any,
    ) -> Geometry:
        """Derive minimum, stride, halo and receptive field of a padded U-Net from the reach of its parts.

        Args:
            encoder: Reach of each encoder block on each side in pixels of its own level, finest first.
            decoder: The same for the decoder blocks, finest first, without the bottleneck.
            up: Reach of each up-sampling before and after in pixels of its output, finest first.
            rest: Other fields.
        """
        stride = 2 ** len(decoder)
        fields = [_needed(pixel, encoder, decoder, up) for pixel in range(stride)]
        halo = max(max(-low for low, _ in fields), max(high for _, high in fields) - (stride - 1))
        reached = max(high - low + 1 for low, high in fields)
        known = {"minimum": stride, "stride": stride, "halo": halo, "receptive_field": reached}
        return cls(**known | {"decoder": tuple(decoder), "up": tuple(up)} | rest)


def _needed(
    pixel: int, encoder: Sequence[int], decoder: Sequence[int], up: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Return the first and last input pixel that an output pixel depends on, through the decoder and the encoder."""
    low = high = pixel
    skips = []
    for reach, (before, after) in zip(decoder, up, strict=True):
        low, high = low - reach, high + reach
        skips.append((low, high))
        low, high = (low - before) // 2, (high + after) // 2
    low, high = low - encoder[-1], high + encoder[-1]
    for (skip_low, skip_high), reach in zip(reversed(skips), reversed(encoder[:-1]), strict=True):
        low, high = min(2 * low, skip_low) - reach, max(2 * high + 1, skip_high) + reach
    return low, high
