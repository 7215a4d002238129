"""Cross entropy plus a region loss as one loss: `dice_ce`, `jaccard_ce`.

The value is the sum of `ce` (or `bce`) and `dice` (or `jaccard`) at the cost of one of them. Both are computed from the
same sums over each class, so logits are read once in the forward pass and once in the backward pass (`fused.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from ..errors import ConfigError
from ._inputs import check_output, outside_autocast
from ._options import Mode
from .fused import class_sums
from .pixel import check_label_smoothing, mean_binary_cross_entropy, mean_cross_entropy
from .region import DiceLoss, JaccardLoss, RegionLoss, Sums


class RegionCELoss(nn.Module):
    """`region_weight·(region loss) + ce_weight·(cross entropy)` in two passes over the logits.

    Cross entropy is `CELoss` for "multiclass" and `BCELoss` for "binary" and "multilabel". The region loss is
    `DiceLoss` or `JaccardLoss`. The only extra memory is the gradient: one buffer with the size and dtype of the
    logits, allocated in the backward pass. Second derivatives are not supported.

    Args:
        mode: "binary" (one channel, sigmoid), "multiclass" (softmax) or "multilabel" (sigmoids).
        region_weight: Weight of the region loss, ≥ 0.
        ce_weight: Weight of the cross entropy, ≥ 0.
        classes: Indices of the classes that count in the region loss; all by default. Cross entropy always uses all.
        log_loss: Use `ln(1 + eps) − ln(score + eps)` instead of `1 − score` in the region loss.
        smooth: Added to numerator and denominator of the region loss.
        ignore_index: Label that does not count; for multilabel, per label.
        eps: Smallest denominator.
        class_weights: One number ≥ 0 per class, used in both terms: they weight the mean over classes in the region
            loss, and the pixels with that label in the cross entropy (for multilabel: the mean over channels).
        per_image: Compute the region loss per image and average, instead of over the whole batch.
        empty: Contribution of a class without true pixels to the region loss: "penalize", "skip" or "formula"; see
            `RegionLoss`.
        label_smoothing: Share of the target that the cross entropy spreads evenly over all classes, in [0, 1);
            multiclass only.

    Shape:
        - output: logits (N, 1, H, W) for binary, (N, C, H, W) otherwise
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Arguments that are inconsistent or do not fit the output's channels.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not fit the mode.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU. On an accelerator, where the check would make the host
            wait, the loss is NaN instead.
    """

    kind: ClassVar[type[RegionLoss]]

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        region_weight: float = 1.0,
        ce_weight: float = 1.0,
        classes: Sequence[int] | None = None,
        log_loss: bool = False,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        class_weights: Sequence[float] | Tensor | None = None,
        per_image: bool = False,
        empty: Literal["penalize", "skip", "formula"] = "penalize",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        weights = {"region_weight": region_weight, "ce_weight": ce_weight}
        if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
            raise ConfigError("unusable weights", expected="numbers ≥ 0, not both 0", found=weights)
        check_label_smoothing(label_smoothing)
        if label_smoothing and mode != "multiclass":
            raise ConfigError("label_smoothing needs a softmax", expected='mode="multiclass"', found=f"mode={mode!r}")
        self.region = self.kind(
            mode, classes, log_loss, True, smooth, ignore_index, eps, class_weights, per_image, empty
        )
        self.region_weight, self.ce_weight, self.label_smoothing = region_weight, ce_weight, label_smoothing

    @property
    def mode(self) -> Mode:
        """How logits become probabilities."""
        return self.region.mode

    @property
    def ignore_index(self) -> int | None:
        """Label that does not count."""
        return self.region.ignore_index

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        softmax = self.mode == "multiclass"
        check_output(output, many=softmax)
        with outside_autocast(output):
            sums = class_sums(
                output, target, mode=self.mode, ignore_index=self.ignore_index, weight=weight,
                entropy=True, rest=not softmax or self.label_smoothing > 0,
            )  # fmt: skip
            region = self.region.from_sums(Sums(*sums[:4]))
            if softmax:
                entropy = mean_cross_entropy(sums, self.region.class_weights, self.label_smoothing)
            else:
                entropy = mean_binary_cross_entropy(sums, class_weights=self.region.class_weights)
            return sums.settle(self.region_weight * region + self.ce_weight * entropy, output)


class DiceCELoss(RegionCELoss):
    """Cross entropy and soft Dice in one: `region_weight·dice + ce_weight·ce`, equal to the two separate losses.

    The parameters are those of `RegionCELoss`; `mode` is required.

    Shape:
        See `RegionCELoss`: output (N, C, H, W), target (N, H, W) or for multilabel (N, C, H, W), weight (N, H, W).

    Raises:
        UnetzooError: See `RegionCELoss`.

    Examples:
        >>> import torch
        >>> from unetzoo.losses import CELoss
        >>> logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
        >>> apart = 0.5 * DiceLoss("multiclass")(logits, target) + CELoss()(logits, target)
        >>> torch.allclose(DiceCELoss("multiclass", region_weight=0.5)(logits, target), apart)
        True

    Source:
        Isensee et al., "nnU-Net", 2021, whose training loss is this kind of sum.
    """

    kind = DiceLoss


class JaccardCELoss(RegionCELoss):
    """Cross entropy and soft Jaccard in one: `region_weight·jaccard + ce_weight·ce`, like `DiceCELoss`.

    The parameters are those of `RegionCELoss`; `mode` is required.

    Shape:
        See `RegionCELoss`: output (N, C, H, W), target (N, H, W) or for multilabel (N, C, H, W), weight (N, H, W).

    Raises:
        UnetzooError: See `RegionCELoss`.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[[[100.0, 100.0, -100.0]]]])
        >>> JaccardCELoss("binary", ce_weight=0.0)(logits, torch.tensor([[[1, 0, 0]]])).item()
        0.5

    Source:
        Iglovikov and Shvets, "TernausNet", 2018: with `log_loss=True`, its cross entropy − ln Jaccard.
    """

    kind = JaccardLoss
