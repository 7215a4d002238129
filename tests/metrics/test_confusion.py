"""Segmentation scores against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from unetzoo import METRICS, LabelSpec
from unetzoo.errors import (
    ConfigError,
    DataError,
    InputShapeError,
    LabelRangeError,
    NonFiniteError,
    SizeMismatchError,
)
from unetzoo.metrics import SegmentationMetric


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def maps(classes: int, seed: int = 0, shape=(3, 9, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, shape, generator=generator)
    guess = torch.randint(0, classes, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.6, truth, guess), truth


def scored(predicted, truth, **keywords) -> SegmentationMetric:
    metric = SegmentationMetric(**keywords)
    metric.update(predicted, truth)
    return metric


@pytest.mark.parametrize("classes", [2, 5, 19])
def test_every_score_equals_scikit_learns(classes):
    predicted, truth = maps(classes)
    truth[:, 0] = 255
    metric = scored(predicted, truth, num_classes=classes, ignore_index=255)
    p, t = predicted[truth != 255].numpy(), truth[truth != 255].numpy()
    expected = sklearn_metrics.confusion_matrix(t, p, labels=range(classes))
    assert metric.confusion.dtype == torch.int64
    assert metric.confusion.tolist() == expected.tolist()
    scores = metric.compute()
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(t, p, labels=range(classes))
    iou = sklearn_metrics.jaccard_score(t, p, labels=range(classes), average=None)
    for k in range(classes):
        specificity = sklearn_metrics.recall_score(t != k, p != k)
        wanted = {"precision": precision, "sensitivity": recall, "f1": f1, "iou": iou}
        for name, values in wanted.items():
            assert scores[f"{name}/{k}"] == pytest.approx(values[k], abs=1e-12)
        assert scores[f"specificity/{k}"] == pytest.approx(specificity, abs=1e-12)
    assert scores["miou"] == pytest.approx(iou.mean())
    assert scores["mdice"] == pytest.approx(f1.mean())
    assert scores["pixel_accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(t, p))
    assert scores["miou_defined"] == classes
    assert scores["micro/iou"] == pytest.approx(sklearn_metrics.jaccard_score(t, p, average="micro"))
    for name, function in (
        ("f1", sklearn_metrics.f1_score),
        ("precision", sklearn_metrics.precision_score),
        ("sensitivity", sklearn_metrics.recall_score),
    ):
        assert scores[f"micro/{name}"] == pytest.approx(function(t, p, average="micro"))
    one_hot_t, one_hot_p = (np.eye(classes, dtype=int)[x] for x in (t, p))
    assert scores["micro/accuracy"] == pytest.approx((one_hot_t == one_hot_p).mean())
    assert scores["micro/specificity"] == pytest.approx(
        ((1 - one_hot_t) * (1 - one_hot_p)).sum() / (1 - one_hot_t).sum()
    )


def test_by_hand():
    """Truth aab|bbc, prediction aba|bbb: a 1 of 2, b 3 hits … counted with pencil."""
    truth = torch.tensor([[[0, 0, 1], [1, 1, 2]]])
    predicted = torch.tensor([[[0, 1, 0], [1, 1, 1]]])
    scores = scored(predicted, truth, num_classes=3).compute()
    expected = {
        "iou/0": 1 / 3, "iou/1": 2 / 5, "iou/2": 0.0, "miou": 11 / 45, "miou_defined": 3.0,
        "f1/0": 1 / 2, "f1/1": 4 / 7, "f1/2": 0.0, "mdice": 5 / 14, "pixel_accuracy": 1 / 2,
        "precision/0": 1 / 2, "precision/1": 1 / 2, "sensitivity/0": 1 / 2, "sensitivity/1": 2 / 3,
        "sensitivity/2": 0.0, "specificity/0": 3 / 4, "specificity/1": 1 / 3, "specificity/2": 1.0,
        "micro/iou": 3 / 9, "micro/f1": 1 / 2, "micro/specificity": 9 / 12, "micro/accuracy": 12 / 18,
    }  # fmt: skip
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert math.isnan(scores["precision/2"])  # never predicted: nothing to divide by


@pytest.mark.parametrize(("empty", "miou", "absent"), [("nan", 0.5, math.nan), (0, 0.25, 0.0), (1, 0.75, 1.0)])
def test_the_policy_for_absent_classes(empty, miou, absent):
    """Classes 0 and 1 at IoU .5 each, classes 2 and 3 nowhere."""
    predicted, truth = torch.tensor([[[0, 0, 1, 0, 1, 1]]]), torch.tensor([[[0, 0, 1, 1, 1, 0]]])
    scores = scored(predicted, truth, num_classes=4, empty=empty).compute()
    assert scores["iou/0"] == scores["iou/1"] == 0.5
    assert scores["miou"] == miou and scores["miou_defined"] == 2
    for name in ("iou/2", "f1/3", "precision/2", "sensitivity/3"):
        assert scores[name] == pytest.approx(absent, nan_ok=True)
    assert scores["specificity/2"] == 1.0


def test_smps_flattering_absent_classes():
    """One image, 19 classes, every pixel wrong: SMP's macro IoU is .895."""
    assert scored(torch.ones(1, 4, 4).long(), torch.zeros(1, 4, 4).long(), num_classes=19).compute()["miou"] == 0.0


