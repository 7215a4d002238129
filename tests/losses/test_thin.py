"""clDice and skeleton recall against the definitions of their papers."""

import numpy as np
import pytest
import torch
from refusals import refused
from scipy import ndimage
from skimage.morphology import dilation, skeletonize

from unetzoo import skeletons
from unetzoo.errors import ConfigError
from unetzoo.losses import ClDiceLoss, SkeletonRecallLoss
from unetzoo.losses.thin import soft_skeleton

IGNORE = 255


def erode(image):
    cross = ndimage.generate_binary_structure(2, 1)
    return ndimage.grey_erosion(image, footprint=cross, mode="constant", cval=np.inf)


def dilate(image):
    return ndimage.grey_dilation(image, footprint=np.ones((3, 3)), mode="constant", cval=-np.inf)


def reference_skeleton(image, iterations):
    """Algorithm 1 of Shit et al., one image at a time."""
    found = np.maximum(image - dilate(erode(image)), 0)
    for _ in range(iterations):
        image = erode(image)
        rest = np.maximum(image - dilate(erode(image)), 0)
        found = found + (1 - found) * rest
    return found


def vessels(count, size=(24, 31), seed=0):
    """Wavy lines of several widths."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        for _ in range(3):
            start, slope, width = rng.integers(2, size[0] - 2), rng.normal() * 0.4, rng.integers(1, 4)
            for column in range(size[1]):
                row = int(start + slope * column + 2 * np.sin(column / 4))
                mask[max(row, 0) : max(row + width, 0), column] = True
    return masks


def probabilities(masks, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(
        0.8 * ndimage.gaussian_filter(masks.astype(float), (0, 0.7, 0.7)) + 0.2 * rng.random(masks.shape), 0, 1
    )


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_the_soft_skeleton_is_algorithm_1(iterations):
    images = probabilities(vessels(2))
    expected = np.stack([reference_skeleton(image, iterations) for image in images])
    found = soft_skeleton(torch.from_numpy(images)[:, None], iterations)[:, 0].numpy()
    assert found == pytest.approx(expected, abs=1e-12)


def reference_cldice(p, y, weight, iterations, smooth):
    """Algorithm 2: of one class, over the batch."""
    skeletons = [np.stack([reference_skeleton(image, iterations) for image in part]) for part in (p, y)]
    precision = ((weight * skeletons[0] * y).sum() + smooth) / ((weight * skeletons[0]).sum() + smooth)
    sensitivity = ((weight * skeletons[1] * p).sum() + smooth) / ((weight * skeletons[1]).sum() + smooth)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


@pytest.mark.parametrize(("iterations", "smooth"), [(2, 1.0), (5, 0.1)])
def test_cldice_is_algorithm_2(iterations, smooth):
    y, weight = vessels(3), np.random.default_rng(1).random((3, 24, 31))
    p = probabilities(y)
    expected = reference_cldice(p, y.astype(float), weight, iterations, smooth)
    loss = ClDiceLoss("binary", from_logits=False, iterations=iterations, smooth=smooth)
    found = loss(torch.from_numpy(p)[:, None], torch.from_numpy(y).long(), weight=torch.from_numpy(weight))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def several():
    """Labels of three classes, and logits."""
    first, second = vessels(2, seed=1), vessels(2, seed=2)
    labels = np.where(second, 2, np.where(first, 1, 0))
    return labels, np.random.default_rng(0).normal(size=(2, 3, 24, 31)) + 2 * np.eye(3)[labels].transpose(0, 3, 1, 2)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_classes_are_averaged_without_the_background():
    labels, logits = several()
    p = softmax(logits)
    each = [reference_cldice(p[:, k], (labels == k).astype(float), np.ones(labels.shape), 3, 1.0) for k in range(3)]
    given = torch.from_numpy(logits), torch.from_numpy(labels)
    assert ClDiceLoss("multiclass", iterations=3)(*given).item() == pytest.approx(np.mean(each[1:]), rel=1e-9)
    assert ClDiceLoss("multiclass", [0, 2], iterations=3)(*given).item() == pytest.approx(np.mean(each[::2]), rel=1e-9)


def reference_recall(p, labels, weight, smooth):
    """The tubed skeleton of all foreground, and soft recall by class, as in the authors' text."""
    tubes = np.stack([dilation(dilation(skeletonize(image))) for image in labels > 0])
    recalls = []
    for k in range(1, p.shape[1]):
        tube = tubes * (labels == k) * weight
        recalls.append(((tube * p[:, k]).sum() + smooth) / (tube.sum() + smooth))
    return 1 - np.mean(recalls)


