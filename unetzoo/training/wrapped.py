"""The objective as the loop calls it: over several processes in DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn

from ..modules import evaluation_mode
from . import rng
from .objective import Objective


class Wrapped:
    """Wraps the objective, anew when the encoder thaws: what is summed over processes is fixed by the wrapper.

    Args:
        objective: Network and loss.
        accelerator: The processes.
        freeze: Epochs in which the encoder is frozen.
    """

    def __init__(self, objective: Objective, accelerator: Accelerator, freeze: int) -> None:
        self.objective, self.accelerator, self.freeze = objective, accelerator, freeze
        self.model: nn.Module = objective
        self._frozen: bool | None = None

    def close(self) -> None:
        """Drop the wrapper: it holds the group of processes, whose threads abort an interpreter that ends."""
        several, self.model = self.model is not self.objective, self.objective
        if several:
            self.accelerator.free_memory()  # it would keep the wrapper

    def at(self, epoch: int, example: Callable[[], dict[str, Any]], *, several: bool) -> None:
        """Make `model` what an epoch trains, in training mode.

        Args:
            epoch: Counted from 0.
            example: Gives a batch.
            several: Whether there are several processes.
        """
        frozen = epoch < self.freeze
        if self.freeze and frozen != self._frozen:
            net = cast(Any, self.objective.net)
            (net.freeze_encoder if frozen else net.unfreeze_encoder)()
            self._frozen = frozen
            self.close()
        if several and self.model is self.objective:
            self.model = self.accelerator.prepare_model(self.objective)
            self._order_gradients(self.model, example)
        self.objective.train()

    def _order_gradients(self, model: nn.Module, example: Callable[[], dict[str, Any]]) -> None:
        """One backward pass for nothing: DistributedDataParallel orders what it sums by the first one that it sees.

        Sums of floats depend on their order, so a resumed run must not begin in another one.
        """
        held = rng.take()
        with evaluation_mode(self.objective):
            torch.stack(list(model(example()).values())).sum().backward()
        self.objective.zero_grad(set_to_none=True)
        rng.give(held)
