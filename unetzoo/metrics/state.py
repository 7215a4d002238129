"""The state of metrics: named tensors that add up over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import ConfigError


class SummedState:
    """A metric whose whole state is a few tensors of sums.

    To sum over processes, add up every tensor of `state()` over them and pass the result to `load_state`.

    Args:
        zeros: The state before anything was counted. It fixes names, shapes and dtypes.

    Raises:
        ConfigError: A state that belongs to another metric.

    Examples:
        >>> one, two = (SummedState({"pixels": torch.zeros(1, dtype=torch.int64)}) for _ in range(2))
        >>> one.add(pixels=torch.tensor([2])), two.add(pixels=torch.tensor([3]))
        (None, None)
        >>> one.merge(two).state()
        {'pixels': tensor([5])}
    """

    def __init__(self, zeros: Mapping[str, Tensor]) -> None:
        self._zeros = dict(zeros)
        self.reset()

    def add(self, **parts: Tensor) -> None:
        """Add to the state, which moves to the device of what is added."""
        for name, part in parts.items():
            held, part = self._sums[name], part.to(self._zeros[name].dtype)
            if held is self._zeros[name]:  # nothing to move to the device, so nothing waits for it
                self._sums[name] = part.expand_as(held)
            else:  # not in place: the state may be an inference tensor
                self._sums[name] = held.to(part.device) + part

    def state(self) -> dict[str, Tensor]:
        """The sums; a copy, so that a sum over processes may be taken in place."""
        return {name: tensor.clone() for name, tensor in self._sums.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the sums of a metric with the same arguments.

        Raises:
            ConfigError: Names, shapes or dtypes of another metric.
        """
        self._check(state)
        self._sums = {name: state[name].clone() for name in self._zeros}

    def rules(self) -> dict[str, Any]:
        """What two metrics must have in common, besides the shapes of their states, for their sums to add up."""
        return {}

    def merge(self, other: Self) -> Self:
        """Add the counts of another metric with the same arguments.

        Raises:
            ConfigError: A metric of another kind or of other rules.
        """
        self._check(other.state())
        if other.rules() != self.rules():
            raise ConfigError(
                "this is another metric",
                expected=self.rules(),
                found=other.rules(),
                hint="give both metrics the same arguments",
            )
        self.add(**other.state())
        return self

    def reset(self) -> None:
        """Forget everything counted."""
        self._sums = dict(self._zeros)

    def _check(self, state: Mapping[str, Tensor]) -> None:
        def form(tensors: Mapping[str, Tensor]) -> dict[str, str]:
            return {name: f"{str(t.dtype)[6:]}{tuple(t.shape)}" for name, t in sorted(tensors.items())}

        if form(state) != form(self._zeros):
            raise ConfigError(
                "this is the state of another metric",
                expected=form(self._zeros),
                found=form(state),
                hint="give both metrics the same arguments",
            )


def flags(*conditions: Tensor) -> Tensor:
    """How often each condition holds, as one int64 vector."""
    return torch.stack([condition.sum(dtype=torch.int64) for condition in conditions])
