"""Merge several outputs for one image and measure their disagreement."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .tta import TTA

Heads = tuple[Tensor, ...]


class TTAMerger:
    """Merges the outputs for several views, one at a time.

    The first head contains the classes and is merged according to `tta`; the others are averaged.

    Args:
        tta: Views and merge method.
        uncertainty: Whether to also measure the disagreement per head. For classes, this is the Jensen–Shannon
            divergence as a fraction of its maximum for this number of views and classes (if multilabel, the largest
            over the labels); for other heads, the standard deviation.
    """

    def __init__(self, tta: TTA, uncertainty: bool = False) -> None:
        self.merge, self.mode, self.uncertainty = tta.merge, tta.mode, uncertainty
        self.count = 0
        self._mask: list[Tensor] = []
        self._others: list[Moments] = []
        self._spread: Spread | Moments = Moments() if tta.mode == "raw" else Spread(tta.mode)

    def add(self, heads: Heads) -> None:
        """Add the output of a view, transformed back to the original orientation."""
        self.count += 1
        self._dtypes = [head.dtype for head in heads]
        mask, *others = (head.to(torch.promote_types(head.dtype, torch.float32)) for head in heads)
        parts = self._parts(mask)
        self._mask = [self._join(*pair) for pair in zip(self._mask, parts, strict=True)] if self._mask else parts
        self._others = self._others or [Moments() for _ in others]
        for moments, head in zip(self._others, others, strict=True):
            moments.add(head)
        if self.uncertainty:
            self._spread.add(mask)

    def merged(self) -> Heads:
        """Return the merged heads, followed by the disagreement (…, 1, H, W) of each head if `uncertainty` is set."""
        means = [self._merged_mask(), *(moments.mean for moments in self._others)]
        merged = [mean.to(dtype) for mean, dtype in zip(means, self._dtypes, strict=True)]
        if self.uncertainty:
            merged += [self._spread.size(), *(moments.size() for moments in self._others)]
        return tuple(merged)

    def _parts(self, mask: Tensor) -> list[Tensor]:
        if self.merge == "mean" and self.mode != "raw":
            return [F.logsigmoid(mask), F.logsigmoid(-mask)] if _sigmoid(mask, self.mode) else [mask.log_softmax(-3)]
        if self.merge == "max" and self.mode != "raw" and not _sigmoid(mask, self.mode):
            return [mask.log_softmax(-3)]
        return [mask]

    def _join(self, one: Tensor, other: Tensor) -> Tensor:
        if self.merge == "max":
            return torch.maximum(one, other)
        return torch.logaddexp(one, other) if self.merge == "mean" and self.mode != "raw" else one + other

    def _merged_mask(self) -> Tensor:
        mask = self._mask[0]
        if self.merge == "max":
            return mask.log_softmax(-3) if self.mode != "raw" and not _sigmoid(mask, self.mode) else mask
        if self.merge == "mean" and self.mode != "raw":
            return mask - self._mask[1] if len(self._mask) == 2 else mask - math.log(self.count)
        return mask / self.count


class Moments:
    """Running mean and standard deviation of maps (Welford's algorithm)."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, values: Tensor) -> None:
        """Add a map."""
        self.count += 1
        if self.count == 1:
            self.mean, self._squares = values, torch.zeros_like(values)
            return
        off = values - self.mean
        self.mean = self.mean + off / self.count
        self._squares = self._squares + off * (values - self.mean)

    def size(self) -> Tensor:
        """Return the standard deviation, maximized over the channels."""
        return (self._squares / self.count).sqrt().amax(-3, keepdim=True)


class Spread:
    """Jensen–Shannon divergence: the entropy of the mean distribution minus the mean entropy."""

    def __init__(self, mode: str) -> None:
        self.mode, self.count = mode, 0

    def add(self, mask: Tensor) -> None:
        """Add a map of logits."""
        self._binary = _sigmoid(mask, self.mode)
        p = mask.sigmoid() if self._binary else mask.softmax(-3)
        entropy = self._entropy(p)
        self._sum, self._entropies = (self._sum + p, self._entropies + entropy) if self.count else (p, entropy)
        self.count += 1

    def size(self) -> Tensor:
        """Return the normalized divergence: 0 for full agreement, 1 for the largest possible disagreement."""
        if self.count < 2:
            return torch.zeros_like(self._entropies).amax(-3, keepdim=True)
        most = math.log(min(self.count, 2 if self._binary else self._sum.shape[-3]))
        apart = self._entropy(self._sum / self.count) - self._entropies / self.count
        return (apart / most).clamp(0, 1).amax(-3, keepdim=True)

    def _entropy(self, p: Tensor) -> Tensor:
        if self._binary:
            return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
        return -torch.xlogy(p, p).sum(-3, keepdim=True)


def _sigmoid(mask: Tensor, mode: str) -> bool:
    return mode == "multilabel" or mask.shape[-3] == 1
