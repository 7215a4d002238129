"""The metric: sums that add up over batches and processes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unetzoo.errors import SizeMismatchError


class BrierScore:
    """Mean squared distance between the probabilities and the truth: 0 is best, 2 is worst.

    Brier, "Verification of forecasts expressed in terms of probability", 1950.

    Args:
        ignore_index: Label of the pixels that do not count.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget everything counted."""
        self.distance, self.pixels = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch: logits (N, C, H, W) and integers (N, H, W)."""
        if target.shape != (output.shape[0], *output.shape[2:]):
            raise SizeMismatchError("the target does not fit", expected=tuple(output.shape), found=tuple(target.shape))
        counted = torch.ones_like(target, dtype=torch.bool)
        if self.ignore_index is not None:
            counted = target != self.ignore_index
        truth = torch.zeros_like(output, dtype=torch.float32).scatter(1, torch.where(counted, target, 0)[:, None], 1.0)
        distance = (output.float().softmax(1) - truth).square().sum(1)[counted]
        self.distance = self.distance.to(output.device) + distance.sum(dtype=torch.float64)
        self.pixels = self.pixels.to(output.device) + counted.sum()

    def compute(self) -> dict[str, float]:
        """The score; NaN before anything was counted."""
        return {"brier": float(self.distance / self.pixels)}

    def state(self) -> dict[str, Tensor]:
        """The sums; a copy, since sums over processes are taken in place."""
        return {"distance": self.distance.clone(), "pixels": self.pixels.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from sums."""
        self.distance, self.pixels = state["distance"].clone(), state["pixels"].clone()
