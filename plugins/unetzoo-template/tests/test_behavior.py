"""What is our own: numbers that can be told by hand, and that it learns."""

import math

import pytest
import torch

import unetzoo
from unetzoo.training import train


def test_loss_of_even_chances_is_known():
    loss = unetzoo.LOSSES.build("unetzoo-template-loss", epsilon=2.0)
    value = loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    assert value.item() == pytest.approx(math.log(4) + 2.0 * (1 - 1 / 4))


def test_metric_of_even_chances_is_known():
    metric = unetzoo.METRICS.build("unetzoo-template-metric")
    metric.update(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    assert metric.compute()["brier"] == pytest.approx((3 / 4) ** 2 + 3 * (1 / 4) ** 2)


def test_the_recipe_learns(tmp_path):
    result = train("unetzoo-template-demo", out=tmp_path / "run", progress=False)
    assert result.scores["miou"] > 0.6
