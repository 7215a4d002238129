"""Scores of depth maps, computed from sums over pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, DataError, InputShapeError, NonFiniteError, SizeMismatchError
from .inputs import counted_pixels
from .state import SummedState, flags

SUMS = ("squared", "relative", "squared_relative", "log", "log_squared", "log_absolute")
COUNTS = ("pixels", "delta1", "delta2", "delta3", "strange_output", "strange_target")


class DepthMetric(SummedState):
    """The usual scores of monocular depth, over all valid pixels of all images.

    With p predicted, g true, e = ln p − ln g, and means over valid pixels:
    `rmse` = √mean (p−g)², `abs_rel` = mean |p−g|/g, `sq_rel` = mean (p−g)²/g, `rmse_log` = √mean e²,
    `log10` = mean |log₁₀ p − log₁₀ g|, `silog` = 100·√(mean e² − (mean e)²), `delta1…3` = share of pixels with
    max(p/g, g/p) < 1.25, 1.25², 1.25³. `pixels` is the number of valid pixels; without valid pixels every score is NaN.

    All scores except `rmse` divide by a depth or take its logarithm, and a depth can be 0, so both p and g are clamped
    for them.

    Args:
        clamp: Least depth for the ratio and logarithm scores, or (least, greatest). Scores with different clamps cannot
            be compared. Work on depth in [0, 1] often uses (0.1, 1.0).

    Raises:
        ConfigError: Limits that are not 0 < least < greatest.

    Examples:
        >>> metric = DepthMetric()
        >>> metric.update(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[1.0, 4.0]]]]))
        >>> scores = metric.compute()
        >>> scores["abs_rel"], scores["delta1"], round(scores["rmse"], 4)
        (0.25, 0.5, 1.4142)

    Source:
        Eigen et al., "Depth Map Prediction from a Single Image", 2014, section 4; silog as in the KITTI benchmark.
    """

    def __init__(self, clamp: float | Sequence[float] = 1e-3) -> None:
        limits = [float(clamp)] if isinstance(clamp, int | float) else [float(limit) for limit in clamp]
        self.least, self.greatest = (*limits, math.inf)[:2] if len(limits) in (1, 2) else (math.nan, math.nan)
        if not 0.0 < self.least < self.greatest:
            raise ConfigError(
                "unusable clamp", expected="least, or (least, greatest), 0 < least < greatest", found=clamp
            )
        super().__init__(
            {
                "sums": torch.zeros(len(SUMS), dtype=torch.float64),
                "counts": torch.zeros(len(COUNTS), dtype=torch.int64),
            }
        )

    def rules(self) -> dict[str, Any]:
        """Return the clamp."""
        return {"clamp": (self.least, self.greatest)}

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Count a batch.

        Args:
            output: Predicted depth.
            target: True depth; any value, including NaN, where the weight is 0.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.

        Shape:
            - output: floats (N, 1, H, W)
            - target, weight: (N, 1, H, W) or (N, H, W)

        Raises:
            InputShapeError: An output that is not (N, 1, H, W) floats.
            SizeMismatchError: A target or weight of a different size.
            DataError: Weights other than 0 and 1.
        """
        if output.ndim != 4 or output.shape[1] != 1 or not output.is_floating_point():
            found = f"{tuple(output.shape)} of {output.dtype}"
            raise InputShapeError("unusable output", expected="depth (N, 1, H, W), floating point", found=found)
        predicted = output[:, 0].double()
        truth = _plane(target, output, "target").to(predicted)
        counted = counted_pixels(weight, predicted)
        counted = torch.ones_like(predicted, dtype=torch.bool) if counted is None else counted
        strange_output, strange_target = counted & ~predicted.isfinite(), counted & ~truth.isfinite()
        # Where a pixel does not count, both depths are set to 1, so that every term is 0.
        predicted, truth = (torch.where(counted, depth, 1.0) for depth in (predicted, truth))
        squared = (predicted - truth).square()
        predicted, truth = (depth.clamp(self.least, self.greatest) for depth in (predicted, truth))
        difference, log = (predicted - truth).abs(), predicted.log() - truth.log()
        worse = torch.maximum(predicted / truth, truth / predicted)
        terms = (squared, difference / truth, difference.square() / truth, log, log.square(), log.abs())
        self.add(
            sums=torch.stack([term.sum() for term in terms]),
            counts=flags(
                counted, *(counted & (worse < 1.25**power) for power in (1, 2, 3)), strange_output, strange_target
            ),
        )

    def compute(self) -> dict[str, float]:
        """Compute all scores of the pixels counted so far.

        Raises:
            NonFiniteError: NaN or infinity was predicted at a valid pixel.
            DataError: The true depth is NaN or infinite at a pixel that counts.
        """
        counts: dict[str, int] = dict(zip(COUNTS, self._sums["counts"].tolist(), strict=True))
        if counts["strange_target"]:
            raise DataError(
                "the true depth is not finite where it is valid",
                found=f"{counts['strange_target']} pixels of NaN or infinity",
                hint="give such pixels a weight of 0",
            )
        if counts["strange_output"]:
            raise NonFiniteError(
                "the predicted depth is not finite", found=f"{counts['strange_output']} pixels of NaN or infinity"
            )
        pixels = counts["pixels"]
        sums: list[float] = self._sums["sums"].tolist()
        mean = {name: total / pixels if pixels else math.nan for name, total in zip(SUMS, sums, strict=True)}
        variance = mean["log_squared"] - mean["log"] ** 2
        return {
            "rmse": math.sqrt(mean["squared"]),
            "abs_rel": mean["relative"],
            "sq_rel": mean["squared_relative"],
            "rmse_log": math.sqrt(mean["log_squared"]),
            "log10": mean["log_absolute"] / math.log(10.0),
            "silog": 100.0 * math.sqrt(variance if not variance < 0.0 else 0.0),  # rounding can leave −1e-17; NaN stays
            **{f"delta{k}": counts[f"delta{k}"] / pixels if pixels else math.nan for k in (1, 2, 3)},
            "pixels": float(pixels),
        }


def _plane(values: Tensor, output: Tensor, what: str) -> Tensor:
    batch, _, height, width = output.shape
    if values.shape == (batch, height, width):
        return values
    if values.shape != output.shape:
        raise SizeMismatchError(
            f"{what} does not fit the output",
            expected=f"shape {tuple(output.shape)} or {(batch, height, width)}",
            found=tuple(values.shape),
        )
    return values[:, 0]
