"""The sums over classes and their gradient: tensors made and kept, and errors. Values: test_composite.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unetzoo.errors import LabelRangeError
from unetzoo.losses import CELoss, DiceCELoss, DiceLoss, blocks, fused


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("block", [1, 7, 64, 10**6])
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 5), ("multilabel", 3)])
def test_blocks_are_invisible(mode, channels, block, monkeypatch):
    """Sums by NumPy over the whole image, independent of the size of the blocks."""
    logits, weight = 3 * torch.randn(2, channels, 5, 7, dtype=torch.float64), torch.rand(2, 5, 7)
    labels = torch.randint(0, max(2, channels), (2, channels, 5, 7) if mode == "multilabel" else (2, 5, 7)).clamp(
        max=1 if mode == "multilabel" else channels
    )
    labels[0, ..., 2, :] = 255
    monkeypatch.setattr(blocks, "BLOCK", block)
    sums = fused.class_sums(
        logits, labels, mode=mode, ignore_index=255, weight=weight, entropy=True, rest=True
    )  # fmt: skip
    x, t = logits.numpy(), labels.numpy().reshape(2, -1, 5, 7)
    w = weight.double().numpy()[:, None] * (t != 255)
    if mode == "multiclass":
        p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        y, against = (t == np.arange(channels)[:, None, None]).astype(float), -np.log(p)
    else:
        p = 1 / (1 + np.exp(-x))
        y = (t == 1).astype(float)
        against = -(1 - y) * np.log(1 - p)
    expected = (p * y, p, y, np.ones_like(p), -y * np.log(p), against)
    for ours, plain in zip(sums[:6], expected, strict=True):
        assert ours.dtype == torch.float64
        np.testing.assert_allclose(ours, (w * plain).sum((2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_the_same_bits_every_time(mode):
    logits = torch.randn(2, 4, 64, 80)
    labels = torch.randint(0, 2, (2, 64, 80) if mode == "multiclass" else (2, 4, 64, 80))
    first, second = [], []
    for kept in (first, second):
        leaf = logits.clone().requires_grad_()
        value = DiceCELoss(mode)(leaf, labels)
        value.backward()
        kept += [value.detach(), leaf.grad]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_of_the_logits_size_is_kept_but_the_logits():
    logits = torch.randn(1, 6, 32, 32, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        DiceCELoss("multiclass")(logits, torch.randint(0, 6, (1, 32, 32)))
    large = [x for x in kept if x.numel() >= logits.numel()]
    assert len(large) == 1 and large[0].data_ptr() == logits.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_has_the_type_of_the_logits(dtype):
    logits, labels = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 8, 8))
    gradients = []
    for x in (logits.to(dtype), logits.to(dtype).double()):
        leaf = x.requires_grad_()
        (gradient,) = torch.autograd.grad(DiceCELoss("multiclass")(leaf, labels), leaf)
        assert gradient.dtype == x.dtype
        gradients.append(gradient.double())
    assert torch.equal(gradients[0], gradients[1].to(dtype).double())


@pytest.mark.parametrize("loss", [DiceLoss("multiclass"), CELoss()], ids=["dice", "ce"])
def test_a_second_derivative_is_refused(loss):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(logits, torch.randint(0, 3, (1, 4, 4))), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


def test_torch_func_takes_the_gradient():
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    loss = DiceCELoss("multiclass")
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, labels), leaf)
    torch.testing.assert_close(torch.func.grad(lambda x: loss(x, labels))(logits), expected)


def test_without_gradient_there_is_no_graph():
    with torch.no_grad():
        value = DiceCELoss("multiclass")(torch.randn(1, 3, 4, 4, requires_grad=True), torch.randint(0, 3, (1, 4, 4)))
    assert not value.requires_grad


@pytest.mark.parametrize("size", [(0, 4, 4), (2, 0, 4)])
def test_no_pixels_give_0(size):
    batch, height, width = size
    logits = torch.zeros(batch, 3, height, width, requires_grad=True)
    loss = DiceCELoss("multiclass")(logits, torch.zeros(size, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and logits.grad is not None and logits.grad.shape == logits.shape


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64], ids=str
)
def test_labels_of_every_kind(dtype):
    """A negative label never passes for a large one, nor an ignore_index for another that shares its last bits."""
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    expected = DiceCELoss("multiclass")(logits, labels)
    loss = DiceCELoss("multiclass", ignore_index=-1)
    assert torch.equal(loss(logits, labels.to(dtype)), expected)
    labels[0, 0, 0] = 120 if dtype == torch.int8 else 255
    with pytest.raises(LabelRangeError, match="1 labels"):
        loss(logits, labels.to(dtype))


def test_bool_labels():
    logits, labels = torch.randn(2, 2, 4, 4), torch.randint(0, 2, (2, 4, 4))
    assert torch.equal(DiceCELoss("multiclass")(logits, labels.bool()), DiceCELoss("multiclass")(logits, labels))


def test_a_class_that_is_ignored():
    """ignore_index may be one of the classes: its pixels leave, its channel stays."""
    logits, labels = torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 6, 6))
    marked = labels.masked_fill(labels == 0, 255)
    ours = DiceCELoss("multiclass", ignore_index=0)(logits, labels)
    assert torch.equal(ours, DiceCELoss("multiclass", ignore_index=255)(logits, marked))
