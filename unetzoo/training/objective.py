"""Network and loss as one module: a batch in, the terms of the loss out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import recompute
from ..errors import DataError, SizeMismatchError
from ..heads import as_float, heads_of


class Objective(nn.Module):
    """What is minimized, as one module, so that gradients of network and loss are averaged over processes alike.

    Args:
        net: The network.
        loss: `loss(output, target, *, weight=None)`, or one with `terms(output, batch) -> dict`.
        dtype: Precision of the network's forward pass; None for float32. Losses are computed in float32.
        compile: Compile the network's forward pass for training.
        save_memory: Recompute cheap maps of the network in the backward pass, unless it is compiled.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Callable[..., Any],
        *,
        dtype: torch.dtype | None = None,
        compile: bool = False,
        save_memory: bool = False,
    ) -> None:
        super().__init__()
        self._saving = recompute.save_memory if save_memory and not compile else contextlib.nullcontext
        self.net, self.loss, self.dtype = net, loss, dtype
        self._forward: Callable[[Tensor], Any] = torch.compile(net.forward) if compile else net

    def autocast(self, images: Tensor) -> contextlib.AbstractContextManager[Any]:
        """The context in which the network runs."""
        return torch.autocast(images.device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Every term of the loss, weighted."""
        with self.autocast(batch["image"]), self._saving():
            output = (self._forward if self.training else self.net)(batch["image"])
        return self.terms(output, batch)

    def fitted(self, output: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """An output in float32 without its classification head, and the targets on its grid."""
        output = as_float(output)
        return output, fit_targets(batch, heads_of(output)["mask"], getattr(self.net, "geometry", None))

    def terms(self, output: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms of the loss for an output of the network.

        Raises:
            DataError: The samples hold no mask.
        """
        output, batch = self.fitted(output, batch)
        if (terms := getattr(self.loss, "terms", None)) is not None:
            return terms(output, batch)
        if "mask" not in batch:
            raise DataError("samples hold no mask", found=sorted(batch), hint="use a dataset that gives 'mask'")
        weight = {"weight": batch["weight"]} if "weight" in batch else {}
        return {"loss": self.loss(heads_of(output)["mask"], batch["mask"], **weight)}


def fit_targets(batch: dict[str, Any], output: Tensor, geometry: Any) -> dict[str, Any]:
    """The batch with its targets on the output's grid: the center for a smaller output, every n-th pixel for a coarser.

    Raises:
        SizeMismatchError: The output does not lie inside the target.
    """
    step = geometry.out_stride if geometry is not None else 1
    rows, columns = output.shape[-2] * step, output.shape[-1] * step

    def fit(target: Tensor) -> Tensor:
        top, left = (target.shape[-2] - rows) // 2, (target.shape[-1] - columns) // 2
        if top < 0 or left < 0:
            raise SizeMismatchError(
                "the output is larger than its target",
                expected=f"at most {tuple(target.shape[-2:])}",
                found=(rows, columns),
            )
        return target[..., top : top + rows : step, left : left + columns : step]

    return {key: fit(value) if key in ("mask", "depth", "valid", "weight") else value for key, value in batch.items()}
