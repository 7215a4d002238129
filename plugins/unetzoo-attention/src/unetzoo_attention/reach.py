"""How far a network sees: pixel ranges followed backwards through its layers, from the output to the image.

`Geometry.of_unet` does this for U-Nets with poolings; networks with strided convolutions or nested U-Nets need steps of
their own. A range is the first and the last pixel, of one axis, that something depends on.
"""

from collections.abc import Callable
from typing import NamedTuple

from unetzoo.models import Geometry


class Range(NamedTuple):
    """First and last pixel."""

    low: int
    high: int

    def widened(self, reach: int) -> "Range":
        """Through a convolution that reaches so many pixels to each side."""
        return Range(self.low - reach, self.high + reach)

    def joined(self, other: "Range") -> "Range":
        """Through a sum or a concatenation."""
        return Range(min(self.low, other.low), max(self.high, other.high))

    def pooled(self) -> "Range":
        """Through a 2×2 pooling."""
        return Range(2 * self.low, 2 * self.high + 1)

    def strided(self) -> "Range":
        """Through a padded 3×3 convolution of stride 2."""
        return Range(2 * self.low - 1, 2 * self.high + 1)

    def nearest(self) -> "Range":
        """Through nearest ×2."""
        return Range(self.low // 2, self.high // 2)

    def bilinear(self, factor: int = 2) -> "Range":
        """Through bilinear up-sampling (corners not aligned): each pixel lies between two centers."""
        if factor == 1:
            return self
        return Range((2 * self.low + 1 - factor) // (2 * factor), (2 * self.high + 1 - factor) // (2 * factor) + 1)


def geometry_of(needs: Callable[[Range], Range], stride: int) -> Geometry:
    """The geometry of a padded network of any input size.

    Args:
        needs: Range of the output → range of the image that it depends on.
        stride: Product of all poolings and strides.
    """
    ranges = [needs(Range(pixel, pixel)) for pixel in range(stride)]
    halo = max(max(-r.low for r in ranges), max(r.high for r in ranges) - (stride - 1))
    field = max(r.high - r.low + 1 for r in ranges)
    return Geometry(minimum=1, stride=stride, halo=halo, receptive_field=field)
