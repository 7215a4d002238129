"""Similarity of images: SSIM and PSNR."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, DataError, InputShapeError, NonFiniteError, SizeMismatchError
from .inputs import counted_pixels
from .scores import ratio
from .state import SummedState, flags


class _ImageMetric(SummedState):
    """Base of the scores averaged over images, with the checks that both metrics share."""

    def __init__(self, data_range: float, sums: int, counts: int) -> None:
        if not 0.0 < data_range < math.inf:
            raise ConfigError("unusable data_range", expected="a positive number", found=data_range)
        self.data_range = float(data_range)
        super().__init__(
            {
                "sums": torch.zeros(sums, dtype=torch.float64),
                "counts": torch.zeros(counts, dtype=torch.int64),
                "faults": torch.zeros(3, dtype=torch.int64),  # values of output, of target; images beyond the range
            }
        )

    def rules(self) -> dict[str, Any]:
        """Return the range of values."""
        return {"data_range": self.data_range}

    def _prepared(self, output: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return both images as float64, 0 where not counted; the mask of counted pixels (N, 1, H, W); the faults."""
        if output.ndim != 4 or not output.is_floating_point():
            found = f"{tuple(output.shape)} of {output.dtype}"
            raise InputShapeError("unusable output", expected="images (N, C, H, W), floating point", found=found)
        target = _fitted(target, output, "target", output.shape[1])
        counted = counted_pixels(weight, output)
        counted = torch.ones_like(output[:, :1], dtype=torch.bool) if counted is None else counted
        pair = [image.to(output.device, torch.float64) for image in (output, target)]
        strange = [counted & ~image.isfinite() for image in pair]
        one, two = (torch.where(counted & image.isfinite(), image, 0.0) for image in pair)
        largest, smallest = (torch.where(counted, two, end) for end in (-math.inf, math.inf))
        spread = largest.amax((1, 2, 3)) - smallest.amin((1, 2, 3))
        return one, two, counted, flags(*strange, spread > self.data_range * (1.0 + 1e-6))

    def _report(self) -> None:
        output, target, spread = self._sums["faults"].tolist()
        if target:
            raise DataError(
                "the target is not finite where it is valid",
                found=f"{target} values of NaN or infinity",
                hint="give such pixels a weight of 0",
            )
        if output:
            raise NonFiniteError("the output is not finite", found=f"{output} values of NaN or infinity")
        if spread:
            raise DataError(
                "targets spread wider than the range of values",
                subject=f"{spread} images",
                expected=f"at most data_range={self.data_range:g}",
                hint="pass the difference of the largest and the smallest value that an image may have",
            )


