"""Losses that compare depth maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._inputs import check_output, depth_map, full_precision, outside_autocast, pixel_weight, weighted_mean


class L1Loss(nn.Module):
    """Mean absolute difference of two depth maps: `Σ w·|output − target| / Σ w`.

    A pixel of weight 0 counts for nothing whatever it holds: sensors write NaN or infinity where they measured
    nothing. No valid pixel at all: 0, with zero gradient.

    Shape:
        - output: (N, 1, H, W)
        - target: (N, 1, H, W) or (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of another size.

    Examples:
        >>> import torch
        >>> loss, nan = L1Loss(), float("nan")
        >>> depth, truth = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[[[0.25, nan]]]])
        >>> loss(depth, truth, weight=~truth.isnan()).item()
        0.25

    Source:
        The L1 term of Alhashim and Wonka, "High Quality Monocular Depth Estimation via Transfer Learning", 2018, eq. 2.
    """

    def __init__(self) -> None:  # nn.Module's own takes **kwargs, which the registry refuses
        super().__init__()

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar."""
        check_output(output)
        with outside_autocast(output):
            output = full_precision(output)
            difference = output - depth_map(target, output)
            if weight is None:
                return weighted_mean(difference.abs(), None)
            pixels = pixel_weight(weight, output)
            # Not a product with the weight: 0·NaN is NaN, forward and backward.
            difference = torch.where(pixels == 0, 0.0, difference)
            return weighted_mean(difference.abs(), pixels)
