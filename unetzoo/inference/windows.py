"""Divide an image into windows based on a network's `Geometry`: each axis separately, then their product.

The *canvas* is the network's input for a whole image: the image with `margin` mirrored pixels before it and at least
as many after it, up to the next size on the network's pooling grid. A *window* is a part of the canvas that the network
processes at once. No padding is added around the windows of a padded network.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ..errors import ConfigError, InputShapeError, did_you_mean
from ..models.geometry import Geometry

Blend = Literal["exact", "constant", "gaussian"]
BLENDS: tuple[Blend, ...] = ("exact", "constant", "gaussian")
OVERLAP = 1 / 4  # minimum overlap of blended outputs; offsets are rounded down to the grid


class Span(NamedTuple):
    """A window along one axis.

    Args:
        start: Its first pixel on the canvas.
        stop: One past its last pixel.
        first: The pixel of the image's output at which the window's output begins.
        keep: The pixels of the image's output that are taken from this window.
    """

    start: int
    stop: int
    first: int
    keep: range

    @property
    def kept(self) -> range:
        """`keep`, relative to the window's output."""
        return range(self.keep.start - self.first, self.keep.stop - self.first)


@dataclass(frozen=True)
class Axis:
    """The windows along one axis of an image.

    Args:
        size: Length of the image in pixels.
        before: Number of mirrored pixels before the image.
        length: Length of the canvas.
        output: Length of the output.
        window: Length of a window's output.
        spans: The windows in order, all of the same size.
    """

    size: int
    before: int
    length: int
    output: int
    window: int
    spans: tuple[Span, ...]