def test_nothing_counted():
    scores = SegmentationMetric(num_classes=3).compute()
    assert scores["miou_defined"] == 0
    counts = {name: value for name, value in scores.items() if "defined" in name}
    assert set(counts.values()) == {0.0}
    assert all(math.isnan(value) for name, value in scores.items() if name not in counts)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_are_their_argmax(dtype):
    logits = torch.randn(2, 5, 6, 7).to(dtype)
    truth = torch.randint(0, 5, (2, 6, 7))
    assert torch.equal(
        scored(logits, truth, num_classes=5).confusion, scored(logits.argmax(1), truth, num_classes=5).confusion
    )


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 1, 4, 5)])
def test_binary(threshold, shape):
    logits, truth = torch.randn(2, 1, 4, 5), torch.randint(0, 2, shape)
    metric = scored(logits, truth, num_classes=1, threshold=threshold)
    expected = sklearn_metrics.confusion_matrix(truth.flatten(), (logits.sigmoid() > threshold).flatten())
    assert metric.confusion.tolist() == expected.tolist()
    assert {"iou/background", "iou/foreground"} <= set(metric.compute())
    maps_of_labels = scored((logits[:, 0].sigmoid() > threshold).long(), truth, num_classes=1)
    assert torch.equal(maps_of_labels.confusion, metric.confusion)


def test_binary_at_the_threshold_is_background():
    assert scored(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1).long(), num_classes=1).confusion.tolist() == [
        [1, 0],
        [0, 0],
    ]


@pytest.mark.parametrize("classes", [None, 1, 2])
def test_two_labels_take_one_channel_or_two(classes):
    spec = LabelSpec(("membrane", "cell"))
    one, truth = torch.randn(1, 1, 4, 4), torch.randint(0, 2, (1, 4, 4))
    two = torch.cat([torch.zeros_like(one), one], 1)
    metrics = [scored(logits, truth, num_classes=classes, labels=spec) for logits in (one, two)]
    assert torch.equal(metrics[0].confusion, metrics[1].confusion)
    assert "iou/cell" in metrics[0].compute()


def test_names_groups_and_ignore_index_of_labels():
    spec = LabelSpec(("skin", "left eye", "right eye"), ignore_index=255, groups={"eyes": (1, 2), "skin": (0,)})
    predicted = torch.tensor([[[0, 1, 2, 1, 0, 0]]])
    truth = torch.tensor([[[0, 1, 1, 1, 2, 255]]])
    scores = METRICS.build("segmentation", labels=spec)
    scores.update(predicted, truth)
    scores = scores.compute()
    # Merged eyes: 3 hits (one the wrong eye), none invented, 1 missed. Only the left eye: 2 hits of 3.
    assert scores["f1/eyes"] == pytest.approx(6 / 7) and scores["iou/eyes"] == pytest.approx(3 / 4)
    assert scores["f1/left eye"] == pytest.approx(4 / 5)
    assert scores["iou/skin"] == pytest.approx(1 / 2)
    assert scores["precision/eyes"] == 1.0 and scores["sensitivity/eyes"] == pytest.approx(3 / 4)
    assert scores["accuracy/eyes"] == pytest.approx(4 / 5)
    assert SegmentationMetric(labels=spec, ignore_index=9).ignore_index == 9


def test_an_ignored_class_within_the_classes():
    predicted, truth = maps(3)
    metric = scored(predicted, truth, num_classes=3, ignore_index=0)
    assert metric.confusion[0].sum() == 0 and metric.confusion.sum() == (truth != 0).sum()


def test_ignored_pixels_change_nothing_even_where_logits_are_nan():
    logits, truth = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    truth[:, :2] = 255
    expected = scored(logits, truth, num_classes=3, ignore_index=255)
    logits[:, :, :2] = float("nan")
    metric = scored(logits, truth, num_classes=3, ignore_index=255)
    assert torch.equal(metric.confusion, expected.confusion)
    assert metric.compute() == pytest.approx(expected.compute(), nan_ok=True)


