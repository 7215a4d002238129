"""The correlation loss against Gorodkin's triple sum, scikit-learn and the soft 2×2 table."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import matthews_corrcoef

from unetzoo.errors import ConfigError
from unetzoo.losses import MCCLoss

RNG = np.random.default_rng(0)


def gorodkin(table: np.ndarray) -> float:
    """R_K of a confusion table, as its paper writes it: a sum over triples of classes."""
    count = len(table)
    above = sum(table[k, k] * table[m, n] - table[n, k] * table[k, m] for k, m, n in np.ndindex(count, count, count))
    rows, columns = table.sum(1), table.sum(0)
    left = sum(rows[k] * (rows.sum() - rows[k]) for k in range(count))
    right = sum(columns[k] * (columns.sum() - columns[k]) for k in range(count))
    return above / math.sqrt(left * right)


def soft_table(p: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Rows: truth; columns: prediction. p (K, …)."""
    return np.array([[(p[k] * weight * (labels == row)).sum() for k in range(len(p))] for row in range(len(p))])


@pytest.mark.parametrize("per_image", [False, True])
def test_multiclass_is_gorodkins_sum(per_image):
    logits, labels, weight = RNG.normal(size=(2, 4, 9, 8)), RNG.integers(0, 4, (2, 9, 8)), RNG.random((2, 9, 8))
    labels[0, :3] = 255
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    tables = [soft_table(p[n], labels[n], weight[n]) for n in range(2)]
    expected = np.mean([1 - gorodkin(t) for t in tables]) if per_image else 1 - gorodkin(tables[0] + tables[1])
    loss = MCCLoss("multiclass", ignore_index=255, per_image=per_image)
    for dtype, bar in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        value = loss(torch.tensor(logits, dtype=dtype), torch.tensor(labels), weight=torch.tensor(weight))
        assert value.item() == pytest.approx(expected, rel=bar)


def test_binary_and_multilabel_are_the_two_class_coefficient():
    logits, labels, weight = RNG.normal(size=(2, 3, 9, 8)), RNG.integers(0, 2, (2, 3, 9, 8)), RNG.random((2, 9, 8))
    labels[0, 1, :3] = 255
    p = 1 / (1 + np.exp(-logits))
    each = [1 - gorodkin(soft_table(np.stack([1 - p[:, k], p[:, k]]), labels[:, k], weight)) for k in range(3)]
    arguments = torch.tensor(logits), torch.tensor(labels)
    value = MCCLoss("multilabel", ignore_index=255)(*arguments, weight=torch.tensor(weight))
    assert value.item() == pytest.approx(np.mean(each), rel=1e-10)
    value = MCCLoss("binary", ignore_index=255)(arguments[0][:, 1:2], arguments[1][:, 1], weight=torch.tensor(weight))
    assert value.item() == pytest.approx(each[1], rel=1e-10)


@pytest.mark.parametrize("classes", [2, 5])
def test_hard_predictions_equal_scikit_learns_coefficient(classes):
    labels, predicted = RNG.integers(0, classes, (2, 1, 20, 20))
    predicted[:, :10] = labels[:, :10]
    one_hot = np.stack([predicted == k for k in range(classes)], 1).astype(float)
    expected = 1 - matthews_corrcoef(labels.ravel(), predicted.ravel())
    loss = MCCLoss("multiclass", from_logits=False)(torch.tensor(one_hot), torch.tensor(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    if classes == 2:
        loss = MCCLoss("binary", from_logits=False)(torch.tensor(one_hot[:, 1:]), torch.tensor(labels))
        assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_a_rare_class_keeps_its_digits():
    labels = torch.zeros(1, 512, 512, dtype=torch.int64)
    labels[0, 100, 100:103] = 1
    logits = torch.full((1, 1, 512, 512), -12.0)
    logits[0, 0, 100, 101:105] = 3.0
    exact = MCCLoss("binary")(logits.double(), labels).item()
    assert MCCLoss("binary")(logits, labels).item() == pytest.approx(exact, rel=1e-5) and 0.3 < exact < 0.8


@pytest.mark.parametrize("label", [0, 1])
def test_truth_of_one_label(label):
    """No correlation there: the mean probability of the wrong label, or nothing."""
    p, labels = torch.tensor([[[[0.1, 0.2, 0.6]]]], requires_grad=True), torch.full((1, 1, 3), label)
    loss = MCCLoss("binary", from_logits=False)(p, labels)
    assert loss.item() == pytest.approx(0.3 if label == 0 else 0.7)
    (gradient,) = torch.autograd.grad(loss, p)
    assert gradient.flatten().tolist() == pytest.approx([1 / 3 if label == 0 else -1 / 3] * 3)
    assert MCCLoss("binary", from_logits=False, empty="skip")(p, labels) == 0
    two = torch.cat([1 - p, p], 1)
    assert MCCLoss("multiclass", from_logits=False)(two, labels).item() == pytest.approx(loss.item())
    assert MCCLoss("multiclass", from_logits=False, empty="skip")(two, labels) == 0


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="eps"):
        MCCLoss("binary", eps=0.0)
    with pytest.raises(ConfigError, match="empty"):
        MCCLoss("binary", empty="formula")  # type: ignore[arg-type]
