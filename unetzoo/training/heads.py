"""What a network answers, by head, and the targets that belong to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import SizeMismatchError


def fit_targets(batch: dict[str, Any], output: Tensor, geometry: Any) -> dict[str, Any]:
    """The batch with its targets on the output's grid: the centre for a smaller output, every n-th pixel for a coarser.

    Raises:
        SizeMismatchError: The output does not lie inside the target.
    """
    step = geometry.out_stride if geometry is not None else 1
    rows, columns = output.shape[-2] * step, output.shape[-1] * step

    def fit(target: Tensor) -> Tensor:
        top, left = (target.shape[-2] - rows) // 2, (target.shape[-1] - columns) // 2
        if top < 0 or left < 0:
            raise SizeMismatchError(
                "the network answers more pixels than the target has",
                expected=f"at most {tuple(target.shape[-2:])}",
                found=(rows, columns),
            )
        return target[..., top : top + rows : step, left : left + columns : step]

    return {key: fit(value) if key in ("mask", "depth", "valid", "weight") else value for key, value in batch.items()}


def heads_of(output: Any) -> dict[str, Tensor]:
    """An output's tensors by head; a plain tensor is the mask."""
    return {"mask": output} if isinstance(output, Tensor) else output._asdict()


def without_labels(output: Any) -> Any:
    """An output without the classification head's part, which SMP's contract puts second in a plain tuple."""
    return output[0] if isinstance(output, tuple) and not hasattr(output, "_fields") else output


def as_float(output: Any) -> Any:
    """Half-precision outputs as float32: losses and scores are computed there."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    return type(output)(*(as_float(head) for head in output))