@pytest.mark.parametrize("wrong", [{255: 3, 7: 2}, {-1: 4}, {-100: 1, 3: 1, 256: 2, 70000: 1}])
@pytest.mark.parametrize("where", ["truth", "prediction"])
def test_strange_labels_are_counted_by_value_and_reported_late(wrong, where):
    predicted, truth = maps(3)
    expected = scored(predicted, truth, num_classes=3).confusion
    odd = truth if where == "truth" else predicted
    lost = torch.zeros(3, 3, dtype=torch.int64)
    for place, value in enumerate(value for value, count in wrong.items() for _ in range(count)):
        lost[truth.flatten()[place], predicted.flatten()[place]] += 1
        odd.view(-1)[place] = value
    metric = scored(predicted, truth, num_classes=3)
    if where == "prediction":  # the row is still known then
        assert torch.equal(metric.confusion, expected - lost)
    assert metric.confusion.sum() == expected.sum() - sum(wrong.values())
    with pytest.raises(LabelRangeError, match=str(sum(wrong.values()))) as caught:
        metric.compute()
    for value, count in wrong.items():
        name = "above 255" if value > 255 else str(value)
        count = sum(c for v, c in wrong.items() if v > 255) if value > 255 else count
        assert f"{count} × {name}" in str(caught.value)
    metric.reset()
    assert metric.compute()["miou_defined"] == 0


@pytest.mark.parametrize("channels", [1, 2])
def test_nan_logits_are_an_error_at_compute(channels):
    logits, truth = torch.randn(1, channels, 4, 4), torch.zeros(1, 4, 4).long()
    logits[0, -1, 1, 2] = float("nan")
    metric = scored(logits, truth, num_classes=channels)
    assert metric.confusion.sum() == 15
    with pytest.raises(NonFiniteError, match="1 pixel"):
        metric.compute()
    logits[0, -1, 1, 2] = float("inf")
    assert scored(logits, truth, num_classes=channels).compute()["pixel_accuracy"] < 1


def test_exact_above_two_to_the_24():
    metric = scored(*maps(2), num_classes=2)
    for _ in range(40):
        metric.merge(metric)
    before = metric.confusion
    assert before.min() > 2**40
    metric.update(torch.tensor([[[1]]]), torch.tensor([[[0]]]))
    assert (metric.confusion - before).tolist() == [[0, 1], [0, 0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 6))
def test_properties(seed, classes):
    predicted, truth = maps(classes, seed, (2, 3, 4))
    scores = scored(predicted, truth, num_classes=classes).compute()
    for k in range(classes):
        iou, f1 = scores[f"iou/{k}"], scores[f"f1/{k}"]
        assert math.isnan(iou) == math.isnan(f1)
        if not math.isnan(iou):
            assert 0 <= iou <= f1 <= 1 and f1 == pytest.approx(2 * iou / (1 + iou))
    mirrored = scored(truth, predicted, num_classes=classes)
    assert torch.equal(mirrored.confusion, scored(predicted, truth, num_classes=classes).confusion.T)
    assert mirrored.compute()["miou"] == pytest.approx(scores["miou"])
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    renamed = scored(order[predicted], order[truth], num_classes=classes).compute()
    assert renamed["miou"] == pytest.approx(scores["miou"])
    for old, new in enumerate(order.tolist()):
        assert renamed[f"f1/{new}"] == pytest.approx(scores[f"f1/{old}"], nan_ok=True)
    perfect = scored(truth, truth, num_classes=classes).compute()
    assert perfect["miou"] == perfect["mdice"] == perfect["pixel_accuracy"] == perfect["micro/f1"] == 1.0


def test_wrong_arguments():
    spec = LabelSpec(("a", "b", "c"))
    for keywords, message in (
        ({}, "num_classes"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 4, "labels": spec}, "contradict"),
        ({"num_classes": 1, "labels": spec}, "contradict"),
        ({"labels": LabelSpec(("vessel",))}, "two names"),
        ({"labels": LabelSpec(("a", "b", "c"), groups={"a": (0, 1)})}, "group"),
        ({"num_classes": 2, "empty": "zero"}, "empty"),
        ({"num_classes": 1, "threshold": 1.0}, "threshold"),
    ):
        with pytest.raises(ConfigError, match=message):
            SegmentationMetric(**keywords)


def test_wrong_inputs():
    metric, truth = SegmentationMetric(num_classes=3), torch.zeros(1, 4, 4).long()
    for output in (torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4), truth[0]):
        with pytest.raises(InputShapeError):
            metric.update(output, truth)
    with pytest.raises(SizeMismatchError):
        metric.update(torch.zeros(1, 3, 4, 4), truth[:, :2, :2])
    with pytest.raises(DataError, match="integer"):
        metric.update(truth, truth.float())
    assert metric.confusion.sum() == 0
