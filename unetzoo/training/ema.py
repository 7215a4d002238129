"""The running mean of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .numerics import Buffers


class EMA:
    """Exponential moving average of a network: parameters and floating buffers; counters are copied.

    The first steps average over fewer: the decay of step n is `min(decay, (1 + n) / (10 + n))`.

    Args:
        net: The network that is trained.
        decay: Share of the old mean that a step keeps, e.g. 0.999.

    Examples:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> mean = EMA(net, 0.5)
        >>> before = net.weight.item()
        >>> _ = net.weight.data.add_(1.0)
        >>> mean.update(step=100)
        >>> round(mean.net.weight.item() - before, 6)
        0.5
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self._means: list[Tensor] = list(self.net.parameters())
        self._values: list[Tensor] = list(net.parameters())
        self._mean_buffers, self._buffers = Buffers(self.net), Buffers(net)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network as it is after optimizer step number `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        means, values = list(self._means), list(self._values)
        for mean, value in zip(self._mean_buffers.now(), self._buffers.now(), strict=True):
            if mean.is_floating_point():
                means.append(mean)
                values.append(value)
            else:
                mean.copy_(value)
        torch._foreach_lerp_(means, values, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
