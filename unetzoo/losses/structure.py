"""Losses that compare structure in windows: SSIM and its multi-scale form.

Both compute in double precision (single if the device does not support double): a window's variance is a difference of
squares, which loses precision in fp32 and becomes NaN in half precision.

Statistics of a window are computed from its counted pixels, each with its weight times the Gaussian, and the weight of
the window is the sum of these. A pixel of weight 0 therefore has no effect, regardless of its value. The same rule
handles small images: pixels beyond the image have weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ._inputs import check_output, depth_pair, full_precision, outside_autocast, safe_ratio, weighted_mean

K1, K2 = 0.01, 0.03
# For five scales, finest first: Wang et al. 2003, section 3.2.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# The contrast term of a scale may be ≤ 0, where a fractional power has no finite slope.
LEAST = 1e-6


class SSIMLoss(nn.Module):
    """Structural dissimilarity: 1 − the mean SSIM over all windows that fit into the image.

    Statistics use a Gaussian window, without sample correction (as scikit-image with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`). The weight of a window is the sum of the weights
    of its pixels; pixels of weight 0 do not count and may be NaN. Images smaller than the window are compared within
    the part of the window that they fill. Without valid pixels the loss is 0 with zero gradient.

    Args:
        data_range: Range of the values: 1 for depth in [0, 1] and for probabilities.
        win_size: Side of the window in pixels, odd.
        win_sigma: σ of the Gaussian window, in pixels.
        from_logits: Whether the output is logits, to be compared with a mask after a sigmoid. (There is no
            `ignore_index`: give ignored labels a weight of 0.)

    Shape:
        - output: (N, C, H, W)
        - target: same as output; for C = 1 also (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        ConfigError: Unusable constants.
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.

    Examples:
        >>> import torch
        >>> depth = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
        >>> SSIMLoss()(depth, depth).item()
        0.0
        >>> round(SSIMLoss()(depth, 1 - depth).item(), 2)
        1.83

    Source:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, eq. 13.
    """

    def __init__(
        self,
        data_range: float = 1.0,
        win_size: int = 11,
        win_sigma: float = 1.5,
        from_logits: bool = False,
    ) -> None:
        super().__init__()
        _check(data_range, win_size, win_sigma)
        self.data_range, self.win_size, self.win_sigma = float(data_range), win_size, float(win_sigma)
        self.from_logits = from_logits

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output)
        with outside_autocast(output):
            output = full_precision(output)
            given, target, pixels = depth_pair(output, target, weight)
            given = given.sigmoid() if self.from_logits else given
            luminance, contrast, share = _similarity(
                *_widest(given, target, pixels), self.data_range, self.win_size, self.win_sigma
            )
            return weighted_mean(1.0 - luminance * contrast, share).to(output.dtype)


class MSSSIMLoss(nn.Module):
    """Multi-scale structural dissimilarity: 1 − the mean over images and channels of the product over scales.

    Each scale halves the image. The coarsest scale contributes the mean SSIM, the others the mean contrast-structure
    term, each raised to the weight of its scale. A term below 1e-6 counts as 1e-6, without gradient. The weight of an
    image is the sum of the weights of its pixels. A halved pixel is the weighted mean of up to four pixels, so any size
    works: a scale smaller than the window is compared within the part of the window that it fills. For sides of at
    least `(win_size − 1)·16 + 1` pixels that are divisible by 16, the value equals that of pytorch-msssim.

    Args:
        data_range: Range of the values: 1 for depth in [0, 1] and for probabilities.
        win_size: Side of the window in pixels, odd.
        win_sigma: σ of the Gaussian window, in pixels.
        weights: Exponents of the scales, finest first; their number is the number of scales.
        from_logits: Whether the output is logits, to be compared with a mask after a sigmoid. (There is no
            `ignore_index`: give ignored labels a weight of 0.)

    Shape:
        - output: (N, C, H, W)
        - target: same as output; for C = 1 also (N, H, W)
        - weight: (N, H, W) or (N, 1, H, W): a valid mask (bool, or 0 and 1), or numbers ≥ 0

    Raises:
        ConfigError: Unusable constants.
        InputShapeError: An output that is not (N, C, H, W).
        SizeMismatchError: A target or weight of a different size.

    Examples:
        >>> import torch
        >>> depth = torch.linspace(0, 1, 1024).view(1, 1, 32, 32)
        >>> MSSSIMLoss()(depth, depth).item()
        0.0
        >>> round(MSSSIMLoss()(depth, depth / 2).item(), 3)
        0.215

    Source:
        Wang et al., "Multiscale structural similarity for image quality assessment", 2003, eq. 7.
    """

    def __init__(
        self,
        data_range: float = 1.0,
        win_size: int = 11,
        win_sigma: float = 1.5,
        weights: Sequence[float] = SCALE_WEIGHTS,
        from_logits: bool = False,
    ) -> None:
        super().__init__()
        _check(data_range, win_size, win_sigma)
        self.data_range, self.win_size, self.win_sigma = float(data_range), win_size, float(win_sigma)
        self.weights, self.from_logits = tuple(float(weight) for weight in weights), from_logits
        if not self.weights or not all(0 < weight < math.inf for weight in self.weights):
            raise ConfigError("unusable weights", expected="numbers > 0, one per scale", found=list(self.weights))

    def forward(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        check_output(output)
        with outside_autocast(output):
            output = full_precision(output)
            given, target, pixels = depth_pair(output, target, weight)
            given = given.sigmoid() if self.from_logits else given
            x, y, pixels = _widest(given, target, pixels)
            share = None if pixels is None else pixels.sum((2, 3))
            similarity = x.new_ones(())
            for scale, power in enumerate(self.weights, start=1):
                luminance, contrast, windows = _similarity(x, y, pixels, self.data_range, self.win_size, self.win_sigma)
                last = scale == len(self.weights)
                term = _mean_of_image(luminance * contrast if last else contrast, windows)
                similarity = similarity * term.clamp_min(LEAST) ** power
                if not last:
                    x, y, pixels = _halved(x, y, pixels)
            return weighted_mean(1.0 - similarity, share).to(output.dtype)


def _similarity(
    x: Tensor, y: Tensor, weight: Tensor | None, data_range: float, win_size: int, win_sigma: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return luminance and contrast-structure terms of every window, and the windows' weights (None: all 1)."""
    from pytorch_msssim.ssim import gaussian_filter

    high, wide = (max(0, win_size - side) for side in x.shape[2:])
    if high or wide:
        weight = torch.ones_like(x[:, :1]) if weight is None else weight
        margins = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
        x, y, weight = (F.pad(values, margins) for values in (x, y, weight))
    place = torch.arange(win_size, device=x.device, dtype=x.dtype) - win_size // 2
    window = torch.exp(-(place**2) / (2.0 * win_sigma**2))
    window = (window / window.sum()).view(1, 1, 1, -1)
    share = None if weight is None else gaussian_filter(weight, window)
    every = window.expand(x.shape[1], -1, -1, -1)

    def mean(values: Tensor) -> Tensor:
        if weight is None or share is None:
            return gaussian_filter(values, every)
        return safe_ratio(gaussian_filter(values * weight, every), share)

    mean_x, mean_y = mean(x), mean(y)
    # In single precision a variance can be negative, and the sum can be −c2.
    variance = (mean(x * x) - mean_x**2).clamp_min(0.0) + (mean(y * y) - mean_y**2).clamp_min(0.0)
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2.0 * covariance + c2) / (variance + c2), share


def _mean_of_image(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values.mean((2, 3))
    return safe_ratio((values * weight).sum((2, 3)), weight.sum((2, 3)))


def _halved(x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    high, wide = (side % 2 for side in x.shape[2:])
    if weight is None and not high and not wide:
        return F.avg_pool2d(x, 2), F.avg_pool2d(y, 2), None
    weight = torch.ones_like(x[:, :1]) if weight is None else weight
    x, y, weight = (F.pad(values, (0, wide, 0, high)) for values in (x, y, weight))
    smaller = F.avg_pool2d(weight, 2)
    x, y = (safe_ratio(F.avg_pool2d(values * weight, 2), smaller) for values in (x, y))
    return x, y, smaller


def _widest(x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    if x.device.type == "mps":  # does not support double
        return x, y, weight
    return x.double(), y.double(), None if weight is None else weight.double()


def _check(data_range: float, win_size: int, win_sigma: float) -> None:
    if not (0 < data_range < math.inf and 0 < win_sigma < math.inf):
        raise ConfigError(
            "unusable constants", expected="data_range > 0 and win_sigma > 0", found=f"{data_range}, {win_sigma}"
        )
    if isinstance(win_size, bool) or not isinstance(win_size, int) or win_size < 1 or win_size % 2 == 0:
        raise ConfigError("unusable win_size", expected="an odd number ≥ 1", found=win_size)
