"""Cross-validation: pooled scores are those of all held-out predictions; an interrupted one goes on where it was."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import unetzoo
from unetzoo import training
from unetzoo.errors import CheckpointError, CheckpointMismatchError, ConfigError, DataError
from unetzoo.folds import evaluate_folds, pooled, train_folds
from unetzoo.inference import Cleaning, Predictor
from unetzoo.report.compare import compare
from unetzoo.report.runs import read_run

RECIPE = """
[model]
name = "bnunet"
classes = 1
encoder_channels = [4, 8, 8]
[data]
name = "folder"
root = {root}
names = ["background", "square"]
group = "^p(\\\\d+)"
[loss]
bce = 1.0
[metrics]
mask = {{ name = "segmentation" }}
[train]
epochs = 2
batch_size = 4
precision = "fp32"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for index in range(8):
        mask = np.zeros((24, 32), np.uint8)
        y, x = draw.integers(0, 12, 2)
        mask[y : y + 10, x : x + 12] = 1
        image = draw.integers(0, 60, (24, 32, 3)) + 120 * mask[..., None]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"p{index // 2}_{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"p{index // 2}_{index}.png")
    file = root / "recipe.toml"
    file.write_text(RECIPE.format(root=json.dumps(str(root))))
    return file


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "folds"
    return train_folds(recipe, 2, out=folder, progress=False)


def test_pooled_scores_are_those_of_the_pooled_predictions(trained, recipe):
    truth, predicted = [], []
    for path in sorted((recipe.parent / "masks").glob("*.png")):
        (found,) = trained.out.glob(f"fold-*/out-of-fold/{path.name}")  # each image once
        truth.append(np.array(Image.open(path)))
        predicted.append(np.array(Image.open(found)))
    truth, predicted = np.array(truth) > 0, np.array(predicted) > 0
    iou = [(t & p).sum() / (t | p).sum() for t, p in ((truth, predicted), (~truth, ~predicted))]
    assert trained.scores["iou/square"] == pytest.approx(iou[0], abs=1e-12)
    assert trained.scores["miou"] == pytest.approx(sum(iou) / 2, abs=1e-12)
    assert trained.scores["pixels"] == truth.size  # of the sweep that chooses the threshold
    low, high = trained.intervals["miou"]
    assert low <= trained.scores["miou"] <= high


def test_groups_stay_together(trained):
    tables = [trained.out / part / "images.csv" for part in ("fold-1", "fold-2", ".")]
    *halves, rows = (list(csv.DictReader(table.read_text().splitlines())) for table in tables)
    parts = [{row["group"] for row in half} for half in halves]
    assert parts[0] and parts[1] and not parts[0] & parts[1]
    assert len(rows) == 8 and {row["group"] for row in rows} == parts[0] | parts[1]


def test_the_folder_opens_as_an_ensemble(trained, recipe):
    image = np.array(Image.open(recipe.parent / "images" / "p0_0.png"))
    each = [Predictor(unetzoo.load(trained.out / f"fold-{k}")).segment(image).probabilities for k in (1, 2)]
    bundle = unetzoo.load(trained.out)
    result = bundle.predict(image)
    assert torch.allclose(result.probabilities, sum(each) / 2, atol=1e-6)
    known = json.loads((trained.out / "folds.json").read_text())
    assert bundle.threshold == known["threshold"] and bundle.cleaning is (known["cleaning"] or None)


def test_the_ensemble_cleans_as_is_best_for_the_held_out_predictions(trained, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(trained.out, folder)
    for number in (1, 2):
        file = folder / f"fold-{number}" / "out-of-fold.json"
        content = json.loads(file.read_text())
        content["cleanups"] = [[[5, 3, 0]], [[5, 2, 0]], [[5, 0, 0]], [[5, 1, 0]], [[5, 9, 0]], [[5, 2, 0]]]
        file.write_text(json.dumps(content))
    assert unetzoo.load(folder).cleaning == Cleaning(min_area=256)


def test_more_folds_than_groups_leave_nothing_behind(recipe, tmp_path):
    with pytest.raises(DataError):
        train_folds(recipe, 7, out=tmp_path / "folds", progress=False)
    assert not (tmp_path / "folds").exists()


def test_compare_reads_the_whole_set(trained):
    (standing,) = compare([read_run(trained.out)], "miou").standings
    assert standing.best == trained.scores["miou"] and standing.interval is not None and standing.run.finished


def test_a_class_that_a_fold_does_not_validate_is_undefined_in_it(trained, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(trained.out, folder)
    file = folder / "fold-1" / "out-of-fold.json"
    content = json.loads(file.read_text())
    for counts in content["images"]["counts"]:
        counts[1][0] = counts[1][2] = 0  # no pixel of the class in the truth
    file.write_text(json.dumps(content))
    result = pooled(folder)
    assert result.absent == {1: ("square",)} and not trained.absent
    assert math.isnan(result.by_fold[1]["iou/square"]) and result.by_fold[1]["iou/background"] >= 0
    assert result.spread("iou/square")[0] == trained.by_fold[2]["iou/square"]
    assert result.scores == pytest.approx(trained.scores, abs=0, nan_ok=True)


def test_the_ensemble_is_scored_on_other_images_only(trained, recipe, tmp_path):
    with pytest.raises(ConfigError) as caught:
        evaluate_folds(trained.out, [], progress=False)
    assert "scores.json" in caught.value.hint
    for kind in ("images", "masks"):
        shutil.copytree(recipe.parent / kind, tmp_path / "test" / kind)
    sets = [f"data.val.root={json.dumps(str(tmp_path))}", "data.val.split=test", "data.val.group="]
    assert 0 <= evaluate_folds(trained.out, sets, progress=False)["miou"] <= 1


def test_folds_one_at_a_time(trained, recipe, tmp_path):
    with pytest.raises(DataError):  # more folds than groups; the folder remains usable
        train_folds(recipe, 9, out=tmp_path / "set", progress=False)
    first = train_folds(recipe, 2, only=2, out=tmp_path / "set", progress=False)
    assert first.missing == (1,) and not first.scores and 2 in first.by_fold
    with pytest.raises(CheckpointError, match="fold-1"):
        unetzoo.load(tmp_path / "set")
    with pytest.raises(CheckpointMismatchError):
        train_folds(recipe, 2, ["optimizer.lr=0.5"], only=1, out=tmp_path / "set", progress=False)
    last = train_folds(recipe, 2, only=1, out=tmp_path / "set", progress=False)
    assert not last.missing and last.scores == pytest.approx(trained.scores, abs=0, nan_ok=True)


def test_an_interrupted_set_goes_on_where_it_was(trained, recipe, tmp_path, monkeypatch):
    class Stop(training.Callback):
        def on_step(self, trainer, samples):
            if trainer.steps == 2 and "fold-2" in str(trainer.out):
                raise KeyboardInterrupt

    folder = tmp_path / "set"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.run, "make_callbacks", lambda recipe, key: [Stop()] if key == "callbacks" else [])
        train_folds(recipe, 2, out=folder, progress=False)
    before = (folder / "fold-1" / "metrics.jsonl").stat().st_mtime_ns
    with pytest.raises(ConfigError) as caught:
        train_folds(recipe, 2, out=folder, progress=False)
    assert "--resume" in caught.value.hint
    again = train_folds(folder, 2, progress=False, resume=True)
    assert (folder / "fold-1" / "metrics.jsonl").stat().st_mtime_ns == before  # not trained again
    assert again.scores == pytest.approx(trained.scores, abs=0, nan_ok=True)


def test_mistakes(trained, recipe, tmp_path):
    for source, folds, error in ((recipe, 1, ConfigError), (recipe, 9, DataError), ("demo", 2, ConfigError)):
        with pytest.raises(error):
            train_folds(source, folds, out=tmp_path / "set", progress=False)
    with pytest.raises(ConfigError):
        train_folds(recipe, 3, out=trained.out, resume=True, progress=False)
    with pytest.raises(ConfigError):
        train_folds(recipe, 2, out=trained.out / "fold-1", progress=False)
    with pytest.raises(ConfigError):
        training.train(recipe, out=trained.out, resume=True, progress=False)
    with pytest.raises(ConfigError):
        pooled(tmp_path)
    file = trained.out / "fold-1" / "out-of-fold.json"
    text = file.read_text()
    file.write_text(text[:100])
    with pytest.raises(CheckpointError):
        unetzoo.load(trained.out)
    file.write_text(text)
