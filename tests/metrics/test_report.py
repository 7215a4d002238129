"""Reports agree with the counts, and are legible with 2 classes and with 40."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from unetzoo import METRICS, LabelSpec
from unetzoo.errors import DataError, InputShapeError, LabelRangeError, SizeMismatchError
from unetzoo.metrics import SegmentationMetric
from unetzoo.metrics.figures import class_figure, confusion_figure
from unetzoo.metrics.report import tables


def filled(classes: int, **arguments) -> SegmentationMetric:
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, classes - 1, (2, 20, 30)))  # the last class is nowhere
    predicted = torch.where(torch.from_numpy(rng.random(truth.shape)) < 0.7, truth, truth * 0)
    labels = LabelSpec(tuple(f"class number {k}" for k in range(classes)), groups=arguments.pop("groups", {}))
    metric = SegmentationMetric(labels=labels, **arguments)
    metric.update(predicted, truth)
    return metric


def printed(scores, baseline=None) -> str:
    console = Console(width=200, file=io.StringIO())
    for table in tables(scores, baseline):
        console.print(table)
    return console.file.getvalue()


def test_the_tables_hold_every_score():
    metric = filled(4, groups={"both": (0, 1)}, per_image=True, one_vs_rest=0.5)
    scores = {"val/loss": 0.25, "depth/rmse": 0.5} | metric.compute()
    text = printed(scores)
    assert sum(table.row_count * (len(table.columns) - 1) for table in tables(scores)) >= len(scores)
    lines = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert f"{scores['miou']:.4f}" in lines["miou"] and lines["miou_defined"].split()[-1] == "3"
    assert f"{scores['val/loss']:.4f}" in lines["val/loss"] and "0.5000" in lines["depth/rmse"]
    assert f"{scores['f1/both']:.4f}" in lines["both"] and f"{scores['precision/class number 1']:.4f}" in text
    assert "–" in lines["class number 3"] and "nan" not in text
    assert f"{scores['one_vs_rest/specificity']:.4f}" in lines["one_vs_rest"]
    assert lines["defined"].split()[1:4] == ["3", "3", "3"]
    assert f"{scores['image/iou/class number 0']:.4f}" in lines["class number 0"]


def test_the_baseline_is_in_its_own_column():
    scores, baseline = {"miou": 0.5, "iou/a": 0.25, "f1/a": 0.4}, {"miou": 0.125, "iou/a": 0.0625, "f1/a": 0.1}
    text = printed(scores, baseline)
    assert "0.1250" in text and "0.0625" in text and "0.1000" not in text


def test_other_metrics_have_tables_too():
    metric = METRICS.build("surface", num_classes=3)
    metric.update(torch.zeros(1, 8, 8).long(), torch.zeros(1, 8, 8).long())
    text = printed(metric.compute())
    assert "hausdorff" in text and "invented" in text


@pytest.mark.parametrize("classes", [2, 19, 25, 40, 150])
def test_the_confusion_figure(classes):
    metric = filled(classes)
    figure = confusion_figure(metric.confusion, metric.names)
    axes = figure.axes[0]
    matrix = metric.confusion.double()
    shares = (matrix / matrix.sum(1, keepdim=True)).numpy()
    drawn = np.ma.filled(np.ma.asarray(axes.images[0].get_array()), np.nan)
    assert np.allclose(drawn, shares, equal_nan=True) and np.isnan(drawn[-1]).all()
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    expected = {
        (column, row): f"{100 * share:.0f}" if share >= 0.005 else "<1"
        for (row, column), share in np.ndenumerate(shares)
        if share > 0
    }
    assert texts == (expected if classes <= 25 else {})
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names[0].startswith("class number 0 (") and len(names) == (classes if classes <= 60 else 50)
    width, height = figure.get_size_inches()
    assert 4 < width < 30 and 3 < height < 30


def test_figures_mark_undefined_scores():
    metric = filled(5, groups={"pair": (1, 2)})
    scores = metric.compute()
    figure = class_figure(scores, metric.names, ["pair"])
    axes = figure.axes[0]
    assert axes.get_title() == f"mIoU {scores['miou']:.4f} over 4 of 5 classes"
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("not defined") == 2 and f"{scores['iou/pair']:.3f}" in texts
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [*metric.names, "pair"]
    assert axes.patches[0].get_width() == pytest.approx(scores["iou/class number 0"])


@pytest.mark.parametrize("case", ["multiclass", "binary", "multilabel"])
def test_the_folder(case, tmp_path):
    if case == "multilabel":
        metric = METRICS.build("segmentation", num_classes=3, mode="multilabel")
        metric.update(torch.randint(0, 2, (1, 3, 8, 8)), torch.randint(0, 2, (1, 3, 8, 8)))
    else:
        metric = filled(6 if case == "multiclass" else 2)
    scores = metric.report(tmp_path / "new" / "report")
    folder = tmp_path / "new" / "report"
    assert {path.name for path in folder.iterdir()} == {
        "scores.json", "confusion.json", "confusion.png", "classes.png",
    }  # fmt: skip
    plain = json.loads((folder / "scores.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert plain == {key: None if math.isnan(value) else value for key, value in scores.items()}
    assert torch.equal(SegmentationMetric.load(folder / "confusion.json").confusion, metric.confusion)
    for name in ("confusion.png", "classes.png"):
        with Image.open(folder / name) as image:
            assert min(image.size) > 150 and len(image.convert("L").getcolors()) > 20


def test_the_multilabel_figure_shows_both_rates():
    figure = confusion_figure(torch.tensor([[[90, 10], [1, 3]], [[5, 0], [0, 0]]]), ["a", "b"])
    drawn = np.ma.filled(np.ma.asarray(figure.axes[0].images[0].get_array()), np.nan)
    assert np.allclose(drawn, [[0.75, 0.1], [np.nan, 0.0]], equal_nan=True)


def test_reports_that_cannot_be_written(tmp_path):
    metric = SegmentationMetric(num_classes=2)
    metric.update(torch.tensor([[[0]]]), torch.tensor([[[7]]]))
    with pytest.raises(LabelRangeError):
        metric.report(tmp_path / "report")
    assert not (tmp_path / "report").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError):
        filled(3).report(tmp_path / "file")
    with pytest.raises(InputShapeError):
        confusion_figure(torch.zeros(2, 3), ["a", "b"])
    with pytest.raises(SizeMismatchError):
        confusion_figure(torch.zeros(2, 2), ["a"])
    with pytest.raises(DataError):
        class_figure(filled(3).compute(), ["sky"])


def test_evaluate_reports_a_run(tmp_path, capsys):
    from unetzoo import cli

    sets = [
        "data.size=32", "data.train.length=4", "data.val.length=2", "train.epochs=1", "train.batch_size=2",
        "model.encoder_channels=[4, 8, 8]",
    ]  # fmt: skip
    options = [part for assignment in sets for part in ("--set", assignment)]
    for command in (
        ["train", "demo", "--quiet", "--out", tmp_path / "run", *options],
        ["evaluate", tmp_path / "run", "--report", tmp_path / "report", "--json"],
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(part) for part in command])
        assert not ended.value.code
    scores = json.loads(capsys.readouterr().out.rpartition("\n{")[2].join(("{", "")))
    report = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert report["miou"] == scores["miou"]
    confusion = SegmentationMetric.load(tmp_path / "report" / "confusion.json").confusion
    assert confusion.sum() == 2 * 32 * 32
    assert (tmp_path / "report" / "classes.png").exists()
