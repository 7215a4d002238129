"""Scores of binary segmentation over all thresholds: best threshold, precision and recall, and calibration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, InputShapeError
from ..labels import LabelSpec
from . import inputs
from .scores import FORMULAS, Calibration, Curve, mean, ratio
from .state import SummedState, flags

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNIT = 2**30  # probabilities are summed as integers, in units of 1/UNIT
SPAN, FINENESS = 32, 1024  # logits are ranked between −SPAN and SPAN, in steps of 1/FINENESS
RANKS = 2 * SPAN * FINENESS


class SweepMetric(SummedState):
    """Scores of a binary segmentation over all thresholds, from a histogram of its probabilities.

    `compute` returns:

    - `best_threshold`: of the thresholds 0, 1/bins, …, the one with the highest F1 (and thus the highest IoU); the
      lowest of equals; `best_f1`, `best_iou`, `best_precision`, `best_sensitivity` at this threshold
    - `average_precision`: Σ (Rₙ − Rₙ₋₁)·Pₙ over falling thresholds
    - `roc_auc`: probability that a pixel of the foreground has a higher logit than one of the background, of equal ones
      ½. Logits count as equal within 1/1024, and beyond ±32: an error of at most half the share of such pairs
    - `ece`: expected calibration error of the probability of foreground, Σ over bins of (share of pixels)·|mean
      probability − share of foreground|; `mce`: the largest such difference
    - `prevalence`: share of true foreground; `pixels`: number of counted pixels

    Without true foreground, precision and recall are undefined and their scores are NaN; `roc_auc` also without
    background. All counts are integers, and
    the probabilities for calibration are summed in units of 2⁻³⁰, so the result does not depend on the order of
    batches and processes.

    Args:
        num_classes: 1, or 2.
        ignore_index: Label of the pixels that do not count; that of `labels` by default.
        labels: Two names, background first.
        bins: Number of thresholds; probabilities within the same 1/bins count as equal.
        calibration_bins: Number of bins of equal width for the calibration; must divide `bins`.

    Raises:
        ConfigError: Not binary; bins that do not fit.

    Examples:
        >>> metric = SweepMetric(bins=10, calibration_bins=2)
        >>> metric.update(torch.logit(torch.tensor([[[[0.15, 0.35, 0.75]]]])), torch.tensor([[[0, 1, 1]]]))
        >>> scores = metric.compute()
        >>> scores["best_threshold"], scores["best_f1"], round(scores["ece"], 6)
        (0.2, 1.0, 0.25)

    Source:
        Calibration as in Guo et al., "On Calibration of Modern Neural Networks", 2017, equations 2–5, for the
        probability of foreground rather than that of the more likely class.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        labels: LabelSpec | None = None,
        bins: int = 1000,
        calibration_bins: int = 10,
    ) -> None:
        self.names = inputs.binary_names(num_classes, labels, "sweep")
        self.ignore_index = inputs.ignored_label(ignore_index, labels)
        if bins < 2 or calibration_bins < 1 or bins % calibration_bins:
            raise ConfigError(
                "unusable bins", expected="at least 2, a multiple of calibration_bins", found=(bins, calibration_bins)
            )
        self.bins, self.calibration_bins = bins, calibration_bins
        super().__init__(
            {
                "histogram": torch.zeros(2, bins, dtype=torch.int64),  # rows = truth
                "ranks": torch.zeros(2, RANKS, dtype=torch.int64),
                "probability": torch.zeros(calibration_bins, dtype=torch.int64),
                "faults": torch.zeros(2, dtype=torch.int64),  # labels other than 0 and 1; NaN
            }
        )

    def rules(self) -> dict[str, Any]:
        """Return names and ignored label."""
        return {"names": self.names, "ignore_index": self.ignore_index}

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Count a batch without waiting for the device.

        Args:
            output: Logits.
            target: The true labels, 0 and 1.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.

        Shape:
            - output: floats (N, 1, H, W), or (N, 2, H, W) for softmax
            - target: integers (N, H, W) or (N, 1, H, W)
            - weight: (N, H, W) or (N, 1, H, W)

        Raises:
            InputShapeError: An output of the wrong shape.
            SizeMismatchError: Output, target and weight of different sizes.
            DataError: A target without integer labels; weights other than 0 and 1.
        """
        if output.ndim != 4 or output.shape[1] not in (1, 2) or not output.is_floating_point():
            found = f"{tuple(output.shape)} of {output.dtype}"
            raise InputShapeError("unusable output", expected="logits (N, 1, H, W) or (N, 2, H, W)", found=found)
        logits = output[:, 0] if output.shape[1] == 1 else output[:, 1] - output[:, 0]
        truth = inputs.true_labels(target, logits, output)
        probability = logits.double().sigmoid()
        counted = torch.ones_like(truth, dtype=torch.bool) if self.ignore_index is None else truth != self.ignore_index
        weighed = inputs.counted_pixels(weight, truth)
        counted = counted if weighed is None else counted & weighed
        strange = counted & (truth != 0) & (truth != 1)
        nan = counted & probability.isnan()
        counted = (counted & ~strange & ~nan).flatten()
        # An extra bin for the pixels that do not count.
        place = (probability * self.bins).nan_to_num(0.0).long().clamp_(max=self.bins - 1).flatten()
        rows = torch.where(counted, place + truth.flatten().long() * self.bins, 2 * self.bins)
        rank = ((logits.double() + SPAN) * FINENESS).nan_to_num().clamp_(0, RANKS - 1).long().flatten()
        ranks = torch.where(counted, rank + truth.flatten().long() * RANKS, 2 * RANKS)
        columns = torch.where(counted, place // (self.bins // self.calibration_bins), self.calibration_bins)
        parts = (probability * UNIT).nan_to_num(0.0).round().long().flatten()
        self.add(
            histogram=_summed(rows, torch.ones_like(rows), 2 * self.bins).view(2, self.bins),
            ranks=_summed(ranks, torch.ones_like(ranks), 2 * RANKS).view(2, RANKS),
            probability=_summed(columns, parts, self.calibration_bins),
            faults=flags(strange, nan),
        )

    def compute(self) -> dict[str, float]:
        """Compute all scores of the pixels counted so far.

        Raises:
            LabelRangeError: Labels other than 0, 1 and the ignored one.
            NonFiniteError: NaN in the logits.
        """
        strange, nan = self._sums["faults"].tolist()
        if strange:
            raise inputs.range_error("truth", {"other values": strange}, 2)
        if nan:
            raise inputs.nan_error(nan)
        curve, calibration = self.curve(), self.calibration()
        histogram = self._sums["histogram"].cpu()
        true, pixels = int(histogram[1].sum()), int(histogram.sum())
        best = int(np.argmax(curve.f1)) if true else 0
        at_best = {"threshold": curve.threshold, "f1": curve.f1, "iou": curve.iou, "precision": curve.precision}
        at_best["sensitivity"] = curve.recall
        scores = {f"best_{name}": float(values[best]) if true else math.nan for name, values in at_best.items()}
        gaps = np.abs(calibration.predicted - calibration.true)
        steps = curve.recall - np.append(curve.recall[1:], 0.0)
        return scores | {
            "average_precision": float((steps * np.nan_to_num(curve.precision)).sum()) if true else math.nan,
            "roc_auc": self._roc_auc(),
            "ece": mean(gaps.tolist(), calibration.pixels.tolist()),
            "mce": float(np.nanmax(gaps)) if pixels else math.nan,
            "prevalence": ratio(true, pixels, math.nan),
            "pixels": float(pixels),
        }

    def _roc_auc(self) -> float:
        """The share of pairs of foreground and background in the right order; equal ones count half."""
        background, foreground = self._sums["ranks"].cpu().numpy().astype(np.float64)
        lower = np.cumsum(background) - background / 2
        return ratio(float(foreground @ lower), float(foreground.sum() * background.sum()), math.nan)

    def curve(self) -> Curve:
        """Return scores at every threshold in ascending order; precision is NaN where nothing is predicted."""
        histogram = self._sums["histogram"].cpu().numpy()
        fp, tp = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1]
        fn = histogram[1].sum() - tp
        scores = {}
        for name in ("precision", "sensitivity", "f1", "iou"):
            numerator, denominator = FORMULAS[name](tp, fp, fn, 0)
            missing = np.full(self.bins, np.nan)
            scores[name] = np.divide(numerator, denominator, out=missing, where=denominator > 0)
        threshold = np.arange(self.bins) / self.bins
        return Curve(threshold, scores["precision"], scores["sensitivity"], scores["f1"], scores["iou"])

    def calibration(self) -> Calibration:
        """Return mean probability and share of foreground per bin of probability; NaN in bins without pixels."""
        histogram = self._sums["histogram"].cpu().numpy().reshape(2, self.calibration_bins, -1).sum(2)
        pixels = histogram.sum(0)
        missing = np.full(self.calibration_bins, np.nan)
        predicted = self._sums["probability"].cpu().numpy() / UNIT
        return Calibration(
            pixels,
            np.divide(predicted, pixels, out=missing.copy(), where=pixels > 0),
            np.divide(histogram[1], pixels, out=missing.copy(), where=pixels > 0),
        )

    def figure(self) -> Figure:
        """Plot precision over recall, scores over the threshold, and the calibration, side by side."""
        from .figures import sweep_figure

        return sweep_figure(self.curve(), self.calibration(), self.compute())

    def report(self, folder: str | Path) -> dict[str, float]:
        """Write scores.json and sweep.png, and return the scores.

        Raises:
            LabelRangeError: Labels other than 0, 1 and the ignored one.
            NonFiniteError: NaN in the logits.
            DataError: A folder that cannot be written to.
        """
        from .figures import save
        from .report import write_scores

        scores = write_scores(self.compute(), folder)
        save(self.figure(), Path(folder) / "sweep.png")
        return scores


def _summed(places: Tensor, values: Tensor, count: int) -> Tensor:
    """Sum integers by place; the place `count` is for pixels that do not count."""
    sums = torch.zeros(count + 1, dtype=torch.int64, device=places.device)
    return sums.scatter_add_(0, places, values)[:count]
