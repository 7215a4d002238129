"""Surface distances against every pair of outline pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetzoo import METRICS, LabelSpec
from unetzoo.errors import ConfigError, InputShapeError, LabelRangeError, NonFiniteError, SizeMismatchError
from unetzoo.metrics import SurfaceMetric
from unetzoo.metrics.surface import Distances, distances, outline

FIELDS = Distances._fields


def edge_pixels(mask: np.ndarray) -> list[tuple[int, int]]:
    height, width = mask.shape

    def has(y, x):
        return 0 <= y < height and 0 <= x < width and bool(mask[y, x])

    around = ((-1, 0), (1, 0), (0, -1), (0, 1))
    return [(y, x) for y, x in zip(*np.nonzero(mask), strict=True) if not all(has(y + a, x + b) for a, b in around)]


def brute(one: np.ndarray, two: np.ndarray, spacing=(1.0, 1.0), tolerance=1.0) -> Distances:
    edges = edge_pixels(one), edge_pixels(two)

    def nearest(here, there):
        return [min(math.hypot((y - v) * spacing[0], (x - u) * spacing[1]) for v, u in there) for y, x in here]

    out, back = nearest(*edges), nearest(*edges[::-1])
    both = out + back
    return Distances(
        max(both),
        max(np.percentile(out, 95), np.percentile(back, 95)),
        sum(both) / len(both),
        sum(d <= tolerance for d in both) / len(both),
    )


def blobs(seed: int, size=(9, 12)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < rng.choice([0.05, 0.3, 0.8])
    mask[rng.integers(size[0]), rng.integers(size[1])] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    spacing=st.sampled_from(((1.0, 1.0), (0.5, 2.0), (3.0, 0.1))),
    tolerance=st.sampled_from((0.0, 1.0, 2.5)),
)
def test_distances_are_those_of_all_pairs(seed, spacing, tolerance):
    one, two = blobs(seed), blobs(seed + 1)
    found = distances(one, two, spacing=spacing, tolerance=tolerance)
    assert found == pytest.approx(brute(one, two, spacing, tolerance), rel=1e-9)
    assert distances(two, one, spacing=spacing, tolerance=tolerance) == pytest.approx(found)
    assert distances(one, one, spacing=spacing) == (0, 0, 0, 1)
    assert found.hausdorff >= found.hd95 and found.hausdorff >= found.assd


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_outline(seed):
    mask = blobs(seed)
    assert sorted(zip(*np.nonzero(outline(mask)), strict=True)) == sorted(edge_pixels(mask))


def test_by_hand():
    """A 3×3 square moved by two columns."""
    truth, predicted = np.zeros((2, 7, 9), bool)
    truth[2:5, 1:4], predicted[2:5, 3:6] = True, True
    found = distances(predicted, truth, tolerance=1.0)
    # Each outline has 8 pixels: of the far column 3 at distance 2, of the middle 2 at 1, of the shared 3 at 0 or 1.
    assert found.hausdorff == 2 and found.nsd == pytest.approx(5 / 8)
    assert found == pytest.approx(brute(predicted, truth))
    assert distances(predicted, truth, spacing=(1.0, 3.0)).hausdorff == 6 * 1.0


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.5)])
def test_an_object_in_one_of_both_is_worse_than_any_found(spacing):
    corner, other = np.zeros((2, 6, 8), bool)
    corner[0, 0] = other[-1, -1] = True
    farthest = distances(corner, other, spacing=spacing)
    for missed in (
        distances(corner, corner & False, spacing=spacing),
        distances(corner & False, corner, spacing=spacing),
    ):
        assert (
            missed.hausdorff == missed.hd95 == missed.assd == pytest.approx(math.hypot(6 * spacing[0], 8 * spacing[1]))
        )
        assert missed.hausdorff > farthest.hausdorff and missed.nsd == 0
    assert all(math.isnan(value) for value in distances(corner & False, corner & False))


def test_means_over_images_and_classes():
    """Class 1 in both images, class 2 missed in one and invented in the other, class 3 nowhere."""
    labels = LabelSpec(("ground", "house", "tree", "boat"), ignore_index=255)
    truth, predicted = torch.zeros(2, 2, 8, 8, dtype=torch.long)
    truth[0, 1:4, 1:4], predicted[0, 1:4, 2:5] = 1, 1
    truth[1, 2:6, 2:6], predicted[1, 2:6, 2:6] = 1, 1
    truth[0, 6, 6], predicted[1, 0, 7] = 2, 2
    metric = METRICS.build("surface", labels=labels, exclude=["ground"], tolerance=0.5)
    metric.update(predicted, truth)
    scores = metric.compute()
    pairs = [[(p == 1).numpy(), (t == 1).numpy()] for p, t in zip(predicted, truth, strict=True)]
    houses = [brute(*pair, tolerance=0.5) for pair in pairs]
    for field, values in zip(FIELDS, zip(*houses, strict=True), strict=True):
        assert scores[f"{field}/house"] == pytest.approx(np.mean(values))
    assert scores["hd95/tree"] == pytest.approx(math.hypot(8, 8)) and scores["nsd/tree"] == 0
    assert [scores[f"{what}/tree"] for what in ("images", "missed", "invented")] == [2, 1, 1]
    assert scores["images/boat"] == 0 and math.isnan(scores["assd/boat"]) and scores["defined"] == 2
    assert scores["assd"] == pytest.approx((scores["assd/house"] + scores["assd/tree"]) / 2)
    assert "assd/ground" not in scores


def test_ignored_pixels_belong_to_no_object():
    truth, predicted = torch.zeros(2, 1, 9, 9, dtype=torch.long)
    truth[0, 2:5, 2:5], predicted[0, 2:5, 2:5] = 1, 1
    truth[0, 7:], predicted[0, 7:] = 255, 1
    truth[0, :, 4] = 255
    metric = SurfaceMetric(num_classes=1, ignore_index=255)
    metric.update(predicted, truth)
    scores = metric.compute()
    assert scores["hausdorff"] == 0 and scores["nsd"] == 1 and scores["images/foreground"] == 1
    metric.reset()
    metric.update(predicted, torch.full_like(truth, 255))
    assert metric.compute()["images/foreground"] == 0


def test_logits_and_thresholds():
    logits = torch.full((1, 1, 6, 6), -2.0)
    logits[0, 0, 1:4, 1:4], logits[0, 0, 2, 2] = 1.0, 5.0
    truth = torch.zeros(1, 6, 6, dtype=torch.long)
    truth[0, 2, 2] = 1
    for threshold, expected in ((0.5, math.sqrt(2)), (0.9, 0.0)):
        metric = SurfaceMetric(num_classes=1, threshold=threshold)
        metric.update(logits, truth)
        assert metric.compute()["hausdorff"] == pytest.approx(expected)
    two = SurfaceMetric(labels=LabelSpec(("bg", "fg")))
    two.update(torch.cat([-logits, logits], 1), truth[:, None])
    assert two.compute()["hausdorff"] == pytest.approx(math.sqrt(2))
    assert [key for key in two.compute() if key.startswith("nsd/")] == ["nsd/fg"]


def test_nothing_seen():
    scores = SurfaceMetric(num_classes=3).compute()
    assert scores["defined"] == 0 and math.isnan(scores["hausdorff"])


def test_wrong_inputs_are_errors():
    truth = torch.zeros(1, 5, 5, dtype=torch.long)
    metric = SurfaceMetric(num_classes=3)
    for error, output, target in (
        (LabelRangeError, truth, truth + 9),
        (LabelRangeError, truth + 9, truth),
        (NonFiniteError, torch.full((1, 3, 5, 5), math.nan), truth),
        (InputShapeError, torch.zeros(1, 4, 5, 5), truth),
        (SizeMismatchError, truth, truth[:, :2]),
    ):
        with pytest.raises(error):
            metric.update(output, target)
    for arguments in (
        {},
        {"num_classes": 1, "exclude": ["foreground"]},
        {"num_classes": 1, "threshold": 0.0},
        *(
            {"num_classes": 3, **wrong}
            for wrong in (
                {"tolerance": -1}, {"spacing": 0}, {"spacing": (1, 2, 3)},
                {"exclude": ["sky"]}, {"exclude": "0"}, {"exclude": [0, 1, 2]},
            )
        ),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            SurfaceMetric(**arguments)
    with pytest.raises(ConfigError):
        metric.merge(SurfaceMetric(num_classes=3, tolerance=2.0))
