"""Focal loss: cross entropy with less weight on labels that are already predicted well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import ConfigError
from ._inputs import Truth, check_output, fit_target, outside_autocast, read_inputs, safe_ratio, settled, weighted_mean
from ._options import Mode, check_mode, check_policy, class_vector, for_classes
from .blocks import Block, block_dtype, blocks, needs_gradient, sum_dtype, wrong_labels


class FocalLoss(nn.Module):
    r"""Focal loss of a sigmoid per channel: cross entropy with less weight on labels already predicted well.

    With w the pixel's weight (0 where ignored), c the channel's, q the probability of the truth by the channel's
    sigmoid, and a = alpha for positive labels and 1 − alpha for others: `loss = Σ w·c·a·f·(−ln q) / Σ w·c`,
    `f = (1 − q)^gamma`, over all pixels and channels. Multiclass labels also use one sigmoid per class against the rest
    (as in the paper and in SMP), not a softmax. If everything is ignored, the loss is 0 with zero gradient.

    Args:
        mode: "binary" (one channel), "multiclass" or "multilabel".
        alpha: Weight of the positive labels, in [0, 1]; by default all labels weigh 1.
        gamma: Power of the factor f, ≥ 0; 0 is binary cross entropy.
        ignore_index: Label that does not count; for multilabel, per label.
        from_logits: Whether the output is logits; otherwise it is the probability of each channel. (For "multiclass"
            SMP takes `ln p` as the logit, which is smaller.)
        eps: Probabilities are clamped to [eps, 1 − eps].
        reduction: "mean", or "sum": `Σ w·c·a·f·(−ln q) / Σ c`, summed over pixels and averaged over channels, as in
            SMP.
        normalized: Divide by `Σ w·c·f` instead. (SMP does this per channel and then divides by the number of pixels.)
        reduced_threshold: A number r in (0, 1]: f is 1 where q < r and `((1 − q) / r)^gamma` elsewhere.
        class_weights: One number ≥ 0 per channel.

    Shape:
        - output: logits (N, 1, H, W) for binary, (N, C, H, W) otherwise
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Unusable constants or class weights.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not fit the mode.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU. On an accelerator, where the check would make the host
            wait, the loss is NaN instead.

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
        from_logits: bool = True,
        eps: float = 1e-7,
        reduction: Literal["mean", "sum"] = "mean",
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
        check_policy(reduction, ("mean", "sum"), "reduction")
        if normalized and reduction == "sum":
            raise ConfigError("normalized divides the sum", subject="reduction", expected="mean", found="sum")
        if not 0.0 < eps < 0.5:
            raise ConfigError("unusable eps", expected="a number in (0, 0.5)", found=eps)
        if reduced_threshold is not None and not 0.0 < reduced_threshold <= 1.0:
            raise ConfigError("unusable reduced_threshold", expected="a number in (0, 1]", found=reduced_threshold)
        self.alpha, self.gamma, self.ignore_index = alpha, gamma, ignore_index
        self.from_logits, self.eps, self.reduction = from_logits, eps, reduction
        self.normalized, self.reduced_threshold = normalized, reduced_threshold
        self.register_buffer("class_weights", class_vector(class_weights, "class_weights"), persistent=False)

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output, many=self.mode == "multiclass")
        with outside_autocast(output):
            if not self.from_logits:
                probability, _ = self._read(output, target, weight)
                output = probability.clamp(self.eps, 1.0 - self.eps).logit()
            return (self._normalized if self.normalized else self._reduced)(output, target, weight)

    def _read(self, output: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Truth]:
        return read_inputs(output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight)

    def _normalized(self, output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        output, truth = self._read(output, target, weight)
        right = self._where_positive(truth.labels, output, -output)  # the logit of the truth
        log_factor = _below_its_largest(self._log_factor(right), truth.weight)
        factor = log_factor.exp()
        loss = -factor * F.logsigmoid(right)
        if self.alpha is not None:
            ones = torch.ones_like(loss)
            loss = loss * self._where_positive(truth.labels, self.alpha * ones, (1.0 - self.alpha) * ones)
        weights = for_classes(self.class_weights, output, output.shape[1], "class_weights")
        if weights is not None:
            weights = weights.view(-1, 1, 1)
            loss, factor = loss * weights, factor * weights
        return truth.settle(weighted_mean(loss, truth.weight, factor))

    def _reduced(self, output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        labels, weight = fit_target(output, target, mode=self.mode, weight=weight)
        positive, negative = (1.0, 1.0) if self.alpha is None else (self.alpha, 1.0 - self.alpha)
        compute = _Sums.apply if needs_gradient(output) else _focal_sums
        sums, counted, faults = compute(
            output, labels, weight, self.ignore_index, self.mode == "multiclass",
            self.gamma, self.reduced_threshold or 0.0, positive, negative,
        )  # fmt: skip
        fault = wrong_labels(faults, labels, self.ignore_index, output.shape[1] if self.mode == "multiclass" else 2)
        weights = for_classes(self.class_weights, sums, output.shape[1], "class_weights")
        weights = sums.new_ones(output.shape[1]) if weights is None else weights
        divisor = weights.sum() if self.reduction == "sum" else (counted * weights).sum()
        loss = safe_ratio((sums * weights).sum(), divisor)
        return settled(loss, fault).to(torch.promote_types(output.dtype, torch.float32))

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
    """Subtract the largest counted value, which cancels in a normalized sum, so that the sum cannot underflow."""
    if weight is None:
        return log_factor - log_factor.detach().amax()
    ignored = weight == 0
    largest = log_factor.detach().masked_fill(ignored, -math.inf).amax()
    largest = torch.where(largest.isinf(), 0.0, largest)
    return torch.where(ignored, 0.0, log_factor - largest)


# A custom operator, so that `torch.compile` does not trace it.
@torch.library.custom_op("unetzoo::focal_sums", mutates_args=())
def _focal_sums(
    logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None, one_label: bool,
    gamma: float, threshold: float, positive: float, negative: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return `Σ w·a·f·(−ln q)` and `Σ w` of each image and channel, and the number of wrong labels."""
    sums, counted = (logits.new_zeros(logits.shape[:2], dtype=sum_dtype(logits)) for _ in range(2))
    faults = torch.zeros((), dtype=torch.int64, device=logits.device)
    for block in blocks(logits, labels, weight, ignore_index, one_label=one_label, buffers=3):
        truly, wrong, surprise = _parts(block, one_label)
        loss = surprise.mul_(_factor(wrong, gamma, threshold)).mul_(_either(truly, positive, negative))
        sums[block.n] += (loss if block.weight is None else loss.mul_(block.weight)).sum(1)
        counted[block.n] += block.logits.shape[1] if block.weight is None else block.weight.sum(1)
        faults += block.faults
    return sums, counted, faults


@_focal_sums.register_fake
def _(logits, *_):
    sums, counted = (logits.new_empty(logits.shape[:2], dtype=sum_dtype(logits)) for _ in range(2))
    return sums, counted, logits.new_empty((), dtype=torch.int64)


@torch.library.custom_op("unetzoo::focal_gradient", mutates_args=())
def _focal_gradient(
    slopes: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None, one_label: bool,
    gamma: float, threshold: float, positive: float, negative: float,
) -> Tensor:  # fmt: skip
    gradient, slopes = torch.empty_like(logits.flatten(2)), slopes.to(block_dtype(logits)).unsqueeze(-1)
    for block in blocks(logits, labels, weight, ignore_index, one_label=one_label, buffers=3):
        truly, wrong, surprise = _parts(block, one_label)
        slope = surprise.addcmul_(surprise, wrong, value=-1).mul_(gamma)  # gamma·q·(−ln q), where f has a slope
        if threshold:
            slope.masked_fill_(wrong > 1.0 - threshold, 0.0)
        slope.add_(wrong).mul_(_factor(wrong, gamma, threshold)).mul_(_either(truly, -positive, negative))
        slope.mul_(slopes[block.n])
        gradient[block.n, :, block.pixels] = slope if block.weight is None else slope.mul_(block.weight)
    return gradient.view(logits.shape)


@_focal_gradient.register_fake
def _(slopes, logits, *_):
    return torch.empty_like(logits.flatten(2)).view(logits.shape)


class _Sums(torch.autograd.Function):  # register_autograd does not support torch.func
    @staticmethod
    def forward(*arguments):
        return _focal_sums(*arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        logits, labels, weight, *ctx.constants = inputs
        ctx.save_for_backward(logits, labels, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, slopes, *_):  # pyright: ignore[reportIncompatibleMethodOverride]: due to the decorator
        return _focal_gradient(slopes, *ctx.saved_tensors, *ctx.constants), *[None] * 8


def _parts(block: Block, one_label: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the labels {0, 1} of each channel, 1 − q and −ln q."""
    truly, wrong, surprise = block.buffers
    if one_label:
        truly.zero_().scatter_(0, block.labels.long(), 1.0)
    else:
        truly.copy_(block.labels)
    away = torch.addcmul(block.logits, block.logits, truly, value=-2, out=wrong)  # the logit of the opposite label
    torch.ops.aten.softplus.out(away, 1.0, 50.0, out=surprise)
    return truly, away.sigmoid_(), surprise


def _factor(wrong: Tensor, gamma: float, threshold: float) -> Tensor:
    if not threshold:
        return wrong.pow_(gamma)
    far = wrong > 1.0 - threshold
    return wrong.div_(threshold).pow_(gamma).masked_fill_(far, 1.0)


def _either(truly: Tensor, positive: float, negative: float) -> Tensor:
    return truly.mul_(positive - negative).add_(negative)