class SSIMMetric(_ImageMetric):
    """Structural similarity, the mean over images.

    Gaussian window of σ = 1.5, 11×11 pixels, population variance, K₁ = 0.01, K₂ = 0.03. Only windows entirely inside
    the image (and, with a weight, of counted pixels only) count; channels are averaged. The result equals that of
    scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`.

    `compute` returns `ssim` and `images`, the number of images averaged.

    Args:
        data_range: The largest minus the smallest value that an image may have. SSIM depends on it: 1 for images in
            [0, 1], 2 for [−1, 1], 255 for 8 bits.

    Raises:
        ConfigError: A range that is not positive.

    Examples:
        >>> metric = SSIMMetric(data_range=1.0)
        >>> image = torch.rand(2, 1, 16, 16)
        >>> metric.update(image, image)
        >>> metric.compute()
        {'ssim': 1.0, 'images': 2.0}

    Source:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.
    """

    SIGMA, RADIUS, K1, K2 = 1.5, 5, 0.01, 0.03

    def __init__(self, data_range: float = 1.0) -> None:
        super().__init__(data_range, sums=1, counts=1)

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Count a batch without waiting for the device.

        Args:
            output: Predicted images.
            target: True images.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.

        Shape:
            - output, target: (N, C, H, W), at least 11×11; a target of one channel may be (N, H, W)
            - weight: (N, 1, H, W) or (N, H, W)

        Raises:
            InputShapeError: Output that is not floating point, or smaller than the window.
            SizeMismatchError: A target or weight of a different size.
            DataError: Weights other than 0 and 1.
        """
        side = 2 * self.RADIUS + 1
        if output.ndim == 4 and min(output.shape[-2:]) < side:
            raise InputShapeError("too small for SSIM", expected=f"{side}×{side}", found=tuple(output.shape[-2:]))
        one, two, counted, faults = self._prepared(output, target, weight)
        similarity = self._map(one, two).mean(1, keepdim=True)
        whole = -F.max_pool2d(-counted.double(), side, stride=1) > 0
        windows = whole.sum((1, 2, 3))
        scores = torch.where(whole, similarity, 0.0).sum((1, 2, 3)) / windows.clamp(min=1)
        self.add(sums=scores.sum()[None], counts=flags(windows > 0), faults=faults)

    def compute(self) -> dict[str, float]:
        """Compute the mean over images; NaN without images.

        Raises:
            NonFiniteError: NaN or infinity in the output.
            DataError: NaN or infinity in the target; a range of values wider than `data_range`.
        """
        self._report()
        images = int(self._sums["counts"][0])
        return {"ssim": ratio(float(self._sums["sums"][0]), images, math.nan), "images": float(images)}

    def _map(self, one: Tensor, two: Tensor) -> Tensor:
        place = torch.arange(-self.RADIUS, self.RADIUS + 1, dtype=one.dtype, device=one.device)
        window = torch.exp(-0.5 * (place / self.SIGMA) ** 2)
        window = window / window.sum()

        def blurred(image: Tensor) -> Tensor:
            planes = image.flatten(0, 1).unsqueeze(1)
            planes = F.conv2d(F.conv2d(planes, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
            return planes.view(*image.shape[:2], *planes.shape[-2:])

        mean_one, mean_two = blurred(one), blurred(two)
        var_one, var_two = blurred(one * one) - mean_one**2, blurred(two * two) - mean_two**2
        covariance = blurred(one * two) - mean_one * mean_two
        c1, c2 = (self.K1 * self.data_range) ** 2, (self.K2 * self.data_range) ** 2
        numerator = (2 * mean_one * mean_two + c1) * (2 * covariance + c2)
        return numerator / ((mean_one**2 + mean_two**2 + c1) * (var_one + var_two + c2))


class PSNRMetric(_ImageMetric):
    """Peak signal-to-noise ratio in dB: 10·log₁₀(data_range² / MSE).

    `compute` returns `psnr`, the mean over images; `psnr_pooled`, the PSNR of the MSE over all values of all images;
    that `mse`; and the number of `images`. If any image has no error, its PSNR and the mean are infinite.

    Args:
        data_range: The largest minus the smallest value that an image may have.

    Raises:
        ConfigError: A range that is not positive.

    Examples:
        >>> metric = PSNRMetric(data_range=1.0)
        >>> metric.update(torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.5))
        >>> round(metric.compute()["psnr"], 4)
        20.0
    """

    def __init__(self, data_range: float = 1.0) -> None:
        super().__init__(data_range, sums=2, counts=3)

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Count a batch without waiting for the device.

        Args:
            output: Predicted images.
            target: True images.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.

        Shape:
            - output, target: (N, C, H, W); a target of one channel may be (N, H, W)
            - weight: (N, 1, H, W) or (N, H, W)

        Raises:
            InputShapeError: Output that is not floating point.
            SizeMismatchError: A target or weight of a different size.
            DataError: Weights other than 0 and 1.
        """
        one, two, counted, faults = self._prepared(output, target, weight)
        values = counted.sum((1, 2, 3)) * output.shape[1]
        squared = (one - two).square().sum((1, 2, 3))
        decibels = 10.0 * torch.log10(self.data_range**2 * values / squared)
        scored = (values > 0) & (squared > 0)
        self.add(
            sums=torch.stack([torch.where(scored, decibels, 0.0).sum(), squared.sum()]),
            counts=torch.cat([flags(values > 0, (values > 0) & (squared == 0)), values.sum()[None]]),
            faults=faults,
        )

    def compute(self) -> dict[str, float]:
        """Compute all scores of the images counted so far; NaN without images.

        Raises:
            NonFiniteError: NaN or infinity in the output.
            DataError: NaN or infinity in the target; a range of values wider than `data_range`.
        """
        self._report()
        images, perfect, values = self._sums["counts"].tolist()
        decibels, squared = self._sums["sums"].tolist()
        mse = ratio(squared, values, math.nan)
        pooled = math.inf if mse == 0.0 else 10.0 * math.log10(self.data_range**2 / mse)
        return {
            "psnr": math.inf if perfect else ratio(decibels, images, math.nan),
            "psnr_pooled": pooled,
            "mse": mse,
            "images": float(images),
        }


def _fitted(values: Tensor, output: Tensor, what: str, channels: int) -> Tensor:
    batch, _, height, width = output.shape
    if channels == 1 and values.shape == (batch, height, width):
        return values.unsqueeze(1)
    if values.shape != (batch, channels, height, width):
        raise SizeMismatchError(
            f"{what} does not fit the output", expected=f"shape {(batch, channels, height, width)}",
            found=tuple(values.shape),
        )  # fmt: skip
    return values
