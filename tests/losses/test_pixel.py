"""Cross entropies against closed forms and torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unetzoo.errors import ConfigError, InputShapeError
from unetzoo.losses import BCELoss, CELoss


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
    with pytest.raises(InputShapeError, match="'bce'"):
        CELoss()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="label_smoothing"):
        CELoss(label_smoothing=1.0)
    with pytest.raises(ConfigError, match="class_weights"):
        CELoss(class_weights=[1.0, -1.0])
    with pytest.raises(ConfigError, match="expected 3, one a class, found 2"):
        CELoss(class_weights=[1.0, 1.0])(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="pos_weight"):
        BCELoss(pos_weight=float("nan"))


def test_class_weights_travel_with_the_module_and_stay_out_of_checkpoints():
    loss = CELoss(class_weights=[1.0, 2.0])
    assert loss.class_weights is not None and not loss.state_dict()
    assert loss.to("meta").class_weights.device.type == "meta"
