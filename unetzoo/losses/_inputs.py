"""Checks and reshaping of the losses' inputs, and shared arithmetic.

Inside the losses all tensors are (N, ·, H, W): labels (N, 1, H, W) for one label per pixel, (N, K, H, W) for
multilabel; weights (N, 1, H, W) or (N, K, H, W).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DataError, InputShapeError, LabelRangeError, SizeMismatchError
from ._options import Mode


class Truth(NamedTuple):
    """A checked target.

    Args:
        labels: int64, all values within the classes (0 where ignored).
        weight: Weight of each label, 0 where ignored; None if all weigh 1.
        fault: On accelerators, a 0-dimensional bool, true if a label was outside the classes; None if already checked.
    """

    labels: Tensor
    weight: Tensor | None
    fault: Tensor | None

    def settle(self, loss: Tensor) -> Tensor:
        """Return the loss, or NaN if a label was outside the classes; does not wait for the device."""
        return settled(loss, self.fault)


def settled(loss: Tensor, fault: Tensor | None) -> Tensor:
    """Return the loss, or NaN where `fault` is true; see `Truth`."""
    return loss if fault is None else loss * torch.where(fault, torch.nan, 1.0).to(loss.dtype)


def outside_autocast(output: Tensor) -> torch.autocast:
    """Disable autocast: sums over an image overflow fp16 and keep only about three digits in bf16."""
    return torch.autocast(device_type=output.device.type, enabled=False)


def full_precision(values: Tensor) -> Tensor:
    """Convert values to float32; float64 is kept."""
    return values if values.dtype == torch.float64 else values.float()


def check_output(output: Tensor, *, many: bool = False, hint: str = 'mode="binary"') -> None:
    """Check that an output is (N, C, H, W) floats; `many` requires C ≥ 2.

    Raises:
        InputShapeError: Any other shape.
        DataError: Any other dtype.
    """
    if output.ndim != 4:
        raise InputShapeError("unusable output", expected="shape (N, C, H, W)", found=tuple(output.shape))
    if many and output.shape[1] < 2:
        raise InputShapeError(
            "a softmax over one channel is always 1",
            expected="an output of 2 or more classes",
            found=tuple(output.shape),
            hint=f"use {hint} for one channel",
        )
    if not output.is_floating_point():
        raise DataError("unusable output", expected="floating point numbers", found=output.dtype)


def fit_target(
    output: Tensor, target: Tensor, *, mode: Mode, weight: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return target and weight as (N, ·, H, W), checked against the output's shape; values are unchanged.

    Raises:
        InputShapeError: Several channels for binary labels.
        SizeMismatchError: Shapes that do not match.
        DataError: A target without integer labels, or is on another device.
    """
    if target.device != output.device:
        raise DataError(
            "target and output are on two devices",
            expected=output.device,
            found=target.device,
            hint=f"give target.to({str(output.device)!r})",
        )
    if target.is_floating_point() or target.is_complex():
        target = _labels_of_floats(target, mode)
    channels = output.shape[1] if mode == "multilabel" else 1
    if mode == "binary" and output.shape[1] != 1:
        raise InputShapeError(
            "unusable output",
            expected="one channel for binary labels",
            found=tuple(output.shape),
            hint='mode="multiclass" for one label per pixel, or a target of the output\'s shape for multilabel',
        )
    labels = _with_channels(target, output, channels, "target")
    return labels, None if weight is None else _with_channels(weight, output, 1, "weight").to(output.device)


def mask_ignored(output: Tensor, weight: Tensor | None) -> Tensor:
    """Set the output to 0 where the weight is 0.

    Multiplying by the weight would not do: 0·NaN is NaN, forward and backward.
    """
    return output if weight is None else torch.where(weight == 0, 0.0, output)


def _labels_of_floats(target: Tensor, mode: Mode) -> Tensor:
    """Convert a binary or multilabel mask to integers; fractions raise, or become invalid labels on accelerators."""
    whole = target == target.round() if target.is_floating_point() and mode != "multiclass" else None
    if whole is None or (target.device.type == "cpu" and not torch.compiler.is_compiling() and not whole.all()):
        also = "" if mode == "multiclass" else ", or floats that are exactly 0 or 1"
        found = target.dtype if whole is None else f"{target[~whole][0].item():g}"
        raise DataError(
            "unusable target", expected=f"integer labels (int64){also}", found=found, hint="give target.long()"
        )
    return torch.where(whole, target.long(), -(2**31))


