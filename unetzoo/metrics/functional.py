"""Scores as functions of tp, fp, fn, tn, with the names, shapes and reductions of segmentation-models-pytorch.

```python
tp, fp, fn, tn = get_stats(predicted, target, mode="multiclass", num_classes=19, ignore_index=255)
iou_score(tp, fp, fn, tn, reduction="macro")
```
Where SMP's value is well-defined, these functions return the same in float64. The differences are:

- `zero_division` is NaN by default, and NaN is not counted in means. In SMP it is 1, which rewards every class that
  does not occur. It also applies to `"micro"`, where SMP returns NaN.
- `class_weights` are only for the weighted reductions. SMP also takes them for `"macro"`, and divides that and
  `"weighted-imagewise"` by the number of classes a second time.
- `get_stats` rejects labels outside the classes (SMP silently counts them as no class), supports `ignore_index` in
  every mode, and is exact above 2²⁴ pixels.

These functions return final values, so they wait for the device; `SegmentationMetric.update` does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from ..errors import ConfigError, InputShapeError, did_you_mean
from ..labels import Mode
from .counting import PixelBins
from .inputs import true_labels
from .scores import FORMULAS, one_vs_rest

Reduction = Literal["none", "micro", "macro", "weighted", "micro-imagewise", "macro-imagewise", "weighted-imagewise"]
Formula = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


class Score(Protocol):
    """Signature of the scores; see `iou_score`."""

    def __call__(
        self,
        tp: Tensor,
        fp: Tensor,
        fn: Tensor,
        tn: Tensor,
        reduction: Reduction | None = None,
        class_weights: Sequence[float] | None = None,
        zero_division: float = math.nan,
    ) -> Tensor:
        """Compute the score."""
        ...


@torch.no_grad()
def get_stats(
    output: Tensor,
    target: Tensor,
    mode: Mode,
    ignore_index: int | None = None,
    threshold: float | Sequence[float] | None = None,
    num_classes: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count true positive, false positive, false negative and true negative pixels per image and class.

    Args:
        output: Predicted labels; or, with `threshold`, numbers to compare with it (`≥`).
        target: True labels.
        mode: "binary", "multiclass" or "multilabel".
        ignore_index: Label of the pixels that do not count.
        threshold: For binary and multilabel: the smallest output that predicts the label; one, or one per label.
        num_classes: For multiclass: number of classes.

    Shape:
        - output, target: multiclass (N, …); binary (N, 1, …); multilabel (N, C, …)
        - results: int64 (N, C); C = 1 for binary

    Raises:
        ConfigError: Arguments that do not fit the mode.
        SizeMismatchError: Output and target of different shapes.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes.
        NonFiniteError: NaN in the output.

    Examples:
        >>> predicted, truth = torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]])
        >>> get_stats(predicted, truth, "multiclass", num_classes=2)[0]
        tensor([[1, 1]])
    """
    if mode not in get_args(Mode):
        raise ConfigError("unknown mode", found=repr(mode), hint=did_you_mean(str(mode), get_args(Mode), "mode"))
    multiclass = mode == "multiclass"
    if multiclass and (num_classes is None or num_classes < 2):
        raise ConfigError("multiclass needs num_classes", expected="at least 2", found=num_classes)
    predicted, bins = _decided(output, mode, threshold), PixelBins((multiclass and num_classes) or 2, ignore_index)
    truth = true_labels(target, predicted, output)
    tables = predicted.shape[: 1 if multiclass else 2]  # one table per image, or per image and label
    truth, predicted = (labels.reshape(math.prod(tables), -1) for labels in (truth, predicted))
    counts = bins.count(truth, predicted, logits=output.is_floating_point())
    bins.check(counts.sum(0).tolist())
    tp, fp, fn, tn = one_vs_rest(bins.matrix(counts.unflatten(0, tables)))
    return (tp, fp, fn, tn) if multiclass else (tp[..., 1], fp[..., 1], fn[..., 1], tn[..., 1])