@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_skeleton_recall_is_its_definition(smooth):
    labels, logits = several()
    weight = np.random.default_rng(1).random(labels.shape)
    expected = reference_recall(softmax(logits), labels, weight, smooth)
    loss = SkeletonRecallLoss("multiclass", smooth=smooth)
    found = loss(torch.from_numpy(logits), torch.from_numpy(labels), weight=torch.from_numpy(weight))
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", [ClDiceLoss, SkeletonRecallLoss])
def test_ignored_pixels_are_outside_the_image(kind):
    y = torch.from_numpy(vessels(1)).long()
    logits = torch.randn(1, 1, 24, 31, dtype=torch.float64)
    padded = torch.nn.functional.pad(y, (3, 3, 3, 3), value=IGNORE)
    beyond = torch.nn.functional.pad(logits, (3, 3, 3, 3), value=float("nan"))
    whole, cut = kind("binary", ignore_index=IGNORE)(beyond, padded), kind("binary")(logits, y)
    assert whole.item() == pytest.approx(cut.item(), rel=1e-9)


def sure(mask):
    return torch.from_numpy(np.where(mask, 50.0, -50.0))[None, None]


def test_a_gap_costs_more_than_the_same_number_of_pixels_at_the_edge():
    line = np.zeros((15, 40), bool)
    line[3:12] = True
    broken, thinner = line.copy(), line.copy()
    broken[:, 18:22] = False
    thinner[3, :36] = False
    assert (line & ~broken).sum() == (line & ~thinner).sum() == 36
    truth = torch.from_numpy(line)[None].long()
    for kind in (ClDiceLoss, SkeletonRecallLoss):
        cost = [kind("binary")(sure(mask), truth).item() for mask in (line, broken, thinner)]
        assert cost[0] == pytest.approx(0, abs=1e-6) and cost[1] > cost[2] + 0.02


def test_training_closes_a_gap():
    line = np.zeros((9, 24), bool)
    line[3:6] = True
    start = line.copy()
    start[:, 10:14] = False
    for kind in (ClDiceLoss, SkeletonRecallLoss):
        logits = (sure(start) / 25).requires_grad_()
        optimizer = torch.optim.Adam([logits], 0.3)
        for _ in range(40):
            optimizer.zero_grad()
            kind("binary", **({"iterations": 3} if kind is ClDiceLoss else {}))(
                logits, torch.from_numpy(line)[None].long()
            ).backward()
            optimizer.step()
        assert (logits[0, 0, 4, 10:14] > 0).all()


def test_unusable_settings_are_refused(monkeypatch):
    for kind, keywords in (
        (ClDiceLoss, {"smooth": 0}), (ClDiceLoss, {"iterations": -1}), (SkeletonRecallLoss, {"width": -1}),
        (ClDiceLoss, {"classes": [0]}),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            kind("binary", **keywords)
    with pytest.raises(ConfigError):
        ClDiceLoss("multiclass", [5])(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    monkeypatch.setattr(skeletons, "find_spec", lambda name: None)
    with refused(ConfigError, hint="unetzoo[thin]", subject="skeleton_recall"):
        SkeletonRecallLoss("binary")
