"""SSIM against scikit-image, pytorch-msssim and, with weights, the definition window by window."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_msssim
import torch
from skimage.metrics import structural_similarity

from unetzoo.errors import ConfigError
from unetzoo.losses import MSSSIMLoss, SSIMLoss

RNG = np.random.default_rng(0)


def images(size, channels=1):
    """A random field of rough and smooth parts, and a disturbed copy."""
    coarse = RNG.random((2, channels, 1 + size[0] // 4, 1 + size[1] // 4))
    first = coarse.repeat(4, 2).repeat(4, 3)[:, :, : size[0], : size[1]]
    first = 0.8 * first + 0.2 * RNG.random(first.shape)
    return first, np.clip(0.7 * first + 0.3 * RNG.random(first.shape), 0, 1)


def gaussian(size, sigma):
    place = np.arange(size) - size // 2
    line = np.exp(-(place**2) / (2 * sigma**2))
    return np.outer(line, line) / line.sum() ** 2


def window_by_window(x, y, weight, size, sigma, data_range=1.0):
    """Mean of luminance·contrast and of contrast over the windows of one image, and the sum of the windows' weights."""
    margins = [(max(0, size - s) // 2, max(0, size - s) - max(0, size - s) // 2) for s in x.shape]
    x, y, weight = (np.pad(v, margins) for v in (x, y, weight))
    g, c1, c2 = gaussian(size, sigma), (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    whole = contrasts = total = 0.0
    for top, left in np.ndindex(x.shape[0] - size + 1, x.shape[1] - size + 1):
        a, b, w = (v[top : top + size, left : left + size] for v in (x, y, weight))
        w = g * w
        if not w.sum():
            continue
        ma, mb = (w * a).sum() / w.sum(), (w * b).sum() / w.sum()
        va, vb = (w * (a - ma) ** 2).sum() / w.sum(), (w * (b - mb) ** 2).sum() / w.sum()
        contrast = (2 * (w * (a - ma) * (b - mb)).sum() / w.sum() + c2) / (va + vb + c2)
        whole += w.sum() * contrast * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        contrasts += w.sum() * contrast
        total += w.sum()
    return whole / total, contrasts / total, total


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_images(channels, data_range):
    x, y = (data_range * v for v in images((33, 40), channels))
    maps = [
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=data_range, full=True
        )[1][5:-5, 5:-5]
        for a, b in zip(x.reshape(-1, 33, 40), y.reshape(-1, 33, 40), strict=True)
    ]
    expected = 1 - np.mean(maps)
    assert 0.1 < expected < 0.9
    loss = SSIMLoss(data_range=data_range)
    assert loss(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(expected, rel=1e-9)
    assert loss(torch.tensor(x).float(), torch.tensor(y).float()).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_fp32_is_exact_for_its_inputs_even_far_from_zero():
    """Values near 1000 that differ by 0.01: a difference of fp32 squares would hold nothing but noise."""
    x, y = (torch.tensor(1000 + 0.01 * v).float() for v in images((20, 20)))
    single, double = SSIMLoss()(x, y), SSIMLoss()(x.double(), y.double())
    assert single.dtype == torch.float32 and single.item() == pytest.approx(double.item(), rel=1e-6)


@pytest.mark.parametrize(("size", "win_size"), [((15, 14), 11), ((9, 12), 5), ((6, 30), 11), ((4, 3), 11), ((1, 1), 3)])
def test_weighted_and_small_is_window_by_window(size, win_size):
    x, y = images(size)
    weight = RNG.random((2, *size)) * (RNG.random((2, *size)) > 0.3) + 1e-3
    weight[1, : size[0] // 2] = 0
    parts = [window_by_window(x[n, 0], y[n, 0], weight[n], win_size, 2.0) for n in range(2)]
    expected = sum(total * (1 - whole) for whole, _, total in parts) / sum(total for *_, total in parts)
    value = SSIMLoss(win_size=win_size, win_sigma=2.0)(torch.tensor(x), torch.tensor(y), weight=torch.tensor(weight))
    assert value.item() == pytest.approx(expected, rel=1e-9)
    plain = [window_by_window(x[n, 0], y[n, 0], np.ones(size), win_size, 2.0)[0] for n in range(2)]
    value = SSIMLoss(win_size=win_size, win_sigma=2.0)(torch.tensor(x), torch.tensor(y))
    assert value.item() == pytest.approx(1 - np.mean(plain), rel=1e-9)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("win_size", "size"), [(11, (176, 192)), (3, (48, 64))])
def test_ms_ssim_is_pytorch_msssims(win_size, size, channels):
    x, y = (torch.tensor(v) for v in images(size, channels))
    theirs = 1 - pytorch_msssim.ms_ssim(x, y, data_range=1.0, win_size=win_size).item()
    assert 0.05 < theirs < 0.95
    assert MSSSIMLoss(win_size=win_size)(x, y).item() == pytest.approx(theirs, abs=1e-6)  # their window is of fp32
    assert MSSSIMLoss(win_size=win_size)(x.float(), y.float()).item() == pytest.approx(theirs, abs=1e-6)


def test_ssim_is_pytorch_msssims():
    x, y = (torch.tensor(v) for v in images((30, 25), 2))
    assert SSIMLoss()(x, y).item() == pytest.approx(1 - pytorch_msssim.ssim(x, y, data_range=1.0).item(), rel=1e-6)


def test_weighted_ms_ssim_is_scale_by_scale():
    x, y = images((13, 10))
    weight = RNG.random((2, 13, 10)) * (RNG.random((2, 13, 10)) > 0.3)
    powers, values = (0.3, 0.2, 0.5), []
    for n in range(2):
        a, b, w, value = x[n, 0], y[n, 0], weight[n], 1.0
        for scale, power in enumerate(powers):
            whole, contrast, _ = window_by_window(a, b, w, 5, 1.5)
            value *= (whole if scale == 2 else contrast) ** power
            a, b, w = (np.pad(v, [(0, s % 2) for s in v.shape]) for v in (a, b, w))
            blocks = [v.reshape(v.shape[0] // 2, 2, -1, 2).transpose(0, 2, 1, 3).sum((2, 3)) for v in (w * a, w * b, w)]
            below = np.where(blocks[2] == 0, 1, blocks[2])
            a, b, w = blocks[0] / below, blocks[1] / below, blocks[2]
        values.append(1 - value)
    expected = np.average(values, weights=weight.sum((1, 2)))
    loss = MSSSIMLoss(win_size=5, weights=powers)
    assert loss(torch.tensor(x), torch.tensor(y), weight=torch.tensor(weight)).item() == pytest.approx(
        expected, rel=1e-9
    )


@pytest.mark.parametrize("kind", [SSIMLoss, MSSSIMLoss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_free_of_nan(kind, dtype):
    x, y = (torch.tensor(v).to(dtype).requires_grad_() for v in images((64, 64)))
    flat = torch.zeros_like(x)
    for output, target in ((x, y), (x, flat), (flat.requires_grad_(), y), (x, 1 - x)):
        loss = kind()(output, target.detach())
        (gradient,) = torch.autograd.grad(loss, output)
        assert 0 <= loss <= 2 and gradient.isfinite().all() and gradient.dtype == dtype


@pytest.mark.parametrize("kind", [SSIMLoss, MSSSIMLoss])
def test_a_mask_is_compared_with_the_sigmoid(kind):
    logits, mask = torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 20, 20).long()
    mask[:, 5:12, 3:15] = 1
    expected = kind()(logits.sigmoid(), mask[:, None].float())
    torch.testing.assert_close(kind(from_logits=True)(logits, mask), expected)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (SSIMLoss, {"data_range": 0.0}),
        (SSIMLoss, {"win_size": 4}),
        (SSIMLoss, {"win_size": 0}),
        (SSIMLoss, {"win_sigma": float("nan")}),
        (MSSSIMLoss, {"weights": []}),
        (MSSSIMLoss, {"weights": [0.5, 0.0]}),
        (MSSSIMLoss, {"win_size": 2}),
    ],
)
def test_wrong_arguments(kind, wrong):
    with pytest.raises(ConfigError):
        kind(**wrong)