def stats_of(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return tp, fp, fn, tn (1, C) of a confusion matrix (C, C), rows = truth, such as a metric's `confusion`.

    Raises:
        InputShapeError: Not a square matrix of integers.

    Examples:
        >>> [counts.tolist() for counts in stats_of(torch.tensor([[3, 1], [0, 2]]))]
        [[[3, 2]], [[0, 1]], [[1, 0]], [[2, 3]]]
    """
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or confusion.is_floating_point():
        found = f"{tuple(confusion.shape)} of {confusion.dtype}"
        raise InputShapeError("not a confusion matrix", expected="integers (C, C)", found=found)
    return one_vs_rest(confusion[None])


def iou_score(
    tp: Tensor,
    fp: Tensor,
    fn: Tensor,
    tn: Tensor,
    reduction: Reduction | None = None,
    class_weights: Sequence[float] | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """IoU (Jaccard index): tp / (tp + fp + fn).

    Args:
        tp: True positives.
        fp: False positives.
        fn: False negatives.
        tn: True negatives.
        reduction: "micro": from the counts of all images and classes; "macro", "weighted": per class over all images,
            then the mean over classes; "micro-imagewise": per image from the counts of all classes, then the mean over
            images; "macro-imagewise", "weighted-imagewise": per image and class, then the mean over images, then over
            classes; None, "none": per image and class.
        class_weights: For the weighted reductions: one weight per class.
        zero_division: Value where the denominator is 0; NaN is not counted in means.

    Shape:
        - tp, fp, fn, tn: integers (N, C), of the same shape; any shape for "micro" and None
        - result: float64, a number; the counts' shape for None

    Raises:
        ConfigError: An unknown reduction; weights without a weighted reduction, or the reverse.
        InputShapeError: Counts of different shapes, or not (N, C).

    Examples:
        >>> counts = stats_of(torch.tensor([[3, 1], [0, 2]]))
        >>> iou_score(*counts, reduction="macro").item()
        0.7083333333333333
    """
    return _score(FORMULAS["iou"], (tp, fp, fn, tn), reduction, class_weights, zero_division)


def fbeta_score(
    tp: Tensor,
    fp: Tensor,
    fn: Tensor,
    tn: Tensor,
    beta: float = 1.0,
    reduction: Reduction | None = None,
    class_weights: Sequence[float] | None = None,
    zero_division: float = math.nan,
) -> Tensor:
    """F-beta: (1 + β²)·tp / ((1 + β²)·tp + β²·fn + fp); arguments as in `iou_score`.

    Args:
        tp: True positives.
        fp: False positives.
        fn: False negatives.
        tn: True negatives.
        beta: Weight of sensitivity against precision.
        reduction: See `iou_score`.
        class_weights: See `iou_score`.
        zero_division: See `iou_score`.

    Raises:
        ConfigError: As in `iou_score`; a β that is not positive.
    """
    if not 0.0 < beta < math.inf:
        raise ConfigError("unusable beta", expected="a positive number", found=beta)
    square = float(beta) ** 2

    def formula(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> tuple[Tensor, Tensor]:
        return (1.0 + square) * tp, (1.0 + square) * tp + square * fn + fp

    return _score(formula, (tp, fp, fn, tn), reduction, class_weights, zero_division)


def _named(name: str, formula: Formula, text: str) -> Score:
    """Return a score with the signature of `iou_score`."""

    def score(
        tp: Tensor,
        fp: Tensor,
        fn: Tensor,
        tn: Tensor,
        reduction: Reduction | None = None,
        class_weights: Sequence[float] | None = None,
        zero_division: float = math.nan,
    ) -> Tensor:
        return _score(formula, (tp, fp, fn, tn), reduction, class_weights, zero_division)

    score.__name__ = score.__qualname__ = name
    score.__doc__ = f"{text}; arguments, shapes and errors as in `iou_score`."
    return score


f1_score = dice_score = _named("f1_score", FORMULAS["f1"], "F1, Dice: 2tp / (2tp + fp + fn)")
accuracy = _named("accuracy", FORMULAS["accuracy"], "Accuracy of a class against all others: (tp + tn) / all")
precision = positive_predictive_value = _named("precision", FORMULAS["precision"], "Precision: tp / (tp + fp)")
sensitivity = recall = _named("sensitivity", FORMULAS["sensitivity"], "Sensitivity, recall: tp / (tp + fn)")
specificity = _named("specificity", FORMULAS["specificity"], "Specificity: tn / (tn + fp)")
balanced_accuracy = _named(
    "balanced_accuracy",
    lambda tp, fp, fn, tn: (tp * (tn + fp) + tn * (tp + fn), 2.0 * (tp + fn) * (tn + fp)),
    "Mean of sensitivity and specificity",
)


def _score(
    formula: Formula,
    stats: tuple[Tensor, Tensor, Tensor, Tensor],
    reduction: Reduction | None,
    class_weights: Sequence[float] | None,
    zero_division: float,
) -> Tensor:
    if reduction is not None and reduction not in get_args(Reduction):
        raise ConfigError(
            "unknown reduction",
            found=repr(reduction),
            hint=did_you_mean(str(reduction), get_args(Reduction), "reduction"),
        )
    reduction = reduction or "none"
    if ("weighted" in reduction) != (class_weights is not None):
        raise ConfigError(
            "class_weights belong to the weighted reductions", subject=reduction,
            expected="weights" if class_weights is None else "none", found=class_weights,
        )  # fmt: skip
    shape = stats[0].shape
    if any(counts.shape != shape for counts in stats) or (len(shape) != 2 and reduction not in ("none", "micro")):
        found = ", ".join(str(tuple(counts.shape)) for counts in stats)
        raise InputShapeError("unusable counts", expected="tp, fp, fn, tn of one shape (N, C)", found=found)
    first = {"micro": None, "macro": 0, "weighted": 0, "micro-imagewise": 1}
    if reduction in first:
        over = first[reduction]
        stats = tuple(counts.sum() if over is None else counts.sum(over) for counts in stats)  # pyright: ignore
    numerator, denominator = (part.double() for part in formula(*(counts.double() for counts in stats)))
    score = torch.where(denominator > 0, numerator / denominator, float(zero_division))
    if reduction.endswith("imagewise") and reduction != "micro-imagewise":
        score = score.nanmean(0)
    if reduction in ("none", "micro"):
        return score
    return score.nanmean() if class_weights is None else _weighted(score, class_weights)


def _weighted(score: Tensor, class_weights: Sequence[float]) -> Tensor:
    weights = torch.as_tensor(class_weights, dtype=torch.float64, device=score.device)
    if weights.shape != score.shape or (weights < 0).any() or not weights.sum() > 0:
        raise ConfigError(
            "unusable class_weights", expected=f"{score.numel()} numbers ≥ 0, not all 0", found=list(class_weights)
        )
    defined = ~score.isnan()
    return (score.where(defined, 0.0) * weights).sum() / (weights * defined).sum()


def _decided(output: Tensor, mode: str, threshold: float | Sequence[float] | None) -> Tensor:
    """Return predicted labels; 2 where an output compared with the threshold is NaN."""
    floating = output.is_floating_point()
    if mode == "multiclass":
        if floating or threshold is not None:
            raise ConfigError(
                "multiclass takes labels", expected="integers, no threshold", found=output.dtype,
                hint="give output.argmax(1)",
            )  # fmt: skip
        return output
    if output.ndim < 2 or (mode == "binary" and output.shape[1] != 1):
        raise InputShapeError(f"unusable {mode} output", expected="(N, 1, …)", found=tuple(output.shape))
    if threshold is None:
        if floating:
            raise ConfigError(f"{mode} outputs need a threshold", expected="threshold=…", found=output.dtype)
        return output
    dtype = output.dtype if floating else torch.float64
    limits = torch.as_tensor(threshold, dtype=dtype, device=output.device)
    if limits.ndim > 1 or limits.numel() not in (1, output.shape[1]):
        expected = f"1 or {output.shape[1]}"
        raise ConfigError("wrong number of thresholds", expected=expected, found=limits.numel())
    decided = output >= limits.view(-1, *[1] * (output.ndim - 2))
    return decided.to(torch.uint8).masked_fill_(output.isnan(), 2)
