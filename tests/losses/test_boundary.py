"""The boundary loss against distances by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unetzoo.errors import ConfigError, InputShapeError, SizeMismatchError
from unetzoo.losses import BoundaryLoss, signed_distance

RNG = np.random.default_rng(0)
IGNORE = 255


def brute(mask, counted):
    """Every pixel against every other."""
    result = np.full(mask.shape, np.nan)
    inside, outside = (np.argwhere(part & counted) for part in (mask, ~mask))
    if len(inside) and len(outside):
        for place in np.ndindex(mask.shape):
            near = [np.sqrt(((part - place) ** 2).sum(1)).min() for part in (inside, outside)]
            result[place] = near[0] if near[0] > 0 else 1 - near[1]
    return result


def formula(mode, logits, labels, weight, per_class, empty):
    if mode == "multiclass":
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        channels = [(labels == k, labels != IGNORE) for k in range(logits.shape[1])]
    else:
        p = 1 / (1 + np.exp(-logits))
        labels = labels.reshape(p.shape)
        channels = [(labels[:, k] == 1, labels[:, k] != IGNORE) for k in range(p.shape[1])]
    above = below = 0.0
    for n in range(len(p)):
        for k, (mask, counted) in enumerate(channels):
            w = weight[n] * counted[n]
            phi = brute(mask[n], w > 0)
            if np.isnan(phi).all():
                if empty == "skip":
                    continue
                phi = np.where(mask[n], -1, 1) * math.hypot(*phi.shape)
            above += per_class[k] * (w * phi * p[n, k]).sum()
            below += per_class[k] * w.sum()
    return above / below


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_distances_are_brute_forces(share):
    mask, counted = RNG.random((9, 11)) < 0.2, RNG.random((9, 11)) >= share
    np.testing.assert_allclose(signed_distance(mask, counted), brute(mask, counted), rtol=1e-6)


def test_distances_by_hand():
    mask = np.zeros((5, 5), bool)
    mask[1:4, 1:4] = True
    expected = np.array([[math.sqrt(2), 1, 1, 1], [1, 0, 0, 0], [1, 0, -1, 0]])
    np.testing.assert_allclose(signed_distance(mask)[:3, :4], expected, rtol=1e-6)
    for mask in (np.zeros((3, 4)), np.ones((3, 4)), np.zeros((0, 4))):
        assert np.isnan(signed_distance(mask)).all() and signed_distance(mask).shape == mask.shape


@pytest.mark.parametrize("empty", ["skip", "penalize"])
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 4), ("multilabel", 3)])
def test_is_its_formula(mode, channels, empty):
    """Class 3 of the four occurs only in the first image; the second image of the others is all background."""
    logits = RNG.normal(size=(2, channels, 6, 7))
    labels = RNG.integers(0, channels if mode == "multiclass" else 2, (2, channels, 6, 7))
    labels[1][labels[1] == (3 if mode == "multiclass" else 1)] = 0
    labels = labels if mode == "multilabel" else labels[:, 0]
    labels[..., 0] = IGNORE
    weight = RNG.random((2, 6, 7))
    weight[:, 5] = 0
    per_class = [1.0, 0.5, 2.0, 3.0][:channels]
    expected = formula(mode, logits, labels, weight, per_class, empty)
    loss = BoundaryLoss(mode, ignore_index=IGNORE, class_weights=None if channels == 1 else per_class, empty=empty)
    for dtype, bar in ((torch.float64, 1e-6), (torch.float32, 1e-5)):  # distances are kept in float32
        x = torch.tensor(logits, dtype=dtype)
        assert loss(x, torch.tensor(labels), weight=torch.tensor(weight)).item() == pytest.approx(expected, rel=bar)


def test_classes_that_count():
    logits, labels = torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 6, 6))
    parts = [BoundaryLoss("multiclass", classes=[k])(logits, labels) for k in (0, 2)]
    torch.testing.assert_close(BoundaryLoss("multiclass", classes=[0, 2])(logits, labels), (parts[0] + parts[1]) / 2)
    weights = BoundaryLoss("multiclass", class_weights=[1.0, 0.0, 1.0])(logits, labels)
    torch.testing.assert_close(weights, (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("empty", ["skip", "penalize"])
def test_distances_may_be_given(empty):
    logits, labels = torch.randn(2, 3, 6, 6), torch.randint(0, 2, (2, 6, 6))
    maps = torch.tensor(np.stack([[signed_distance(image == k) for k in range(3)] for image in labels.numpy()]))
    loss = BoundaryLoss("multiclass", empty=empty)
    assert torch.equal(loss(logits, labels, distance=maps), loss(logits, labels))
    assert not torch.equal(loss(logits, labels, distance=2 * maps), loss(logits, labels))
    binary = BoundaryLoss("binary", empty=empty)
    assert torch.equal(binary(logits[:, :1], labels, distance=maps[:, 1]), binary(logits[:, :1], labels))
    with pytest.raises(SizeMismatchError, match="distance"):
        loss(logits, labels, distance=maps[:, :2])


def test_the_truth_is_its_least_value():
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[:, 2:7, 1:6] = 1
    logits = (labels[:, None].double() - 0.5) * 100
    least = BoundaryLoss("binary")(logits, labels)
    assert least < 0
    for seed in range(20):
        other = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 10
        assert BoundaryLoss("binary")(other, labels) > least


def test_false_positives_far_away_cost_more():
    labels = torch.zeros(1, 1, 20, dtype=torch.int64)
    labels[..., :3] = 1
    costs = []
    for place in (4, 10, 19):
        logits = torch.full((1, 1, 1, 20), -100.0)
        logits[..., place] = 100.0
        costs.append(BoundaryLoss("binary")(logits, labels).item())
    assert costs == pytest.approx([2 / 20, 8 / 20, 17 / 20])


def test_without_a_boundary():
    """A gradient against false positives if requested, otherwise none."""
    for labels, sign in ((torch.zeros(1, 4, 3), 1), (torch.ones(1, 4, 3), -1)):
        logits = torch.zeros(1, 1, 4, 3, requires_grad=True)
        skipped = BoundaryLoss("binary")(logits, labels.long())
        assert not torch.autograd.grad(skipped, logits)[0].any() and skipped == 0
        far = BoundaryLoss("binary", empty="penalize")(logits, labels.long())
        assert far.item() == pytest.approx(sign * 5 * 0.5)
        assert (sign * torch.autograd.grad(far, logits)[0] > 0).all()


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="empty"):
        BoundaryLoss("binary", empty="formula")  # pyright: ignore
    with pytest.raises(ConfigError, match="classes"):
        BoundaryLoss("binary", classes=[0])
    with pytest.raises(ConfigError, match="classes"):
        BoundaryLoss("multiclass", classes=[3])(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(InputShapeError):
        signed_distance(np.zeros((2, 3, 4)))
    with pytest.raises(SizeMismatchError, match="mask"):
        signed_distance(np.zeros((3, 4)), np.ones((4, 3)))
