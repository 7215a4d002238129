"""Small random inputs for the checks, the same at every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .case import Case

IGNORE = 255
CHANNELS = {"binary": 1, "multiclass": 3, "multilabel": 2, "depth": 1}


def stream(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def image(case: Case, net: Any, batch: int = 2, seed: int = 0) -> Tensor:
    """A batch of images: of the size of the case, of a legal size near 48, or of 64."""
    channels = case.default("in_channels", 3)
    side = size_of(case, net)
    return torch.randn(batch, channels, side, side, generator=stream(seed))


def size_of(case: Case, net: Any) -> int:
    """Height and width of these images."""
    geometry = getattr(net, "geometry", None)
    return case.size or (geometry.fit(48) if geometry is not None else 64)


def tensors(output: Any) -> list[Tensor]:
    """All tensors of an output, in order."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in tensors(part)]


def mask_of(output: Any) -> Any:
    """The mask logits: the output itself, or its first field."""
    return output[0] if isinstance(output, tuple) else output


def pair(case: Case, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An output and its target, for a loss or metric."""
    side, channels = case.size or 12, channels_of(case)
    generator = stream(seed)
    output = torch.randn(batch, channels, side, side, generator=generator)
    if case.task == "depth":
        return output.abs() + 0.1, torch.rand(batch, channels, side, side, generator=generator) + 0.1
    shape = (batch, channels, side, side) if case.task == "multilabel" else (batch, side, side)
    return output, torch.randint(0, max(2, channels if case.task == "multiclass" else 2), shape, generator=generator)


def channels_of(case: Case) -> int:
    """Channels of the output for a loss or metric."""
    labels, num_classes = case.options.get("labels"), case.options.get("num_classes")
    if case.task in ("binary", "depth"):
        return 1
    if labels is not None:
        return labels.classes
    return num_classes if isinstance(num_classes, int) else CHANNELS[case.task]


def metric_batch(case: Case, count: int = 4, seed: int = 0) -> Sequence[Any]:
    """Arguments for the `update` of a metric."""
    return case.batch(count, stream(seed)) if case.batch is not None else pair(case, count, seed)
