"""The 0.1 and 99.9 percentiles of images too large or too many to be in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ..errors import DataError

LOW, HIGH = 0.001, 0.999
BINS = 2**16


@dataclass
class Extent:
    """The smallest and largest finite value of each channel, and the data types; can be merged."""

    low: np.ndarray | None = None
    high: np.ndarray | None = None
    integers: bool = True

    def add(self, values: np.ndarray) -> None:
        """Add values (N, C)."""
        if len(values):
            self.integers &= values.dtype.kind in "ui"
            if values.dtype.kind == "f":
                values = np.where(np.isfinite(values), values, np.nan)
                with np.errstate(all="ignore"):
                    low, high = np.fmin.reduce(values, 0), np.fmax.reduce(values, 0)
            else:
                low, high = values.min(0), values.max(0)
            self.merge(Extent(low.astype(np.float64), high.astype(np.float64), self.integers))

    def merge(self, other: Extent) -> None:
        """Add the extent of other values.

        Raises:
            DataError: A different number of channels.
        """
        if other.low is None or other.high is None:
            return
        if self.low is None or self.high is None:
            self.low, self.high = other.low, other.high
        elif len(self.low) != len(other.low):
            raise DataError("images with different channels", expected=len(self.low), found=len(other.low))
        else:
            self.low, self.high = np.fmin(self.low, other.low), np.fmax(self.high, other.high)
        self.integers &= other.integers


@dataclass
class Histogram:
    """Counts of values in bins between the ends of an extent; can be merged.

    For integers in at most 65,536 steps, a bin is one value, and percentiles are exact.
    """

    extent: Extent
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if self.extent.low is None or self.extent.high is None or not np.isfinite(self.extent.low).all():
            raise DataError("no values", expected="an image with finite values in each channel",
                            hint="correct the files, or the value of pixels without data")  # fmt: skip
        span = self.extent.high - self.extent.low
        exact = self.extent.integers & (span < BINS)
        self.step = np.where(exact, 1.0, np.where(span > 0, span / (BINS - 1), 1.0))
        self.counts = np.zeros((len(span), BINS), np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count values (N, C) of the extent."""
        assert self.extent.low is not None
        for channel, (row, low, step) in enumerate(zip(self.counts, self.extent.low, self.step, strict=True)):
            part = values[:, channel]
            part = part[np.isfinite(part)] if values.dtype.kind == "f" else part
            row += np.bincount(np.rint((part - low) / step).astype(np.int64).clip(0, BINS - 1), minlength=BINS)

    def merge(self, other: Histogram) -> None:
        """Add the counts of other values."""
        self.counts += other.counts

    def limits(self) -> tuple[tuple[float, float], ...]:
        """The percentiles of each channel; a constant channel gets a range above its value."""
        assert self.extent.low is not None
        found = []
        for row, low, step in zip(self.counts, self.extent.low.tolist(), self.step.tolist(), strict=True):
            below = np.cumsum(row)
            first, last = (int(np.searchsorted(below, share * below[-1])) for share in (LOW, HIGH))
            start, end = low + first * step, low + last * step
            found.append((start, end if end > start else start + 1.0))
        return tuple(found)


def histogram_of(blocks: Callable[[], Iterable[np.ndarray]]) -> Histogram:
    """A histogram of values (N, C) in several parts; `blocks` is called twice.

    Raises:
        DataError: No finite values, or different numbers of channels.
    """
    extent = Extent()
    for block in blocks():
        extent.add(block)
    histogram = Histogram(extent)
    for block in blocks():
        histogram.add(block)
    return histogram


def percentiles(
    blocks: Callable[[], Iterable[np.ndarray]], missing: np.ndarray | None = None
) -> tuple[tuple[float, float], ...]:
    """The percentiles of each channel of an image.

    Args:
        blocks: Returns the parts (h, w, C) of the image; called twice.
        missing: Where the image has no data, if it is in one part.

    Raises:
        DataError: A channel without finite values.

    Examples:
        >>> percentiles(lambda: [np.arange(1001, dtype=np.uint16).reshape(7, 143, 1)])
        ((1.0, 999.0),)
    """
    return histogram_of(lambda: (flat(block, missing) for block in blocks())).limits()


def flat(values: np.ndarray, missing: np.ndarray | None) -> np.ndarray:
    """Values (H, W, C) with data as (N, C)."""
    return values.reshape(-1, values.shape[-1]) if missing is None else values[~missing]


def declarable(pairs: Iterable[Iterable[float]]) -> list:
    """Limits as the argument `range`, in six digits.

    Examples:
        >>> declarable(((0.0, 4095.0),)), declarable(((0, 0.12345678), (1, 2)))
        ([0, 4095], [[0, 0.123457], [1, 2]])
    """
    rounded = [[float(f"{value:.6g}") for value in pair] for pair in pairs]
    found = [[int(value) if value == int(value) else value for value in pair] for pair in rounded]
    return found[0] if len(found) == 1 else found
