"""Losses that are means over pixels: cross entropy and binary cross entropy. See `focal.py` for the focal loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import ConfigError
from ._inputs import check_output, outside_autocast, safe_ratio
from ._options import class_vector, for_classes
from .fused import ClassSums, class_sums


class CELoss(nn.Module):
    r"""Cross entropy of a softmax over the classes, one label per pixel.

    With w the pixel's weight (0 where ignored), c the class weights and t the label:
    `loss = Σ w·l / Σ w·c[t]`, `l = (1 − s)·c[t]·(−ln p[t]) + s/C·Σ_k c[k]·(−ln p[k])`, s the label smoothing. Without
    `weight` this equals `torch.nn.CrossEntropyLoss`. If everything is ignored, the loss is 0 with zero gradient.

    Args:
        class_weights: One number ≥ 0 per class.
        ignore_index: Label of the pixels that do not count.
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).

    Shape:
        - output: logits (N, C, H, W), C ≥ 2
        - target: integers (N, H, W) or (N, 1, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Unusable class weights or smoothing.
        InputShapeError: An output that is not (N, C, H, W) with C ≥ 2.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes, on the CPU. On an accelerator, where the check would make the host
            wait, the loss is NaN instead.

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
        check_label_smoothing(label_smoothing)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.register_buffer("class_weights", class_vector(class_weights, "class_weights"), persistent=False)

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output, many=True, hint="'bce'")
        with outside_autocast(output):
            sums = class_sums(
                output, target, mode="multiclass", ignore_index=self.ignore_index, weight=weight,
                overlap=False, entropy=True, rest=self.label_smoothing > 0,
            )  # fmt: skip
            return sums.settle(mean_cross_entropy(sums, self.class_weights, self.label_smoothing), output)


def check_label_smoothing(share: float) -> None:
    """Check that a share is in [0, 1).

    Raises:
        ConfigError: Any other value.
    """
    if not 0.0 <= share < 1.0:
        raise ConfigError("unusable label_smoothing", expected="a number in [0, 1)", found=share)


def mean_cross_entropy(sums: ClassSums, class_weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Compute `CELoss` from the sums of a softmax."""
    entropy, true, rest = sums.entropy.sum(0), sums.true.sum(0), sums.rest.sum(0)
    weights = for_classes(class_weights, entropy, len(entropy), "class_weights")
    if weights is not None:
        entropy, true, rest = entropy * weights, true * weights, rest * weights
    total = (1.0 - label_smoothing) * entropy.sum() + label_smoothing / len(entropy) * rest.sum()
    return safe_ratio(total, true.sum())


class BCELoss(nn.Module):
    r"""Binary cross entropy of a sigmoid: one channel (binary), or several independent ones (multilabel).

    With w the pixel's weight (0 where ignored), q the positive weight of the channel and y in {0, 1}:
    `loss = Σ w·l / Σ w`, `l = −q·y·ln σ(x) − (1 − y)·ln(1 − σ(x))`, over all pixels and channels. Ignored labels
    do not count in the denominator either. If everything is ignored, the loss is 0 with zero gradient.

    Args:
        pos_weight: Weight of the positive labels: a number, or one per channel.
        ignore_index: Label that does not count; for multilabel, per label.

    Shape:
        - output: logits (N, K, H, W)
        - target: integers {0, 1}, (N, K, H, W); for K = 1 also (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W), numbers ≥ 0 or bool

    Raises:
        ConfigError: Unusable positive weights.
        InputShapeError: An output that is not (N, K, H, W).
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels other than 0 and 1, on the CPU. On an accelerator, where the check would make the host
            wait, the loss is NaN instead.

    Examples:
        >>> import torch
        >>> loss = BCELoss(ignore_index=255)
        >>> round(loss(torch.zeros(1, 1, 1, 3), torch.tensor([[[0, 1, 255]]])).item(), 4)  # ln 2
        0.6931

    Source:
        `torch.nn.BCEWithLogitsLoss` with mean reduction, which it equals without `weight` and ignored labels.
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
        """Compute the loss of a batch, a scalar."""
        check_output(output)
        with outside_autocast(output):
            sums = class_sums(
                output, target, mode="multilabel", ignore_index=self.ignore_index, weight=weight,
                overlap=False, entropy=True, rest=True,
            )  # fmt: skip
            weights = self.pos_weight
            if weights is not None and self._one_for_all:
                weights = weights.expand(output.shape[1])
            return sums.settle(mean_binary_cross_entropy(sums, pos_weight=weights), output)


def mean_binary_cross_entropy(
    sums: ClassSums, *, pos_weight: Tensor | None = None, class_weights: Tensor | None = None
) -> Tensor:
    """Compute `BCELoss` from the sums of a sigmoid; with class weights, the weighted mean over channels."""
    entropy, rest, counted = sums.entropy.sum(0), sums.rest.sum(0), sums.counted.sum(0)
    positive = for_classes(pos_weight, entropy, len(entropy), "pos_weight")
    loss = rest + (entropy if positive is None else entropy * positive)
    weights = for_classes(class_weights, entropy, len(entropy), "class_weights")
    if weights is not None:
        loss, counted = loss * weights, counted * weights
    return safe_ratio(loss.sum(), counted.sum())
