"""Matthews correlation loss, from the same sums as Dice and Jaccard."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ._inputs import safe_ratio
from ._options import check_policy
from .region import RegionLoss, Sums


class MCCLoss(RegionLoss):
    r"""Soft Matthews correlation loss: 1 − MCC, the correlation of prediction and truth. 0 is perfect, 1 is chance.

    With i, p, t = `intersection`, `predicted`, `true` of a class, each divided by `counted`:
    `MCC = Σ(i − p·t) / √(Σp(1 − p) · Σt(1 − t))`. For multiclass the three sums run over the classes (Gorodkin's R_K);
    for binary and multilabel each channel has its own coefficient (the same as R_K of foreground and background), and
    the loss is the mean over channels.

    Args:
        mode: "binary" (one channel, sigmoid), "multiclass" (softmax) or "multilabel" (sigmoids).
        from_logits: Whether the output is logits; otherwise it is probabilities.
        ignore_index: Label that does not count; for multilabel, per label.
        eps: Smallest value under the root. (SMP adds its eps to each count instead.)
        per_image: One coefficient per image, averaged, instead of one over the whole batch.
        empty: Contribution if the truth has only one label, where the correlation is undefined. "penalize": the mean
            probability of the other labels, 0 for a perfect prediction, 1 if everything is wrong. "skip": it is left
            out of the mean. A channel or image without counted pixels is always skipped; if all are, the loss is 0
            with zero gradient.

    Shape:
        - output: (N, 1, H, W) for binary, (N, C, H, W) otherwise
        - target: integers, (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: An unknown mode or policy; an eps that is not > 0.
        InputShapeError: An output that is not (N, C, H, W), or whose channels do not fit the mode.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU. On an accelerator, where the check would make the host
            wait, the loss is NaN instead.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[[[100.0, 100.0, -100.0, -100.0]]]])
        >>> MCCLoss("binary")(logits, torch.tensor([[[1, 0, 1, 0]]])).item()
        1.0
        >>> MCCLoss("binary")(logits, torch.tensor([[[1, 1, 0, 0]]])).item()
        0.0

    Source:
        Abhishek and Hamarneh, "Matthews Correlation Coefficient Loss for Deep Convolutional Networks", 2021, eq. 4;
        several classes: Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004.
    """

    def __init__(
        self,
        mode: Literal["binary", "multiclass", "multilabel"],
        from_logits: bool = True,
        ignore_index: int | None = None,
        eps: float = 1e-14,
        per_image: bool = False,
        empty: Literal["penalize", "skip"] = "penalize",
    ) -> None:
        check_policy(empty, ("penalize", "skip"))
        if not eps > 0:
            raise ConfigError("unusable eps", expected="a number > 0", found=eps)
        super().__init__(
            mode, from_logits=from_logits, ignore_index=ignore_index, eps=eps, per_image=per_image, empty=empty
        )

    def _mean_over_classes(self, sums: Sums) -> Tensor:
        intersection, predicted, true = (safe_ratio(part, sums.counted) for part in sums[:3])
        covariance = intersection - predicted * true
        spread, true_spread = predicted * (1.0 - predicted), true * (1.0 - true)
        false = predicted + true - 2.0 * intersection
        several, counted = (sums.true > 0) & (sums.true < sums.counted), sums.counted > 0
        if self.mode == "multiclass":
            covariance, spread, true_spread = (x.sum(1) for x in (covariance, spread, true_spread))
            false = false.sum(1) / 2.0
            several, counted = (sums.true > 0).sum(1) > 1, counted[:, 0]
        correlation = covariance / (spread * true_spread).clamp_min(self.eps).sqrt()
        loss = torch.where(several, 1.0 - correlation, false)
        share = (counted if self.empty == "penalize" else several).to(loss.dtype)
        return safe_ratio((loss * share).sum(), share.sum())
