"""L1 by hand, and what it does with pixels that hold nothing."""

from __future__ import annotations

import pytest
import torch

from unetzoo.losses import L1Loss


def test_by_hand():
    output, target = torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[2.0, 2.0, 0.0]]]])
    assert L1Loss()(output, target).item() == pytest.approx(4 / 3)
    assert L1Loss()(output, target[:, 0]).item() == pytest.approx(4 / 3)
    weight = torch.tensor([[[1.0, 1.0, 0.5]]])
    assert L1Loss()(output, target, weight=weight).item() == pytest.approx((1 + 0 + 1.5) / 2.5)


@pytest.mark.parametrize("nothing", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("valid_dtype", [torch.bool, torch.uint8, torch.float32])
def test_invalid_pixels_may_hold_anything(nothing, valid_dtype):
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
