"""Checks and conversions of metric inputs: class names, logits or label maps, and targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, DataError, InputShapeError, LabelRangeError, NonFiniteError, SizeMismatchError
from ..labels import LabelSpec, Mode
from ..wording import pluralize

NUMBERS = 2**21  # number of logits processed at once on the CPU, so that they fit into its caches
BINARY = ("background", "foreground")


def class_names(num_classes: int | None, labels: LabelSpec | None, mode: str | None = None) -> tuple[str, ...]:
    """Return one name per class; binary tasks (`num_classes=1`) have two.

    Raises:
        ConfigError: Neither num_classes nor labels, or both and they are inconsistent.
    """
    multilabel = mode == "multilabel"
    least = 1 if multilabel else 2
    if labels is None:
        if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
            raise ConfigError(
                "the metric needs num_classes",
                expected="num_classes ≥ 1, or labels",
                found=num_classes,
                hint="pass num_classes=…, or labels=dataset.labels",
            )
        return BINARY if num_classes == 1 and not multilabel else tuple(map(str, range(num_classes)))
    binary = len(labels) == 2 and num_classes == 1 and not multilabel
    if len(labels) < least or (num_classes not in (None, len(labels)) and not binary):
        raise ConfigError(
            "num_classes and labels contradict each other",
            expected=f"num_classes={len(labels)}" if len(labels) >= least else "labels of at least two names",
            found=f"num_classes={num_classes}, {pluralize(len(labels), 'label')}",
            hint="leave num_classes out when labels are given",
        )
    return labels.names


def binary_names(num_classes: int | None, labels: LabelSpec | None, metric: str) -> tuple[str, str]:
    """Return the two names of a binary task.

    Raises:
        ConfigError: A different number of classes.
    """
    names = class_names(1 if num_classes is None and labels is None else num_classes, labels)
    if len(names) != 2:
        raise ConfigError(
            f"{metric} is a score of binary tasks",
            expected="num_classes=1, or labels of two names",
            found=f"{len(names)} classes",
        )
    return names[0], names[1]


def counted_pixels(weight: Tensor | None, like: Tensor) -> Tensor | None:
    """Return which pixels of (N, …, H, W) labels count, where the weight is not 0; None without a weight.

    Metrics count pixels, so a weight is 0 or 1. A weight that is not bool is checked, and the host waits for that.

    Raises:
        SizeMismatchError: A weight that is not (N, H, W) or (N, 1, H, W).
        DataError: Weights other than 0 and 1.
    """
    if weight is None:
        return None
    batch, *_, height, width = like.shape
    if weight.shape not in ((batch, height, width), (batch, 1, height, width)):
        raise SizeMismatchError(
            "the weight does not fit the output",
            expected=f"shape {(batch, height, width)} or {(batch, 1, height, width)}",
            found=tuple(weight.shape),
        )
    if weight.dtype != torch.bool and (other := weight[(weight != 0) & (weight != 1)]).numel():
        raise DataError(
            "metrics count pixels and cannot weigh them",
            subject="weight",
            expected="bool, or 0 and 1",
            found=f"{other[0].item():g}",
            hint="give weight > 0 to leave out the pixels of weight 0",
        )
    return weight.to(like.device).view(batch, *[1] * (like.ndim - 3), height, width) > 0


def group_members(labels: LabelSpec | None) -> dict[str, tuple[int, ...]]:
    """Return the members of each group of a label set.

    Raises:
        ConfigError: A group with the name of another class; their scores would share a key.
    """
    groups = {name: tuple(sorted(set(members))) for name, members in labels.groups.items()} if labels else {}
    for name, members in groups.items():
        if labels and name in labels.names and members != (labels.names.index(name),):
            raise ConfigError("a group has the name of a class", subject=name, hint="rename the group")
    return groups


def ignored_label(ignore_index: int | None, labels: LabelSpec | None) -> int | None:
    """Return the ignored label: the argument, or else that of the label set.

    Raises:
        ConfigError: Not an integer.
    """
    ignored = labels.ignore_index if ignore_index is None and labels is not None else ignore_index
    if ignored is not None and (not isinstance(ignored, int) or isinstance(ignored, bool)):
        raise ConfigError("unusable ignore_index", expected="an integer, or None", found=repr(ignored))
    return ignored


def empty_value(empty: Literal["nan", 0, 1]) -> float:
    """Return the policy for scores without a denominator as a number.

    Raises:
        ConfigError: An unknown policy.
    """
    if empty not in ("nan", 0, 1):
        raise ConfigError("unknown policy", subject="empty", expected='"nan", 0 or 1', found=repr(empty))
    return float(empty)


def check_probability(value: float, what: str) -> float:
    """Check that a value is a probability strictly between 0 and 1 and return it.

    Raises:
        ConfigError: Any other value.
    """
    if not 0.0 < value < 1.0:
        raise ConfigError(f"unusable {what}", expected="a probability in (0, 1)", found=value)
    return float(value)


def logit_of(probability: float) -> float:
    """Return the logit of a probability."""
    return math.log(probability / (1.0 - probability))


def true_labels(target: Tensor, predicted: Tensor, output: Tensor) -> Tensor:
    """Return the target with the shape and device of the labels predicted from the output.

    Raises:
        DataError: A target without integer labels.
        SizeMismatchError: A target of the wrong shape.
    """
    shape = predicted.shape
    truth = target.squeeze(1) if target.ndim == len(shape) + 1 and target.shape[1] == 1 else target
    if truth.is_floating_point() or truth.is_complex():
        raise DataError(
            "unusable target", expected="integer labels (int64)", found=truth.dtype, hint="give target.long()"
        )
    if truth.shape != shape:
        raise SizeMismatchError(
            "the target does not fit the output",
            subject=f"output {tuple(output.shape)}",
            expected=f"shape {tuple(shape)}",
            found=tuple(target.shape),
            hint="score at the target's own size: resize the logits, not the labels",
        )
    return truth.to(predicted.device)


def predicted_labels(output: Tensor, classes: int, threshold: float = 0.5) -> tuple[Tensor, bool]:
    """Return predicted labels (N, H, W) and whether they come from logits, where NaN has the label `classes`.

    Raises:
        InputShapeError: Neither logits with this number of classes nor a label map.
    """
    if not output.is_floating_point():
        labels = output.squeeze(1) if output.ndim == 4 and output.shape[1] == 1 else output
        if labels.ndim == 3 and not output.is_complex():
            return labels, False
    elif output.ndim == 4 and output.shape[1] == 1 and classes == 2:
        return above(output[:, 0], threshold), True
    elif output.ndim == 4 and output.shape[1] == classes == 2 and threshold != 0.5:
        return above(output[:, 1] - output[:, 0], threshold), True
    elif output.ndim == 4 and output.shape[1] == classes:
        return argmax(output), True
    one = " or (N, 1, H, W)" if classes == 2 else ""
    raise InputShapeError(
        "unusable output",
        expected=f"logits (N, {classes}, H, W){one}, or integer labels (N, H, W)",
        found=f"{tuple(output.shape)} of {output.dtype}",
    )


def above(logits: Tensor, threshold: float) -> Tensor:
    """Return 1 where the probability of a logit exceeds the threshold, 2 where it is NaN, 0 elsewhere."""
    return (logits > logit_of(threshold)).to(torch.uint8).masked_fill_(logits.isnan(), 2)


def argmax(logits: Tensor) -> Tensor:
    """Return the argmax over channels (N, C, …) in a small integer type; the first of equals, C where one is NaN."""
    classes = logits.shape[1]
    dtype = torch.uint8 if classes < 2**8 else torch.int32
    if logits.device.type != "cpu" or logits.is_contiguous(memory_format=torch.channels_last):
        best, index = logits.max(1)  # NaN is the maximum wherever it occurs
        return index.to(dtype).masked_fill_(best.isnan(), classes)
    # Find the maximum, then the first channel that equals it: torch's argmax strides over the channels of each pixel
    # and is ten times slower. NaN equals nothing, so its rank remains 0, which becomes the label C.
    batch, _, *size = logits.shape
    flat = logits.flatten(2)
    rank = torch.arange(classes, 0, -1, dtype=dtype, device=logits.device)[:, None]
    labels = torch.empty(batch, flat.shape[2], dtype=dtype, device=logits.device)
    block = max(1, NUMBERS // classes)
    together = max(1, block // max(1, flat.shape[2]))
    for first in range(0, batch, together):
        for start in range(0, flat.shape[2], block):
            part = flat[first : first + together, :, start : start + block]
            largest = (part == part.amax(1, keepdim=True)).view(torch.uint8).to(dtype).mul_(rank)
            labels[first : first + together, start : start + block] = largest.amax(1)
    return labels.neg_().add_(classes).view(batch, *size)


def range_error(what: Literal["truth", "prediction"], counts: Mapping[str, int], classes: int) -> LabelRangeError:
    """Return the error for labels outside the classes, given their counts by value."""
    hints = {
        "truth": "pass ignore_index if they mark ignored pixels, else map file values to classes in the data set",
        "prediction": "predict class indices, or give the metric as many classes as are predicted",
    }
    shown = ", ".join(f"{n} × {name}" for name, n in list(counts.items())[:10]) + (", …" if len(counts) > 10 else "")
    return LabelRangeError(
        "labels outside the classes",
        subject=what,
        expected=f"0…{classes - 1}",
        found=f"{pluralize(sum(counts.values()), 'pixel')}: {shown}",
        hint=hints[what],
    )


def nan_error(pixels: int) -> NonFiniteError:
    """Return the error for NaN in the logits."""
    return NonFiniteError(
        "NaN in the logits",
        expected="numbers",
        found=f"NaN at {pluralize(pixels, 'pixel')}",
        hint="check the weights and the input of the network; NaN cannot be scored",
    )


def exceeds(logits: Tensor, probability: float) -> Tensor:
    """Return where the most likely class exceeds this probability."""
    logits = logits.float()
    log = F.logsigmoid(logits.abs()) if logits.shape[1] == 1 else logits.amax(1) - logits.logsumexp(1)
    return log > math.log(probability)


def checked_mode(mode: Mode | None, classes: int) -> Mode:
    """Return the mode of a metric; by default it follows from the number of classes.

    Raises:
        ConfigError: An unknown mode; a binary metric without exactly two classes.
    """
    if mode not in (None, "binary", "multiclass", "multilabel"):
        raise ConfigError("unknown mode", expected="binary, multiclass or multilabel", found=repr(mode))
    if mode == "binary" and classes != 2:
        raise ConfigError(
            "a binary metric has one class", expected="num_classes=1, or labels of two names", found=classes
        )
    return mode or ("binary" if classes == 2 else "multiclass")


def thresholds_of(threshold: float | Sequence[float], mode: Mode, classes: int) -> tuple[float, ...]:
    """Return one threshold, or one per label if multilabel.

    Raises:
        ConfigError: Not a probability, the wrong number of thresholds, or thresholds for exclusive classes.
    """
    values = (threshold,) if isinstance(threshold, int | float) else tuple(threshold)
    most = classes if mode == "multilabel" else 1
    if len(values) not in (1, most):
        raise ConfigError("wrong number of thresholds", expected=f"1 or {most}", found=len(values))
    if mode == "multiclass" and values != (0.5,):
        raise ConfigError(
            "several classes have no threshold: the most likely one is taken", found=f"threshold={threshold}",
            hint='leave it out, or choose mode="multilabel"',
        )  # fmt: skip
    return tuple(check_probability(value, "threshold") for value in values) * (most // len(values))
