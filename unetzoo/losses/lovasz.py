"""The Lovász losses: the convex extension of the Jaccard loss, exact for the hard IoU where Jaccard's own is soft."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ._inputs import (
    Mode,
    check_mode,
    check_output,
    check_policy,
    full_precision,
    outside_autocast,
    read_target,
    safe_ratio,
)


class LovaszLoss(nn.Module):
    r"""Lovász extension of the Jaccard loss: errors in falling order, each times what it adds to `1 − IoU`.

    With errors m₁ ≥ m₂ ≥ … and Jₖ the Jaccard loss when the first k pixels are wrong, `loss = Σ mₖ·(Jₖ − Jₖ₋₁)`, the
    mean over classes. Weights count pixels: intersection and union are sums of them. The errors are `|y − p|` for
    probabilities (Lovász-Softmax), and for logits of "binary" and "multilabel" the hinge `max(0, 1 − (2y − 1)·x)`.

    Args:
        mode: "binary" (one channel, hinge), "multiclass" (softmax) or "multilabel" (a hinge each).
        per_image: Sort the pixels of each image and average, instead of those of the whole batch.
        ignore_index: Label that does not count; for multilabel, label by label.
        from_logits: Whether the output is logits; else it is probabilities, in every mode.
        empty: What a class without true pixels contributes. "penalise": its largest error, which is what the formula
            gives: a gradient against the worst false positive. "skip": nothing, it leaves the mean (the reference's
            softmax). A class without counted pixels is always skipped; when all are, the loss is 0 with zero gradient.

    Shape:
        - output: (N, 1, H, W) for binary, (N, C, H, W) else
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: An unknown mode or policy.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not suit the mode.
        SizeMismatchError: A target or weight of another size.
        DataError: A target that is not of integers.
        LabelRangeError: Labels outside the classes, checked on the CPU alone: on an accelerator, where looking would
            make the host wait, the loss is NaN instead.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[[[2.0, 0.5, -2.0]]]])
        >>> LovaszLoss("binary")(logits, torch.tensor([[[1, 0, 0]]])).item()  # an error of 1.5, worth 1/2
        0.75

    Source:
        Berman et al., "The Lovász-Softmax loss", 2018, eq. 9 (hinge: eq. 7). Signature: SMP's, whose `from_logits` does
        nothing.
    """

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        per_image: bool = False,
        ignore_index: int | None = None,
        from_logits: bool = True,
        empty: Literal["penalise", "skip"] = "penalise",
    ) -> None:
        super().__init__()
        self.mode: Mode = check_mode(mode)
        check_policy(empty, ("penalise", "skip"))
        self.per_image, self.ignore_index, self.from_logits, self.empty = per_image, ignore_index, from_logits, empty

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar."""
        check_output(output, many=self.mode == "multiclass")
        with outside_autocast(output):
            output = full_precision(output)
            truth = read_target(output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight)
            errors = self._lines(self._errors(output, truth.labels))
            labels = self._lines(truth.labels.expand_as(output))
            if truth.weight is None:
                weights = torch.ones_like(errors)
            else:
                weights = self._lines(truth.weight.expand_as(output))
                # Their place in the order must not depend on what the output holds there.
                errors = torch.where(weights == 0, 0.0, errors)
            return truth.settle(self._extension(errors, labels, weights))

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

    def _extension(self, errors: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        # Stable: equal errors keep the order of the pixels, so the gradient is the same every time.
        order = errors.detach().sort(dim=-1, descending=True, stable=True).indices
        errors, weights, labels = errors.gather(-1, order), weights.gather(-1, order), labels.gather(-1, order)
        if self.mode == "multiclass":
            truly = labels == torch.arange(labels.shape[1], device=labels.device).view(-1, 1)
        else:
            truly = labels == 1
        hits, others = weights * truly, weights * ~truly
        true = hits.sum(-1, keepdim=True)
        intersection = (true - hits.cumsum(-1)).clamp_min(0.0)
        union = true + others.cumsum(-1)
        # J's steps in closed form (differences of J would lose their digits): a miss takes w of the intersection, a
        # false positive adds w to the union. The first pixel of an empty class takes J from 0 to 1.
        before = union - others
        step_up = torch.where(
            before == 0, (weights > 0).to(weights.dtype), safe_ratio(intersection * weights, before * union)
        )
        steps = torch.where(truly, safe_ratio(weights, union), step_up)
        loss = (errors * steps).sum(-1)
        present, counted = true[..., 0] > 0, weights.sum(-1) > 0
        share = (counted if self.empty == "penalise" else present).to(loss.dtype)
        return safe_ratio((loss * share).sum(), share.sum())
