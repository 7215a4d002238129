"""The metric clDice against its definition."""

import math

import numpy as np
import pytest
import torch
from refusals import refused
from scipy import ndimage
from skimage.morphology import skeletonize

from unetzoo import METRICS, LabelSpec, skeletons
from unetzoo.errors import ConfigError
from unetzoo.metrics.thin import cldice

RNG = np.random.default_rng(0)


def mask(size=(20, 26)):
    smooth = ndimage.gaussian_filter(RNG.random(size), 1.2)
    return smooth > np.quantile(smooth, 0.7)


def reference(predicted, truth):
    """Shit et al., equations 1 to 3."""
    if not predicted.any() and not truth.any():
        return None
    if not predicted.any() or not truth.any():
        return 0.0
    precision = (skeletonize(predicted) & truth).sum() / skeletonize(predicted).sum()
    sensitivity = (skeletonize(truth) & predicted).sum() / skeletonize(truth).sum()
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def test_scores_are_means_over_the_images_with_the_class():
    predicted, truth = (np.where(mask((6, 20, 26)), RNG.integers(1, 4, (6, 20, 26)), 0) for _ in range(2))
    truth[0][truth[0] == 2] = predicted[0][predicted[0] == 2] = 0  # in neither
    predicted[1][predicted[1] == 2] = 0  # missed
    truth[2][truth[2] == 2] = 0  # invented
    metric = METRICS.build("cldice", labels=LabelSpec(("background", "a", "b", "c")), exclude=["background"])
    for part in (slice(0, 2), slice(2, 6)):
        metric.update(torch.from_numpy(predicted[part]), torch.from_numpy(truth[part]))
    scores = metric.compute()
    means = []
    for index, name in enumerate("abc", start=1):
        each = [reference(p == index, t == index) for p, t in zip(predicted, truth, strict=True)]
        known = [score for score in each if score is not None]
        means.append(np.mean(known))
        assert scores[f"cldice/{name}"] == pytest.approx(means[-1]) and scores[f"images/{name}"] == len(known)
    assert scores["cldice"] == pytest.approx(np.mean(means)) and scores["defined"] == 3
    assert scores["missed/b"] == scores["invented/b"] == 1


def test_width_does_not_matter_and_gaps_do():
    truth = np.zeros((11, 60), bool)
    truth[4:7] = True
    wide, gap = ndimage.binary_dilation(truth, iterations=2), truth.copy()
    gap[:, 20:26] = False
    assert cldice(wide, truth).cldice == pytest.approx(1.0, abs=0.02)
    assert cldice(gap, truth).tprec == 1 and cldice(gap, truth).tsens == pytest.approx(54 / 60, abs=0.02)


def test_nothing_is_not_scored_and_nothing_found_is_0():
    empty, line = np.zeros((5, 9), bool), np.zeros((5, 9), bool)
    line[2] = True
    assert all(map(math.isnan, cldice(empty, empty)))
    assert cldice(empty, line) == cldice(line, empty) == (0, 0, 0)
    assert cldice(np.roll(line, 2, 0), line) == (0, 0, 0)


def test_ignored_pixels_belong_to_nothing():
    truth, predicted = mask().astype(int), mask().astype(int)
    truth[:, :8] = 255
    metric = METRICS.build("cldice", num_classes=1, ignore_index=255)
    metric.update(torch.from_numpy(predicted)[None], torch.from_numpy(truth)[None])
    inside = np.ones((20, 26), bool)
    inside[:, :8] = False
    assert metric.compute()["cldice"] == pytest.approx(reference((predicted == 1) & inside, (truth == 1) & inside))


def test_scikit_image_is_needed(monkeypatch):
    monkeypatch.setattr(skeletons, "find_spec", lambda name: None)
    with refused(ConfigError, hint="unetzoo[thin]", subject="cldice"):
        METRICS.build("cldice", num_classes=1)
