"""Cross entropies and focal loss against closed forms, torch's own and SMP's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from segmentation_models_pytorch import losses as smp_losses
from torch import nn

from unetzoo.errors import ConfigError, InputShapeError
from unetzoo.losses import BCELoss, CELoss, FocalLoss


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


RNG = np.random.default_rng(0)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ce_is_its_formula(smoothing):
    logits, labels = RNG.normal(size=(2, 4, 5, 6)), RNG.integers(0, 4, (2, 5, 6))
    weight, per_class = RNG.random((2, 5, 6)), np.array([1.0, 0.5, 2.0, 0.25])
    labels[:, 0] = 9
    numerator = denominator = 0.0
    logs = log_softmax(logits)
    for n, y, x in np.ndindex(2, 5, 6):
        label = labels[n, y, x]
        if label == 9:
            continue
        hard = -per_class[label] * logs[n, label, y, x]
        soft = -(per_class * logs[n, :, y, x]).mean()
        numerator += weight[n, y, x] * ((1 - smoothing) * hard + smoothing * soft)
        denominator += weight[n, y, x] * per_class[label]
    loss = CELoss(class_weights=per_class.tolist(), ignore_index=9, label_smoothing=smoothing)
    arguments = torch.tensor(labels), torch.tensor(weight)
    exact = loss(torch.tensor(logits), arguments[0], weight=arguments[1])
    single = loss(torch.tensor(logits).float(), arguments[0], weight=arguments[1])
    assert exact.item() == pytest.approx(numerator / denominator, rel=1e-12)
    assert single.item() == pytest.approx(numerator / denominator, rel=1e-6)


def test_ce_without_weights_is_torchs():
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    labels[0, :3] = 255
    torch.testing.assert_close(
        CELoss(class_weights=[1, 2, 3], ignore_index=255)(logits, labels),
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), ignore_index=255)(logits, labels),
    )


def test_bce_is_its_formula_and_leaves_ignored_labels_out_of_the_mean():
    logits, labels = RNG.normal(size=(2, 3, 4, 4)), RNG.integers(0, 2, (2, 3, 4, 4))
    weight, positive = RNG.random((2, 4, 4)), np.array([1.0, 2.0, 3.0])
    labels[0, 1] = 255
    p = 1 / (1 + np.exp(-logits))
    each = np.where(labels == 1, -positive[:, None, None] * np.log(p), -np.log(1 - p))
    counted = (labels != 255) * weight[:, None]
    expected = (each * counted).sum() / counted.sum()
    loss = BCELoss(pos_weight=positive.tolist(), ignore_index=255)
    value = loss(torch.tensor(logits).float(), torch.tensor(labels), weight=torch.tensor(weight))
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_bce_of_one_channel_takes_both_target_shapes():
    logits, labels = torch.randn(2, 1, 4, 4), torch.randint(0, 2, (2, 4, 4))
    expected = nn.BCEWithLogitsLoss()(logits, labels[:, None].float())
    torch.testing.assert_close(BCELoss()(logits, labels), expected)
    torch.testing.assert_close(BCELoss()(logits, labels[:, None].bool()), expected)


def test_wrong_arguments():
    with pytest.raises(InputShapeError, match="bce"):
        CELoss()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="label_smoothing"):
        CELoss(label_smoothing=1.0)
    with pytest.raises(ConfigError, match="class_weights"):
        CELoss(class_weights=[1.0, -1.0])
    with pytest.raises(ConfigError, match="class_weights"):
        CELoss(class_weights=[1.0, 1.0])(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="pos_weight"):
        BCELoss(pos_weight=float("nan"))


def test_class_weights_travel_with_the_module_and_stay_out_of_checkpoints():
    loss = CELoss(class_weights=[1.0, 2.0])
    assert loss.class_weights is not None and not loss.state_dict()
    assert loss.to("meta").class_weights.device.type == "meta"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.25},
        {"gamma": 0.5},
        {"reduced_threshold": 0.4},
        {"normalized": True},
        {"alpha": 0.9, "gamma": 3.0, "reduced_threshold": 0.7, "normalized": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 4), ("multilabel", 3)])
def test_focal_is_its_formula(mode, channels, options):
    logits = 2 * RNG.normal(size=(2, channels, 6, 7))
    shape = (2, channels, 6, 7) if mode == "multilabel" else (2, 6, 7)
    labels, weight = RNG.integers(0, 4 if mode == "multiclass" else 2, shape), RNG.random((2, 6, 7))
    labels[..., 0] = 255
    labels[0, ..., 3, 3] = 255
    per_class = None if mode == "binary" else np.array([1.0, 0.5, 2.0, 3.0])[:channels]
    p = 1 / (1 + np.exp(-logits))
    alpha, gamma, r = options.get("alpha"), options.get("gamma", 2.0), options.get("reduced_threshold")
    numerator = denominator = 0.0
    for n, k, y, x in np.ndindex(*logits.shape):
        label = labels[n, k, y, x] if mode == "multilabel" else labels[n, y, x]
        if label == 255:
            continue
        positive = label == (k if mode == "multiclass" else 1)
        q = p[n, k, y, x] if positive else 1 - p[n, k, y, x]
        f = (1 - q) ** gamma if r is None else 1.0 if q < r else ((1 - q) / r) ** gamma
        w = weight[n, y, x] * (1 if per_class is None else per_class[k])
        a = 1 if alpha is None else alpha if positive else 1 - alpha
        numerator -= w * a * f * np.log(q)
        denominator += w * f if options.get("normalized") else w
    loss = FocalLoss(mode, ignore_index=255, class_weights=None if per_class is None else per_class.tolist(), **options)
    for dtype, bar in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        value = loss(torch.tensor(logits, dtype=dtype), torch.tensor(labels), weight=torch.tensor(weight))
        assert value.item() == pytest.approx(numerator / denominator, rel=bar)


@pytest.mark.parametrize("options", [{}, {"alpha": 0.25, "gamma": 1.5}, {"reduced_threshold": 0.5}], ids=str)
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 4), ("multilabel", 3)])
def test_focal_is_smps_value(mode, channels, options):
    import segmentation_models_pytorch as smp

    logits = torch.randn(2, channels, 8, 8)
    labels = torch.randint(0, max(2, channels), (2, 8, 8))
    keywords = {**options, "class_weights": None if channels == 1 else [1.0, 2.0, 4.0, 0.5][:channels]}
    if mode == "multilabel":  # where SMP cannot ignore
        labels = torch.randint(0, 2, logits.shape)
    else:
        labels[:, :2] = keywords["ignore_index"] = 255
    torch.testing.assert_close(
        FocalLoss(mode, **keywords)(logits, labels), smp.losses.FocalLoss(mode, **keywords)(logits, labels)
    )


def test_focal_normalized_is_smps_sum_and_survives_certainty():
    import segmentation_models_pytorch as smp

    logits, labels = torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 8, 8))
    theirs = smp.losses.FocalLoss("binary", normalized=True, reduction="sum")(logits, labels)
    torch.testing.assert_close(FocalLoss("binary", normalized=True)(logits, labels), theirs)
    sure = torch.full((1, 1, 2, 2), 47.0, requires_grad=True)  # f² is below the least fp32
    loss = FocalLoss("binary", normalized=True)(sure, torch.ones(1, 2, 2, dtype=torch.int64))
    loss.backward()
    assert 0 < loss < 1e-19 and sure.grad is not None and sure.grad.isfinite().all()


def test_normalized_focal_excludes_ignored_pixels():
    """Counted pixels all sure and right, an ignored one sure and wrong: its factor is e²⁰⁰ times theirs."""
    logits = torch.tensor([[[[100.0, 100.0, -100.0]]]], requires_grad=True)
    for target, weight in (([1, 1, 255], None), ([1, 1, 1], torch.tensor([[[1, 1, 0]]]))):
        loss = FocalLoss("binary", normalized=True, ignore_index=255)(logits, torch.tensor([[target]]), weight=weight)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all() and gradient[..., 2] == 0


def test_focal_of_gamma_0_is_bce():
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 2, (2, 3, 4, 4))
    torch.testing.assert_close(FocalLoss("multilabel", gamma=0.0)(logits, labels), BCELoss()(logits, labels))


def test_focal_wrong_arguments():
    for name, value in (("gamma", -1.0), ("alpha", 1.5), ("reduced_threshold", 0.0), ("class_weights", [-1.0])):
        with pytest.raises(ConfigError, match=name):
            FocalLoss("multiclass", **{name: value})
    with pytest.raises(ConfigError, match="alpha"):
        FocalLoss("binary", class_weights=[1.0])
    with pytest.raises(ConfigError, match="multiclass"):
        FocalLoss("multi-class")  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multilabel", 3)])
def test_focal_takes_smps_reduction_and_probabilities(mode, channels, from_logits, reduction):
    output = torch.randn(2, channels, 5, 6)
    output = output if from_logits else output.sigmoid()
    target = torch.randint(0, 2, output.shape)
    keywords = {"mode": mode, "alpha": 0.3, "gamma": 1.5, "from_logits": from_logits, "reduction": reduction}
    ours, theirs = FocalLoss(**keywords), smp_losses.FocalLoss(**keywords)
    torch.testing.assert_close(ours(output, target), theirs(output, target), rtol=1e-5, atol=1e-6)
    logits = output if from_logits else output.logit()
    same = FocalLoss(mode, alpha=0.3, gamma=1.5, reduction=reduction)(logits, target)
    torch.testing.assert_close(ours(output, target), same, rtol=1e-5, atol=1e-6)


def test_focal_of_probabilities_at_0_and_1_is_finite_and_ignores_nan():
    probability = torch.tensor([[[[0.0, 1.0, 0.3, math.nan]]]], requires_grad=True)
    loss = FocalLoss("binary", from_logits=False, ignore_index=255)
    value = loss(probability, torch.tensor([[[1, 1, 0, 255]]]))
    (gradient,) = torch.autograd.grad(value, probability)
    assert value.isfinite() and gradient.isfinite().all() and gradient[..., 3] == 0


@pytest.mark.parametrize("wrong", [{"reduction": "none"}, {"reduction": "sum", "normalized": True}, {"eps": 0.0}])
def test_focal_refuses_reductions_that_give_no_scalar(wrong):
    with pytest.raises(ConfigError):
        FocalLoss("binary", **wrong)
