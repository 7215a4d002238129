"""Segmentation scores: one integer confusion matrix, every score from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, DataError, InputShapeError, LabelRangeError, NonFiniteError, SizeMismatchError
from ..labels import LabelSpec
from .state import SummedState, ratio

# Labels outside the classes are counted by value: negative, 0…255 (all that an 8-bit mask can hold), larger.
STRANGE = ("negative", *map(str, range(256)), "above 255")


class SegmentationMetric(SummedState):
    """Confusion matrix of a segmentation, and the scores that follow from it.

    With tp, fp, fn, tn of a class against all others, over all pixels counted:
    IoU = tp/(tp+fp+fn), F1 = Dice = 2tp/(2tp+fp+fn), precision = tp/(tp+fp), sensitivity = tp/(tp+fn),
    specificity = tn/(tn+fp). `compute` gives, flat:

    - `miou`, `mdice`: means of IoU and F1 over classes; `miou_defined`: over how many, those that occur in truth or
      prediction
    - `pixel_accuracy`: share of pixels that are right
    - `iou/<class>`, `f1/…`, `precision/…`, `sensitivity/…`, `specificity/…`
    - `iou/<group>`, `f1/<group>`: of the merged classes, what they are mistaken for among themselves being right
    - `micro/…`: the same scores of the tp, fp, fn, tn summed over classes, and `micro/accuracy` = (tp+tn)/all

    `update` never waits for the device. What it finds wrong is counted there and reported by `compute`.

    Args:
        classes: Number of classes; 1 means binary: one logit a pixel, two classes to count.
        ignore_index: Label of the pixels that do not count; that of `labels` by default.
        labels: Names and groups of the classes; two names for binary. Without it classes are named by their index,
            binary ones `background` and `foreground`.
        empty: Value of a score whose denominator is 0, as IoU and F1 of a class that neither truth nor prediction
            has: "nan" (not counted in the means), 0 or 1.
        threshold: Binary: the probability above which a pixel is foreground.

    Raises:
        ConfigError: Neither classes nor labels, or such as contradict each other.

    Examples:
        >>> metric = SegmentationMetric(classes=3, ignore_index=255)
        >>> metric.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
        >>> metric.confusion
        tensor([[1, 0, 0],
                [1, 1, 0],
                [0, 0, 0]])
        >>> scores = metric.compute()
        >>> scores["miou"], scores["miou_defined"], scores["iou/2"]
        (0.5, 2.0, nan)

    Source:
        IoU as in Everingham et al., "The PASCAL Visual Object Classes Challenge", 2015, section 4.3; merged regions
        as the Helen benchmark scores them (Smith et al., "Exemplar-Based Face Parsing", 2013).
    """

    def __init__(
        self,
        classes: int | None = None,
        ignore_index: int | None = None,
        labels: LabelSpec | None = None,
        empty: Literal["nan", 0, 1] = "nan",
        threshold: float = 0.5,
    ) -> None:
        names, self.groups = _names_and_groups(classes, labels)
        self.names, self.classes = names, len(names)
        self.ignore_index = labels.ignore_index if ignore_index is None and labels is not None else ignore_index
        if empty not in ("nan", 0, 1):
            raise ConfigError("unknown policy", subject="empty", expected='"nan", 0 or 1', found=repr(empty))
        if not 0.0 < threshold < 1.0:
            raise ConfigError("unusable threshold", expected="a probability in (0, 1)", found=threshold)
        self.empty, self.threshold = float(empty), threshold
        # One bin for every fate of a pixel: a cell of the matrix; ignored; a label outside the classes in truth or in
        # prediction, by value; NaN in the logits.
        self._cells = self.classes**2
        bins = self._cells + 1 + 2 * len(STRANGE) + 1
        super().__init__({"counts": torch.zeros(bins, dtype=torch.int64)})

    @property
    def confusion(self) -> Tensor:
        """Pixels by class, int64 (classes, classes), rows = truth."""
        return self._sums["counts"][: self._cells].view(self.classes, self.classes)

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            output: Logits, or a map of predicted labels.
            target: The true labels.

        Shape:
            - output: floats (N, C, H, W), C = classes, or 1 for binary; or integers (N, H, W)
            - target: integers (N, H, W) or (N, 1, H, W)

        Raises:
            InputShapeError: An output of another shape.
            SizeMismatchError: Output and target of different sizes.
            DataError: A target that is not of integers.
        """
        predicted, nan = self._predicted(output)
        truth = target.squeeze(1) if target.ndim == 4 and target.shape[1] == 1 else target
        if truth.is_floating_point() or truth.is_complex():
            raise DataError(
                "unusable target", expected="integer labels (int64)", found=truth.dtype, hint="give target.long()"
            )
        if truth.shape != predicted.shape:
            raise SizeMismatchError(
                "the target does not fit the output",
                subject=f"output {tuple(output.shape)}",
                expected=f"shape {tuple(predicted.shape)}",
                found=tuple(target.shape),
                hint="score at the target's own size: resize the logits, not the labels",
            )
        truth = truth.to(predicted.device, torch.int64)
        self.add(counts=_histogram(self._bins(truth, predicted, nan), len(self._zeros["counts"])))

    def compute(self) -> dict[str, float]:
        """All scores of what was counted.

        Raises:
            LabelRangeError: Labels outside the classes were met.
            NonFiniteError: NaN was met in the logits.
        """
        counts: list[int] = self._sums["counts"].tolist()
        self._report(counts)
        k = self.classes
        matrix = [counts[row * k : row * k + k] for row in range(k)]
        tables = [_Table.of(matrix, [index]) for index in range(k)]
        occurs = [table.tp + table.fp + table.fn > 0 for table in tables]
        micro = _Table(*map(sum, zip(*tables, strict=True)))
        total, right = sum(map(sum, matrix)), sum(matrix[index][index] for index in range(k))
        scores = {
            "miou": self._mean([table.scores(self.empty)["iou"] for table in tables]),
            "mdice": self._mean([table.scores(self.empty)["f1"] for table in tables]),
            "pixel_accuracy": ratio(right, total, self.empty),
            "miou_defined": float(sum(occurs)),
        }
        for name, table in zip(self.names, tables, strict=True):
            scores |= {f"{score}/{name}": value for score, value in table.scores(self.empty).items()}
        for name, members in self.groups.items():
            merged = _Table.of(matrix, members).scores(self.empty)
            scores |= {f"{score}/{name}": merged[score] for score in ("iou", "f1")}
        scores |= {f"micro/{score}": value for score, value in micro.scores(self.empty).items()}
        scores["micro/accuracy"] = ratio(micro.tp + micro.tn, sum(micro), self.empty)
        return scores

    def _predicted(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predicted labels (N, H, W), and where the logits held NaN."""
        if not output.is_floating_point():
            labels = output.squeeze(1) if output.ndim == 4 and output.shape[1] == 1 else output
            if labels.ndim == 3 and not output.is_complex():
                return labels.to(torch.int64), None
        elif output.ndim == 4 and output.shape[1] == self.classes:
            best, labels = output.max(1)  # NaN is the maximum wherever it occurs
            return labels, best.isnan()
        elif output.ndim == 4 and output.shape[1] == 1 and self.classes == 2:
            logit = output[:, 0]
            return (logit > math.log(self.threshold / (1.0 - self.threshold))).to(torch.int64), logit.isnan()
        one = " or (N, 1, H, W)" if self.classes == 2 else ""
        raise InputShapeError(
            "unusable output",
            expected=f"logits (N, {self.classes}, H, W){one}, or integer labels (N, H, W)",
            found=f"{tuple(output.shape)} of {output.dtype}",
        )

    def _bins(self, truth: Tensor, predicted: Tensor, nan: Tensor | None) -> Tensor:
        bins = truth * self.classes + predicted
        odd = (predicted < 0) | (predicted >= self.classes) if nan is None else nan
        outside = (truth < 0) | (truth >= self.classes)
        ignored = None if self.ignore_index is None else truth == self.ignore_index
        if bins.device.type == "cpu":  # looking makes nobody wait here, and saves half of the work
            special = outside | odd if ignored is None else outside | odd | ignored
            if not bool(special.any()):
                return bins
        of_ignored = self._cells
        of_truth, of_prediction = of_ignored + 1, of_ignored + 1 + len(STRANGE)
        # The later, the stronger: an ignored pixel counts for nothing, whatever was predicted there.
        if nan is None:
            bins = torch.where(odd, predicted.clamp(-1, 256) + (1 + of_prediction), bins)
        else:
            bins = bins.masked_fill(nan, of_prediction + len(STRANGE))
        bins = torch.where(outside, truth.clamp(-1, 256) + (1 + of_truth), bins)
        return bins if ignored is None else bins.masked_fill(ignored, of_ignored)

    def _report(self, counts: Sequence[int]) -> None:
        start = self._cells + 1
        for what, hint in (
            ("truth", "pass ignore_index if they mark ignored pixels, else map file values to classes in the data set"),
            ("prediction", "predict class indices, or give the metric as many classes as are predicted"),
        ):
            strange = {name: n for name, n in zip(STRANGE, counts[start : start + len(STRANGE)], strict=True) if n}
            start += len(STRANGE)
            if strange:
                shown = [f"{n} × {name}" for name, n in list(strange.items())[:10]]
                raise LabelRangeError(
                    "labels outside the classes",
                    subject=what,
                    expected=f"0…{self.classes - 1}",
                    found=f"{sum(strange.values())} pixels: " + ", ".join(shown) + (", …" if len(strange) > 10 else ""),
                    hint=hint,
                )
        if counts[-1]:
            raise NonFiniteError(
                "NaN in the logits",
                expected="numbers",
                found=f"NaN at {counts[-1]} pixels",
                hint="look at the network's weights and input; no score of such logits would mean anything",
            )

    @staticmethod
    def _mean(values: Sequence[float]) -> float:
        defined = [value for value in values if not math.isnan(value)]
        return ratio(math.fsum(defined), len(defined), math.nan)


class _Table(NamedTuple):
    """One class, or several merged, against all others; Python integers, so that every quotient is exact."""

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, matrix: Sequence[Sequence[int]], members: Sequence[int]) -> _Table:
        truth = sum(sum(matrix[index]) for index in members)
        predicted = sum(row[index] for row in matrix for index in members)
        tp = sum(matrix[row][column] for row in members for column in members)
        return cls(tp, predicted - tp, truth - tp, sum(map(sum, matrix)) - truth - predicted + tp)

    def scores(self, empty: float) -> dict[str, float]:
        tp, fp, fn, tn = self
        return {
            "iou": ratio(tp, tp + fp + fn, empty),
            "f1": ratio(2 * tp, 2 * tp + fp + fn, empty),
            "precision": ratio(tp, tp + fp, empty),
            "sensitivity": ratio(tp, tp + fn, empty),
            "specificity": ratio(tn, tn + fp, empty),
        }


def _names_and_groups(
    classes: int | None, labels: LabelSpec | None
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    if labels is None:
        if not isinstance(classes, int) or classes < 1:
            raise ConfigError(
                "a segmentation metric needs classes",
                expected="classes ≥ 1, or labels",
                found=classes,
                hint="pass classes=…, or labels=dataset.labels",
            )
        binary = ("background", "foreground")
        return binary if classes == 1 else tuple(map(str, range(classes))), {}
    binary = len(labels) == 2 and classes == 1
    if len(labels) < 2 or (classes not in (None, len(labels)) and not binary):
        raise ConfigError(
            "classes and labels contradict each other",
            expected=f"{len(labels)} classes" if len(labels) > 1 else "labels of at least two names",
            found=f"{classes} classes, {len(labels)} labels",
            hint="leave classes out when there are labels",
        )
    groups = {name: tuple(sorted(set(members))) for name, members in labels.groups.items()}
    for name, members in groups.items():
        if name in labels.names and members != (labels.names.index(name),):
            raise ConfigError("a group bears the name of a class", subject=name, hint="rename the group")
    return labels.names, groups


def _histogram(bins: Tensor, count: int) -> Tensor:
    """How often each bin occurs; int64, exact at any size."""
    if bins.device.type == "cpu":
        return torch.bincount(bins.flatten(), minlength=count)
    return _histogram_by_rows(bins, count)  # `bincount` has the host wait for the largest value


def _histogram_by_rows(bins: Tensor, count: int) -> Tensor:
    # One histogram a row of the picture: the device's atomic adds seldom meet, and int32 is enough.
    rows = bins.flatten(0, 1)
    counts = torch.zeros(rows.shape[0], count, dtype=torch.int32, device=bins.device)
    ones = torch.ones((), dtype=torch.int32, device=bins.device).expand_as(rows)
    return counts.scatter_add_(1, rows, ones).sum(0, dtype=torch.int64)
