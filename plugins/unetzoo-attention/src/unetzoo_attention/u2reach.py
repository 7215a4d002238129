"""How far U²-Net sees: its stages and their inner levels, followed backwards."""

from collections.abc import Sequence

from unetzoo.models import Geometry

from .reach import Range, geometry_of


def geometry(heights: Sequence[int]) -> Geometry:
    """Sizes and reach for units of these heights, finest first, the last two dilated."""
    depth = len(heights) - 1

    def unit(level: int, output: Range) -> Range:
        return dilated_unit(heights[level], output) if level >= depth - 1 else pooled_unit(heights[level], output)

    def needs(output: Range) -> Range:
        skips, x = [], output.widened(1)
        for level in range(depth):
            x = unit(level, x)
            skips.append(x)
            x = x.bilinear().joined(output.bilinear(2 ** (level + 1)).widened(1))
        x = unit(depth, x)
        for level in reversed(range(depth)):
            x = unit(level, x.pooled().joined(skips[level]))
        return x

    return geometry_of(needs, 2**depth)


def pooled_unit(height: int, output: Range) -> Range:
    """Through an `RSU`: its decoder down, its bottom (dilation 2), its encoder up, its entry."""
    skips, x = [], output
    for level in range(height - 1):
        x = x.bilinear() if level else x
        x = x.widened(1)
        skips.append(x)
    x = x.widened(2).joined(skips.pop()).widened(1)
    for skip in reversed(skips):
        x = x.pooled().joined(skip).widened(1)
    return x.joined(output).widened(1)


def dilated_unit(height: int, output: Range) -> Range:
    """Through a dilated `RSU`: dilations 1, 2, 4, … down, then the bottom's, and the same up; and its entry."""
    dilations = [2**level for level in range(height - 1)]
    return output.widened(1 + 2 * sum(dilations) + 2 ** (height - 1))
