"""Running sums over samples, which can be merged.

For 8-bit images a histogram per channel, from which mean and deviation follow exactly; for other values count, mean and
summed squares, merged as in Chan et al.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import DataError


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (of all values, not n − 1) and range of `count` numbers."""

    name: str
    count: int
    mean: float
    std: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Moments:
    """Count, mean, summed squares of the differences from it, and range."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Of finite numbers.

        Examples:
            >>> Moments.of(np.array([1.0, 3.0]))
            Moments(count=2, mean=2.0, squares=2.0, minimum=1.0, maximum=3.0)
        """
        if not values.size:
            return cls()
        values = values.astype(np.float64).ravel()
        mean = float(values.mean())
        return cls(values.size, mean, float(np.square(values - mean).sum()), float(values.min()), float(values.max()))

    def merged(self, other: Moments) -> Moments:
        """Of both together."""
        if not self.count or not other.count:
            return other if other.count else self
        count = self.count + other.count
        gap = other.mean - self.mean
        return Moments(
            count,
            self.mean + gap * other.count / count,
            self.squares + other.squares + gap * gap * self.count * other.count / count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    def summary(self, name: str) -> Summary:
        """The summary; NaN without values."""
        if not self.count:
            return Summary(name, 0, math.nan, math.nan, math.nan, math.nan)
        return Summary(name, self.count, self.mean, math.sqrt(self.squares / self.count), self.minimum, self.maximum)


@dataclass
class Tally:
    """Sums over samples."""

    samples: int = 0
    histograms: np.ndarray | None = None  # int64 (channels, 256), of 8-bit images
    channels: list[Moments] = field(default_factory=list)  # of others
    classes: Counter[int] = field(default_factory=Counter)  # pixels by class
    pixels: int = 0  # of masks
    depth: Moments = field(default_factory=Moments)

    def add(self, sample: dict[str, Any]) -> None:
        """Add a sample.

        Raises:
            DataError: No image, a different number of channels, or invalid depth.
        """
        self.merge(Tally(1, *_image(sample), *_mask(sample), _depth(sample)))

    def merge(self, other: Tally) -> None:
        """Add the sums of another tally.

        Raises:
            DataError: Images with a different number of channels or data type.
        """
        kinds = [(t.histograms is not None, t.width) for t in (self, other) if t.samples]
        if len(set(kinds)) > 1:
            found = " and ".join(f"{width} {'8-bit' if bits else 'float'}" for bits, width in kinds)
            raise DataError("images with different channels", expected="the same channels and data type", found=found,
                            hint="convert them, or process them separately")  # fmt: skip
        if other.histograms is not None:
            self.histograms = other.histograms + (0 if self.histograms is None else self.histograms)
        if other.channels:
            before = self.channels or [Moments()] * len(other.channels)
            self.channels = [a.merged(b) for a, b in zip(before, other.channels, strict=True)]
        self.samples, self.pixels = self.samples + other.samples, self.pixels + other.pixels
        self.classes.update(other.classes)
        self.depth = self.depth.merged(other.depth)

    @property
    def width(self) -> int:
        """Channels of the images."""
        return len(self.channels) if self.histograms is None else len(self.histograms)

    def image(self, names: Sequence[str]) -> tuple[Summary, ...]:
        """One summary per channel."""
        if self.histograms is None:
            return tuple(moments.summary(name) for name, moments in zip(names, self.channels, strict=True))
        return tuple(_of_histogram(name, row) for name, row in zip(names, self.histograms.tolist(), strict=True))


def _image(sample: dict[str, Any]) -> tuple[np.ndarray | None, list[Moments]]:
    image = sample.get("image")
    array = np.asarray(image)
    if image is None or array.ndim != 3:
        raise DataError("not an image", subject=sample.get("id"), expected="an array of three dimensions",
                        found=f"shape {array.shape}", hint="samples need an `image`")  # fmt: skip
    # before transforms arrays (H, W, C), after them tensors (C, H, W)
    planes = [array[..., c] for c in range(array.shape[2])] if isinstance(image, np.ndarray) else list(array)
    if array.dtype == np.uint8:
        return np.stack([np.bincount(plane.ravel(), minlength=256) for plane in planes]), []
    if not np.isfinite(array).all():
        raise DataError("image with NaN or infinity", subject=sample.get("id"), hint="check this sample")
    return None, [Moments.of(plane) for plane in planes]


def _mask(sample: dict[str, Any]) -> tuple[Counter[int], int]:
    if sample.get("mask") is None:
        return Counter(), 0
    mask = np.asarray(sample["mask"])
    if mask.ndim == 3:  # multilabel: one plane per class
        return Counter({c: int((plane > 0).sum()) for c, plane in enumerate(mask)}), mask[0].size
    values, counts = np.unique(mask, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True))), mask.size


def _depth(sample: dict[str, Any]) -> Moments:
    if sample.get("depth") is None:
        return Moments()
    depth = np.asarray(sample["depth"]).ravel()
    if sample.get("valid") is not None:
        depth = depth[np.asarray(sample["valid"]).ravel() > 0]
    if not np.isfinite(depth).all():
        raise DataError("valid depth is not finite", subject=sample.get("id"),
                        found=f"{(~np.isfinite(depth)).sum():,} pixels", hint="add `valid` to the samples")  # fmt: skip
    return Moments.of(depth)


def _of_histogram(name: str, counts: list[int]) -> Summary:
    """Exact: integers until the last division."""
    count = sum(counts)
    total, squares = (sum(n * value**power for value, n in enumerate(counts)) for power in (1, 2))
    there = [value for value, n in enumerate(counts) if n]
    return Summary(
        name,
        count,
        float(Fraction(total, 255 * count)),
        math.sqrt(Fraction(count * squares - total**2, (255 * count) ** 2)),
        there[0] / 255,
        there[-1] / 255,
    )
