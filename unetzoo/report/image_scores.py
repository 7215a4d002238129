"""Scores of every image of an evaluation, and how far the scores of all images can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..io import write_text
from ..training.logs import as_csv

FEWEST = 20  # images, or groups of images, below which an interval is unreliable
RESAMPLES = 2000
AT_ONCE = 2**22  # units drawn at once, which bounds memory
LEVEL = 0.95
Counts = NDArray[np.float64]
Statistic = Callable[[Counts], NDArray[np.float64]]


@dataclass(frozen=True)
class ImageScores:
    """Pixel counts of every image of an evaluation.

    Args:
        names: Name of each image.
        classes: Names of the classes.
        counts: True positives, false positives and false negatives.
        groups: Group of each image, such as a patient. By default each image is a group.
        empty: Score of a class in neither truth nor prediction of all images together; NaN: it is not counted in means.

    Shape:
        - counts: integers (images, classes, 3)
    """

    names: Sequence[str]
    classes: Sequence[str]
    counts: NDArray[np.int64]
    groups: Sequence[str] = ()
    empty: float = math.nan

    @property
    def units(self) -> int:
        """Number of groups of images, which are resampled."""
        return len(set(self.groups)) or len(self.counts)

    @property
    def warning(self) -> str:
        """The reason why the intervals are unreliable; empty if they are not."""
        if self.units >= FEWEST:
            return ""
        what = "groups of images" if self.groups else "images"
        return f"The intervals are unreliable: {self.units} {what}, and below {FEWEST} an interval is often too narrow."

    def rows(self) -> list[dict[str, str | float]]:
        """Return the scores of each image, worst first; images without a score (nothing labeled) are last."""
        iou, f1 = class_scores(self.counts)
        rows: list[dict[str, str | float]] = []
        for index in map(int, np.argsort(mean(iou), kind="stable")):  # NaN is last
            row: dict[str, str | float] = {"name": self.names[index]}
            if self.groups:
                row["group"] = self.groups[index]
            row |= {"miou": float(mean(iou)[index]), "mdice": float(mean(f1)[index])}
            for score, values in (("iou", iou), ("f1", f1)):
                row |= {f"{score}/{name}": float(v) for name, v in zip(self.classes, values[index], strict=True)}
            rows.append(row)
        return rows

    def write(self, path: Path) -> None:
        """Write the scores of each image as CSV."""
        write_text(path, as_csv(self.rows()))  # pyright: ignore[reportArgumentType] -- names beside the scores

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95% intervals of the scores of all pixels: `miou`, `mdice`, `iou/<class>` and `f1/<class>`."""
        counts = grouped(self.counts, self.groups) if self.groups else self.counts.astype(np.float64)
        ends = interval(counts, self._scores)
        names = ["miou", "mdice", *(f"{score}/{name}" for score in ("iou", "f1") for name in self.classes)]
        return {name: (float(low), float(high)) for name, low, high in zip(names, *ends, strict=True)}

    def _scores(self, counts: Counts) -> NDArray[np.float64]:
        iou, f1 = (np.where(np.isnan(scores), self.empty, scores) for scores in class_scores(counts))
        return np.concatenate([mean(iou)[..., None], mean(f1)[..., None], iou, f1], -1)


@dataclass(frozen=True)
class Paired:
    """A comparison of two runs, image by image.

    Args:
        images: Number of images with a score in both runs.
        units: Number of groups of images, which are resampled.
        better: Share of the images on which the first run is better; equal scores count half.
        difference: Mean difference of the images' scores, first minus second.
        low: Lower end of the 95% interval of the difference.
        high: Upper end.
    """

    images: int
    units: int
    better: float
    difference: float
    low: float
    high: float

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float], groups: Sequence[str] = ()) -> Paired:
        """Compare the scores of two runs on the same images; images without a score are left out.

        Examples:
            >>> Paired.of([0.5, 0.75, 1.0], [0.25, 0.75, 0.5]).better
            0.8333333333333334
        """
        gain = np.subtract(first, second, dtype=np.float64)
        defined = np.isfinite(gain)
        gain = gain[defined]
        entries = np.stack([gain, np.ones_like(gain)], -1)
        if groups:
            entries = grouped(entries, [group for group, kept in zip(groups, defined, strict=True) if kept])
        low, high = interval(entries, lambda sums: sums[..., :1] / sums[..., 1:]) if len(gain) else ([math.nan],) * 2
        better, difference = (float(v.mean()) if len(gain) else math.nan for v in ((np.sign(gain) + 1) / 2, gain))
        return cls(len(gain), len(entries), better, difference, float(low[0]), float(high[0]))


