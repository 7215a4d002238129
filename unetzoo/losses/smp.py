"""SMP's losses, registered as `smp-<name>`.

They return the same values as SMP, bugs included (listed in `unetzoo.testing.builtin`). In addition, shapes, label
values and keywords are checked, and all of them are called as `loss(output, target)` on logits. Unlike unetzoo's other
losses, they do not support `weight`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from segmentation_models_pytorch import losses as smp
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import check_keywords
from ._inputs import check_labels, check_output, fit_target
from ._options import Mode, check_mode, check_policy

NO_WEIGHT = dict.fromkeys(
    ("weight-keyword", "zero-weight-pixels", "weight-has-effect", "all-zero-weight"),
    "SMP's losses take no weight per pixel",
)


class SMPLoss(nn.Module):
    """Adapter that gives one of SMP's losses the signature of unetzoo's losses.

    Args:
        loss: SMP's loss.
        mode: How to interpret targets; None if the loss takes one channel per label, as many as the output has.
        floats: Whether SMP's loss requires the target as floats with the output's shape.
        probabilities: Whether SMP's loss takes probabilities instead of logits.

    Shape:
        - output: logits (N, C, H, W)
        - target: integers (N, H, W) or (N, 1, H, W); (N, C, H, W) for multilabel

    Raises:
        ConfigError: A weight was passed.
        SizeMismatchError: A target of a different size.
        LabelRangeError: Labels outside the classes (CPU).
    """

    mode: Mode | None

    def __init__(
        self, loss: nn.Module, mode: Mode | None, *, floats: bool = False, probabilities: bool = False
    ) -> None:
        super().__init__()
        self.loss, self.mode, self.floats, self.probabilities = loss, mode, floats, probabilities
        self.ignore_index: int | None = getattr(loss, "ignore_index", None)
        for name, value in list(vars(loss).items()):
            if isinstance(value, Tensor):  # class weights; plain attributes would be copied in each step
                delattr(loss, name)
                loss.register_buffer(name, value, persistent=False)

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute SMP's loss of a batch."""
        if weight is not None:
            raise ConfigError(
                "SMP's losses take no weight",
                subject=type(self.loss).__name__,
                expected="weight=None",
                found=f"a weight of shape {tuple(weight.shape)}",
                hint="use one of unetzoo's own losses, or data without weights",
            )
        check_output(output, many=self.mode == "multiclass")
        by_channels: Mode = "binary" if output.shape[1] == 1 else "multilabel"
        mode = self.mode or by_channels
        labels = fit_target(output, target, mode=mode)[0].long()
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            check_labels(labels, self.ignore_index, output.shape[1] if mode == "multiclass" else 2)
        if self.ignore_index is not None:  # SMP multiplies by 0 there, and 0·NaN is NaN
            output = torch.where(labels == self.ignore_index, 0.0, output)
        if mode == "multiclass":
            labels = labels[:, 0]
        if self.floats:
            labels = labels.to(output.dtype)
        return self.loss(output.sigmoid() if self.probabilities else output, labels)


def _by_mode(smps: type[nn.Module], *, without: tuple[str, ...] = ()) -> Callable[..., SMPLoss]:
    """Return a function with the keywords of one of SMP's losses that takes a mode."""
    native = inspect.signature(smps.__init__).parameters.values()
    kept = [p.replace(kind=p.KEYWORD_ONLY) for p in native if p.name not in ("self", *without)]
    name = smps.__name__.removesuffix("Loss").lower()

    def make(**given: Any) -> SMPLoss:
        check_keywords(make, given, f"smp-{name}")
        mode = check_mode(given["mode"]) if "mode" in given else None
        if mode is None:
            raise ConfigError(f"smp-{name} needs mode", expected='"binary", "multiclass" or "multilabel"')
        if "reduction" in given:
            check_policy(given["reduction"], ("mean", "sum"), "reduction")
        if (smps, mode) == (smp.FocalLoss, "multilabel") and given.get("ignore_index") is not None:
            raise ConfigError(
                'smp-focal cannot ignore pixels with mode="multilabel"',
                subject="ignore_index",
                expected="None",
                found=given["ignore_index"],
                hint="use the loss focal, which can",
            )
        try:
            return SMPLoss(smps(**given), mode)
        except AssertionError as error:  # raised by SMP for invalid arguments
            raise ConfigError(f"smp-{name} refuses its keywords", found=str(error)) from error

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"SMP's {smps.__name__}; see its documentation for the keywords."
    make.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    make.unetzoo_expected_failures = NO_WEIGHT  # type: ignore[attr-defined]
    return make


dice = _by_mode(smp.DiceLoss)
jaccard = _by_mode(smp.JaccardLoss)
tversky = _by_mode(smp.TverskyLoss)
focal = _by_mode(smp.FocalLoss)
lovasz = _by_mode(smp.LovaszLoss, without=("from_logits",))  # SMP takes and ignores it


def softbce(
    ignore_index: int | None = -100,
    reduction: str = "mean",
    smooth_factor: float | None = None,
    pos_weight: float | Sequence[float] | None = None,
) -> SMPLoss:
    """SMP's SoftBCEWithLogitsLoss; `pos_weight` is a number, or one per channel.

    Examples:
        >>> import torch
        >>> round(softbce()(torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64)).item(), 4)
        0.6931
    """
    check_policy(reduction, ("mean", "sum"), "reduction")
    positive = None if pos_weight is None else torch.as_tensor(pos_weight, dtype=torch.float32).reshape(-1, 1, 1)
    smps = smp.SoftBCEWithLogitsLoss(None, ignore_index, reduction, smooth_factor, positive)
    return SMPLoss(smps, None, floats=True)


def softce(smooth_factor: float = 0.0, ignore_index: int | None = -100, reduction: str = "mean") -> SMPLoss:
    """SMP's SoftCrossEntropyLoss; SMP's default `smooth_factor=None` raises a TypeError when called."""
    check_policy(reduction, ("mean", "sum"), "reduction")
    return SMPLoss(smp.SoftCrossEntropyLoss(reduction, smooth_factor, ignore_index), "multiclass")


def mcc(eps: float = 1e-5) -> SMPLoss:
    """SMP's MCCLoss, for binary labels; it takes probabilities, so a sigmoid is applied to the logits first."""
    return SMPLoss(smp.MCCLoss(eps), "binary", floats=True, probabilities=True)


for _loss in (softbce, softce, mcc):
    _loss.unetzoo_expected_failures = NO_WEIGHT  # type: ignore[attr-defined]
