"""An optimizer step as a transaction over a group of batches: it counts as a whole, or nothing of it stays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..modules import is_out_of_memory
from . import memory, rng
from .evaluation import wide
from .numerics import Flags, Guard

Batch = dict[str, Any]


class Sums(NamedTuple):
    """The loss and its terms, summed over the samples of a group.

    Args:
        names: Of the terms.
        values: The loss, then its terms.
        samples: How many.
    """

    names: list[str]
    values: Tensor
    samples: int


class Transaction:
    """Begins with `gradients`, ends with `apply`.

    Memory that runs out gives buffers and random streams back, and the group is taken again in smaller parts. What is
    not finite is undone by the guard before the optimizer sees it.

    Args:
        optimizer: Whose step it is.
        scaler: Of half-precision gradients; a disabled one does nothing.
        guard: Keeps the buffers and checks the step.
        ready: Brings a batch to the device and through its transform.
        no_sync: In whose context gradients are not averaged over processes yet.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        guard: Guard,
        *,
        ready: Callable[[Batch], Batch],
        no_sync: Callable[[nn.Module], AbstractContextManager[Any]],
    ) -> None:
        self.optimizer, self.scaler, self.guard = optimizer, scaler, guard
        self.ready, self.no_sync = ready, no_sync
        self.parts = memory.Parts()

    def gradients(self, model: nn.Module, group: Sequence[Batch], say: Callable[[str], None], *, alone: bool) -> Sums:
        """Gradients of the mean over all samples of a group.

        Args:
            model: A batch in, the terms of the loss out.
            group: Batches as they were loaded.
            say: Told of smaller parts.
            alone: Whether no other process has to follow.

        Raises:
            MemoryExhaustedError: Smaller parts do not help.
        """
        self.guard.remember()
        held = rng.take()
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._backward(model, group)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error)  # the error itself would hold on to the memory
            say(self.parts.more(len(group[0]["image"]), failure, alone=alone))
            self.guard.restore()
            rng.give(held)

    def apply(self, sums: Sums, rates: AbstractContextManager[None], received: int) -> Flags | None:
        """The optimizer's step; gives what was found in the step before.

        Args:
            sums: What the gradients are of.
            rates: In whose context the learning rates are those of this step.
            received: The signal that this process received, or 0.
        """
        self.scaler.unscale_(self.optimizer)
        flags = self.guard.check(sums.values[0] / sums.samples, received)
        with rates:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return flags

    def _backward(self, model: nn.Module, group: Sequence[Batch]) -> Sums:
        samples, sums, names = sum(len(batch["image"]) for batch in group), None, list[str]()
        for place, batch in enumerate(group, start=1):
            parts = memory.cut(self.ready(batch), self.parts.count)
            for number, part in enumerate(parts, start=1):
                last = place == len(group) and number == len(parts)
                with contextlib.nullcontext() if last else self.no_sync(model):
                    terms = model(part)
                    values, share = torch.stack(list(terms.values())), len(part["image"])
                    total = values.sum()
                    self.scaler.scale(total if share == samples else total * (share / samples)).backward()
                names, seen = list(terms), wide(torch.cat([total[None], values])) * share
                sums = seen if sums is None else sums + seen
        return Sums(names, cast(Tensor, sums), samples)