def counts_of(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return true positives, false positives and false negatives of each class.

    Shape:
        - confusion: counts (classes, classes), rows = truth; or (labels, 2, 2)
        - result: (classes, 3)

    Examples:
        >>> counts_of(np.array([[5, 1], [2, 0]])).tolist()
        [[5, 2, 1], [0, 1, 2]]
    """
    if confusion.ndim == 3:
        return np.stack([confusion[:, 1, 1], confusion[:, 0, 1], confusion[:, 1, 0]], -1)
    right = confusion.diagonal()
    return np.stack([right, confusion.sum(0) - right, confusion.sum(1) - right], -1)


def class_scores(counts: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return IoU and F1 of each class (…, classes); NaN for a class in neither truth nor prediction.

    Shape:
        - counts: (…, classes, 3), see `counts_of`
    """
    right, invented, missed = np.moveaxis(counts.astype(np.float64), -1, 0)
    wrong = invented + missed
    with np.errstate(invalid="ignore"):
        return right / (right + wrong), 2 * right / (2 * right + wrong)


def mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the defined classes; NaN if none is.

    Examples:
        >>> mean(np.array([[0.5, np.nan], [np.nan, np.nan]])).tolist()
        [0.5, nan]
    """
    defined = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        return np.where(defined, scores, 0.0).sum(-1) / defined.sum(-1)


def grouped(counts: NDArray[np.generic], groups: Sequence[str]) -> Counts:
    """Sum values (images, …) over each group."""
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.zeros((numbers.max(initial=-1) + 1, *counts.shape[1:]))
    np.add.at(sums, numbers, counts)
    return sums


def interval(
    units: Counts, statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the 95% bootstrap interval of statistics of a sum over independent units.

    The interval is the bias-corrected and accelerated one, with quantiles widened for few units as those of Student's
    t distribution are.

    Args:
        units: One entry per independent unit.
        statistic: Computes statistics (…, S) of sums (…) over units.
        resamples: Number of resamples.
        seed: Seed of the resamples; equal input gives equal intervals.

    Shape:
        - units: (units, …)
        - result: twice (S,); NaN for fewer than two units or an undefined statistic

    Source:
        Efron, "Better Bootstrap Confidence Intervals", 1987; the widening is that of Hesterberg, "What Teachers Should
        Know About the Bootstrap", 2015, section 4.
    """
    number, flat = len(units), units.reshape(len(units), -1)
    whole = statistic(units.sum(0))
    if number < 2:
        return np.full_like(whole, math.nan), np.full_like(whole, math.nan)
    generator, shares = np.random.default_rng(seed), np.full(number, 1 / number)
    at_once = max(1, AT_ONCE // number)
    sums = [
        generator.multinomial(number, shares, size=min(at_once, resamples - start)) @ flat
        for start in range(0, resamples, at_once)
    ]
    values = statistic(np.concatenate(sums).reshape(resamples, *units.shape[1:]))
    without = statistic(units.sum(0) - units)  # each unit left out
    deviation = mean(without.T) - without
    spread = np.nansum(deviation**2, 0) ** 1.5
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = np.where(spread > 0, np.nansum(deviation**3, 0) / (6 * spread), 0.0)
    below = ((values < whole) + (values == whole) / 2).sum(0) / np.maximum(np.isfinite(values).sum(0), 1)
    bias = stats.norm.ppf(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    reach = stats.t.ppf((1 + LEVEL) / 2, number - 1) * math.sqrt(number / (number - 1))
    ends = []
    for z in (-reach, reach):
        shares = stats.norm.cdf(bias + (bias + z) / np.maximum(1 - acceleration * (bias + z), 1e-6))
        ends.append([_quantile(column, share) for column, share in zip(values.T, shares, strict=True)])
    low, high = (np.where(np.isfinite(whole), end, math.nan) for end in ends)
    return low, high


def _quantile(values: NDArray[np.float64], share: float) -> float:
    defined = values[np.isfinite(values)]
    return float(np.quantile(defined, share)) if len(defined) else math.nan
