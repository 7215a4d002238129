"""Losses that are a mean over pixels: cross entropy, binary cross entropy, focal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ._inputs import (
    Mode,
    check_mode,
    check_output,
    class_vector,
    for_classes,
    full_precision,
    outside_autocast,
    read_target,
    weighted_mean,
)


class CELoss(nn.Module):
    r"""Cross entropy of a softmax over the classes, one label a pixel.

    With w the pixel's weight (0 where ignored), c the class weights and t the label:
    `loss = Σ w·l / Σ w·c[t]`, `l = (1 − s)·c[t]·(−ln p[t]) + s/C·Σ_k c[k]·(−ln p[k])`, s the label smoothing. Without
    `weight` that is `torch.nn.CrossEntropyLoss`. Nothing but ignored pixels: 0, with zero gradient.

    Args:
        class_weights: One number ≥ 0 a class.
        ignore_index: Label of the pixels that do not count.
        label_smoothing: Share of the target that is spread evenly over all classes, in [0, 1).

    Shape:
        - output: logits (N, C, H, W), C ≥ 2
        - target: integers (N, H, W) or (N, 1, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Unusable class weights or smoothing.
        InputShapeError: An output that is not (N, C, H, W) with C ≥ 2.
        SizeMismatchError: A target or weight of another size.
        DataError: A target that is not of integers.
        LabelRangeError: Labels outside the classes, checked on the CPU alone: on an accelerator, where looking would
            make the host wait, the loss is NaN instead.

    Examples:
        >>> import torch
        >>> loss = CELoss(ignore_index=255)
        >>> logits = torch.zeros(1, 4, 2, 2)
        >>> round(loss(logits, torch.tensor([[[0, 1], [3, 255]]])).item(), 4)  # ln 4
        1.3863

    Source:
        Label smoothing: Szegedy et al., "Rethinking the Inception Architecture", 2016, eq. 7. Weight maps:
        Ronneberger et al., "U-Net", 2015, eq. 1.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_weights: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise ConfigError("unusable label_smoothing", expected="a number in [0, 1)", found=label_smoothing)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.register_buffer("class_weights", class_vector(class_weights, "class_weights"), persistent=False)

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar."""
        check_output(output, many=True, hint="'bce'")
        with outside_autocast(output):
            output = full_precision(output)
            truth = read_target(output, target, mode="multiclass", ignore_index=self.ignore_index, weight=weight)
            per_class = for_classes(self.class_weights, output, output.shape[1], "class_weights")
            labels = truth.labels[:, 0]
            loss = F.cross_entropy(
                output, labels, weight=per_class, reduction="none", label_smoothing=self.label_smoothing
            )
            pixels = None if truth.weight is None else truth.weight[:, 0]
            norm = None if per_class is None else per_class[labels]
            return truth.settle(weighted_mean(loss, pixels, norm))


class BCELoss(nn.Module):
    r"""Binary cross entropy of a sigmoid: one channel (binary), or several that do not exclude each other (multilabel).

    With w the pixel's weight (0 where ignored), q the positive weight of the channel and y in {0, 1}:
    `loss = Σ w·l / Σ w`, `l = −q·y·ln σ(x) − (1 − y)·ln(1 − σ(x))`, over all pixels and channels. Ignored labels are
    outside the mean's denominator as well. Nothing but ignored labels: 0, with zero gradient.

    Args:
        pos_weight: Weight of the positive labels: a number, or one a channel.
        ignore_index: Label that does not count; for multilabel, label by label.

    Shape:
        - output: logits (N, K, H, W)
        - target: integers {0, 1}, (N, K, H, W); for K = 1 also (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Unusable positive weights.
        InputShapeError: An output that is not (N, K, H, W).
        SizeMismatchError: A target or weight of another size.
        DataError: A target that is not of integers.
        LabelRangeError: Labels other than 0 and 1, checked on the CPU alone: on an accelerator, where looking would
            make the host wait, the loss is NaN instead.

    Examples:
        >>> import torch
        >>> loss = BCELoss(ignore_index=255)
        >>> round(loss(torch.zeros(1, 1, 1, 3), torch.tensor([[[0, 1, 255]]])).item(), 4)  # ln 2
        0.6931

    Source:
        `torch.nn.BCEWithLogitsLoss`, whose mean it is when nothing is ignored and `weight` is not given.
    """

    pos_weight: Tensor | None

    def __init__(
        self, pos_weight: float | Sequence[float] | Tensor | None = None, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self._one_for_all = isinstance(pos_weight, int | float)
        values = [pos_weight] if isinstance(pos_weight, int | float) else pos_weight
        self.register_buffer("pos_weight", class_vector(values, "pos_weight"), persistent=False)

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar."""
        check_output(output)
        with outside_autocast(output):
            output = full_precision(output)
            truth = read_target(output, target, mode="multilabel", ignore_index=self.ignore_index, weight=weight)
            channels = 1 if self._one_for_all else output.shape[1]
            positive = for_classes(self.pos_weight, output, channels, "pos_weight")
            loss = F.binary_cross_entropy_with_logits(
                output,
                truth.labels.to(output.dtype),
                pos_weight=None if positive is None else positive.view(-1, 1, 1),
                reduction="none",
            )
            return truth.settle(weighted_mean(loss, truth.weight))


class FocalLoss(nn.Module):
    r"""Focal loss of a sigmoid for each channel: cross entropy that turns away from what is already right.

    With w the pixel's weight (0 where ignored), c the channel's, q the probability that the channel's sigmoid gives
    the truth, and a = alpha for positive labels and 1 − alpha for the others: `loss = Σ w·c·a·f·(−ln q) / Σ w·c`,
    `f = (1 − q)^gamma`, over all pixels and channels. Multiclass labels too are one sigmoid a class against the rest
    (as in the paper and in SMP), not a softmax. Nothing but ignored labels: 0, with zero gradient.

    Args:
        mode: "binary" (one channel), "multiclass" or "multilabel".
        alpha: Weight of the positive labels, in [0, 1]; without it both kinds weigh 1.
        gamma: Power of the factor f, ≥ 0; 0 is binary cross entropy.
        ignore_index: Label that does not count; for multilabel, label by label.
        normalized: Divide by `Σ w·c·f` instead. (SMP does so for each channel, and then once more by the pixels.)
        reduced_threshold: A number r in (0, 1]: f is 1 where q < r and `((1 − q) / r)^gamma` elsewhere.
        class_weights: One number ≥ 0 a channel.

    Shape:
        - output: logits (N, 1, H, W) for binary, (N, C, H, W) else
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Unusable constants or class weights.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not suit the mode.
        SizeMismatchError: A target or weight of another size.
        DataError: A target that is not of integers.
        LabelRangeError: Labels outside the classes, checked on the CPU alone: on an accelerator, where looking would
            make the host wait, the loss is NaN instead.

    Examples:
        >>> import torch
        >>> round(FocalLoss("binary")(torch.zeros(1, 1, 1, 2), torch.tensor([[[0, 1]]])).item(), 4)  # ln 2 / 4
        0.1733

    Source:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, eqs. 4 and 5; reduced: Sergievskiy and Ponamarev,
        "Reduced Focal Loss", 2019. Signature: SMP's.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        alpha: float | None = None,
        gamma: float = 2.0,
        ignore_index: int | None = None,
        normalized: bool = False,
        reduced_threshold: float | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.mode: Mode = check_mode(mode)
        if mode == "binary" and class_weights is not None:
            raise ConfigError("binary labels have one class", found="class_weights", hint="use alpha, or change mode")
        if not 0.0 <= gamma < math.inf:
            raise ConfigError("unusable gamma", expected="a number ≥ 0", found=gamma)
        if alpha is not None and not 0.0 <= alpha <= 1.0:
            raise ConfigError("unusable alpha", expected="a number in [0, 1]", found=alpha)
        if reduced_threshold is not None and not 0.0 < reduced_threshold <= 1.0:
            raise ConfigError("unusable reduced_threshold", expected="a number in (0, 1]", found=reduced_threshold)
        self.alpha, self.gamma, self.ignore_index = alpha, gamma, ignore_index
        self.normalized, self.reduced_threshold = normalized, reduced_threshold
        self.register_buffer("class_weights", class_vector(class_weights, "class_weights"), persistent=False)

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar."""
        check_output(output, many=self.mode == "multiclass")
        with outside_autocast(output):
            output = full_precision(output)
            truth = read_target(output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight)
            right = self._where_positive(truth.labels, output, -output)  # the logit of the truth
            log_factor = self._log_factor(right)
            if self.normalized:
                log_factor = _below_its_largest(log_factor, truth.weight)
            factor = log_factor.exp()
            loss = -factor * F.logsigmoid(right)
            if self.alpha is not None:
                ones = torch.ones_like(loss)
                loss = loss * self._where_positive(truth.labels, self.alpha * ones, (1.0 - self.alpha) * ones)
            norm = factor if self.normalized else None
            weights = for_classes(self.class_weights, output, output.shape[1], "class_weights")
            if weights is not None:
                weights = weights.view(-1, 1, 1).expand_as(loss)
                loss, norm = loss * weights, weights if norm is None else norm * weights
            return truth.settle(weighted_mean(loss, truth.weight, norm))

    def _where_positive(self, labels: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.mode == "multiclass":
            return negative.scatter(1, labels, positive.gather(1, labels))
        return torch.where(labels == 1, positive, negative)

    def _log_factor(self, right: Tensor) -> Tensor:
        # In logarithms: a power below 1 has no finite slope at 0.
        log_wrong = F.logsigmoid(-right)
        if self.reduced_threshold is None:
            return self.gamma * log_wrong
        far = right.sigmoid() < self.reduced_threshold
        return torch.where(far, 0.0, self.gamma * (log_wrong - math.log(self.reduced_threshold)))


def _below_its_largest(log_factor: Tensor, weight: Tensor | None) -> Tensor:
    """Less its largest counted value, which a normalised sum does not feel: the sum cannot underflow."""
    if weight is None:
        return log_factor - log_factor.detach().amax()
    ignored = weight == 0
    largest = log_factor.detach().masked_fill(ignored, -math.inf).amax()
    largest = torch.where(largest.isinf(), 0.0, largest)
    return torch.where(ignored, 0.0, log_factor - largest)
