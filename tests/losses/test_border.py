"""The U-Net paper's weight map against brute force, and the loss against cross entropy under that map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unetzoo.errors import ConfigError, InputShapeError
from unetzoo.losses import BCELoss, BorderCELoss, CELoss, border_weights


def brute_force(instances, w0, sigma):
    """Each distance to each cell's every pixel."""
    result = np.ones(instances.shape)
    cells = [np.argwhere(instances == k) for k in np.unique(instances) if k > 0]
    for y, x in np.argwhere(instances == 0):
        distances = sorted(np.hypot(*(cell - (y, x)).T).min() for cell in cells)
        if len(distances) > 1:
            result[y, x] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return result


def blobs(size=40, count=12, seed=0):
    """An instance map of discs, none touching another."""
    rng = np.random.default_rng(seed)
    instances = np.zeros((size, size + 7), int)
    y, x = np.mgrid[:size, : size + 7]
    for k in range(1, count + 1):
        disc = (y - rng.integers(size)) ** 2 + (x - rng.integers(size)) ** 2 <= rng.integers(2, 30)
        near = np.pad(instances, 1)
        touching = sum(
            near[1 + a : 1 + a + size, 1 + b : 8 + b + size] for a, b in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
        )
        if not touching[disc].any():
            instances[disc] = k
    return instances


@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (3.0, 1.0), (0.0, 2.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_is_brute_force_for_instances_classes_and_masks(seed, w0, sigma):
    instances = blobs(seed=seed)
    assert len(np.unique(instances)) > 5
    expected = brute_force(instances, w0, sigma)
    for labels in (instances, (instances > 0).astype(np.uint8), instances % 2 + (instances > 0), instances > 0):
        weights = border_weights(labels, w0, sigma)
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_by_hand():
    """Gaps of two pixels: d₁ + d₂ = 1 + 2; cells, and pixels far from a second cell, have weight 1."""
    weights = border_weights(np.array([[1, 0, 0, 1, *[0] * 40]]))
    assert weights[0, :4].tolist() == pytest.approx([1, 1 + 10 * np.exp(-9 / 50), 1 + 10 * np.exp(-9 / 50), 1])
    assert weights[0, 4] == pytest.approx(1 + 10 * np.exp(-25 / 50)) and weights[0, -1] == 1
    assert (border_weights(np.eye(2, dtype=int))[0, 1], border_weights(np.ones((2, 2), int))[0, 1]) == (
        pytest.approx(1 + 10 * np.exp(-4 / 50)),  # cells that touch at a corner are two
        1,
    )
    assert (border_weights(np.array([[0, 1, 0]])) == 1).all() and border_weights(np.zeros((0, 3), int)).shape == (0, 3)


def test_a_cell_inside_a_ring_is_another_cell():
    y, x = np.mgrid[:21, :21] - 10
    distance = np.hypot(y, x)
    instances = np.where(distance < 3, 1, np.where((distance > 6) & (distance < 9), 2, 0))
    np.testing.assert_allclose(border_weights(instances > 0), brute_force(instances, 10.0, 5.0), rtol=1e-6)


def test_is_cross_entropy_under_the_map():
    generator = torch.Generator().manual_seed(0)
    target = torch.from_numpy(np.stack([blobs(seed=s) > 0 for s in (0, 1)])).long()
    output = torch.randn(2, 2, *target.shape[1:], generator=generator)
    weights = torch.from_numpy(np.stack([border_weights(image.numpy()) for image in target]))
    assert weights.max() > 5
    own = torch.rand(target.shape, generator=generator)
    torch.testing.assert_close(BorderCELoss()(output, target), CELoss()(output, target, weight=weights))
    torch.testing.assert_close(
        BorderCELoss()(output, target, weight=own), CELoss()(output, target, weight=weights * own)
    )
    one = output[:, 1:] - output[:, :1]
    torch.testing.assert_close(BorderCELoss()(one, target), BCELoss()(one, target, weight=weights))
    torch.testing.assert_close(BorderCELoss()(one, target[:, None]), BorderCELoss()(output, target))


def test_class_weights_are_added_not_multiplied():
    target, output = torch.tensor([[[1, 0, 1, 2]]]), torch.randn(1, 3, 1, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[[2.0, 0.5 + 10 * np.exp(-4 / 50), 2.0, 3.0]]])
    expected = CELoss()(output, target, weight=weights)
    torch.testing.assert_close(BorderCELoss(class_weights=[0.5, 2.0, 3.0])(output, target), expected)


def test_ignored_pixels_are_no_cell():
    output = torch.randn(1, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    plain = BCELoss()(output[..., :3], torch.tensor([[[1, 0, 0]]]))
    torch.testing.assert_close(BorderCELoss(ignore_index=255)(output, torch.tensor([[[1, 0, 0, 255]]])), plain)
    weight = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    torch.testing.assert_close(BorderCELoss()(output, torch.tensor([[[1, 0, 0, 1]]]), weight=weight), plain)


def test_wrong_arguments():
    for wrong in ({"w0": -1.0}, {"sigma": 0.0}, {"sigma": float("nan")}, {"w0": float("inf")}):
        with pytest.raises(ConfigError, match="w0"):
            BorderCELoss(**wrong)
        with pytest.raises(ConfigError, match="sigma"):
            border_weights(np.zeros((2, 2), int), **wrong)
    with pytest.raises(InputShapeError):
        border_weights(np.zeros((1, 2, 2), int))
