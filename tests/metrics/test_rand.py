"""Rand scores against scikit-image, scikit-learn and every pair of pixels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from skimage.measure import label as skimage_label
from skimage.metrics import adapted_rand_error, variation_of_information
from sklearn.metrics import rand_score

from unetzoo import METRICS, LabelSpec
from unetzoo.errors import ConfigError, InputShapeError, LabelRangeError, NonFiniteError, SizeMismatchError
from unetzoo.metrics import RandMetric
from unetzoo.metrics.rand import objects, pairs_of, thinned

CELLS = LabelSpec(("membrane", "cell"))


def masks(seed: int, size=(12, 13)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(size) < 0.7
    return np.where(rng.random(size) < 0.9, truth, ~truth), truth


def scored(predicted: np.ndarray, truth: np.ndarray, **arguments) -> dict[str, float]:
    metric = RandMetric(labels=CELLS, **arguments)
    metric.update(torch.from_numpy(predicted.astype(np.int64))[None], torch.from_numpy(truth.astype(np.int64))[None])
    return metric.compute()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), connectivity=st.sampled_from((1, 2)))
def test_the_adapted_rand_error_is_scikit_images(seed, connectivity):
    predicted, truth = masks(seed)
    numbered = [skimage_label(mask, connectivity=connectivity) for mask in (truth, predicted)]
    error, *_ = adapted_rand_error(*numbered)
    scores = scored(predicted, truth, connectivity=connectivity, predicted_boundary="object")
    assert scores["rand_error"] == pytest.approx(error) and scores["rand_f"] == pytest.approx(1 - error)
    # Boundary pixels of the prediction as separate objects.
    apart = numbered[1].copy()
    apart[apart == 0] = apart.max() + 1 + np.arange((apart == 0).sum())
    error, precision, recall = adapted_rand_error(numbered[0], apart)
    scores = scored(predicted, truth, connectivity=connectivity)
    assert scores["rand_error"] == pytest.approx(error)
    assert scores["rand_split"] == pytest.approx(precision) and scores["rand_merge"] == pytest.approx(recall)
    counted = truth.flatten()
    assert scores["rand_index"] == pytest.approx(rand_score(numbered[0].flatten()[counted], apart.flatten()[counted]))
    assert scores["pixel_error"] == pytest.approx((predicted != truth).mean())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), boundary=st.sampled_from(("single", "object")))
def test_pairs_one_by_one(seed, boundary):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 4, 15), rng.integers(0, 4, 15)

    def together(labels, i, j):
        return labels[i] == labels[j] and (labels[i] > 0 or boundary == "object")

    pairs = list(itertools.combinations(np.flatnonzero(truth), 2))
    true = [truth[i] == truth[j] for i, j in pairs]
    said = [together(predicted, i, j) for i, j in pairs]
    expected = (sum(t and s for t, s in zip(true, said, strict=True)), sum(true), sum(said), len(pairs))
    assert pairs_of(truth, predicted, predicted_boundary=boundary) == expected


def test_the_thickness_of_boundaries_costs_nothing_but_gaps_do():
    truth = np.ones((9, 21), bool)
    truth[:, 10] = False
    thick, gap = truth.copy(), truth.copy()
    thick[:, 9] = False
    gap[4, 10] = True
    assert scored(truth, truth)["rand_f"] == 1
    thin = np.ones((9, 21), bool)
    thin[:, 10] = False
    wide_truth = truth.copy()
    wide_truth[:, 9:12] = False
    assert scored(thin, wide_truth)["rand_f"] == 1 and scored(thin, wide_truth)["pixel_error"] == pytest.approx(
        18 / 189
    )
    assert 0.8 < scored(thick, truth)["rand_f"] < 1  # nine pixels became separate objects
    scores = scored(gap, truth)
    assert scores["pixel_error"] == pytest.approx(1 / 189)
    assert scores["rand_split"] == 1 and scores["rand_merge"] == pytest.approx(2 * 90 * 89 / (180 * 179))


def test_which_class_the_objects_are():
    """The same image, once with objects as class 1 and once as class 0, at the same probability of an object."""
    truth = torch.from_numpy(masks(0)[1].astype(np.int64))[None]
    logits = torch.randn(1, 1, *truth.shape[1:], generator=torch.Generator().manual_seed(0)) + truth
    one, zero = RandMetric(num_classes=1, thresholds=(0.3,)), RandMetric(num_classes=1, foreground=0, thresholds=(0.3,))
    one.update(logits, truth)
    zero.update(-logits, 1 - truth)
    assert zero.compute() == one.compute()
    hidden = RandMetric(num_classes=1, ignore_index=1)  # nothing is left to count
    hidden.update(logits, truth)
    assert math.isnan(hidden.compute()["rand_f"])


def test_the_best_threshold():
    rng = np.random.default_rng(0)
    truth = torch.from_numpy((rng.random((3, 16, 17)) < 0.8).astype(np.int64))
    logits = torch.from_numpy(rng.normal(size=(3, 1, 16, 17))) + 2.0 * truth[:, None] - 0.3
    thresholds = (0.2, 0.35, 0.5, 0.65, 0.8)
    metric = METRICS.build("rand", labels=CELLS, thresholds=thresholds)
    metric.update(logits[:1], truth[:1])
    metric.update(logits[1:], truth[1:])
    scores = metric.compute()
    singles, images = [], []
    for threshold in thresholds:
        one = RandMetric(labels=CELLS, thresholds=(threshold,))
        one.update(logits, truth)
        singles.append(one.compute())
        each = []
        for image in range(3):
            alone = RandMetric(labels=CELLS, thresholds=(threshold,))
            alone.update(logits[image : image + 1], truth[image : image + 1])
            each.append(alone.compute()["rand_f"])
        images.append(np.mean(each))
    best = max(range(5), key=lambda index: singles[index]["rand_f"])
    assert scores["rand_threshold"] == thresholds[best] and scores["rand_f"] == singles[best]["rand_f"]
    assert scores["rand_index"] == singles[best]["rand_index"] and scores["rand_split"] == singles[best]["rand_split"]
    assert scores["image/rand_f"] == pytest.approx(images[best])
    errors = [single["pixel_error"] for single in singles]
    assert scores["pixel_error"] == min(errors) and scores["pixel_threshold"] == thresholds[int(np.argmin(errors))]


def test_pairs_add_up_over_images():
    truth = np.ones((2, 4, 5), bool)
    truth[0, :, 2] = False
    predicted = np.ones((2, 4, 5), bool)
    metric = RandMetric(labels=CELLS)
    metric.update(torch.from_numpy(predicted.astype(int)), torch.from_numpy(truth.astype(int)))
    both, said = 2 * 28 + 190, 120 + 190  # 8 and 8 of 16 pixels; 20 of 20
    assert metric.compute()["rand_f"] == pytest.approx(2 * both / (both + said))


def test_ignored_pixels_do_not_count():
    predicted, truth = masks(3)
    target = torch.from_numpy(truth.astype(np.int64))[None]
    target[0, :, 6] = 255
    metric = RandMetric(labels=CELLS, ignore_index=255)
    metric.update(torch.from_numpy(predicted.astype(np.int64))[None], target)
    kept = target[0].numpy() != 255
    numbered = objects(truth & kept) * kept
    both = pairs_of(numbered, objects(predicted & kept))
    assert metric.compute()["rand_f"] == both.f
    assert metric.compute()["pixel_error"] == pytest.approx((predicted != truth)[kept].mean())


@pytest.mark.parametrize("said", [0, 1])
def test_ignored_pixels_part_the_objects_of_a_prediction(said):
    truth = torch.tensor([[[1, 1, 255, 1, 1]]])
    metric = RandMetric(labels=CELLS, ignore_index=255)
    metric.update(torch.tensor([[[1, 1, said, 1, 1]]]), truth)
    assert metric.compute()["rand_f"] == 1


def test_where_no_pixels_are_together():
    scores = scored(np.zeros((4, 4), bool), np.zeros((4, 4), bool))
    assert math.isnan(scores["rand_f"]) and math.isnan(scores["image/rand_f"]) and scores["pixel_error"] == 0
    missed = scored(np.zeros((4, 4), bool), np.ones((4, 4), bool))
    assert missed["rand_f"] == 0 and missed["rand_error"] == 1 and math.isnan(missed["rand_merge"])
    assert all(math.isnan(v) for k, v in RandMetric(num_classes=1).compute().items() if "threshold" not in k)


def test_wrong_inputs_are_errors():
    truth = torch.zeros(1, 5, 5, dtype=torch.long)
    metric = RandMetric(num_classes=1)
    for error, output, target in (
        (LabelRangeError, truth, truth + 255),
        (NonFiniteError, torch.full((1, 1, 5, 5), math.nan), truth),
        (InputShapeError, torch.zeros(1, 3, 5, 5), truth),
        (SizeMismatchError, truth, truth[:, :2]),
    ):
        with pytest.raises(error):
            metric.update(output, target)
    with pytest.raises(InputShapeError, match="logits"):
        RandMetric(num_classes=1, thresholds=(0.4, 0.5)).update(truth, truth)
    for arguments in (
        {"num_classes": 3}, {"labels": LabelSpec(("a", "b", "c"))}, {"foreground": 2}, {"connectivity": 4},
        {"thresholds": ()}, {"thresholds": (0.5, 1.0)}, {"predicted_boundary": "none"},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            RandMetric(**arguments)


def test_the_default_device_does_not_matter():
    """As inside `with torch.device("meta")`, in which others build large networks."""
    logits, truth = torch.tensor([[[[2.0, -2.0, 2.0]]]]), torch.tensor([[[1, 0, 1]]])
    plain, inside = METRICS.build("rand"), METRICS.build("rand")
    plain.update(logits, truth)
    with torch.device("meta"):
        inside.update(logits, truth)
        assert inside.compute() == pytest.approx(plain.compute(), nan_ok=True)


def published_information(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """V_info, split and merge score as published, from the joint distribution over true foreground pixels."""
    joint = np.zeros((truth.max() + 1, predicted.max() + 1))
    np.add.at(joint, (truth[truth > 0], predicted[truth > 0]), 1)
    joint /= joint.sum()
    true, guess = joint.sum(1), joint.sum(0)
    entropies = [-sum(p * math.log(p) for p in part if p > 0) for part in (true, guess)]
    mutual = sum(p * math.log(p / (true[i] * guess[j])) for (i, j), p in np.ndenumerate(joint) if p > 0)
    return mutual / (0.5 * sum(entropies)), mutual / entropies[1], mutual / entropies[0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), thin=st.booleans())
def test_the_information_score_as_published_and_in_scikit_image(seed, thin):
    predicted, truth = masks(seed)
    true, guess = (skimage_label(mask, connectivity=1) for mask in (truth, predicted))
    if thin:
        guess = thinned(guess)
    else:
        guess[guess == 0] = guess.max() + 1 + np.arange((guess == 0).sum())
    assume(all(len(np.unique(part[truth])) > 1 for part in (true, guess)))
    scores = scored(predicted, truth, thin=thin)
    expected = published_information(true, guess)
    assert [scores[f"info_{name}"] for name in ("f", "split", "merge")] == pytest.approx(expected, rel=1e-9)
    over, under = variation_of_information(true[truth], guess[truth])  # H(guess | true), H(true | guess), in bits
    entropy = [-sum(p * math.log2(p) for p in np.unique(part[truth], return_counts=True)[1] / truth.sum())
               for part in (true, guess)]  # fmt: skip
    assert scores["info_f"] == pytest.approx((sum(entropy) - over - under) / sum(entropy), rel=1e-9)


def test_thinned_boundaries_belong_to_the_nearest_object():
    truth = np.ones((9, 21), bool)
    truth[:, 10] = False
    thick = truth.copy()
    thick[:, 8:13] = False
    assert max(scored(thick, truth)[name] for name in ("info_f", "rand_f")) < 1
    scores = scored(thick, truth, thin=True)
    assert scores["rand_f"] == scores["info_f"] == 1
    assert scored(~truth & False, truth, thin=True)["rand_split"] == 0
    one = np.ones((3, 3), bool)
    assert math.isnan(scored(one, one)["info_f"]) and math.isnan(scored(one, one)["info_merge"])
    with pytest.raises(ConfigError):
        RandMetric(labels=CELLS, thin="yes")  # pyright: ignore


def test_each_score_has_its_own_best_threshold():
    truth = torch.ones(1, 1, 9, dtype=torch.long)
    truth[..., 4] = 0
    logits = torch.logit(torch.tensor([[[[0.9, 0.9, 0.9, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9]]]]))
    metric = RandMetric(labels=CELLS, thresholds=(0.3, 0.5))
    metric.update(logits, truth)
    scores = metric.compute()
    assert scores["info_f"] == 1 and scores["info_threshold"] == 0.5
