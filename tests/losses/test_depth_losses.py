"""Depth losses against closed forms, and their handling of pixels without a measurement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from unetzoo.errors import ConfigError
from unetzoo.losses import BerHuLoss, DepthSSIMLoss, GradientLoss, L1Loss, RMSELoss, SILogLoss

RNG = np.random.default_rng(0)
OUTPUT, TARGET, WEIGHT = RNG.random((2, 1, 13, 16)), RNG.random((2, 1, 13, 16)), RNG.random((2, 1, 13, 16))
WEIGHT[0, 0, :3] = WEIGHT[1, 0, 5, 5] = 0
OUTPUT[1, 0, 5, 5] = 3.0  # by far the largest difference, and invalid


def check(loss, expected, *, weighted=True):
    """In both precisions, each as (N, 1, H, W) and (N, H, W)."""
    for dtype, bar in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        output, target, weight = (torch.tensor(x, dtype=dtype) for x in (OUTPUT, TARGET, WEIGHT))
        given = {"weight": weight} if weighted else {}
        assert loss(output, target, **given).item() == pytest.approx(expected, rel=bar)
        given = {"weight": weight[:, 0]} if weighted else {}
        assert loss(output, target[:, 0], **given).item() == pytest.approx(expected, rel=bar)


def mean(values):
    return (WEIGHT * values).sum() / WEIGHT.sum()


def test_rmse_is_its_formula():
    check(RMSELoss(), np.sqrt(mean((OUTPUT - TARGET) ** 2)))
    check(RMSELoss(), np.sqrt(np.mean((OUTPUT - TARGET) ** 2)), weighted=False)


def test_equal_maps_cost_nothing_and_have_no_gradient():
    for loss in (RMSELoss(), BerHuLoss(), SILogLoss(), SILogLoss(1.0), GradientLoss(2), DepthSSIMLoss()):
        depth = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
        value = loss(depth, depth.detach())
        (gradient,) = torch.autograd.grad(value, depth)
        assert value.item() == pytest.approx(0, abs=1e-12) and gradient.abs().max() < 1e-6


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_berhu_is_its_formula_and_its_gradient_holds_c(threshold):
    size = np.abs(OUTPUT - TARGET)
    c = threshold * size[WEIGHT > 0].max()
    expected = mean(np.where(size <= c, size, (size**2 + c**2) / (2 * c)))
    check(BerHuLoss(threshold), expected)
    output = torch.tensor(OUTPUT, requires_grad=True)
    BerHuLoss(threshold)(output, torch.tensor(TARGET), weight=torch.tensor(WEIGHT)).backward()
    slope = np.sign(OUTPUT - TARGET) * np.maximum(1, size / c) * WEIGHT / WEIGHT.sum()
    assert output.grad is not None
    np.testing.assert_allclose(output.grad.numpy(), slope, rtol=1e-12)


@pytest.mark.parametrize("focus", [0.0, 0.85, 1.0])
def test_silog_is_its_formula(focus):
    d = np.log(OUTPUT) - np.log(TARGET)
    check(SILogLoss(focus, eps=1e-6), 10 * np.sqrt(mean(d**2) - focus * mean(d) ** 2))
    d = np.log(np.maximum(TARGET, 0.2)) - np.log(np.maximum(OUTPUT, 0.2))
    above = OUTPUT >= 0.2
    d = np.where(above, d, np.log(np.maximum(TARGET, 0.2)) - np.log(0.2) - (OUTPUT - 0.2) / 0.2)
    check(SILogLoss(focus, eps=0.2), 10 * np.sqrt(mean(d**2) - focus * mean(d) ** 2))


def test_silog_leads_back_from_below_its_least_depth():
    output = torch.tensor([[[[-0.5, 0.5]]]], requires_grad=True)
    SILogLoss()(output, torch.full((1, 1, 1, 2), 0.5)).backward()
    assert output.grad is not None and output.grad[0, 0, 0, 0] < 0


def slopes(error, weight):
    total = 0.0
    for n, _, y, x in np.ndindex(*error.shape):
        for other in ((y + 1, x), (y, x + 1)):
            if other[0] < error.shape[2] and other[1] < error.shape[3]:
                total += abs(error[n, 0, *other] - error[n, 0, y, x]) * min(weight[n, 0, *other], weight[n, 0, y, x])
    return total / weight.sum()


def test_gradient_is_its_formula():
    error = OUTPUT - TARGET
    check(GradientLoss(), slopes(error, WEIGHT))
    expected = sum(slopes(error[..., ::step, ::step], WEIGHT[..., ::step, ::step]) for step in (1, 2, 4))
    check(GradientLoss(3), expected)
    down, right = np.zeros_like(error), np.zeros_like(error)  # TensorFlow's image_gradients, which DenseDepth uses
    down[:, :, :-1], right[..., :-1] = np.diff(error, axis=2), np.diff(error, axis=3)
    check(GradientLoss(), np.mean(np.abs(down) + np.abs(right)), weighted=False)


def test_gradient_of_scales_beyond_the_image_is_finite():
    assert GradientLoss(6)(torch.rand(1, 1, 3, 3), torch.rand(1, 1, 3, 3)).isfinite()


def test_depth_ssim_is_dense_depths_sum():
    similarity = np.mean(
        [
            structural_similarity(
                a[0], b[0], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, full=True
            )[1][5:-5, 5:-5]
            for a, b in zip(OUTPUT, TARGET, strict=True)
        ]
    )
    error = OUTPUT - TARGET
    terms = np.clip((1 - similarity) / 2, 0, 1), slopes(error, np.ones_like(error)), np.abs(error).mean()
    check(DepthSSIMLoss(), terms[0] + terms[1] + 0.1 * terms[2], weighted=False)
    check(DepthSSIMLoss(0.5, 0.25, 2.0), 0.5 * terms[0] + 0.25 * terms[1] + 2 * terms[2], weighted=False)
    assert DepthSSIMLoss(data_range=9.0).ssim.data_range == 9.0


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (BerHuLoss, {"threshold": 0.0}),
        (BerHuLoss, {"threshold": 2.0}),
        (SILogLoss, {"eps": 0.0}),
        (SILogLoss, {"variance_focus": 1.5}),
        (GradientLoss, {"scales": 0}),
        (GradientLoss, {"scales": True}),
        (DepthSSIMLoss, {"l1": -1.0}),
        (DepthSSIMLoss, {"ssim": 0, "gradient": 0, "l1": 0}),
        (DepthSSIMLoss, {"data_range": 0.0}),
    ],
)
def test_wrong_arguments(kind, wrong):
    with pytest.raises(ConfigError):
        kind(**wrong)


def test_by_hand():
    output, target = torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[2.0, 2.0, 0.0]]]])
    assert L1Loss()(output, target).item() == pytest.approx(4 / 3)
    assert L1Loss()(output, target[:, 0]).item() == pytest.approx(4 / 3)
    weight = torch.tensor([[[1.0, 1.0, 0.5]]])
    assert L1Loss()(output, target, weight=weight).item() == pytest.approx((1 + 0 + 1.5) / 2.5)


@pytest.mark.parametrize("nothing", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("valid_dtype", [torch.bool, torch.uint8, torch.float32])
def test_invalid_pixels_may_have_any_value(nothing, valid_dtype):
    output = torch.rand(1, 1, 2, 2, requires_grad=True)
    target = torch.tensor([[[[0.5, nothing], [0.5, nothing]]]])
    valid = torch.tensor([[[[1, 0], [1, 0]]]]).to(valid_dtype)
    loss = L1Loss()(output, target, weight=valid)
    loss.backward()
    torch.testing.assert_close(loss, (output[..., 0] - 0.5).abs().mean())
    assert output.grad is not None
    assert output.grad[..., 1].tolist() == [[[0.0, 0.0]]]
    assert output.grad[..., 0].abs().tolist() == [[[0.5, 0.5]]]


def test_a_valid_nan_is_not_hidden():
    target = torch.tensor([[[[0.5, float("nan")]]]])
    assert L1Loss()(torch.zeros(1, 1, 1, 2), target).isnan()
