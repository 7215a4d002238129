"""The Lovász extension against its definition on sets, hard IoU and SMP."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unetzoo.errors import ConfigError
from unetzoo.losses import LovaszLoss, lovasz

RNG = np.random.default_rng(0)


def extension(errors, truly, weight):
    """Σ mₖ·(J(first k wrong) − J(first k − 1 wrong)), J from the sets themselves; None: nothing to count."""
    if not weight.sum():
        return None
    order = [i for i in np.argsort(-errors) if weight[i]]
    wrong = np.zeros(len(errors), bool)
    total = before = 0.0
    for i in order:
        wrong[i] = True
        predicted = truly ^ wrong
        now = 1 - weight[truly & predicted].sum() / weight[truly | predicted].sum()
        total += errors[i] * (now - before)
        before = now
    return total


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("empty", ["penalize", "skip"])
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 4), ("multilabel", 3)])
def test_is_its_definition(mode, channels, empty, per_image, from_logits):
    output = RNG.normal(size=(2, channels, 5, 6)) if from_logits else RNG.random((2, channels, 5, 6))
    several = mode == "multilabel"
    labels = RNG.integers(0, 3 if mode == "multiclass" else 2, output.shape if several else (2, 5, 6))
    labels[0][labels[0] == 1] = 0  # no 1 in the first image; no 3 anywhere
    labels[1, ..., 0, :] = 255
    weight = RNG.random((2, 5, 6)) * (RNG.random((2, 5, 6)) > 0.2)
    p = output
    if mode == "multiclass" and from_logits:
        p = np.exp(output) / np.exp(output).sum(1, keepdims=True)
    terms = []
    for images in [[0], [1]] if per_image else [[0, 1]]:
        for k in range(channels):
            own = (labels[:, k] if several else labels)[images].ravel()
            truly, x = own == (k if mode == "multiclass" else 1), p[images, k].ravel()
            if mode != "multiclass" and from_logits:
                errors = np.maximum(0, 1 - x * (2 * truly - 1))
            else:
                errors = np.abs(truly - x)
            counts = weight[images].ravel() * (own != 255)
            if empty == "skip" and not counts[truly].sum():
                continue
            terms.append(extension(errors, truly, counts))
    expected = np.mean([term for term in terms if term is not None])
    loss = LovaszLoss(mode, per_image=per_image, ignore_index=255, from_logits=from_logits, empty=empty)
    for dtype, bar in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        value = loss(torch.tensor(output, dtype=dtype), torch.tensor(labels), weight=torch.tensor(weight))
        assert value.item() == pytest.approx(expected, rel=bar)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 4)])
def test_is_smps_value(mode, channels, per_image):
    import segmentation_models_pytorch as smp

    generator = torch.Generator().manual_seed(0)
    output = torch.randn(2, channels, 16, 16, generator=generator)
    labels = torch.randint(0, max(2, channels), (2, 16, 16), generator=generator)
    labels[:, :2] = 255
    theirs = smp.losses.LovaszLoss(mode, per_image=per_image, ignore_index=255)
    ours = LovaszLoss(mode, per_image=per_image, ignore_index=255)
    torch.testing.assert_close(ours(output, labels), theirs(output, labels))


def test_hard_predictions_cost_one_minus_iou():
    predicted, truth = torch.tensor([[[1, 1, 1, 0, 0]]]), torch.tensor([[[1, 1, 0, 1, 0]]])
    assert LovaszLoss("binary", from_logits=False)(predicted[:, None].float(), truth).item() == pytest.approx(1 - 2 / 4)
    both = torch.stack([1 - predicted, predicted], 1).float()
    expected = 1 - (2 / 4 + 1 / 3) / 2
    assert LovaszLoss("multiclass", from_logits=False)(both, truth).item() == pytest.approx(expected)


def test_keeps_its_precision_on_large_images():
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(1, 1, 512, 512, generator=generator)
    labels = (torch.rand(1, 512, 512, generator=generator) < 0.01).long()
    exact = LovaszLoss("binary")(output.double(), labels).item()
    assert LovaszLoss("binary")(output, labels).item() == pytest.approx(exact, rel=1e-5)


def test_an_empty_mask_costs_the_worst_false_positive():
    output = torch.tensor([[[[-3.0, 0.5, -0.5]]]], requires_grad=True)
    loss = LovaszLoss("binary")(output, torch.zeros(1, 1, 3, dtype=torch.int64))
    assert loss.item() == 1.5
    assert torch.autograd.grad(loss, output)[0].flatten().tolist() == [0.0, 1.0, 0.0]


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="empty"):
        LovaszLoss("binary", empty="present")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="mode"):
        LovaszLoss("softmax")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_is_falling_and_stable(dtype):
    values = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=dtype).mul(3).round()
    values[:4] = torch.tensor([torch.inf, -torch.inf, 1e-40, -1e-40])
    values[values == 0] = 0.0  # −0 is another 0
    expected = sorted(range(500), key=lambda index: -values[index].item())
    assert lovasz._falling_order(values).tolist() == expected
