"""Scores of every image, and intervals of the scores of all images."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.metrics import jaccard_score
from test_report import check, rows

from unetzoo import METRICS, LabelSpec, training
from unetzoo.datasets import Folder
from unetzoo.errors import DataError
from unetzoo.report.gallery import Gallery
from unetzoo.report.image_scores import ImageScores, class_scores, counts_of, grouped, interval, mean
from unetzoo.training.data import declared_groups
from unetzoo.training.run import Report


def draw(rng, images):
    """Counts (images, 2, 3) of images whose objects differ in size and are found more or less completely."""
    size, share = rng.gamma(2, 200, images) + 20, rng.beta(6, 1.5, images)
    right = np.rint(size * share)
    missed, invented = np.rint(size) - right, np.rint(size * (1 - share) * rng.random(images))
    rest = 4096 - right - missed - invented
    return np.stack([np.stack([rest, missed, invented], -1), np.stack([right, invented, missed], -1)], 1)


def foreground(counts):
    return class_scores(counts)[0][..., 1:]


@pytest.mark.parametrize("images", [50, 100])
def test_intervals_cover_the_truth_in_93_percent_of_500_cases(images):
    rng = np.random.default_rng(0)
    truth = foreground(draw(rng, 1_000_000).sum(0))[0]
    ends = [interval(draw(rng, images), foreground, resamples=500, seed=case) for case in range(500)]
    low, high = np.array(ends)[..., 0].T
    assert np.mean((low <= truth) & (truth <= high)) >= 0.93
    assert np.mean(truth < low) > 0.005 and np.mean(truth > high) > 0.005  # not merely wide
    assert np.mean(high - low) < 0.2


def test_groups_are_resampled_together():
    rng = np.random.default_rng(1)
    counts = np.repeat(draw(rng, 30), 8, axis=0).astype(np.int64)  # eight equal images of each of 30 patients
    names = [f"{n:03d}" for n in range(240)]
    patients = [f"p{n // 8:02d}" for n in range(240)]
    alone = ImageScores(names, "ab", counts).intervals()["iou/b"]
    together = ImageScores(names, "ab", counts, patients)
    low, high = together.intervals()["iou/b"]
    assert 2 < (high - low) / (alone[1] - alone[0]) < 4  # about √8
    assert together.units == 30 and not together.warning
    assert (low, high) == ImageScores(names[::8], "ab", counts[::8]).intervals()["iou/b"]


def test_the_interval_agrees_with_scipy():
    counts = draw(np.random.default_rng(2), 60)
    reference = stats.bootstrap(
        (np.arange(60),), lambda index, axis=-1: foreground(counts[index].sum(-3))[..., 0], vectorized=True,
        random_state=np.random.default_rng(3), n_resamples=4000,
    ).confidence_interval  # fmt: skip
    low, high = interval(counts, foreground, resamples=4000)
    width = reference.high - reference.low
    assert [low[0], high[0]] == pytest.approx([reference.low, reference.high], abs=0.08 * width)
    assert high[0] - low[0] > 0.98 * width


def test_undefined_scores_and_few_images():
    counts = draw(np.random.default_rng(4), 19).astype(np.int64)
    counts = np.concatenate([counts, np.zeros_like(counts[:, :1])], 1)  # a class that never occurs
    scores = ImageScores([f"{n}" for n in range(19)], "abc", counts)
    ends = scores.intervals()
    assert np.isnan(ends["iou/c"]).all() and np.isfinite(ends["miou"]).all()
    assert "19 images" in scores.warning
    assert np.isnan(ImageScores(["0"], "abc", counts[:1]).intervals()["miou"]).all()
    counted = ImageScores([f"{n}" for n in range(19)], "abc", counts, empty=1.0).intervals()
    assert counted["iou/c"] == (1, 1)
    assert counted["miou"] == pytest.approx([(2 * end + 1) / 3 for end in ends["miou"]])
    two = ImageScores([f"{n}" for n in range(19)], "abc", counts, ["left"] * 9 + ["right"] * 10)
    assert "2 groups" in two.warning


@pytest.mark.parametrize("multilabel", [False, True])
def test_counts_of_images_are_those_of_scikit_learn_and_sum_to_the_metric(multilabel):
    rng = torch.Generator().manual_seed(0)
    shape = (7, 3, 8, 8) if multilabel else (7, 8, 8)
    truth = torch.randint(0, 2 if multilabel else 3, shape, generator=rng)
    logits = torch.randn(7, 3, 8, 8, generator=rng)
    labels = LabelSpec(tuple("abc"), ignore_index=255)
    truth[2] = 255  # nothing to score
    metric = METRICS.build("segmentation", labels=labels, mode="multilabel" if multilabel else None)
    metric.update(logits, truth)
    gallery = Gallery(labels, {"mask": metric})
    for part in range(0, 7, 3):
        cut = slice(part, part + 3)
        ids = [f"p{n}" for n in range(7)][cut]
        batch = {"image": torch.rand(len(ids), 3, 8, 8), "mask": truth[cut], "id": ids}
        gallery.add(logits[cut], batch)
    scores = gallery.image_scores({})
    assert np.array_equal(scores.counts.sum(0), counts_of(metric.confusion.numpy()))
    total = metric.compute()
    assert mean(class_scores(scores.counts.sum(0))[0]) == pytest.approx(total["miou"], abs=1e-12)
    predicted = (logits > 0).long() if multilabel else logits.argmax(1)
    found = {row["name"]: row for row in scores.rows()}
    for index in (0, 6):
        t, p = truth[index], predicted[index]
        pairs = zip(t, p, strict=True) if multilabel else ((t == k, p == k) for k in range(3))
        ious = [jaccard_score(a.flatten().int(), b.flatten().int()) for a, b in pairs]
        assert [found[f"p{index}"][f"iou/{name}"] for name in "abc"] == pytest.approx(ious)
        assert found[f"p{index}"]["miou"] == pytest.approx(np.mean(ious))
    assert scores.rows()[-1]["name"] == "p2" and np.isnan(scores.rows()[-1]["miou"])
    mious = [row["miou"] for row in scores.rows()[:-1]]
    assert mious == sorted(mious)


def test_sums_over_groups():
    sums = grouped(np.array([[1, 2], [3, 4], [5, 6]]), ["b", "a", "b"])
    assert sums.tolist() == [[3, 4], [6, 8]]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Six patients with two images each."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for name in (f"{patient}_{side}" for patient in range(6) for side in ("left", "right")):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(root / "images" / f"{name}.png")
        Image.fromarray(rng.integers(0, 2, (16, 16), np.uint8)).save(root / "masks" / f"{name}.png")
    return root


@pytest.mark.parametrize("cache", [False, True])
def test_a_run_writes_the_scores_of_every_image_by_group(cells, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "cells.toml"
    recipe.write_text(f"""
        [model]
        name = "bnunet"
        classes = 2
        encoder_channels = [4, 8, 8]
        [data]
        name = "folder"
        root = "{cells.as_posix()}"
        names = ["background", "cell"]
        group = '^(\\d+)_'
        val_fraction = 0.5
        cache = {str(cache).lower()}
        [loss]
        ce = 1.0
        [train]
        epochs = 1
        batch_size = 2
    """)
    run = training.train(recipe, out=tmp_path / "run", progress=False)
    with (run.out / "images.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6
    assert all(line["name"].startswith(line["group"] + "_") for line in lines)
    mious = [float(line["miou"]) for line in lines]
    assert mious == sorted(mious)
    parsed = check((run.out / "report.html").read_text(encoding="utf-8"))
    head, *cells_of = rows(parsed, "Scores")
    assert head[-1] == "95% interval"
    shown = next(row for row in cells_of if row[0] == "miou")
    low, high = map(float, shown[-1].split(" … "))
    assert low <= run.scores["miou"] <= high
    assert "3 groups of images" in parsed.text  # below 20, an interval is unreliable


def test_a_wrong_group_is_found_before_training(cells, tmp_path):
    data = Folder(cells, None, names=["background", "cell"], group="^([a-z]+)_")  # all images; nothing is divided
    with pytest.raises(DataError) as caught:
        Report(training.recipe.load("demo"), data, "")
    assert caught.value.subject == cells


def test_datasets_of_others_may_have_attributes_of_these_names():
    class Other:
        groups, source = ["a", "b"], "a file"

    assert declared_groups(Other()) == {}
