"""Iteration over a batch of logits, labels and weights in blocks of pixels.

A block stays in the processor's cache while it is processed. Ignored pixels have label 0, weight 0 and finite logits,
so that the network's output there reaches neither a sum nor a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ._inputs import check_labels, mask_ignored

BLOCK = 2**20  # numbers per buffer, 4 MB in fp32: larger blocks miss the cache, smaller ones sync threads too often
LARGE = 1e30
COMPARABLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Block(NamedTuple):
    """Some pixels of an image.

    Args:
        n: Index of the image.
        pixels: Slice of its pixels, in row-major order.
        logits: (C, B), in fp32 or fp64.
        labels: (1, B) or (C, B), usable as indices.
        weight: (1, B) or (C, B), 0 where ignored; None if all weigh 1.
        faults: Number of labels outside the classes.
        buffers: Buffers for intermediate values, (count, C, B).
    """

    n: int
    pixels: slice
    logits: Tensor
    labels: Tensor
    weight: Tensor | None
    faults: Tensor | int
    buffers: Tensor


def blocks(
    logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None, *, one_label: bool, buffers: int
) -> Iterator[Block]:
    """Iterate over the blocks of a batch.

    Args:
        logits: (N, C, H, W).
        labels: (N, 1, H, W) or (N, C, H, W) integers.
        weight: (N, 1, H, W).
        ignore_index: Label that does not count.
        one_label: Whether a label is the index of a class; otherwise it is 0 or 1.
        buffers: Number of buffers to provide. The blocks share them, because allocating memory takes longer than the
            arithmetic.
    """
    flat, labels, weight = logits.flatten(2), labels.flatten(2), None if weight is None else weight.flatten(2)
    images, classes, pixels = flat.shape
    length = max(1, min(BLOCK // max(1, classes) if logits.is_cpu else pixels, pixels))
    dtype = block_dtype(logits)
    room = logits.new_empty(buffers, classes, length, dtype=dtype)
    for n in range(images):
        for start in range(0, pixels, length):
            part = slice(start, start + length)
            x = flat[n, :, part].to(dtype)
            pixel_weight = None if weight is None else weight[n, :, part].to(dtype)
            own, pixel_weight, faults = _read_labels(
                labels[n, :, part], pixel_weight, ignore_index, classes if one_label else 2, dtype
            )
            yield Block(n, part, _masked(x, pixel_weight), own, pixel_weight, faults, room[..., : x.shape[1]])


def _masked(logits: Tensor, weight: Tensor | None) -> Tensor:
    """Like `mask_ignored`, but skipped for moderate values, which a weight of 0 cancels anyway."""
    if weight is not None and logits.is_cpu:  # reading takes a third of the time of writing
        low, high = logits.aminmax()
        if low > -LARGE and high < LARGE:  # false for NaN
            return logits
    return mask_ignored(logits, weight)


def _read_labels(
    labels: Tensor, weight: Tensor | None, ignore_index: int | None, classes: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None, Tensor | int]:
    labels = labels if labels.dtype in COMPARABLE else labels.long()
    if labels.is_cpu:  # the check is cheap here, and most blocks need no mask
        low, high = (int(end) for end in labels.aminmax())
        if low >= 0 and high < classes and (ignore_index is None or not low <= ignore_index <= high):
            return labels, weight, 0
    labels = labels.long()
    outside = (labels < 0) | (labels >= classes)
    ignored = outside if ignore_index is None else outside | (labels == ignore_index)
    faults = (outside if ignore_index is None else outside & (labels != ignore_index)).sum()
    weight = (~ignored).to(dtype) if weight is None else torch.where(ignored, 0.0, weight)
    return labels.masked_fill(ignored, 0), weight, faults


def needs_gradient(logits: Tensor) -> bool:
    """Whether autograd is recording; otherwise the `autograd.Function` is hidden from `torch.compile`.

    torch 2.10 to 2.14 fail on it, or warn, outside of autograd.
    """
    return torch.is_grad_enabled() and logits.requires_grad


def block_dtype(logits: Tensor) -> torch.dtype:
    """Return fp32, or fp64 for logits in fp64."""
    return torch.promote_types(logits.dtype, torch.float32)


def sum_dtype(logits: Tensor) -> torch.dtype:
    """Return the widest floating-point dtype of the device."""
    return torch.float32 if logits.device.type == "mps" else torch.float64  # MPS lacks double


def wrong_labels(faults: Tensor, labels: Tensor, ignore_index: int | None, classes: int) -> Tensor | None:
    """Handle labels outside the classes: raise on the CPU, elsewhere return a flag; see `Truth`.

    Raises:
        LabelRangeError: Labels outside the classes (CPU); the message has their number and values.
    """
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return faults > 0
    if int(faults):
        check_labels(labels, ignore_index, classes)
    return None
