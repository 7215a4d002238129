"""Losses that are ratios of sums over a class: Dice, Jaccard, Tversky.

All of them use the same four sums, with w the pixel's weight (0 where ignored), p the probability, y in {0, 1}:
`intersection = Σ w·p·y`, `predicted = Σ w·p`, `true = Σ w·y`, `counted = Σ w`. No one-hot map is created: sums of
logits are computed in one pass (`fused.py`), sums of probabilities from the value at each label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ._inputs import Truth, check_output, outside_autocast, read_inputs, safe_ratio
from ._options import Mode, check_classes, check_mode, check_policy, class_shares, class_vector
from .fused import class_sums


class Sums(NamedTuple):
    """Sums over each class, (N, C), or (1, C) over the whole batch."""

    intersection: Tensor
    predicted: Tensor
    true: Tensor
    counted: Tensor


class RegionLoss(nn.Module):
    """Base of Dice, Jaccard and Tversky; a subclass defines `overlap`, the score of a class in [0, 1].

    Args:
        mode: "binary" (one channel, sigmoid), "multiclass" (softmax) or "multilabel" (sigmoids).
        classes: Indices of the classes that count; all by default.
        log_loss: Use `ln(1 + eps) − ln(score + eps)` instead of `1 − score`: 0 for a perfect prediction, finite for the
            worst.
        from_logits: Whether the output is logits; otherwise it is probabilities.
        smooth: Added to numerator and denominator, as in SMP.
        ignore_index: Label that does not count; for multilabel, per label.
        eps: Smallest denominator.
        class_weights: One number ≥ 0 per class; the loss is the weighted mean over classes.
        per_image: Compute the sums over each image and average, instead of over the whole batch.
        empty: Contribution of a class without true pixels. "penalize": `predicted / counted`, its mean probability:
            0 for a perfect prediction, 1 if everything is wrong, with a gradient against every false positive. "skip":
            the class is left out of the mean. "formula": the value of the formula, which is 1 for any prediction if
            `smooth` is 0. (In SMP it counts as a perfect 0.) A class without counted pixels is always skipped; if all
            are, the loss is 0 with zero gradient.

    Shape:
        - output: (N, 1, H, W) for binary, (N, C, H, W) otherwise
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Arguments that are inconsistent or do not fit the output's channels.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not fit the mode.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU. On an accelerator, where the check would make the host
            wait, the loss is NaN instead.

    Examples:
        >>> class Precision(RegionLoss):
        ...     def overlap(self, sums):
        ...         return sums.intersection / sums.predicted
        >>> Precision("binary", from_logits=False)(torch.ones(1, 1, 1, 4), torch.tensor([[[1, 1, 1, 0]]])).item()
        0.25

    Source:
        The signature is SMP's (`segmentation_models_pytorch.losses.DiceLoss`) plus `per_image` and `empty`.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        classes: Sequence[int] | None = None,
        log_loss: bool = False,
        from_logits: bool = True,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        class_weights: Sequence[float] | Tensor | None = None,
        per_image: bool = False,
        empty: Literal["penalize", "skip", "formula"] = "penalize",
    ) -> None:
        super().__init__()
        self.mode: Mode = check_mode(mode)
        self.classes = check_classes(mode, classes, class_weights)
        check_policy(empty, ("penalize", "skip", "formula"))
        if smooth < 0 or eps <= 0:
            raise ConfigError("unusable constants", expected="smooth ≥ 0 and eps > 0", found=f"{smooth}, {eps}")
        self.log_loss, self.from_logits, self.smooth, self.eps = log_loss, from_logits, smooth, eps
        self.ignore_index, self.per_image, self.empty = ignore_index, per_image, empty
        self.register_buffer("class_weights", class_vector(class_weights, "class_weights"), persistent=False)

    def overlap(self, sums: Sums) -> Tensor:
        """Compute the score of each class."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output, many=self.mode == "multiclass")
        with outside_autocast(output):
            if self.from_logits:
                sums = class_sums(output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight)
                return sums.settle(self.from_sums(Sums(*sums[:4])), output)
            output, truth = read_inputs(output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight)
            return truth.settle(self.from_sums(self._sums(output, truth)))

    def from_sums(self, sums: Sums) -> Tensor:
        """Compute the loss of a batch from the sums over each image and class."""
        if not self.per_image:
            sums = Sums(*(part.sum(0, keepdim=True) for part in sums))
        return self._mean_over_classes(sums)

    def _sums(self, probability: Tensor, truth: Truth) -> Sums:
        labels, weight = truth.labels, truth.weight
        weighted = probability if weight is None else probability * weight
        everywhere = torch.ones_like(probability[:, :1]) if weight is None else weight
        if self.mode == "multiclass":
            # One accumulator per row of the image: each sums only W numbers, so fp32 keeps its precision on any
            # image and the device's atomic adds rarely collide.
            rows = probability.new_zeros(probability.shape[0], probability.shape[2], probability.shape[1])
            intersection = rows.scatter_add(2, labels[:, 0], weighted.gather(1, labels)[:, 0]).sum(1)
            true = rows.scatter_add(2, labels[:, 0], everywhere[:, 0]).sum(1)
        else:
            truly = labels.to(probability.dtype)
            intersection = (weighted * truly).sum((2, 3))
            true = (truly * everywhere).sum((2, 3))
        predicted = weighted.sum((2, 3))
        return Sums(intersection, predicted, true, everywhere.sum((2, 3)).expand_as(predicted))

    def _mean_over_classes(self, sums: Sums) -> Tensor:
        present = sums.true > 0
        overlap, false = self.overlap(sums), safe_ratio(sums.predicted, sums.counted)
        by_formula = present | (self.empty == "formula")
        if self.log_loss:
            # −ln(score), shifted by eps rather than clamped: a clamp has no gradient where the error is largest.
            loss = math.log1p(self.eps) - torch.log(torch.where(by_formula, overlap, 1.0 - false) + self.eps)
        else:
            loss = torch.where(by_formula, 1.0 - overlap, false)
        share = (present if self.empty == "skip" else sums.counted > 0).to(loss.dtype)
        share = share * class_shares(self.class_weights, self.classes, loss, loss.shape[1])
        return safe_ratio((loss * share).sum(), share.sum())


class DiceLoss(RegionLoss):
    """Soft Dice loss: 1 − the mean over classes of `(I + s) / ((P + T) / 2 + s)`.

    I, P and T are `intersection`, `predicted` and `true` of a class, s is `smooth`. If every class has true
    pixels, this is SMP's value; a class without them contributes its mean probability (`empty`).

    The parameters are those of `RegionLoss`; `mode` is required.

    Shape:
        See `RegionLoss`: output (N, C, H, W), target (N, H, W) or for multilabel (N, C, H, W), weight (N, H, W).

    Raises:
        UnetzooError: See `RegionLoss`.

    Examples:
        >>> loss = DiceLoss("binary")
        >>> logits = torch.tensor([[[[100.0, 100.0, -100.0]]]])
        >>> round(loss(logits, torch.tensor([[[1, 0, 0]]])).item(), 4)  # 1 − 2·1 / (2 + 1)
        0.3333
        >>> loss(logits, torch.tensor([[[1, 0, 0]]]), weight=torch.tensor([[[1, 0, 1]]])).item()
        0.0

    Source:
        Milletari et al., "V-Net", 2016, section 3, without the squares in the denominator (as in SMP).
    """

    def overlap(self, sums: Sums) -> Tensor:
        """Compute Dice of each class."""
        half = (sums.predicted + sums.true) / 2
        return (sums.intersection + self.smooth) / (half + self.smooth).clamp_min(self.eps)


class JaccardLoss(RegionLoss):
    """Soft Jaccard (IoU) loss: 1 − the mean over classes of `(I + s) / (P + T − I + s)`.

    I, P and T are `intersection`, `predicted` and `true` of a class, s is `smooth`. If every class has true
    pixels, this is SMP's value; a class without them contributes its mean probability (`empty`).

    The parameters are those of `RegionLoss`; `mode` is required.

    Shape:
        See `RegionLoss`: output (N, C, H, W), target (N, H, W) or for multilabel (N, C, H, W), weight (N, H, W).

    Raises:
        UnetzooError: See `RegionLoss`.

    Examples:
        >>> loss = JaccardLoss("binary")
        >>> loss(torch.tensor([[[[100.0, 100.0, -100.0]]]]), torch.tensor([[[1, 0, 0]]])).item()
        0.5

    Source:
        Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks", 2016, eq. 4.
    """

    def overlap(self, sums: Sums) -> Tensor:
        """Compute the Jaccard index of each class."""
        union = sums.predicted + sums.true - sums.intersection
        return (sums.intersection + self.smooth) / (union + self.smooth).clamp_min(self.eps)


class TverskyLoss(RegionLoss):
    """Soft Tversky loss: `L^gamma`, L = 1 − the mean over classes of `(I + s) / (I + alpha·F + beta·M + s)`.

    I is `intersection` of a class, `F = P − I` its false positives, `M = T − I` its misses, s is `smooth`.
    `alpha = beta = 0.5` is Dice, `alpha = beta = 1` is Jaccard. If every class has true pixels, this is SMP's value;
    a class without them contributes its mean probability (`empty`).

    The parameters are those of `RegionLoss` and:

    Args:
        alpha: Weight of the false positives.
        beta: Weight of the misses.
        gamma: Power of the loss, > 0. Below `eps` the power is replaced by its chord to 0: a power below 1 has no
            finite slope there.

    Shape:
        See `RegionLoss`: output (N, C, H, W), target (N, H, W) or for multilabel (N, C, H, W), weight (N, H, W).

    Raises:
        UnetzooError: See `RegionLoss`; also for alpha, beta or gamma out of range.

    Examples:
        >>> logits = torch.tensor([[[[100.0, 100.0, -100.0]]]])
        >>> loss = TverskyLoss("binary", alpha=0.3, beta=0.7)
        >>> round(loss(logits, torch.tensor([[[1, 0, 0]]])).item(), 4)  # 1 − 1 / 1.3
        0.2308

        `1 − Σpt / (0.7Σp + 0.3Σt)` per image and class:

        >>> loss = TverskyLoss("multiclass", alpha=0.7, beta=0.3, per_image=True, empty="formula")

    Source:
        Salehi et al., "Tversky loss function for image segmentation", 2017, eq. 3; the power as in SMP's `TverskyLoss`.
    """

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        classes: Sequence[int] | None = None,
        log_loss: bool = False,
        from_logits: bool = True,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        class_weights: Sequence[float] | Tensor | None = None,
        per_image: bool = False,
        empty: Literal["penalize", "skip", "formula"] = "penalize",
    ) -> None:
        super().__init__(
            mode, classes, log_loss, from_logits, smooth, ignore_index, eps, class_weights, per_image, empty
        )
        # Written so that NaN fails too.
        if not (min(alpha, beta) >= 0 and 0 < alpha + beta < math.inf and 0 < gamma < math.inf):
            raise ConfigError(
                "unusable constants",
                expected="alpha, beta ≥ 0, not both 0, and gamma > 0",
                found=f"{alpha}, {beta}, {gamma}",
            )
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def overlap(self, sums: Sums) -> Tensor:
        """Compute the Tversky index of each class."""
        false, missed = sums.predicted - sums.intersection, sums.true - sums.intersection
        below = sums.intersection + self.alpha * false + self.beta * missed
        return (sums.intersection + self.smooth) / (below + self.smooth).clamp_min(self.eps)

    def _mean_over_classes(self, sums: Sums) -> Tensor:
        loss = super()._mean_over_classes(sums)
        if self.gamma == 1.0:
            return loss
        small = loss < self.eps
        return torch.where(small, loss * self.eps ** (self.gamma - 1.0), loss.clamp_min(self.eps) ** self.gamma)
