"""SSIM and PSNR against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import metrics as skimage_metrics

from unetzoo.errors import ConfigError, DataError, InputShapeError, NonFiniteError, SizeMismatchError
from unetzoo.metrics import PSNRMetric, SSIMMetric


def images(channels: int = 3, size=(24, 19), count: int = 3, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(count, channels, *size, generator=generator)
    return scale * (target + 0.1 * torch.randn(target.shape, generator=generator)), scale * target


def ssim(one: torch.Tensor, two: torch.Tensor, data_range: float, full: bool = False):
    arrays = (image.double().numpy() for image in (one, two))
    return skimage_metrics.structural_similarity(
        *arrays, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=data_range, channel_axis=0,
        full=full,
    )  # fmt: skip


@pytest.mark.parametrize(("channels", "scale"), [(1, 1.0), (3, 1.0), (3, 255.0), (2, 0.01)])
def test_ssim_is_scikit_images(channels, scale):
    output, target = images(channels, scale=scale)
    metric = SSIMMetric(data_range=scale)
    metric.update(output[:2], target[:2])
    metric.update(output[2:], target[2:])
    expected = [ssim(o, t, scale) for o, t in zip(output, target, strict=True)]
    assert metric.compute() == pytest.approx({"ssim": np.mean(expected), "images": 3.0}, abs=1e-9)


def test_ssim_of_nearly_flat_images():
    """Variances of 1e-8 beside squares of 1: what fp32 loses."""
    output, target = (0.9 + 1e-4 * image for image in images(1))
    metric = SSIMMetric()
    metric.update(output, target)
    expected = [ssim(o, t, 1.0) for o, t in zip(output, target, strict=True)]
    assert metric.compute()["ssim"] == pytest.approx(np.mean(expected), abs=1e-9)


def test_ssim_uses_only_windows_of_valid_pixels():
    output, target = images(2, size=(40, 30), count=2)
    valid = torch.ones(2, 40, 30, dtype=torch.bool)
    valid[0, 17, 12], valid[1, :8], valid[1, 30, 29] = False, False, False
    metric, untouched = SSIMMetric(), SSIMMetric()
    metric.update(output, target, weight=valid)
    means = []
    for o, t, v in zip(output, target, valid, strict=True):
        similarity = ssim(o, t, 1.0, full=True)[1].mean(0)
        windows = [(y, x) for y in range(5, 35) for x in range(5, 25) if v[y - 5 : y + 6, x - 5 : x + 6].all()]
        means.append(np.mean([similarity[place] for place in windows]))
    assert metric.compute()["ssim"] == pytest.approx(np.mean(means), abs=1e-9)
    hidden = ~valid[:, None].expand_as(output)
    untouched.update(output.masked_fill(hidden, math.nan), target.masked_fill(hidden, math.inf), weight=valid[:, None])
    assert untouched.compute() == metric.compute()


def test_a_image_without_a_valid_window_does_not_count():
    output, target = images(1, size=(11, 11), count=2)
    valid = torch.ones(2, 11, 11)
    valid[0, 0, 0] = 0
    metric = SSIMMetric()
    metric.update(output, target, weight=valid)
    assert metric.compute() == {"ssim": pytest.approx(ssim(output[1], target[1], 1.0)), "images": 1.0}
    assert math.isnan(SSIMMetric().compute()["ssim"])


def test_psnr_is_scikit_images():
    output, target = images(3, scale=255.0)
    metric = PSNRMetric(data_range=255.0)
    metric.update(output[:1], target[:1])
    metric.update(output[1:], target[1:])
    arrays = [(o.double().numpy(), t.double().numpy()) for o, t in zip(output, target, strict=True)]
    each = [skimage_metrics.peak_signal_noise_ratio(t, o, data_range=255.0) for o, t in arrays]
    mse = np.mean([((o - t) ** 2).mean() for o, t in arrays])
    assert metric.compute() == pytest.approx(
        {"psnr": np.mean(each), "psnr_pooled": 10 * np.log10(255**2 / mse), "mse": mse, "images": 3.0}, rel=1e-9
    )


def test_psnr_of_valid_pixels_and_of_perfect_images():
    output, target = images(2, count=2)
    valid = torch.rand(2, 24, 19, generator=torch.Generator().manual_seed(1)) > 0.5
    metric = PSNRMetric()
    metric.update(output, target, weight=valid)
    each = [((o - t)[:, v].double() ** 2).mean().item() for o, t, v in zip(output, target, valid, strict=True)]
    assert metric.compute()["psnr"] == pytest.approx(np.mean(-10 * np.log10(each)))
    metric.update(target, target)
    assert metric.compute()["psnr"] == math.inf and math.isfinite(metric.compute()["psnr_pooled"])
    metric.reset()
    metric.update(target, target)
    assert metric.compute()["psnr_pooled"] == math.inf and metric.compute()["mse"] == 0
    metric.reset()
    metric.update(output, target, weight=torch.zeros(2, 24, 19))
    assert math.isnan(metric.compute()["psnr"]) and metric.compute()["images"] == 0


@pytest.mark.parametrize("metric", [SSIMMetric(), PSNRMetric()], ids=["ssim", "psnr"])
def test_wrong_inputs_are_errors(metric):
    metric.reset()
    output, target = images(1)
    for wrong in (output[0], output.long()):
        with pytest.raises(InputShapeError):
            metric.update(wrong, target)
    masks = torch.ones(3, 24, 18), torch.ones(3, 2, 24, 19)
    for other, weight in ((target[:2], None), *((target, mask) for mask in masks)):
        with pytest.raises(SizeMismatchError):
            metric.update(output, other, weight=weight)
    for place, error in ((output, NonFiniteError), (target, DataError)):
        for value in (math.nan, math.inf):
            kept, place[0, 0, 3, 3] = place[0, 0, 3, 3].item(), value
            metric.update(output, target)
            with pytest.raises(error, match="1 "):
                metric.compute()
            metric.reset()
            place[0, 0, 3, 3] = kept
    metric.update(255 * output, 255 * target)
    with pytest.raises(DataError, match="3 images"):
        metric.compute()
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError):
            type(metric)(data_range=wrong)
    with pytest.raises(ConfigError):
        metric.merge(type(metric)(data_range=2.0))


def test_ssim_needs_its_window():
    with pytest.raises(InputShapeError, match="11×11"):
        SSIMMetric().update(*images(1, size=(10, 40)))