def read_inputs(
    output: Tensor, target: Tensor, *, mode: Mode, ignore_index: int | None = None, weight: Tensor | None = None
) -> tuple[Tensor, Truth]:
    """Return the output in full precision, 0 where ignored, and the checked labels and weights of the target.

    Label values are checked on the CPU, where this is cheap. On an accelerator the check would make the host wait in
    every step, so there, and in compiled code, a wrong label turns the loss into NaN (`Truth.settle`).

    Raises:
        InputShapeError: Several channels for binary labels.
        SizeMismatchError: Shapes that do not match.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes (CPU).
    """
    output = full_precision(output)
    labels, pixels = fit_target(output, target, mode=mode, weight=weight)
    labels = labels.long()
    pixels = None if pixels is None else pixels.to(output)
    classes = output.shape[1] if mode == "multiclass" else 2
    ignored = None if ignore_index is None else labels == ignore_index
    if ignored is not None:
        pixels = (~ignored).to(output.dtype) if pixels is None else pixels.masked_fill(ignored, 0.0)
    fault = None
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        check_labels(labels, ignore_index, classes)
    else:
        outside = (labels < 0) | (labels >= classes)
        fault = (outside if ignored is None else outside & ~ignored).any()
        labels = labels.clamp(0, classes - 1)
    if ignored is not None:
        labels = labels.masked_fill(ignored, 0)
    return mask_ignored(output, pixels), Truth(labels, pixels, fault)


def pixel_weight(weight: Tensor, output: Tensor) -> Tensor:
    """Return a weight map or valid mask as (N, 1, H, W) in the output's dtype.

    Raises:
        SizeMismatchError: Any other shape.
    """
    return _with_channels(weight, output, 1, "weight").to(output)


def map_like(values: Tensor, output: Tensor, what: str = "target") -> Tensor:
    """Return a map with the output's shape and dtype; (N, H, W) is accepted for one channel.

    Raises:
        SizeMismatchError: Any other shape.
    """
    return _with_channels(values, output, output.shape[1], what).to(output)


def depth_pair(output: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return output, target and weight for a comparison of two maps; both maps are 0 where the weight is 0.

    This also removes the NaN and infinity that sensors write where they have no measurement.

    Raises:
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.
    """
    output = full_precision(output)
    target = map_like(target, output)
    pixels = None if weight is None else pixel_weight(weight, output)
    return mask_ignored(output, pixels), mask_ignored(target, pixels), pixels


def safe_sqrt(values: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0, not infinite."""
    zero = values == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, values).sqrt())


def weighted_mean(loss: Tensor, weight: Tensor | None, norm: Tensor | None = None) -> Tensor:
    """Σ weight·loss / Σ weight·norm; 0 with zero gradient if all weights are 0."""
    if weight is None and norm is None:
        return loss.mean() if loss.numel() else loss.sum()
    if weight is not None:
        loss = loss * weight
        norm = weight.expand_as(loss) if norm is None else norm * weight
    assert norm is not None
    return safe_ratio(loss.sum(), norm.sum())


def safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient that is `numerator` (always 0 here) where the denominator is 0, with finite gradient."""
    return numerator / torch.where(denominator == 0, torch.ones_like(denominator), denominator)


def _with_channels(values: Tensor, output: Tensor, channels: int, what: str) -> Tensor:
    batch, _, height, width = output.shape
    full = (batch, channels, height, width)
    if channels == 1 and values.shape == (batch, height, width):
        return values.unsqueeze(1)
    if values.shape != full:
        shapes = f"{(batch, height, width)} or {full}" if channels == 1 else f"{full}"
        raise SizeMismatchError(
            f"the {what} does not fit the output",
            subject=f"output {tuple(output.shape)}",
            expected=f"shape {shapes}",
            found=tuple(values.shape),
            hint=f"resize the {what} to the output's size (labels by nearest neighbor only)",
        )
    return values


def check_labels(labels: Tensor, ignore_index: int | None, classes: int) -> None:
    """Check that labels are classes or ignored.

    Raises:
        LabelRangeError: Any other labels; the message has their number and values.
    """
    if not labels.numel():
        return
    labels = labels.long()  # unsigned types support few operations
    low, high = torch.aminmax(labels)
    if low >= 0 and high < classes:
        return
    outside = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        outside &= labels != ignore_index
    wrong = labels[outside]
    if not wrong.numel():
        return
    values = wrong.unique().tolist()
    shown = ", ".join(map(str, values[:10])) + (", …" if len(values) > 10 else "")
    raise LabelRangeError(
        "labels outside the classes",
        expected=f"0…{classes - 1}",
        found=f"{wrong.numel()} labels of value {shown}",
        hint="pass ignore_index if they mark ignored pixels, else map file values to classes in the data set",
    )
