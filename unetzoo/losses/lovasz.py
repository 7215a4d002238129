"""Lovász losses: the convex extension of the Jaccard loss, exact for the hard IoU."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ._inputs import check_output, outside_autocast, read_inputs, safe_ratio
from ._options import Mode, check_mode, check_policy


class LovaszLoss(nn.Module):
    r"""Lovász extension of the Jaccard loss: errors in descending order, each times its increment of `1 − IoU`.

    With errors m₁ ≥ m₂ ≥ … and Jₖ the Jaccard loss when the first k pixels are wrong, `loss = Σ mₖ·(Jₖ − Jₖ₋₁)`,
    averaged over classes. Intersection and union are sums of the weights. The errors are `|y − p|` for
    probabilities (Lovász-Softmax), and for logits of "binary" and "multilabel" the hinge `max(0, 1 − (2y − 1)·x)`.

    Args:
        mode: "binary" (one channel, hinge), "multiclass" (softmax) or "multilabel" (one hinge each).
        per_image: Sort the pixels of each image and average, instead of sorting those of the whole batch.
        ignore_index: Label that does not count; for multilabel, per label.
        from_logits: Whether the output is logits; otherwise it is probabilities, in every mode.
        empty: Contribution of a class without true pixels. "penalize": its largest error, the value of the formula,
            with a gradient against the worst false positive. "skip": it is left out of the mean (as in the reference's
            softmax). A class without counted pixels is always skipped; if all are, the loss is 0 with zero gradient.

    Shape:
        - output: (N, 1, H, W) for binary, (N, C, H, W) otherwise
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: An unknown mode or policy.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not fit the mode.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU. On an accelerator, where the check would make the host
            wait, the loss is NaN instead.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[[[2.0, 0.5, -2.0]]]])
        >>> LovaszLoss("binary")(logits, torch.tensor([[[1, 0, 0]]])).item()  # an error of 1.5, worth 1/2
        0.75

    Source:
        Berman et al., "The Lovász-Softmax loss", 2018, eq. 9 (hinge: eq. 7). Signature: SMP's, where `from_logits` has
        no effect.
    """

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        per_image: bool = False,
        ignore_index: int | None = None,
        from_logits: bool = True,
        empty: Literal["penalize", "skip"] = "penalize",
    ) -> None:
        super().__init__()
        self.mode: Mode = check_mode(mode)
        check_policy(empty, ("penalize", "skip"))
        self.per_image, self.ignore_index, self.from_logits, self.empty = per_image, ignore_index, from_logits, empty

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output, many=self.mode == "multiclass")
        with outside_autocast(output):
            output, truth = read_inputs(output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight)
            errors = self._lines(self._errors(output, truth.labels))
            weights = None if truth.weight is None else self._lines(truth.weight.expand_as(output))
            labels = self._lines(truth.labels)
            steps, (true, counted) = _steps(errors.detach(), labels, weights)
            share = (counted if self.empty == "penalize" else true) > 0
            loss = (errors * steps).sum(-1) * share
            return truth.settle(safe_ratio(loss.sum(), share.sum()))

    def _errors(self, output: Tensor, labels: Tensor) -> Tensor:
        if self.mode == "multiclass":
            probability = output.softmax(1) if self.from_logits else output
            return probability.scatter(1, labels, 1.0 - probability.gather(1, labels))
        if self.from_logits:
            return (1.0 - torch.where(labels == 1, output, -output)).relu()
        return torch.where(labels == 1, 1.0 - output, output)

    def _lines(self, values: Tensor) -> Tensor:
        """(N, C, H, W) → (groups, C, pixels): a group is an image, or the batch."""
        if self.per_image:
            return values.flatten(2)
        return values.transpose(0, 1).flatten(1).unsqueeze(0)


# A custom operator, so that `torch.compile` does not unroll it; nothing in it has a gradient.
@torch.library.custom_op("unetzoo::lovasz_steps", mutates_args=())
def _steps(errors: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the step Jₖ − Jₖ₋₁ of each pixel by its place in the order, and the true and counted weight of each line.

    Errors are (groups, C, pixels); labels (groups, 1, pixels) of C classes, or (groups, C, pixels) of {0, 1}. Lines are
    processed one by one, which keeps the working set small.
    """
    steps = torch.empty_like(errors)
    totals = errors.new_empty((2, *errors.shape[:2]))
    for group, k in itertools.product(*map(range, errors.shape[:2])):
        truly = labels[group, k] == 1 if labels.shape[1] == errors.shape[1] else labels[group, 0] == k
        weight = None if weights is None else weights[group, k]
        totals[0, group, k], totals[1, group, k] = _steps_of_line(errors[group, k], truly, weight, steps[group, k])
    return steps, totals


@_steps.register_fake
def _(errors, labels, weights):
    return torch.empty_like(errors), errors.new_empty((2, *errors.shape[:2]))


def _steps_of_line(errors: Tensor, truly: Tensor, weight: Tensor | None, out: Tensor) -> tuple[Tensor, Tensor]:
    order = _falling_order(errors)
    truly = truly[order]
    weight = torch.ones_like(errors) if weight is None else weight[order]
    hits = weight * truly
    others = weight - hits
    true = hits.sum()
    intersection = hits.cumsum(0).neg_().add_(true).clamp_min_(0.0)
    union = others.cumsum(0).add_(true)
    # The steps of J in closed form (differences of J would lose precision): a miss takes w from the intersection, a
    # false positive adds w to the union. The first pixel of an empty class takes J from 0 to 1.
    before = union - others
    step_up = torch.where(before == 0, union, intersection.mul_(weight).div_(before))
    out[order] = torch.where(truly, weight, step_up).div_(union.clamp_min_(torch.finfo(union.dtype).tiny))
    return true, weight.sum()


def _falling_order(values: Tensor) -> Tensor:
    """Return the indices that sort values in descending order; stable, so that the gradient is deterministic."""
    if not values.is_cpu or values.dtype != torch.float32 or len(values) > 2**32:
        return values.sort(descending=True, stable=True).indices
    # Takes half the time of torch's sort: 64-bit integers whose upper half sorts like the values, the lower by index.
    bits = values.contiguous().view(torch.int32).numpy()
    falling = ~(bits ^ ((bits >> 31) & 0x7FFFFFFF))
    keys = (falling.astype(np.int64) << 32) | np.arange(len(bits))
    keys.sort()
    return torch.from_numpy(keys & 0xFFFFFFFF)
