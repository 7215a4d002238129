"""Metrics that are not computed after every epoch."""

import csv

import pytest
import torch
from refusals import refused
from test_trainer import Squares, make

from unetzoo import METRICS, training
from unetzoo.errors import ConfigError
from unetzoo.training import Every

DEMO = ["data.size=32", "data.train.length=4", "data.val.length=2", "train.batch_size=2",
        "model.encoder_channels=[4, 8, 8]"]  # fmt: skip


def segmentation():
    return METRICS.build("segmentation", labels=Squares.labels)


def surface():
    return METRICS.build("surface", labels=Squares.labels)


@pytest.mark.parametrize(("every", "epochs"), [(2, [2, 4, 5]), (1, [1, 2, 3, 4, 5]), (9, [5]), ("end", [])])
def test_they_are_computed_when_due_and_by_evaluate(every, epochs):
    trainer = make(metrics=[segmentation(), Every(surface(), every)], epochs=5)
    val = Squares(4, seed=1)
    history = trainer.fit(Squares(), val)
    assert [int(row["epoch"]) for row in history if "hd95" in row] == epochs
    assert all("miou" in row for row in history) and trainer.monitor == "miou"
    scores = trainer.evaluate(val)
    assert "hd95" in scores
    if epochs:
        assert scores["hd95"] == pytest.approx(history[-1]["hd95"])  # nothing of other epochs is counted


def test_alone_or_of_torchmetrics():
    class Counted(torch.nn.Module):
        updates = 0

        def update(self, output, target):
            self.updates += 1

        def compute(self):
            return {"updates": float(self.updates)}

        def reset(self):
            self.updates = 0

    history = make(metrics={"mask": Every(Counted(), 2)}, epochs=3).fit(Squares(), Squares(4))
    assert [row.get("updates") for row in history] == [None, 1.0, 1.0]
    torchmetrics = pytest.importorskip("torchmetrics")
    jaccard = torchmetrics.JaccardIndex("multiclass", num_classes=2)
    history = make(metrics=[segmentation(), Every(jaccard, 2)], epochs=2).fit(Squares(), Squares(4))
    assert ["multiclassjaccardindex" in row for row in history] == [False, True]
    assert history[1]["multiclassjaccardindex"] == pytest.approx(history[1]["miou"], abs=1e-6)


def test_their_scores_cannot_be_monitored():
    with refused(ConfigError, hint="miou") as caught:
        make(metrics=[segmentation(), Every(surface(), 2)], monitor="hd95", mode="min").fit(Squares(), Squares(4))
    assert "hd95" not in caught.value.hint


def test_a_recipe_says_when(tmp_path):
    metrics = 'metrics.mask=[{name="segmentation"}, {name="surface", every=2}, {name="instances", every="end"}]'
    result = training.train("demo", [*DEMO, metrics, "train.epochs=3"], out=tmp_path / "run", progress=False)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert [bool(row["hd95"]) for row in rows] == [False, True, True]
    assert {"hd95", "pq"} <= {*result.scores} and "pq" not in rows[0]
    recipe = training.load_recipe(tmp_path / "run")
    assert [metric.every for metric in recipe.metrics_of("mask")] == [None, 2, "end"]
    for wrong in ("0", '"never"', "1.5"):
        with refused(ConfigError, found="every"):
            training.load_recipe("demo", [f'metrics.mask={{name="surface", every={wrong}}}'])
