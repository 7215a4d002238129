"""The metric: a state that can be summed over batches and processes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unetzoo.errors import SizeMismatchError


class BrierScore:
    """Mean squared distance between probabilities and one-hot labels: 0 is best, 2 is worst.

    Brier, "Verification of forecasts expressed in terms of probability", 1950.

    Args:
        ignore_index: Label of pixels to ignore.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Clear the state."""
        self.distance, self.pixels = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Add a batch: logits (N, C, H, W) and labels (N, H, W); pixels of weight 0 (N, H, W) do not count."""
        if target.shape != (output.shape[0], *output.shape[2:]):
            raise SizeMismatchError(
                "target does not match the output", expected=tuple(output.shape), found=tuple(target.shape)
            )
        counted = torch.ones_like(target, dtype=torch.bool) if weight is None else weight > 0
        if self.ignore_index is not None:
            counted = counted & (target != self.ignore_index)
        truth = torch.zeros_like(output, dtype=torch.float32).scatter(1, torch.where(counted, target, 0)[:, None], 1.0)
        distance = (output.float().softmax(1) - truth).square().sum(1)[counted]
        self.distance = self.distance.to(output.device) + distance.sum(dtype=torch.float64)
        self.pixels = self.pixels.to(output.device) + counted.sum()

    def compute(self) -> dict[str, float]:
        """The score; NaN before the first update."""
        return {"brier": float(self.distance / self.pixels)}

    def state(self) -> dict[str, Tensor]:
        """A copy of the state, since reductions over processes modify it in place."""
        return {"distance": self.distance.clone(), "pixels": self.pixels.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Set the state."""
        self.distance, self.pixels = state["distance"].clone(), state["pixels"].clone()
