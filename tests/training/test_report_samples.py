"""Samples beside their predictions: which are shown, and how."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from unetzoo import METRICS, LabelSpec
from unetzoo.models import MaskDepth
from unetzoo.report import images, samples
from unetzoo.report.gallery import First, Gallery, Ranked, mean_iou
from unetzoo.report.samples import Sample, thinned


def batch_of(truth, logits, **more):
    return {
        "image": torch.rand(len(truth), 3, *truth.shape[-2:]),
        "mask": truth,
        "id": [f"p{n}" for n in range(len(truth))],
    } | more


def test_the_best_and_the_worst_are_those_of_scikit_learn():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (15, 8, 8), generator=rng)
    logits = torch.nn.functional.one_hot(truth, 4).permute(0, 3, 1, 2).float()
    logits += torch.linspace(0, 3, 15)[:, None, None, None] * torch.randn(15, 4, 8, 8, generator=rng)
    truth[3] = 255  # nothing to score
    truth[4, :4] = 255
    metric = METRICS.build("segmentation", labels=LabelSpec(tuple("abcd"), ignore_index=255), empty=1)
    metric.update(logits, truth)
    before = metric.confusion.clone()
    ranked = Ranked("mask", metric, most=3)
    for part in range(0, 15, 4):
        cut = slice(part, part + 4)
        batch = batch_of(truth[cut], logits[cut]) | {"id": [f"p{n}" for n in range(15)][cut]}
        ranked.add(logits[cut], batch)
    assert torch.equal(metric.confusion, before)
    scores = {}
    for index in (n for n in range(15) if n != 3):
        kept = (truth[index] != 255).numpy()
        t, p = truth[index].numpy()[kept], logits[index].argmax(0).numpy()[kept]
        scores[f"p{index}"] = jaccard_score(t, p, labels=np.union1d(t, p), average="macro")
    order = sorted(scores, key=lambda name: -scores[name])
    assert [s.name for s in ranked.best] == order[:3]
    assert [s.name for s in ranked.worst] == order[:-4:-1]
    assert [s.score for s in ranked.best] == pytest.approx([scores[name] for name in order[:3]])


def test_planes_are_ranked_by_the_error_where_they_are_valid():
    rng = np.random.default_rng(0)
    true = rng.random((9, 1, 6, 6)).astype(np.float32)
    predicted = true + rng.random((9, 1, 1, 1)).astype(np.float32) * rng.standard_normal(true.shape).astype(np.float32)
    valid = rng.random((9, 6, 6)) > 0.4
    valid[2] = False
    predicted[:, 0][~valid] = 99.0
    error = [
        math.sqrt(np.mean((predicted[n, 0] - true[n, 0]).astype(float)[valid[n]] ** 2)) for n in range(9) if n != 2
    ]
    names = [f"p{n}" for n in range(9) if n != 2]
    tensors = torch.from_numpy(true), torch.from_numpy(predicted), torch.from_numpy(valid)
    output = MaskDepth(torch.zeros(9, 1, 6, 6), tensors[1])
    batch = batch_of(torch.zeros(9, 6, 6, dtype=torch.int64), None, depth=tensors[0], valid=tensors[2])
    gallery = Gallery(LabelSpec(("no", "yes")), {})
    gallery.add(output, batch)
    gallery.gather()
    ranked = gallery.ranked["depth"]
    order = [names[n] for n in np.argsort(error)]
    assert [s.name for s in ranked.best] + [s.name for s in ranked.worst[::-1]] == order
    assert ranked.best[0].score == pytest.approx(min(error), rel=1e-5)
    best = ranked.best[0]
    assert list(best.planes) == ["depth"] and best.masks == {}
    number = int(best.name[1:])
    assert np.array_equal(np.isnan(best.planes["depth"][0]), ~valid[number])


@pytest.mark.parametrize("count", range(10))
def test_few_samples_are_shown_once(count):
    ranked = Ranked("depth", most=3)
    ranked.keep([Sample(str(n), {}, score=float(n)) for n in range(count)])
    assert len(ranked.best) <= 3 and len(ranked.worst) <= 3
    names = [s.name for s in (*ranked.best, *ranked.worst)]
    assert len(set(names)) == len(names) == min(count, 6)
    if count:
        assert names[0] == "0"
    if count > 1:
        assert ranked.worst[0].name == str(count - 1)


def test_mean_iou_of_several_labels():
    assert mean_iou(np.array([[[1, 1], [1, 1]], [[4, 0], [0, 0]], [[0, 0], [0, 4]]])) == pytest.approx((1 / 3 + 1) / 2)
    assert math.isnan(mean_iou(np.zeros((3, 3))))


def test_masks_in_their_colors():
    labels = LabelSpec(("a", "b", "c"), palette=((9, 9, 9), (1, 2, 3), (4, 5, 6)), ignore_index=-1)
    mask = np.array([[0, 1, 2, -1, 3]], np.int64)
    assert images.colored(mask, labels)[0].tolist() == [[9, 9, 9], [1, 2, 3], [4, 5, 6], [128] * 3, [128] * 3]
    assert images.colored(mask.clip(0, 255).astype(np.uint8), labels)[0, 2].tolist() == [4, 5, 6]
    planes = np.array([[[1, 0, 0]], [[0, 1, 0]], [[0, 1, 255]]])
    assert images.colored(planes, labels)[0].tolist() == [[9, 9, 9], [4, 5, 6], [128] * 3]
    one = LabelSpec(("cell",))
    assert images.colored(np.array([[0, 1]]), one)[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_planes_share_one_scale_and_nonfinite_values_are_gray():
    true, predicted = np.array([[0.0, np.nan, 2.0]]), np.array([[1.0, 4.0, np.inf]])
    limits = images.limits_of(true, predicted)
    assert limits == pytest.approx((0.0, 4.0), abs=0.05)
    shown = images.scaled(true, limits)
    assert shown[0, 1].tolist() == [128] * 3 and images.scaled(predicted, limits)[0, 2].tolist() == [128] * 3
    assert images.limits_of(np.full((2, 2), 0.5)) == (0.5, 1.5)
    assert images.limits_of(np.full((2, 2), np.nan)) == (0.0, 1.0)


def test_large_images_become_small_ones_without_new_classes():
    rng = np.random.default_rng(0)
    mask = rng.choice([0, 7, 255], (900, 600))
    small = thinned(mask, 100)
    assert small.shape == (100, 67) and set(np.unique(small)) == {0, 7, 255}
    assert thinned(mask[:50, :50], 100) is not None and np.array_equal(thinned(mask[:50, :50], 100), mask[:50, :50])
    assert thinned(np.zeros((3, 1, 5000)), 100).shape == (3, 1, 100)
    assert images.shrunk(np.zeros((900, 600, 3), np.uint8), 100, smooth=True).shape == (100, 67, 3)


def test_the_first_samples_get_separate_files(tmp_path):
    truth = torch.zeros(5, 6, 7, dtype=torch.int64)
    batch = batch_of(truth, None) | {"id": ["a/b", "a:b", "A_b", "../../etc/passwd", "x" * 300]}
    first = First(4)
    first.add(torch.randn(5, 2, 6, 7), batch)
    first.add(torch.randn(5, 2, 6, 7), batch)
    first.write(tmp_path / "predictions", LabelSpec(("no", "yes")))
    names = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert len(names) == 8 and len({name.lower() for name in names}) == 8 and "_.._etc_passwd.png" in names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions", "predictions.png"]


@pytest.mark.parametrize(("size", "step"), [(20, 1), (12, 1), (10, 2), (7, 2)])
def test_the_overlay_covers_the_pixels_of_the_output(size, step):
    image = np.arange(20 * 20 * 3, dtype=np.uint16).reshape(20, 20, 3)
    ground = samples.covered(image, (size, size), step)
    first = (20 - size * step) // 2
    assert ground.shape == (size, size, 3)
    assert np.array_equal(ground[0, 0], image[first, first]) and np.array_equal(
        ground[1, 1], image[first + step, first + step]
    )
    assert samples.covered(image, (21, 21), 1) is None


def test_an_overlay_blends_halves_and_keeps_the_background():
    image = np.full((1, 2, 3), 100, np.uint8)
    shown = images.overlaid(image, np.array([[[0, 0, 0], [200, 0, 50]]], np.uint8))
    assert shown.tolist() == [[[100, 100, 100], [150, 50, 75]]]


def test_a_sample_has_its_overlay():
    truth = torch.zeros(1, 6, 6, dtype=torch.int64)
    first = First(1)
    first.add(torch.randn(1, 2, 6, 6), batch_of(truth, None) | {"image": torch.rand(1, 3, 10, 10)})
    panels = first.samples[0].panels(LabelSpec(("no", "yes")))
    assert list(panels) == ["input", "truth", "prediction", "prediction on input"]
    assert panels["prediction on input"].shape == (6, 6, 3)
