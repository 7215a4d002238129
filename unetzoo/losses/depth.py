"""Losses that compare depth maps.

Pixels of weight 0 do not count, regardless of their values: sensors write NaN or infinity where they have no
measurement. Without valid pixels a loss is 0 with zero gradient. Means are over all valid pixels of the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ._inputs import check_output, depth_pair, outside_autocast, safe_ratio, safe_sqrt, weighted_mean
from .structure import SSIMLoss


class DepthLoss(nn.Module):
    """Base class of the losses of this file, except `DepthSSIMLoss`; a subclass defines `compare`."""

    def __init__(self) -> None:  # that of nn.Module takes **kwargs, which the registry rejects
        super().__init__()

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output)
        with outside_autocast(output):
            return self.compare(*depth_pair(output, target, weight))

    def compare(self, output: Tensor, target: Tensor, pixels: Tensor | None) -> Tensor:
        """Compute the loss from maps in full precision, and the weight of their pixels (None: all 1)."""
        raise NotImplementedError


class L1Loss(DepthLoss):
    """Mean absolute difference of two depth maps: `Σ w·|output − target| / Σ w`.

    Pixels of weight 0 do not count, regardless of their values: sensors write NaN or infinity where they have no
    measurement. Without valid pixels the loss is 0 with zero gradient.

    Shape:
        - output: (N, 1, H, W)
        - target: (N, 1, H, W) or (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.

    Examples:
        >>> import torch
        >>> loss, nan = L1Loss(), float("nan")
        >>> depth, truth = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[[[0.25, nan]]]])
        >>> loss(depth, truth, weight=~truth.isnan()).item()
        0.25

    Source:
        The L1 term of Alhashim and Wonka, "High Quality Monocular Depth Estimation via Transfer Learning", 2018, eq. 2.
    """

    def compare(self, output: Tensor, target: Tensor, pixels: Tensor | None) -> Tensor:
        """Compute the loss from prepared maps."""
        return weighted_mean((output - target).abs(), pixels)


class RMSELoss(DepthLoss):
    """Root mean square difference of two depth maps: `√(Σ w·(output − target)² / Σ w)`.

    The mean is over the valid pixels of the whole batch, and the root is taken last. For equal maps the loss is 0 with
    zero gradient.

    Shape:
        - output: (N, 1, H, W)
        - target: (N, 1, H, W) or (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.

    Examples:
        >>> import torch
        >>> RMSELoss()(torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[1.0, 7.0]]]])).item()
        5.0

    Source:
        The "RMS" of Eigen et al., "Depth Map Prediction from a Single Image", 2014, section 4.2.
    """

    def compare(self, output: Tensor, target: Tensor, pixels: Tensor | None) -> Tensor:
        """Compute the loss from prepared maps."""
        return safe_sqrt(weighted_mean((output - target) ** 2, pixels))


class BerHuLoss(DepthLoss):
    """Reverse Huber loss: the mean of `|d|` where `|d| ≤ c` and `(d² + c²) / 2c` beyond, d = output − target.

    c is `threshold` times the largest |d| of the valid pixels of the batch. It is constant in the gradient: otherwise
    reducing the largest error would lower c and raise the loss of the other pixels.

    Args:
        threshold: Share of the largest difference above which differences are squared, in (0, 1].

    Shape:
        - output: (N, 1, H, W)
        - target: (N, 1, H, W) or (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        ConfigError: An unusable threshold.
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.

    Examples:
        >>> import torch
        >>> truth = torch.tensor([[[[1.0, 5.0]]]])  # c = 1: the mean of 1 and (5² + 1²) / 2
        >>> BerHuLoss()(torch.zeros(1, 1, 1, 2), truth).item()
        7.0

    Source:
        Laina et al., "Deeper Depth Prediction with Fully Convolutional Residual Networks", 2016, eq. 1:
        c = max |d| / 5.
    """

    def __init__(self, threshold: float = 0.2) -> None:
        super().__init__()
        if not 0.0 < threshold <= 1.0:
            raise ConfigError("unusable threshold", expected="a number in (0, 1]", found=threshold)
        self.threshold = threshold

    def compare(self, output: Tensor, target: Tensor, pixels: Tensor | None) -> Tensor:
        """Compute the loss from prepared maps."""
        size = (output - target).abs()
        c = self.threshold * size.detach().amax()
        return weighted_mean(torch.where(size <= c, size, (size * safe_ratio(size, c) + c) / 2.0), pixels)


class SILogLoss(DepthLoss):
    """Scale-invariant logarithmic loss: `10·√(mean d² − λ·(mean d)²)`, d = ln output − ln target.

    With λ = 1 only the shape of the depth counts; with λ = 0 its scale counts as much as its shape. Depth must be > 0:
    a target below `eps` counts as `eps` (mask it if it means "not measured"). For an output below `eps` the logarithm
    is continued along its tangent, so that there is still a gradient toward valid depth.

    Args:
        variance_focus: λ, in [0, 1].
        eps: Smallest depth.

    Shape:
        - output: (N, 1, H, W)
        - target: (N, 1, H, W) or (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        ConfigError: Unusable constants.
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.

    Examples:
        >>> import torch
        >>> depth = torch.tensor([[[[0.25, 0.5]]]])
        >>> SILogLoss(variance_focus=1.0)(depth, 2 * depth).item()
        0.0
        >>> round(SILogLoss()(depth, 2 * depth).item(), 4)  # 10·√0.15·ln 2
        2.6845

    Source:
        Lee et al., "From Big to Small" (BTS), 2019, eqs. 4 and 5: λ = 0.85, factor 10.
    """

    def __init__(self, variance_focus: float = 0.85, eps: float = 1e-3) -> None:
        super().__init__()
        if not (0.0 <= variance_focus <= 1.0 and 0.0 < eps < math.inf):
            raise ConfigError(
                "unusable constants",
                expected="variance_focus in [0, 1] and eps > 0",
                found=f"{variance_focus}, {eps}",
            )
        self.variance_focus, self.eps = variance_focus, eps

    def compare(self, output: Tensor, target: Tensor, pixels: Tensor | None) -> Tensor:
        """Compute the loss from prepared maps."""
        tangent = math.log(self.eps) + (output - self.eps) / self.eps
        difference = torch.where(output < self.eps, tangent, output.clamp_min(self.eps).log())
        difference = difference - target.clamp_min(self.eps).log()
        # Compute the variance from deviations: a difference of squares could be negative.
        # The rounding error of the mean would count as variance, so the mean is refined once.
        mean = weighted_mean(difference, pixels)
        mean = mean + weighted_mean(difference - mean, pixels)
        variance = weighted_mean((difference - mean) ** 2, pixels)
        return 10.0 * safe_sqrt(variance + (1.0 - self.variance_focus) * mean**2)


class GradientLoss(DepthLoss):
    """Mean difference of the slopes of two depth maps: `(Σ|∂y e| + Σ|∂x e|) / Σ w`, e = output − target.

    The slopes are differences between a pixel and the next one below and to the right; they are 0 in the last row and
    column. A difference has the smaller weight of its two pixels, so the borders of the valid area do not count as
    edges.

    Args:
        scales: Number of scales to sum over; each uses every second pixel of the previous one.

    Shape:
        - output: (N, 1, H, W)
        - target: (N, 1, H, W) or (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        ConfigError: An unusable number of scales.
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.

    Examples:
        >>> import torch
        >>> depth = torch.tensor([[[[0.0, 1.0], [2.0, 0.0]]]])  # 2 and 1 down, 1 and 2 to the right
        >>> GradientLoss()(depth, torch.zeros(1, 1, 2, 2)).item()
        1.5

    Source:
        Alhashim and Wonka, "High Quality Monocular Depth Estimation via Transfer Learning" (DenseDepth), 2018, eq. 3;
        several scales: Li and Snavely, "MegaDepth", 2018, eq. 3.
    """

    def __init__(self, scales: int = 1) -> None:
        super().__init__()
        if isinstance(scales, bool) or not isinstance(scales, int) or scales < 1:
            raise ConfigError("unusable scales", expected="a whole number ≥ 1", found=scales)
        self.scales = scales

    def compare(self, output: Tensor, target: Tensor, pixels: Tensor | None) -> Tensor:
        """Compute the loss from prepared maps."""
        error = output - target
        pixels = torch.ones_like(error) if pixels is None else pixels.expand_as(error)
        loss = error.new_zeros(())
        for step in (2**scale for scale in range(self.scales)):
            e, w = error[..., ::step, ::step], pixels[..., ::step, ::step]
            down, right = ((e.diff(dim=dim).abs() * _lighter(w, dim)).sum() for dim in (2, 3))
            loss = loss + safe_ratio(down + right, w.sum())
        return loss


def _lighter(weight: Tensor, dim: int) -> Tensor:
    count = weight.shape[dim] - 1
    return torch.minimum(weight.narrow(dim, 0, count), weight.narrow(dim, 1, count))


class DepthSSIMLoss(nn.Module):
    """Loss of DenseDepth: `ssim·clip((1 − SSIM) / 2, 0, 1) + gradient·(slopes) + l1·|output − target|`.

    The terms are `SSIMLoss` (window 11, σ 1.5), `GradientLoss` and `L1Loss`, and handle weights as these do.

    Args:
        ssim: Weight of the structural term.
        gradient: Weight of the slopes.
        l1: Weight of the differences.
        data_range: Range of the depth, for SSIM.

    Shape:
        - output: (N, 1, H, W)
        - target: (N, 1, H, W) or (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        ConfigError: Unusable weights or range.
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.

    Examples:
        >>> import torch
        >>> depth = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
        >>> DepthSSIMLoss()(depth, depth).item()
        0.0
        >>> round(DepthSSIMLoss(ssim=0.0)(depth + 0.5, depth).item(), 4)
        0.05

    Source:
        Alhashim and Wonka, "High Quality Monocular Depth Estimation via Transfer Learning", 2018, eqs. 1 to 4, and
        the clipping of their released code.
    """

    def __init__(self, ssim: float = 1.0, gradient: float = 1.0, l1: float = 0.1, data_range: float = 1.0) -> None:
        super().__init__()
        weights = {"ssim": ssim, "gradient": gradient, "l1": l1}
        if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
            raise ConfigError("unusable weights", expected="numbers ≥ 0, not all 0", found=weights)
        self.weights = weights
        self.ssim, self.gradient, self.l1 = SSIMLoss(data_range), GradientLoss(), L1Loss()

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        structure = (self.ssim(output, target, weight=weight) / 2.0).clamp(0.0, 1.0)
        slopes = self.gradient(output, target, weight=weight)
        difference = self.l1(output, target, weight=weight)
        return self.weights["ssim"] * structure + self.weights["gradient"] * slopes + self.weights["l1"] * difference
