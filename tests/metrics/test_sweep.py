"""Sweeps over thresholds against scikit-learn on the binned probabilities, and calibration by NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from unetzoo import METRICS, LabelSpec
from unetzoo.errors import ConfigError, DataError, InputShapeError, LabelRangeError, NonFiniteError, SizeMismatchError
from unetzoo.metrics import SegmentationMetric, SweepMetric


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(3, 10, 11, generator=generator) < 0.3).long()
    logits = 1.5 * torch.randn(3, 1, 10, 11, generator=generator) + 2.0 * truth[:, None] - 1.2
    truth[0, :2] = 255
    return logits, truth


@pytest.fixture
def swept():
    logits, truth = batch()
    metric = SweepMetric(ignore_index=255, bins=40, calibration_bins=8)
    metric.update(logits[:1], truth[:1])
    metric.update(logits[1:], truth[1:, None])
    counted = (truth != 255).numpy()
    return metric, logits[:, 0].double().sigmoid().numpy()[counted], truth.numpy()[counted]


def test_precision_recall_and_average_precision(swept):
    metric, probability, truth = swept
    binned = np.floor(probability * 40) / 40
    assert metric.compute()["average_precision"] == pytest.approx(
        sklearn_metrics.average_precision_score(truth, binned)
    )
    curve = metric.curve()
    for index in range(40):
        predicted = probability >= index / 40
        p, r, f, _ = sklearn_metrics.precision_recall_fscore_support(
            truth, predicted, average="binary", zero_division=np.nan
        )
        assert curve.threshold[index] == index / 40
        assert curve.precision[index] == pytest.approx(p, nan_ok=True) and curve.recall[index] == pytest.approx(r)
        assert curve.f1[index] == pytest.approx(f)
        assert curve.iou[index] == pytest.approx(sklearn_metrics.jaccard_score(truth, predicted))


@pytest.mark.parametrize("ties", [False, True])
def test_area_under_the_roc_curve(ties):
    logits, truth = batch()
    logits = (2 * logits).round() / 2 if ties else logits
    weight = torch.ones_like(truth, dtype=torch.bool)
    weight[:, :, :4] = False  # outside the field of view
    metric = SweepMetric(ignore_index=255)
    metric.update(logits[:2], truth[:2], weight=weight[:2])
    metric.update(logits[2:], truth[2:], weight=weight[2:])
    counted = (weight & (truth != 255)).numpy()
    exact = sklearn_metrics.roc_auc_score(truth.numpy()[counted], logits[:, 0].numpy()[counted])
    assert metric.compute()["roc_auc"] == pytest.approx(exact, abs=1e-12 if ties else 1e-4)
    assert exact < 0.99


@pytest.mark.parametrize(
    ("logits", "truth", "area"),
    [([1.0, 1.0, 1.0], [0, 1, 1], 0.5), ([-math.inf, math.inf, 40.0], [0, 1, 1], 1.0), ([3.0, -3.0], [0, 1], 0.0)],
)
def test_area_of_ties_and_extremes(logits, truth, area):
    metric = SweepMetric()
    metric.update(torch.tensor([[[logits]]]), torch.tensor([[truth]]))
    assert metric.compute()["roc_auc"] == area


@pytest.mark.parametrize("label", [0, 1])
def test_area_of_one_class_is_undefined(label):
    metric = SweepMetric()
    metric.update(torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2), label))
    assert math.isnan(metric.compute()["roc_auc"])


def test_the_best_threshold_is_the_best(swept):
    metric, probability, truth = swept
    scores = metric.compute()
    f1 = [sklearn_metrics.f1_score(truth, probability >= index / 40) for index in range(40)]
    assert scores["best_threshold"] == int(np.argmax(f1)) / 40 != 0.5
    predicted = probability >= scores["best_threshold"]
    assert scores["best_f1"] == pytest.approx(max(f1))
    assert scores["best_iou"] == pytest.approx(sklearn_metrics.jaccard_score(truth, predicted))
    assert scores["best_precision"] == pytest.approx(sklearn_metrics.precision_score(truth, predicted))
    assert scores["best_sensitivity"] == pytest.approx(sklearn_metrics.recall_score(truth, predicted))
    logits, target = batch()
    plain = SegmentationMetric(num_classes=1, ignore_index=255, threshold=scores["best_threshold"])
    plain.update(logits, target)
    assert plain.compute()["f1/foreground"] == pytest.approx(scores["best_f1"])


def test_calibration(swept):
    metric, probability, truth = swept
    calibration, scores = metric.calibration(), metric.compute()
    gaps, shares = [], []
    for index in range(8):
        inside = (probability >= index / 8) & (probability < (index + 1) / 8)
        assert calibration.pixels[index] == inside.sum()
        if inside.any():
            assert calibration.predicted[index] == pytest.approx(probability[inside].mean(), abs=1e-8)
            assert calibration.true[index] == pytest.approx(truth[inside].mean())
            gaps.append(abs(probability[inside].mean() - truth[inside].mean()))
            shares.append(inside.mean())
    assert scores["ece"] == pytest.approx(np.dot(gaps, shares), abs=1e-8)
    assert scores["mce"] == pytest.approx(max(gaps), abs=1e-8)
    assert scores["prevalence"] == pytest.approx(truth.mean()) and scores["pixels"] == truth.size


def test_two_channels_are_one():
    logits, truth = batch()
    one, two = (SweepMetric(ignore_index=255) for _ in range(2))
    one.update(logits, truth)
    two.update(torch.cat([0.3 - logits / 2, 0.3 + logits / 2], 1).double(), truth)
    assert one.compute() == pytest.approx(two.compute(), abs=2e-3)


def test_certain_and_perfect():
    truth = torch.tensor([[[0, 1, 1, 0]]])
    metric = METRICS.build("sweep", labels=LabelSpec(("sky", "cloud")))
    metric.update(torch.tensor([[[[-1e4, 1e4, math.inf, -math.inf]]]]), truth)
    scores = metric.compute()
    assert scores["best_f1"] == scores["average_precision"] == 1 and scores["ece"] == scores["mce"] == 0
    assert metric.curve().recall[-1] == 1  # probability 1 is in the last bin


def test_without_foreground_or_pixels():
    metric = SweepMetric()
    assert all(math.isnan(value) for name, value in metric.compute().items() if name != "pixels")
    metric.update(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2).long())
    scores = metric.compute()
    assert math.isnan(scores["best_f1"]) and math.isnan(scores["average_precision"])
    assert scores["ece"] == 0.5 and scores["prevalence"] == 0


def test_wrong_inputs_are_errors():
    logits, truth = batch()
    metric = SweepMetric()
    metric.update(logits, truth)
    with pytest.raises(LabelRangeError, match="22"):
        metric.compute()
    logits[0, 0, 5, 5] = math.nan
    metric = SweepMetric(ignore_index=255)
    metric.update(logits, truth)
    with pytest.raises(NonFiniteError):
        metric.compute()
    for output in (truth, torch.zeros(3, 3, 10, 11), logits[0]):
        with pytest.raises(InputShapeError):
            metric.update(output, truth)
    with pytest.raises(SizeMismatchError):
        metric.update(logits, truth[:2])
    with pytest.raises(DataError):
        metric.update(logits, truth.float())
    for arguments in ({"num_classes": 3}, {"labels": LabelSpec(("a", "b", "c"))}, {"bins": 1}, {"bins": 15}):
        with pytest.raises(ConfigError):
            SweepMetric(**arguments)


def test_figure_and_report(swept, tmp_path):
    metric, *_ = swept
    figure = metric.figure()
    titles = [axes.get_title() for axes in figure.axes]
    scores = metric.report(tmp_path)
    assert f"{scores['best_f1']:.4f}" in titles[1] and f"{scores['ece']:.4f}" in titles[2]
    assert (tmp_path / "sweep.png").stat().st_size > 5000 and (tmp_path / "scores.json").exists()
