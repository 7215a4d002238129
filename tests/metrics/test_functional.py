"""Scores of counts against SMP where SMP's value is well-defined, and by hand where it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import segmentation_models_pytorch.metrics as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from unetzoo.errors import (
    ConfigError,
    DataError,
    InputShapeError,
    LabelRangeError,
    NonFiniteError,
    SizeMismatchError,
)
from unetzoo.metrics import SegmentationMetric, functional

SCORES = (
    "iou_score", "f1_score", "fbeta_score", "accuracy", "precision", "positive_predictive_value", "recall",
    "sensitivity", "specificity", "balanced_accuracy",
)  # fmt: skip
REDUCTIONS = (None, "none", "micro", "macro", "micro-imagewise", "macro-imagewise")


def labels(classes: int, seed: int, shape=(3, 6, 7)) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, classes, shape)), torch.from_numpy(rng.integers(0, classes, shape))


def same_counts(ours, theirs):
    for one, two in zip(ours, theirs, strict=True):
        assert one.dtype == torch.int64 and one.tolist() == two.tolist()


@pytest.mark.parametrize("ignored", [None, -1, 255])
@pytest.mark.parametrize("classes", [2, 5, 19])
def test_counts_of_classes_are_smps(classes, ignored):
    predicted, truth = labels(classes, 0)
    if ignored is not None:
        truth[:, 1] = ignored
    arguments = (predicted, truth, "multiclass", ignored, None, classes)
    same_counts(functional.get_stats(*arguments), smp.get_stats(*arguments))


@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multilabel", 4)])
@pytest.mark.parametrize("threshold", [0.5, 0.7, None])
def test_counts_of_labels_are_smps(mode, channels, threshold):
    truth = labels(2, 0, (3, channels, 6, 7))[0]
    output = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1))
    output.view(-1)[:9] = 0.7  # at the threshold itself
    output = output if threshold is not None else output.round().long()
    arguments = (output, truth, mode, None, threshold)
    same_counts(functional.get_stats(*arguments), smp.get_stats(*arguments))


def test_counts_ignore_in_every_mode_and_take_a_threshold_a_label():
    truth, output = torch.tensor([[[1, 0, 255, 1]], [[1, 1, 0, 255]]]), torch.tensor([[[0.4, 0.4, 0.4, 0.1]]] * 2)
    tp, fp, fn, tn = functional.get_stats(output, truth, "binary", ignore_index=255, threshold=0.3)
    assert [c.flatten().tolist() for c in (tp, fp, fn, tn)] == [[1, 2], [1, 1], [1, 0], [0, 0]]
    counts = functional.get_stats(
        torch.full((1, 2, 3), 0.4), torch.ones(1, 2, 3).long(), "multilabel", None, (0.3, 0.5)
    )
    assert counts[0].tolist() == [[3, 0]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    name=st.sampled_from(SCORES),
    reduction=st.sampled_from(REDUCTIONS),
    classes=st.integers(2, 5),
    shape=st.sampled_from(((3, 2, 2), (4, 7, 7))),
    zero_division=st.sampled_from((0.0, 1.0)),
)
def test_scores_are_smps(seed, name, reduction, classes, shape, zero_division):
    counts = smp.get_stats(*labels(classes, seed, shape), "multiclass", None, None, classes)
    extra = {"beta": 2.5} if name == "fbeta_score" else {}
    ours = getattr(functional, name)(*counts, reduction=reduction, zero_division=zero_division, **extra)
    theirs = getattr(smp, name)(*counts, reduction=reduction, zero_division=zero_division, **extra)
    assert ours.dtype == torch.float64 and ours.shape == theirs.shape
    assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_the_weighted_mean_is_smps(name):
    counts = smp.get_stats(*labels(4, 0), "multiclass", None, None, 4)
    weights = [1.0, 0.0, 3.0, 0.5]
    ours = getattr(functional, name)(*counts, reduction="weighted", class_weights=weights)
    theirs = getattr(smp, name)(*counts, reduction="weighted", class_weights=weights)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    ours = getattr(functional, name)(*counts, reduction="weighted-imagewise", class_weights=weights)
    theirs = getattr(smp, name)(*counts, reduction="weighted-imagewise", class_weights=weights)
    assert ours.item() == pytest.approx(4 * theirs.item(), abs=1e-6)  # which divides by the number of classes again


def test_undefined_classes_are_not_counted():
    """SMP's macro IoU of an image without a right pixel is .895, because 17 classes do not occur."""
    counts = functional.get_stats(torch.ones(1, 4).long(), torch.zeros(1, 4).long(), "multiclass", num_classes=19)
    assert smp.iou_score(*counts, reduction="macro").item() == pytest.approx(17 / 19)
    for reduction in ("macro", "macro-imagewise", "micro"):
        assert functional.iou_score(*counts, reduction=reduction).item() == 0
    assert functional.iou_score(*counts, reduction="weighted", class_weights=[1] * 19).item() == 0
    assert functional.iou_score(*counts).isnan().sum() == 17
    assert functional.iou_score(*counts, reduction="macro", zero_division=0.5).item() == pytest.approx(17 / 38)
    nothing = torch.zeros(1, 3).long()
    assert math.isnan(functional.f1_score(nothing, nothing, nothing, nothing, reduction="macro").item())
    assert functional.f1_score(nothing, nothing, nothing, nothing, reduction="micro", zero_division=1).item() == 1


