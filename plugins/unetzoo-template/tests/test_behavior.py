"""Values computed by hand, and a short training run."""

import math

import pytest
import torch

import unetzoo
from unetzoo.doctor import audit, recognize
from unetzoo.training import train
from unetzoo.twins import FAULTS, LAYOUTS, plant, write


def test_loss_of_uniform_probabilities():
    loss = unetzoo.LOSSES.build("unetzoo-template-loss", epsilon=2.0)
    value = loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    assert value.item() == pytest.approx(math.log(4) + 2.0 * (1 - 1 / 4))


def test_metric_of_uniform_probabilities():
    metric = unetzoo.METRICS.build("unetzoo-template-metric")
    metric.update(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    assert metric.compute()["brier"] == pytest.approx((3 / 4) ** 2 + 3 * (1 / 4) ** 2)


def test_the_recipe_learns(tmp_path):
    root = write("unetzoo-template-data", tmp_path / "shapes", count=240, size=48)
    result = train("unetzoo-template-demo", [f"data.root={root}"], out=tmp_path / "run", progress=False)
    assert result.scores["miou"] > 0.6


def test_the_doctor_finds_sound_data_sound_and_every_fault(tmp_path):
    name = "unetzoo-template-data"
    layout = LAYOUTS[name]
    root = write(name, tmp_path / "sound", count=10)
    report = audit(root, layout.dataset)
    assert not report.errors and not report.warnings and report.samples == 10
    assert recognize(root)[0][0] == layout.dataset
    faults = [code for code, fault in FAULTS.items() if name in fault.layouts and code != "no-permission"]
    assert len(faults) > 20
    for code in faults:
        plant(write(name, tmp_path / code, count=10), name, code)
        report = audit(tmp_path / code, layout.dataset)
        assert code in report.codes, code
        assert not {finding.code for finding in (*report.errors, *report.warnings)} - {code}, code
