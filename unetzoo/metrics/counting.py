"""Assign each pixel of a batch to a bin and count all bins in one integer vector.

On the CPU, pixels are counted in small blocks of small integers. On other devices no value is read back, so the host
never waits.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from .inputs import nan_error, range_error

# Number of pixels counted at once on the CPU. They fit into its caches, and torch uses a single thread for this few
# elements. Several threads would wait for each other after every operation, which is ten times slower on a busy core.
BLOCK = 2**15
LEAST, GREATEST = -128, 255  # the range of 8-bit integers, signed and unsigned


@dataclass(frozen=True)
class PixelBins:
    """Bins for the cells of a confusion matrix and for the pixels that do not belong in it.

    The order of the bins is: each cell of the matrix (rows = truth); ignored pixels; true labels outside the classes,
    by value; predicted labels outside the classes, by value; NaN in the logits.

    Args:
        classes: Number of classes, the side of the matrix.
        ignored: Label of the pixels that do not count.

    Examples:
        >>> bins = PixelBins(2, ignored=255)
        >>> truth, predicted = torch.tensor([[0, 1, 255, 7]]), torch.tensor([[1, 1, 0, 0]])
        >>> counts = bins.count(truth, predicted)
        >>> bins.matrix(counts)
        tensor([[[0, 1],
                 [0, 1]]])
        >>> bins.outside(counts[0].tolist())[0]
        {'7': 1}
    """

    classes: int
    ignored: int | None = None

    @property
    def cells(self) -> int:
        """Number of cells of the matrix."""
        return self.classes**2

    @cached_property
    def values(self) -> tuple[str, ...]:
        """Display names of the bins for labels outside the classes."""
        top = max(GREATEST, self.classes - 1)
        return f"below {LEAST}", *map(str, range(LEAST, top + 1)), f"above {top}"

    @property
    def total(self) -> int:
        """Number of bins."""
        return self.cells + 1 + 2 * len(self.values) + 1

    def matrix(self, counts: Tensor) -> Tensor:
        """Extract the confusion matrices from vectors of counts."""
        return counts[..., : self.cells].unflatten(-1, (self.classes, self.classes))

    def outside(self, counts: list[int]) -> tuple[dict[str, int], dict[str, int], int]:
        """Return the labels outside the classes by value, in truth and in prediction, and the number of NaN."""
        start, length = self.cells + 1, len(self.values)
        parts = (counts[start : start + length], counts[start + length : start + 2 * length])
        truth, predicted = ({name: n for name, n in zip(self.values, part, strict=True) if n} for part in parts)
        return truth, predicted, counts[-1]

    def check(self, counts: list[int]) -> None:
        """Raise an error if any pixel does not belong in the matrix.

        Raises:
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
        """
        truth, predicted, nans = self.outside(counts)
        if truth:
            raise range_error("truth", truth, self.classes)
        if predicted:
            raise range_error("prediction", predicted, self.classes)
        if nans:
            raise nan_error(nans)

    def count(self, truth: Tensor, predicted: Tensor, counted: Tensor | None = None, *, logits: bool = False) -> Tensor:
        """Count the pixels of several images, each separately.

        Args:
            truth: True labels.
            predicted: Predicted labels.
            counted: Mask of the pixels that count; the others are ignored. All count by default.
            logits: Whether the prediction comes from logits. It then has no labels outside the classes, and a pixel
                with NaN has the label `classes`.

        Shape:
            - truth, predicted: integers (G, …), of the same shape
            - counted: bool, of the same shape
            - result: int64 (G, bins)
        """
        far = self.ignored is not None and not -(2**16) <= self.ignored <= 2**16  # too far for a table
        if far or counted is not None or truth.device.type != "cpu":
            return self.count_without_sync(truth, predicted, counted, logits=logits)
        counts = [self._count_on_cpu(t, p, logits) for t, p in zip(truth, predicted, strict=True)]
        return torch.stack(counts) if counts else truth.new_zeros((0, self.total), dtype=torch.int64)

    def counted(
        self, truth: Tensor, predicted: Tensor, counted: Tensor | None = None, *, logits: bool = False
    ) -> Tensor:
        """Check the labels and return which pixels count: those neither ignored nor left out by `counted`.

        Raises:
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
        """
        one = None if counted is None else counted[None]
        self.check(self.count(truth[None], predicted[None], one, logits=logits)[0].tolist())
        kept = torch.ones_like(truth, dtype=torch.bool) if self.ignored is None else truth != self.ignored
        return kept if counted is None else kept & counted

    def count_logits(self, truth: Tensor, logits: Tensor) -> Tensor | None:
        """Like `count`, but directly from logits (N, C, H, W); returns None if no kernel is available."""
        found = _kernels(logits.device) if truth.numel() else None
        if found is None or self.classes > found.MOST_CLASSES:
            return None
        return found.count(logits, truth, self.ignored, least=LEAST, values=len(self.values))

    def count_without_sync(
        self, truth: Tensor, predicted: Tensor, counted: Tensor | None = None, *, logits: bool = False
    ) -> Tensor:
        """Like `count`, with operations that never read a value back, on any device."""
        if truth.numel() == 0:
            return torch.zeros(truth.shape[0], self.total, dtype=torch.int64, device=truth.device)
        places = self._places(truth.to(torch.int64), predicted.to(torch.int64), counted, logits).flatten(1)
        # Several histograms per image, so that the device's atomic additions collide less often.
        groups, pixels = places.shape
        copies = max(1, min(64, 2**22 // (groups * self.total)))
        lane = torch.arange(pixels, device=places.device) % copies
        group = torch.arange(groups, device=places.device)[:, None] * copies
        places += (group + lane) * self.total
        one = torch.ones((), dtype=torch.int32, device=places.device).expand(places.numel())
        counts = torch.zeros(groups * copies * self.total, dtype=torch.int32, device=places.device)
        counts.scatter_add_(0, places.flatten(), one)
        return counts.view(groups, copies, self.total).sum(1, dtype=torch.int64)

    def _count_on_cpu(self, truth: Tensor, predicted: Tensor, logits: bool) -> Tensor:
        """Count one image on the CPU by pairs of values; unexpected labels fall back to `count_without_sync`."""
        k, ignored = self.classes, self.ignored
        low, top = min(0, ignored or 0) - 1, max(k - 1, ignored or 0) + 1
        pairs = _pairs(truth.reshape(-1), predicted.reshape(-1), range(low, top + 1), range(-1, k + 1)).numpy()
        skipped = 0
        if ignored is not None:
            skipped = int(pairs[ignored - low].sum())
            pairs[ignored - low] = 0
        matrix = pairs[-low : k - low, 1 : k + 1]
        if matrix.sum() != pairs.sum():
            return self.count_without_sync(truth[None], predicted[None], logits=logits)[0]
        counts = truth.new_zeros(self.total, dtype=torch.int64)
        counts[: self.cells] = torch.from_numpy(matrix.copy()).flatten()
        counts[self.cells] = skipped
        return counts

    def _places(self, truth: Tensor, predicted: Tensor, counted: Tensor | None, logits: bool) -> Tensor:
        of_ignored, length = self.cells, len(self.values)
        of_truth = of_ignored + 1
        of_prediction = of_truth + length

        def by_value(labels: Tensor, start: int) -> Tensor:
            return labels.clamp(LEAST - 1, LEAST + length - 2) + (start + 1 - LEAST)

        # Later steps take precedence: an ignored pixel does not count, regardless of the prediction.
        bins = truth * self.classes + predicted
        if logits:
            bins = bins.masked_fill(predicted == self.classes, of_prediction + length)
        else:
            bins = torch.where(self._outside(predicted), by_value(predicted, of_prediction), bins)
        bins = torch.where(self._outside(truth), by_value(truth, of_truth), bins)
        if self.ignored is not None:
            bins = bins.masked_fill(truth == self.ignored, of_ignored)
        return bins if counted is None else bins.masked_fill(~counted, of_ignored)

    def _outside(self, labels: Tensor) -> Tensor:
        return (labels < 0) | (labels >= self.classes)


def _pairs(first: Tensor, second: Tensor, rows: range, columns: range) -> Tensor:
    """Count how often each pair of values occurs, int64 (rows, columns); values beyond a range count at its end.

    Values are converted to 16 bits before they are combined, in blocks that stay in the cache. This takes a quarter of
    the bytes and no large temporaries. Neighboring pixels, which are mostly equal, go to different histograms, so that
    an addition does not have to wait for the previous one to the same bin.
    """
    width, size = len(columns), len(rows) * len(columns)
    lanes = 4 if 4 * size < 2**15 else 1
    dtype = torch.int16 if size < 2**15 else torch.int32
    block = max(BLOCK, 4 * size)
    length = min(block, 2 ** first.numel().bit_length())
    shift = _shifts(lanes, size, rows.start * width + columns.start, dtype, length)
    counts = first.new_zeros(lanes * size, dtype=torch.int64)
    for a, b in zip(first.split(block), second.split(block), strict=True):
        bins = torch.add(_narrow(b, columns, dtype), _narrow(a, rows, dtype), alpha=width)
        counts += torch.bincount(bins.add_(shift[: bins.numel()]), minlength=lanes * size)
    return counts.view(lanes, len(rows), width).sum(0)


@lru_cache(maxsize=16)
def _shifts(lanes: int, size: int, least: int, dtype: torch.dtype, length: int) -> Tensor:
    """Offsets that turn the sums of a block into bins that start at 0, in the histogram of each pixel's lane."""
    return ((torch.arange(length, device="cpu") % lanes) * size - least).to(dtype)


def _narrow(values: Tensor, to: range, dtype: torch.dtype) -> Tensor:
    if values.dtype in (torch.uint8, torch.int8, torch.int16, torch.bool):
        return values.to(dtype).clamp_(to.start, to.stop - 1)
    if values.dtype in (torch.uint16, torch.uint32, torch.uint64):  # these types lack arithmetic
        values = values.to(torch.int64)
    return values.clamp(to.start, to.stop - 1).to(dtype)


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """Return the module of kernels if they run on this device."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    try:
        from . import kernels

        kernels.count(
            torch.zeros(1, 2, 1, 1, device=device),
            torch.zeros(1, 1, 1, device=device).long(),
            None,
            least=LEAST,
            values=1,
        )
    except Exception as error:  # a missing compiler may raise anything
        warnings.warn(
            f"Triton does not run here ({type(error).__name__}: {error}): metrics use the slower path", stacklevel=2
        )
        return None
    return kernels