class WindowPlan(NamedTuple):
    """The windows along both axes of an image; the windows are their product."""

    rows: Axis
    columns: Axis

    def windows(self, first: int = 0) -> Iterator[tuple[Span, Span]]:
        """Iterate over the windows as (rows, columns), starting at a row of windows."""
        return ((row, column) for row in self.rows.spans[first:] for column in self.columns.spans)

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of a window, including context."""
        row, column = self.rows.spans[0], self.columns.spans[0]
        return row.stop - row.start, column.stop - column.start

    @property
    def total(self) -> int:
        """Number of windows."""
        return len(self.rows.spans) * len(self.columns.spans)

    @property
    def overhead(self) -> float:
        """Redundantly encoded pixels as a fraction of the canvas: 0.25 means 25% more pixels."""
        height, width = self.tile
        return self.total * height * width / (self.rows.length * self.columns.length) - 1


def geometry_of(net: Any) -> Geometry:
    """Return a network's geometry, with a default for networks that have none.

    A network without `geometry` (an SMP model, a tier 1 plugin) is assumed to preserve its input's size for every
    multiple of `net.encoder.output_stride`, or for every size if it has no such encoder; it has no exact windows. Set
    its `geometry` if this is wrong (a fixed size, a larger minimum).

    Examples:
        >>> geometry_of(object())
        Geometry(minimum=1, stride=1, step=1, maximum=None, margin=0, out_stride=1, halo=None, receptive_field=None)
    """
    own = getattr(net, "geometry", None)
    if isinstance(own, Geometry):
        return own
    stride = getattr(getattr(net, "encoder", None), "output_stride", 1)
    stride = stride if isinstance(stride, int) and stride > 0 else 1
    return Geometry(minimum=stride, stride=stride, step=stride)


def plan_windows(
    geometry: Geometry, size: Sequence[int], tile: int | Sequence[int] | None = None, blend: str = "exact"
) -> WindowPlan:
    """Divide an image into windows.

    Args:
        geometry: Geometry of the network.
        size: Height and width of the image.
        tile: Size of a window including context, as one number or height and width, rounded down to the network's
            grid. A side that covers the canvas is not cut. Exact windows are made smaller if the same number of them
            still covers the canvas. None for a single window.
        blend: With "exact", every output pixel is taken from one window that contains its whole context; with
            "constant" or "gaussian", windows overlap by at least a quarter of their output.

    Raises:
        ConfigError: The blend is unknown, the tile is invalid or too small (the error gives the minimum), or the
            network has no exact windows.
        InputShapeError: The image is empty or, without `tile`, larger than the network accepts.

    Examples:
        >>> paper = Geometry(minimum=188, stride=16, step=16, margin=92, halo=92)
        >>> plan = plan_windows(paper, (760, 100), tile=(572, 572))
        >>> plan.rows.length, plan.columns.length
        (956, 284)
        >>> [(span.start, span.stop, span.keep) for span in plan.rows.spans]
        [(0, 572, range(0, 388)), (384, 956, range(388, 760))]
    """
    if blend not in BLENDS:
        raise ConfigError(f"unknown blend {blend!r}", hint=did_you_mean(str(blend), BLENDS, "blend"))
    if min(size) < 1:
        raise InputShapeError("an empty image", found=f"{size[0]}×{size[1]}", expected="one pixel or more")
    lengths = [canvas_length(geometry, n) for n in size]
    if tile is None:
        if geometry.maximum is not None and max(lengths) > geometry.maximum:
            raise InputShapeError(
                "this network cannot take the whole image",
                expected=f"at most {geometry.maximum - 2 * geometry.margin} pixels per side",
                found=f"{size[0]}×{size[1]}",
                hint=f"cut it: tile={geometry.maximum}" + (', blend="gaussian"' if geometry.halo is None else ""),
            )
        sides = lengths
    else:
        sides = _sides(tile)
        if blend == "exact" and geometry.halo is None:
            raise ConfigError(
                "this network has no exact windows",
                found="outputs that depend on the whole image (aligned bilinear up-sampling), or an unknown reach "
                "(a foreign encoder, no `geometry`)",
                hint='blend="gaussian" (overlapping windows, weighted), or no tile',
            )
        _check_tile(geometry, sides, lengths, blend)
    axes = (_axis(geometry, *part, blend) for part in zip(size, lengths, sides, strict=True))
    return WindowPlan(*axes)


def canvas_length(geometry: Geometry, size: Any) -> Any:
    """Return the length of the canvas: image and margins, rounded up to the network's grid. `size` may be symbolic."""
    first, period = _grid(geometry)
    wanted = torch.sym_max(size, geometry.out_stride) + 2 * geometry.margin
    return first + torch.sym_max(0, (wanted - first + period - 1) // period) * period


def minimum_tile(geometry: Geometry, blend: str = "exact") -> int | None:
    """Return the size of the smallest window that keeps any output, or None if there are no exact windows.

    Examples:
        >>> minimum_tile(Geometry(minimum=16, stride=16, halo=94))
        208
    """
    tile, period = _grid(geometry)
    if blend != "exact":
        return tile
    if geometry.halo is None:
        return None
    while _advance(geometry, tile, blend) < 1:
        tile += period
    return tile if geometry.maximum is None or tile <= geometry.maximum else None


def _grid(geometry: Geometry) -> tuple[int, int]:
    """Return the smallest size of windows and canvases, and the step between sizes.

    Sizes are the legal multiples of the stride, so every pooling layer gets an even size and no window is resized or
    padded inside the network. If no legal size is a multiple (valid convolutions), all legal sizes have this property.
    """
    unit = _unit(geometry)
    period = math.lcm(geometry.step, unit)
    sizes = range(geometry.minimum, geometry.minimum + period, geometry.step)
    first = next((n for n in sizes if n % unit == 0), geometry.minimum)
    fits = geometry.maximum is None or first <= geometry.maximum
    return first if fits else geometry.minimum, period


def _unit(geometry: Geometry) -> int:
    """Return the unit of the offsets of exact windows."""
    return math.lcm(geometry.stride, geometry.out_stride)


def _guard(geometry: Geometry) -> int:
    """Return the number of input pixels at an inner window edge whose outputs are affected by it and discarded.

    `halo` is measured in blocks of one stride, so the kept part consists of whole blocks. If the output is smaller than
    the window by the halo (valid convolutions), all of it is valid.
    """
    assert geometry.halo is not None
    return -(-max(0, geometry.halo - geometry.margin) // _unit(geometry)) * _unit(geometry)


def _advance(geometry: Geometry, tile: int, blend: str) -> int:
    """Return the distance between neighboring windows in input pixels; 0 or less if the tile is too small."""
    unit, out = _unit(geometry), geometry.output(tile) * geometry.out_stride
    if blend == "exact":
        return (out - 2 * _guard(geometry)) // unit * unit
    wanted = int(out * (1 - OVERLAP))
    # a stride equal to the window (fixed-size networks) would leave no overlap; blending needs no pooling grid
    return wanted // unit * unit or max(wanted // geometry.out_stride, 1) * geometry.out_stride


def _axis(geometry: Geometry, size: int, length: int, side: int, blend: str) -> Axis:
    output = max(1, size // geometry.out_stride)
    tile = _round_down(geometry, side)
    if side >= length and (geometry.maximum is None or length <= geometry.maximum):
        span = Span(0, length, 0, range(output))
        return Axis(size, geometry.margin, length, output, geometry.output(length), (span,))
    tile = _evened(geometry, tile, length) if blend == "exact" else tile
    starts = [*range(0, length - tile, _advance(geometry, tile, blend)), length - tile]
    spans, written = [], 0
    for start in starts:
        first = start // geometry.out_stride
        stop = min(output, first + geometry.output(tile))
        begin = first
        if blend == "exact":
            begin = written
            if start != starts[-1]:
                stop = min(output, _kept_until(geometry, start, tile))
            written = max(written, stop)
        if begin < stop:
            spans.append(Span(start, start + tile, first, range(begin, stop)))
    return Axis(size, geometry.margin, length, output, geometry.output(tile), tuple(spans))


def _evened(geometry: Geometry, tile: int, length: int) -> int:
    """Return the size of the smallest window that does not increase the number of windows."""

    def following(tile: int) -> int:
        return len(range(0, length - tile, _advance(geometry, tile, "exact")))

    smallest, (_, period) = minimum_tile(geometry), _grid(geometry)
    assert smallest is not None
    sizes = range(smallest, tile + 1, period)
    return sizes[bisect_left(sizes, -following(tile), key=lambda n: -following(n))]


def _kept_until(geometry: Geometry, start: int, tile: int) -> int:
    """Return the end of the output pixels taken from an exact window that is not the last."""
    stop = start + geometry.output(tile) * geometry.out_stride
    guard = _guard(geometry)
    if guard:
        stop = (stop - guard) // _unit(geometry) * _unit(geometry)
    return stop // geometry.out_stride


def _round_down(geometry: Geometry, side: int) -> int:
    first, period = _grid(geometry)
    if geometry.maximum is not None:
        side = min(side, geometry.maximum)
    return first + (side - first) // period * period


def _sides(tile: int | Sequence[int]) -> list[int]:
    sides = [tile, tile] if isinstance(tile, int) else list(tile) if isinstance(tile, Sequence) else []
    if len(sides) != 2 or any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in sides):
        raise ConfigError("wrong tile", expected="a positive integer, or two: (height, width)", found=repr(tile))
    return sides


def _check_tile(geometry: Geometry, sides: Sequence[int], lengths: Sequence[int], blend: str) -> None:
    smallest = minimum_tile(geometry, blend)
    if smallest is None:
        raise ConfigError(
            "this network has no exact windows",
            expected=f"context of {geometry.halo} pixels on each side of a window",
            found=f"windows of at most {geometry.maximum}",
            hint='blend="gaussian" (overlapping windows, weighted), or no tile',
        )
    needed = [min(smallest, length) for length in lengths]  # a side that covers the canvas need not be larger
    if any(side < least for side, least in zip(sides, needed, strict=True)):
        least = str(max(needed)) if sides[0] == sides[1] else f"({needed[0]}, {needed[1]})"
        raise ConfigError(
            "the tile is too small",
            expected=f"at least {least} for this image" + (f", {smallest} for any" if max(needed) < smallest else ""),
            found=sides[0] if sides[0] == sides[1] else f"({sides[0]}, {sides[1]})",
            hint=f"tile={least}"
            + (f" (the context is {geometry.halo} pixels on each side)" if blend == "exact" else ""),
        )


def host_positions(size: int, before: int, length: int) -> np.ndarray:
    """Return `padding.mirror_positions` as an array, without tensor operations that would synchronize a device."""
    period = max(2 * (size - 1), 1)
    folded = (np.arange(length) - before) % period
    return np.minimum(np.minimum(folded, period - folded), size - 1)
