"""Scores of objects against scikit-image's labels, SciPy's assignment and loops over all pairs of objects."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import linear_sum_assignment

from unetzoo import METRICS, LabelSpec
from unetzoo.errors import ConfigError, InputShapeError, LabelRangeError, NonFiniteError, SizeMismatchError
from unetzoo.instances import separate, touching_borders
from unetzoo.metrics import InstancesMetric
from unetzoo.metrics.instances import IOUS

DATA = Path(os.environ.get("UNETZOO_DATA", "/nowhere")) / "dsb2018" / "instances"


def table(true: np.ndarray, predicted: np.ndarray):
    """Shared pixels and unions of all pairs of objects, by loops."""
    ones, twos = ([image == number for number in np.unique(image) if number] for image in (true, predicted))
    shared = np.array([[(one & two).sum() for two in twos] for one in ones]).reshape(len(ones), len(twos))
    union = np.array([[(one | two).sum() for two in twos] for one in ones]).reshape(len(ones), len(twos))
    return shared, union, np.array([one.sum() for one in ones]), np.array([two.sum() for two in twos])


def brute(images) -> dict[str, float]:
    """The published definitions, with an optimal assignment of objects."""
    pooled, by_image = np.zeros((len(IOUS), 3)), []
    qualities, shared_sum, union_sum, aji, difference, splits, merges = [], 0, 0, [], [], 0, 0
    for true, predicted in images:
        shared, union, ones, twos = table(true, predicted)
        iou = shared / np.maximum(union, 1)
        row = []
        for least in IOUS:
            rows, columns = linear_sum_assignment(-(iou >= least).astype(float)) if iou.size else ([], [])
            tp = int((iou[rows, columns] >= least).sum()) if iou.size else 0
            row.append((tp, len(twos) - tp, len(ones) - tp))
        pooled += np.array(row)
        if len(ones) + len(twos):
            by_image.append([tp / (tp + fp + fn) for tp, fp, fn in row])
        qualities += iou[iou > 0.5].tolist()
        used, inner, outer = set(), 0, 0
        for one in range(len(ones)):
            best = int(iou[one].argmax()) if len(twos) else 0
            if len(twos) and iou[one, best] > 0:
                inner, outer = inner + shared[one, best], outer + union[one, best]
                used.add(best)
            else:
                outer += ones[one]
        outer += sum(area for index, area in enumerate(twos) if index not in used)
        shared_sum, union_sum = shared_sum + inner, union_sum + outer
        if len(ones) + len(twos):
            aji.append(inner / outer)
        difference.append(len(twos) - len(ones))
        splits += sum((2 * shared[one] > twos).sum() > 1 for one in range(len(ones)))
        merges += sum((2 * shared[:, two] > ones).sum() > 1 for two in range(len(twos)))
    tp, fp, fn = pooled.T
    with np.errstate(invalid="ignore"):
        ap = tp / (tp + fp + fn)
    image_ap = np.mean(by_image, 0) if by_image else np.full(len(IOUS), math.nan)
    total = 2 * tp[0] + fp[0] + fn[0]
    return {
        "ap": ap.mean(), "ap50": ap[0], "ap75": ap[5], "ap95": ap[9], "image/ap": image_ap.mean(),
        "image/ap50": image_ap[0], "image/ap90": image_ap[8],
        "sq": np.mean(qualities) if qualities else math.nan,
        "rq": 2 * len(qualities) / total if total else math.nan,
        "pq": 2 * sum(qualities) / total if total else math.nan,
        "aji": shared_sum / union_sum if union_sum else math.nan, "image/aji": np.mean(aji) if aji else math.nan,
        "count_error": np.mean(np.abs(difference)), "count_bias": np.mean(difference),
        "splits": splits, "merges": merges,
    }  # fmt: skip


def scored(images) -> dict[str, float]:
    metric = InstancesMetric(num_classes=2)
    for true, predicted in images:
        metric.count(true, predicted)
    return metric.compute()


def check(images) -> None:
    expected, found = brute(images), scored(images)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12, nan_ok=True)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), numbers=st.integers(1, 9), gap=st.integers(1, 9000), size=st.integers(1, 12))
def test_random_label_images(seed, numbers, gap, size):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(rng.integers(1, 4)):
        true = rng.integers(0, numbers + 1, (size, size))
        noise = rng.random((size, size)) < rng.choice([0.1, 0.5, 0.9])
        images.append((true * gap, np.where(noise, rng.integers(0, numbers + 1, (size, size)), true)))
    check(images)


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="UNETZOO_DATA is not set")
def test_real_nuclei_and_distorted_ones():
    rng, images = np.random.default_rng(0), []
    for path in sorted(DATA.glob("*.png"))[::60]:
        true = np.asarray(Image.open(path)).astype(np.int64)[:200, :200]
        rolled = np.roll(true, rng.integers(-4, 5, 2), (0, 1))
        images.append((true, np.where(rng.random(true.shape) < 0.05, 0, rolled)))
        images.append((true, separate((true > 0).astype(float))))
    check(images)


def test_perfect_predictions_of_any_numbering():
    true = np.array([[0, 3, 3, 9], [0, 3, 70_000, 9]])
    scores = scored([(true, np.where(true > 0, 100_000 - true, 0))])
    names = ("ap", "image/ap", "pq", "aji", "f1")
    assert [scores[name] for name in names] == [1.0] * 5 and scores["count_error"] == 0


def test_two_halves_of_an_object_match_once():
    true, halves = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    for one, two in ((true, halves), (halves, true)):
        scores = scored([(one, two)])
        assert scores["ap50"] == 0.5 and scores["ap55"] == 0 and scores["pq"] == 0
    assert scored([(true, halves)])["splits"] == 1 and scored([(halves, true)])["merges"] == 1


def test_images_without_objects_are_not_averaged():
    nothing, something = np.zeros((2, 2), int), np.array([[1, 1], [0, 0]])
    scores = scored([(nothing, nothing)])
    assert math.isnan(scores["ap"]) and math.isnan(scores["image/ap"]) and scores["count_error"] == 0
    assert scored([(nothing, nothing), (something, something)])["image/ap"] == 1
    assert scored([(nothing, something)])["image/ap50"] == 0


def test_objects_from_three_classes_of_logits():
    true = np.zeros((1, 12, 20), np.int64)
    true[0, 2:10, 2:10], true[0, 2:10, 10:18] = 5, 8
    mask = torch.from_numpy(np.where(touching_borders(true[0], 1), 2, true[0] > 0))[None].long()
    logits = 20 * torch.nn.functional.one_hot(mask, 3).permute(0, 3, 1, 2).float()
    metric = InstancesMetric(labels=LabelSpec(("background", "nucleus", "border")))
    metric.update(logits, mask, instances=torch.from_numpy(true))
    assert metric.compute()["ap"] == 1
    binary = InstancesMetric(num_classes=1)
    binary.update((mask > 0)[:, None].float() * 20 - 10, (mask > 0).long(), instances=torch.from_numpy(true))
    assert binary.compute()["merges"] == 1


def test_pixels_that_do_not_count_belong_to_no_object():
    truth = torch.tensor([[[1, 1, 0, 255, 255]]])
    output = torch.tensor([[[1, 1, 0, 1, 1]]])
    metric = InstancesMetric(num_classes=2, ignore_index=255)
    metric.update(output, truth)
    assert metric.compute()["ap"] == 1
    metric.reset()
    metric.update(output, truth, weight=torch.tensor([[[0, 0, 1, 1, 1]]]), instances=torch.tensor([[[7, 7, 0, 0, 0]]]))
    assert metric.compute()["objects"] == 0


def test_small_predictions_are_dropped():
    metric = InstancesMetric(num_classes=2, min_size=2)
    metric.update(
        torch.tensor([[[1, 1, 0, 1]]]), torch.tensor([[[1, 1, 0, 0]]]), instances=torch.tensor([[[4, 4, 0, 0]]])
    )
    assert metric.compute()["ap"] == 1


def test_wrong_inputs():
    for options in ({"num_classes": 4}, {"num_classes": 2, "seed": 1.0}, {"num_classes": 2, "min_size": -1}):
        with pytest.raises(ConfigError):
            METRICS.build("instances", **options)
    metric, truth = InstancesMetric(num_classes=2), torch.zeros(1, 2, 2, dtype=torch.long)
    with pytest.raises(InputShapeError):
        metric.update(torch.zeros(1, 3, 2, 2), truth)
    with pytest.raises(SizeMismatchError):
        metric.update(torch.zeros(1, 2, 2, 2), truth, instances=torch.zeros(1, 2, 3, dtype=torch.long))
    with pytest.raises(NonFiniteError):
        metric.update(torch.full((1, 2, 2, 2), math.nan), truth)
    for pair in ((truth, truth + 2), (truth - 1, truth)):
        with pytest.raises(LabelRangeError):
            metric.update(*pair)
    with pytest.raises(InputShapeError):
        metric.count(np.zeros((2, 2), int), np.zeros((2, 3), int))