def test_counts_of_a_confusion_matrix():
    predicted, truth = labels(5, 0)
    metric = SegmentationMetric(num_classes=5)
    metric.update(predicted, truth)
    scores, counts = metric.compute(), functional.stats_of(metric.confusion)
    t, p = truth.flatten(), predicted.flatten()
    assert functional.fbeta_score(*counts, beta=2.0)[0].numpy() == pytest.approx(
        sklearn_metrics.fbeta_score(t, p, beta=2.0, average=None)
    )
    for name, key in (("iou_score", "iou"), ("dice_score", "f1"), ("recall", "sensitivity"), ("accuracy", "accuracy")):
        assert getattr(functional, name)(*counts, reduction="macro").item() == pytest.approx(scores[f"macro/{key}"])
        assert getattr(functional, name)(*counts)[0].tolist() == [scores[f"{key}/{k}"] for k in range(5)]


def test_wrong_inputs():
    predicted, truth = labels(3, 0)
    stats, nan = functional.get_stats, torch.full((1, 1, 2), math.nan)
    for error, call in (
        (ConfigError, lambda: stats(predicted, truth, "multi")),
        (ConfigError, lambda: stats(predicted, truth, "multiclass")),
        (ConfigError, lambda: stats(predicted.float(), truth, "multiclass", num_classes=3)),
        (ConfigError, lambda: stats(predicted, truth, "multiclass", num_classes=3, threshold=0.5)),
        (ConfigError, lambda: stats(torch.rand(2, 3, 4), torch.ones(2, 3, 4).long(), "multilabel")),
        (ConfigError, lambda: stats(torch.rand(2, 3, 4), torch.ones(2, 3, 4).long(), "multilabel", threshold=(1, 2))),
        (InputShapeError, lambda: stats(torch.rand(2, 3, 4), torch.ones(2, 3, 4).long(), "binary", threshold=0.5)),
        (SizeMismatchError, lambda: stats(predicted, truth[:, :2], "multiclass", num_classes=3)),
        (DataError, lambda: stats(predicted, truth.float(), "multiclass", num_classes=3)),
        (LabelRangeError, lambda: stats(predicted, truth + 1, "multiclass", num_classes=3)),
        (LabelRangeError, lambda: stats(predicted + 1, truth, "multiclass", num_classes=3)),
        (NonFiniteError, lambda: stats(nan, torch.ones(1, 1, 2).long(), "binary", None, 0.5)),
        (InputShapeError, lambda: functional.stats_of(torch.ones(2, 3).long())),
        (InputShapeError, lambda: functional.stats_of(torch.ones(2, 2))),
    ):  # fmt: skip
        with pytest.raises(error):
            call()
    counts = stats(predicted, truth, "multiclass", num_classes=3)
    for error, arguments in (
        (ConfigError, {"reduction": "mean"}),
        (ConfigError, {"reduction": "weighted"}),
        (ConfigError, {"reduction": "macro", "class_weights": [1, 2, 3]}),
        (ConfigError, {"reduction": "weighted", "class_weights": [1, 2]}),
        (ConfigError, {"reduction": "weighted", "class_weights": [0, 0, 0]}),
    ):
        with pytest.raises(error):
            functional.iou_score(*counts, **arguments)
    with pytest.raises(ConfigError, match="beta"):
        functional.fbeta_score(*counts, beta=0)
    with pytest.raises(InputShapeError):
        functional.iou_score(counts[0][0], *counts[1:])
    with pytest.raises(InputShapeError):
        functional.iou_score(*(c[0] for c in counts), reduction="macro")
