"""Mean and standard deviation of images and depth, and the share of each class, of a dataset."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError, UnetzooError
from ..images.percentiles import Extent, Histogram, declarable, flat, histogram_of
from ..images.pixels import Pairs, Pixels, clipped_share
from ..labels import LabelSpec
from ..wording import inline
from .parallel import pieces, spread
from .tally import Summary, Tally

SAMPLED = 32  # images in which values outside the range are counted
CLIPPED = 0.01  # share of values outside the range that is reported
PIECE = 16  # samples that are summed together; fixed, so that the result does not depend on the number of processes


@dataclass(frozen=True)
class Clipping:
    """Values outside the declared range.

    Args:
        share: Their share, in the channel with most of them.
        extremes: The smallest and largest value found, per channel if the range is declared per channel.
        range: A range for these images: the 0.1 and 99.9 percentiles, in the same form.

    Examples:
        >>> print(Clipping(0.25, ((0.0, 4095.0),), ((3.0, 4080.0),)))
        25.0% of the values are outside the declared range: found 0 to 4095; try range = [3, 4080]
    """

    share: float
    extremes: Pairs
    range: Pairs

    @classmethod
    def of(cls, share: float, images: Callable[[], Iterable[np.ndarray]], pixels: Pixels) -> Clipping:
        """Find the values of images (N, C), which are read twice."""
        channels = len(pixels.range) if isinstance(pixels.range, tuple) else 1
        found = histogram_of(lambda: (values if channels > 1 else values.reshape(-1, 1) for values in images()))
        assert found.extent.low is not None and found.extent.high is not None
        extremes = tuple(zip(found.extent.low.tolist(), found.extent.high.tolist(), strict=True))
        return cls(share, extremes, found.limits())

    @property
    def line(self) -> str:
        """The range as a line of `[data]`."""
        return f"range = {inline(declarable(self.range))}"

    def __str__(self) -> str:
        found = ", ".join(f"{low:.6g} to {high:.6g}" for low, high in self.extremes)
        return f"{self.share:.1%} of the values are outside the declared range: found {found}; try {self.line}"


@dataclass(frozen=True)
class Statistics:
    """Statistics of a dataset.

    Args:
        samples: Number of samples.
        image: One summary per channel, of values in 0…1 as transforms see them: 8 bits, or the declared range.
        classes: The share of each class in all mask pixels, by name; "ignored" is last, if the labels have it.
        depth: A summary of valid depth values, or None.
        range: The 0.1 and 99.9 percentiles of each channel, if the dataset was declared with `range="percentile"`.
        clipped: The share of values outside a declared range, in the channel with most of them.
    """

    samples: int
    image: tuple[Summary, ...]
    classes: dict[str, float]
    depth: Summary | None
    range: Pairs | None = None
    clipped: float = 0.0

    @property
    def normalize(self) -> dict[str, list[float]]:
        """Argument of `Transform(normalize=…)`; the deviation of a constant channel is 1."""
        return {
            "mean": [round(channel.mean, 6) for channel in self.image],
            "std": [round(channel.std, 6) or 1.0 for channel in self.image],
        }

    @property
    def recipe_line(self) -> str:
        """What to add to a recipe: a line for `[transform]`, and one for `[data]` if a range was computed."""
        mean, std = (", ".join(f"{value:g}" for value in self.normalize[key]) for key in ("mean", "std"))
        line = f"normalize = {{ mean = [{mean}], std = [{std}] }}"
        if self.range is None:
            return line
        pairs = ", ".join(f"[{low!r}, {high!r}]" for low, high in self.range)
        return f"[data]\nrange = [{pairs}]\n\n[transform]\n{line}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "normalize": self.normalize}


def statistics(
    dataset: Any,
    *,
    limit: int | None = None,
    workers: int | None = 0,
    tell: Callable[[int], None] = lambda count: None,
) -> Statistics:
    """Compute mean and standard deviation over all pixels of all samples of a dataset.

    The result is exact for 8-bit images and accurate to rounding for other values. It does not depend on the number of
    processes.

    Args:
        dataset: An object with `__len__` and `__getitem__` that returns samples. Its transform is applied.
        limit: Number of samples to use, evenly spaced over the dataset.
        workers: Number of worker processes; 0 for none, None for one per CPU. See `spread` about scripts.
        tell: Called with the number of samples processed since the last call.

    Raises:
        ConfigError: A wrong limit.
        DataError: No samples, different numbers of channels, or valid depth that is not finite; and the errors of the
            dataset.

    Examples:
        >>> from unetzoo.datasets import Composites
        >>> found = statistics(Composites(size=32, length=20))
        >>> [channel.name for channel in found.image][:2], found.classes["background"] > 0.5
        (['fg_bg red', 'fg_bg green'], True)
        >>> found.recipe_line.startswith("normalize = { mean = [0.")
        True

    Source:
        Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", equations 2.1.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError("wrong limit", expected="an integer ≥ 1, or None", found=repr(limit), hint="try 1000")
    count = len(dataset)
    chosen = range(count) if limit is None or limit >= count else [count * i // limit for i in range(limit)]
    todo = pieces(chosen, PIECE)
    limits = None
    if getattr(getattr(dataset, "pixels", None), "range", None) == "percentile":
        limits = percentile_range(dataset, todo, workers)
        dataset = copy.copy(dataset)
        dataset.pixels = replace(dataset.pixels, range=limits)
    total = Tally()
    for tally in spread(_Summing(dataset), todo, workers):
        total.merge(tally)
        tell(tally.samples)
    if not total.samples:
        raise DataError("no samples", subject=dataset, found="0", hint="check split and length")
    return Statistics(
        total.samples,
        total.image(_channel_names(getattr(dataset, "image_kinds", None), total.width)),
        _shares(total.classes, total.pixels, getattr(dataset, "labels", None)),
        total.depth.summary("depth") if total.depth.count else None,
        limits,
        clipped(dataset, chosen),
    )


class _Summing(NamedTuple):
    """Sums up a group of samples."""

    dataset: Any

    def __call__(self, piece: Sequence[int]) -> Tally:
        tally = Tally()
        for index in piece:
            try:
                sample = self.dataset[index]
            except UnetzooError:
                raise
            except Exception as error:  # third-party datasets may raise anything
                raise DataError(
                    "the dataset raises an error for a sample", subject=f"{type(self.dataset).__name__}[{index}]",
                    found=f"{type(error).__name__}: {error}", hint="load this sample to see the traceback",
                ) from error  # fmt: skip
            tally.add(sample)
        return tally


class _Extents(NamedTuple):
    """The extent of the values of a group of images."""

    dataset: Any

    def __call__(self, piece: Sequence[int]) -> Extent:
        extent = Extent()
        for index in piece:
            stored = self.dataset.read_stored(index)
            extent.add(flat(stored.values, stored.missing))
        return extent


class _Histograms(NamedTuple):
    """Histograms of the values of a group of images."""

    dataset: Any
    extent: Extent

    def __call__(self, piece: Sequence[int]) -> Histogram:
        histogram = Histogram(self.extent)
        for index in piece:
            stored = self.dataset.read_stored(index)
            histogram.add(flat(stored.values, stored.missing))
        return histogram


def percentile_range(dataset: Any, todo: Sequence[Sequence[int]] | None = None, workers: int | None = 0) -> Pairs:
    """The 0.1 and 99.9 percentiles of each channel of the stored images.

    Args:
        dataset: A dataset of files with declared pixels.
        todo: Indices of samples, in groups. By default all.
        workers: Number of worker processes; 0 for none, None for one per CPU.
    """
    todo = pieces(range(len(dataset)), PIECE) if todo is None else todo
    extent = Extent()
    for found in spread(_Extents(dataset), todo, workers):
        extent.merge(found)
    histogram = Histogram(extent)
    for found in spread(_Histograms(dataset, extent), todo, workers):
        histogram.merge(found)
    return histogram.limits()


def clipped(dataset: Any, chosen: Sequence[int] | None = None) -> float:
    """The share of values outside the declared range, in the channel with most of them.

    Args:
        dataset: The dataset; the share is 0 if it declares no range.
        chosen: Indices of samples, of which at most 32 are read. By default all.
    """
    pixels = getattr(dataset, "pixels", None)
    if not isinstance(pixels, Pixels) or pixels.range in (None, "image", "percentile"):
        return 0.0
    if not hasattr(dataset, "read_stored"):
        return 0.0
    shares = []
    for index in _some(dataset, chosen):
        values, bits, missing = dataset.read_stored(index)
        shares.append(clipped_share(flat(values, missing)[None], pixels.limits(values.dtype, bits)))
    return float(np.mean(shares))


def clipping(dataset: Any, chosen: Sequence[int] | None = None) -> Clipping | None:
    """The values outside the declared range, if they are more than 1 %, and a range that fits.

    Args:
        dataset: The dataset.
        chosen: Indices of samples, of which at most 32 are read. By default all.
    """
    share = clipped(dataset, chosen)
    if share <= CLIPPED:
        return None
    stored = lambda: map(dataset.read_stored, _some(dataset, chosen))  # noqa: E731
    return Clipping.of(share, lambda: (flat(image.values, image.missing) for image in stored()), dataset.pixels)


def _some(dataset: Any, chosen: Sequence[int] | None) -> Sequence[int]:
    chosen = range(len(dataset)) if chosen is None else chosen
    return [chosen[len(chosen) * i // SAMPLED] for i in range(SAMPLED)] if len(chosen) > SAMPLED else chosen


def _channel_names(kinds: Mapping[str, int] | None, count: int) -> list[str]:
    """One name per channel.

    Examples:
        >>> _channel_names({"fg_bg": 3, "depth": 1}, 4), _channel_names(None, 1)
        (['fg_bg red', 'fg_bg green', 'fg_bg blue', 'depth'], ['image'])
    """
    if not kinds or sum(kinds.values()) != count:
        kinds = {"image": count}
    colors = {1: [""], 3: [" red", " green", " blue"]}
    return [f"{kind}{end}" for kind, n in kinds.items() for end in colors.get(n, [f" {i}" for i in range(n)])]


def _shares(classes: Mapping[int, int], pixels: int, labels: LabelSpec | None) -> dict[str, float]:
    if not pixels:
        return {}
    names = dict(enumerate(labels.names)) if labels else {}
    if labels and labels.ignore_index is not None:
        names[labels.ignore_index] = "ignored"
    order = [*names, *sorted(set(classes) - set(names))]
    return {names.get(value, str(value)): classes.get(value, 0) / pixels for value in order}
