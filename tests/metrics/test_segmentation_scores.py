"""Averages, groups, images, labels and one-vs-rest scores against scikit-learn and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from unetzoo import LabelSpec
from unetzoo.errors import ConfigError, InputShapeError, LabelRangeError, NonFiniteError, SizeMismatchError
from unetzoo.metrics import SegmentationMetric
from unetzoo.metrics.scores import FORMULAS, Table


def noisy(classes: int, seed: int = 0, shape=(3, 9, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, classes, shape), rng.integers(0, classes, shape)
    return torch.from_numpy(np.where(rng.random(shape) < 0.6, truth, guess)), torch.from_numpy(truth)


def scored(predicted, truth, **arguments) -> dict[str, float]:
    metric = SegmentationMetric(**arguments)
    metric.update(predicted, truth)
    return metric.compute()


def cityscapes_iou(matrix: np.ndarray) -> list[float]:
    """The benchmark's own way: for each label tp, fn of its row, fp of its column."""
    ious = []
    for label in range(len(matrix)):
        tp = np.longlong(matrix[label, label])
        fn = np.longlong(matrix[label, :].sum()) - tp
        others = [other for other in range(len(matrix)) if other != label]
        fp = np.longlong(matrix[others, label].sum())
        ious.append(float(tp) / (tp + fp + fn) if tp + fp + fn else math.nan)
    return ious


def test_cityscapes_iou_of_the_whole_split():
    predicted, truth = noisy(19, shape=(4, 16, 20))
    truth[truth == 7], predicted[predicted == 7] = 255, 3  # one class is nowhere, some pixels are void
    matrix = np.zeros((19, 19), int)
    for t, p in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if t != 255:
            matrix[t, p] += 1
    metric = SegmentationMetric(num_classes=19, ignore_index=255)
    for image in range(4):
        metric.update(predicted[image : image + 1], truth[image : image + 1])
    assert metric.confusion.tolist() == matrix.tolist()
    scores, ious = metric.compute(), cityscapes_iou(matrix)
    assert [scores[f"iou/{k}"] for k in range(19)] == pytest.approx(ious, nan_ok=True)
    assert scores["miou"] == pytest.approx(np.nanmean(ious)) and scores["miou_defined"] == 18


@pytest.mark.parametrize("classes", [2, 7])
def test_averages_equal_scikit_learns(classes):
    predicted, truth = noisy(classes, shape=(2, 10, 10))
    scores = scored(predicted, truth, num_classes=classes)
    t, p = truth.flatten().numpy(), predicted.flatten().numpy()
    functions = {
        "iou": sklearn_metrics.jaccard_score,
        "f1": sklearn_metrics.f1_score,
        "precision": sklearn_metrics.precision_score,
        "sensitivity": sklearn_metrics.recall_score,
    }
    for name, function in functions.items():
        for average in ("micro", "macro", "weighted"):
            assert scores[f"{average}/{name}"] == pytest.approx(function(t, p, average=average)), (average, name)
    for name, of in (("specificity", lambda t, p: sklearn_metrics.recall_score(~t, ~p)), ("accuracy", np.equal)):
        values = [np.mean(of(t == k, p == k)) for k in range(classes)]
        assert [scores[f"{name}/{k}"] for k in range(classes)] == pytest.approx(values)
        assert scores[f"macro/{name}"] == pytest.approx(np.mean(values))
        assert scores[f"weighted/{name}"] == pytest.approx(np.average(values, weights=np.bincount(t)))
    share = np.bincount(t) / t.size
    assert scores["fwiou"] == pytest.approx((share * [scores[f"iou/{k}"] for k in range(classes)]).sum())


def test_every_average_has_its_number_of_classes():
    """Four classes: 0 and 1 in both, 2 only in the truth, 3 in neither."""
    predicted, truth = torch.tensor([[[0, 0, 1, 1, 1]]]), torch.tensor([[[0, 0, 1, 1, 2]]])
    scores = scored(predicted, truth, num_classes=4)
    assert {name: scores[f"defined/{name}"] for name in FORMULAS} == {
        "iou": 3, "f1": 3, "precision": 2, "sensitivity": 3, "specificity": 4, "accuracy": 4,
    }  # fmt: skip
    assert scores["macro/precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["macro/sensitivity"] == pytest.approx((1 + 1 + 0) / 3)
    assert scores["weighted/precision"] == pytest.approx((2 * 1 + 2 * 2 / 3) / 4)  # undefined, so not counted
    assert scored(predicted, truth, num_classes=4, empty=0)["weighted/precision"] == pytest.approx((2 + 4 / 3) / 5)
    assert scored(predicted, truth, num_classes=4, empty=1)["macro/precision"] == pytest.approx((1 + 2 / 3 + 1 + 1) / 4)


@pytest.mark.parametrize("empty", ["nan", 0, 1])
@pytest.mark.parametrize("as_logits", [False, True])
def test_scores_per_image(empty, as_logits):
    predicted, truth = noisy(4, shape=(5, 4, 5))
    truth[0][truth[0] == 2] = predicted[0][predicted[0] == 2] = 1  # class 2 is not in image 0
    truth[1] = 255  # image 1 does not count at all
    truth[2, 0] = 255
    predicted[3] = truth[3] = 1  # image 3 has one class
    metric = SegmentationMetric(num_classes=4, ignore_index=255, per_image=True, empty=empty)
    output = torch.nn.functional.one_hot(predicted, 4).permute(0, 3, 1, 2).float() if as_logits else predicted
    metric.update(output[:2], truth[:2])
    metric.update(output[2:], truth[2:])
    scores = metric.compute()
    table = {name: np.full((5, 4), np.nan) for name in ("iou", "f1")}
    for image in (0, 2, 3, 4):
        for k in range(4):
            counted = truth[image] != 255
            t, p = (truth[image] == k)[counted], (predicted[image] == k)[counted]
            both, either, sizes = (t & p).sum().item(), (t | p).sum().item(), t.sum().item() + p.sum().item()
            absent = np.nan if empty == "nan" else float(empty)
            table["iou"][image, k] = both / either if either else absent
            table["f1"][image, k] = 2 * both / sizes if sizes else absent
    rows = [0, 2, 3, 4]
    for name, mean in (("iou", "miou"), ("f1", "mdice")):
        assert [scores[f"image/{name}/{k}"] for k in range(4)] == pytest.approx(np.nanmean(table[name], 0))
        assert scores[f"image/{mean}"] == pytest.approx(np.nanmean(np.nanmean(table[name][rows], 1)))
    assert scores["image/count"] == 4
    assert [scores[f"image/defined/{k}"] for k in range(4)] == (~np.isnan(table["iou"])).sum(0).tolist()
    assert scores["miou"] == scored(predicted, truth, num_classes=4, ignore_index=255, empty=empty)["miou"]


def test_scores_per_image_without_images():
    scores = SegmentationMetric(num_classes=3, per_image=True).compute()
    assert scores["image/count"] == 0 and math.isnan(scores["image/miou"]) and math.isnan(scores["image/iou/1"])


@pytest.mark.parametrize("as_logits", [False, True])
@pytest.mark.parametrize("thresholds", [0.5, (0.5, 0.3, 0.8)])
def test_multilabel_scores_equal_scikit_learns(as_logits, thresholds):
    generator = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(2, 3, 8, 9, generator=generator), torch.randint(0, 2, (2, 3, 8, 9), generator=generator)
    limits = torch.tensor(thresholds).expand(3)[:, None, None]
    predicted = (logits.double().sigmoid() > limits).long()
    metric = SegmentationMetric(num_classes=3, mode="multilabel", threshold=thresholds)
    metric.update(logits if as_logits else predicted, truth)
    t, p = (maps.permute(0, 2, 3, 1).reshape(-1, 3).numpy() for maps in (truth, predicted))
    assert metric.confusion.tolist() == sklearn_metrics.multilabel_confusion_matrix(t, p).tolist()
    scores = metric.compute()
    assert [scores[f"f1/{k}"] for k in range(3)] == pytest.approx(sklearn_metrics.f1_score(t, p, average=None))
    assert scores["mdice"] == pytest.approx(sklearn_metrics.f1_score(t, p, average="macro"))
    assert scores["micro/iou"] == pytest.approx(sklearn_metrics.jaccard_score(t, p, average="micro"))
    assert scores["weighted/sensitivity"] == pytest.approx(sklearn_metrics.recall_score(t, p, average="weighted"))
    assert scores["pixel_accuracy"] == scores["micro/accuracy"] == pytest.approx((t == p).mean())


def test_multilabel_groups_ignored_pixels_and_images():
    labels = LabelSpec(("vessel", "artery", "optic disc"), groups={"tree": (0, 1)})
    truth = torch.tensor([[[[1, 0, 0, 255]], [[0, 1, 0, 1]], [[0, 0, 0, 0]]]])
    predicted = torch.tensor([[[[0, 0, 1, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]]])
    metric = SegmentationMetric(labels=labels, mode="multilabel", ignore_index=255, per_image=True)
    metric.update(predicted, truth)
    scores = metric.compute()
    assert metric.confusion.tolist() == [[[1, 1], [1, 0]], [[1, 1], [1, 1]], [[4, 0], [0, 0]]]
    assert scores["iou/vessel"] == 0 and scores["iou/artery"] == pytest.approx(1 / 3)
    assert scores["iou/tree"] == pytest.approx(2 / 3)  # where one member is ignored the union is too
    assert math.isnan(scores["iou/optic disc"]) and scores["miou_defined"] == 2
    assert scores["image/miou"] == pytest.approx(1 / 6) and scores["image/defined/optic disc"] == 0


def test_multilabel_nan_and_strange_labels():
    metric = SegmentationMetric(labels=LabelSpec(("a", "b"), groups={"ab": (0, 1)}), mode="multilabel")
    logits, truth = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.long)
    logits[0, 1, 0, 0] = math.nan
    metric.update(logits, truth)
    with pytest.raises(NonFiniteError):
        metric.compute()
    metric.reset()
    metric.update(truth, truth + 255)
    with pytest.raises(LabelRangeError, match="255"):
        metric.compute()
    with pytest.raises(SizeMismatchError):
        metric.update(logits, truth[:, 0])
    with pytest.raises(InputShapeError):
        metric.update(logits[:, :1], truth)


def one_vs_rest_by_hand(yes: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Yes-or-no arrays of all classes, flattened: what that system counts."""
    tp, fp = (yes & truth).sum(), (yes & ~truth).sum()
    fn, tn = (~yes & truth).sum(), (~yes & ~truth).sum()
    return {
        "accuracy": (tp + tn) / yes.size,
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / (tp + fp),
        "f1": 2 * tp / ((yes.sum()) + truth.sum()),
        "iou": tp / ((yes | truth).sum()),
    }


@pytest.mark.parametrize("probability", [0.5, 0.8])
@pytest.mark.parametrize("classes", [2, 6])
def test_one_vs_rest_scores_of_softmax_above_a_threshold(probability, classes):
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(3, classes, 7, 8, generator=generator)
    truth = torch.randint(0, classes, (3, 7, 8), generator=generator)
    truth[0, 0] = 255
    metric = SegmentationMetric(num_classes=classes, ignore_index=255, one_vs_rest=probability)
    metric.update(logits[:1], truth[:1])
    metric.update(logits[1:], truth[1:])
    scores = metric.compute()
    counted = (truth != 255).numpy()
    yes = (logits.double().softmax(1) > probability).permute(0, 2, 3, 1).numpy()[counted]
    assert yes.any(-1).all() == (classes == 2 and probability == 0.5)  # else some pixels have no class
    expected = one_vs_rest_by_hand(yes, np.eye(classes, dtype=bool)[truth.numpy()[counted]])
    assert {name: scores[f"one_vs_rest/{name}"] for name in expected} == pytest.approx(expected)
    plain = scored(logits, truth, num_classes=classes, ignore_index=255)
    assert {name: scores[name] for name in plain} == plain


def test_one_vs_rest_of_labels_and_of_one_logit():
    predicted, truth = noisy(5)
    scores = scored(predicted, truth, num_classes=5, one_vs_rest=0.5)
    assert {k: v for k, v in scores.items() if k.startswith("one_vs_rest")} == {
        f"one_vs_rest/{name}": scores[f"micro/{name}"] for name in FORMULAS
    }
    logits, truth = torch.randn(2, 1, 5, 6), torch.randint(0, 2, (2, 5, 6))
    both = torch.cat([-logits, logits], 1) / 2  # the same probabilities as softmax
    one, two = (scored(x, truth, num_classes=1, one_vs_rest=0.7) for x in (logits, both))
    assert one == pytest.approx(two, nan_ok=True)


@pytest.mark.parametrize(
    "published",
    [  # accuracy, Dice, IoU, sensitivity, specificity of U-Net, R2U-Net and DDU-Net on Cityscapes
        (0.9899, 0.9017, 0.8215, 0.8797, 0.9960),
        (0.9871, 0.8710, 0.7722, 0.8296, 0.9958),
        (0.9885, 0.8878, 0.7985, 0.8637, 0.9954),
    ],
)
def test_the_published_scores_are_of_this_kind(published):
    """One yes among 19 classes a pixel: sensitivity and specificity fix the other three."""
    accuracy, dice, iou, sensitivity, specificity = published
    pixels = 10**6
    tp, fp = round(sensitivity * pixels), round((1 - specificity) * 18 * pixels)
    scores = Table(tp, fp, pixels - tp, 18 * pixels - fp).scores(math.nan)
    assert scores["accuracy"] == pytest.approx(accuracy, abs=2e-4)
    assert scores["f1"] == pytest.approx(dice, abs=2e-3) and scores["iou"] == pytest.approx(iou, abs=3e-3)


def test_predicting_nothing_is_18_of_19_correct():
    truth = torch.randint(0, 19, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    scores = scored(torch.zeros(1, 19, 8, 8), truth, num_classes=19, one_vs_rest=0.5)
    assert scores["one_vs_rest/accuracy"] == pytest.approx(18 / 19)
    assert scores["one_vs_rest/sensitivity"] == 0 and scores["one_vs_rest/iou"] == 0


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.9])
def test_binary_threshold_of_two_channels(threshold):
    logits, truth = torch.randn(2, 2, 6, 5), torch.randint(0, 2, (2, 6, 5))
    metric = SegmentationMetric(num_classes=2, threshold=threshold)
    metric.update(logits, truth)
    predicted = logits.double().softmax(1)[:, 1] > threshold
    expected = sklearn_metrics.confusion_matrix(truth.flatten(), predicted.flatten())
    assert metric.confusion.tolist() == expected.tolist()


def test_exact_above_two_to_the_24_in_one_update():
    pixels = (1, 4100, 4100)
    truth = torch.zeros(pixels, dtype=torch.uint8)
    truth[0, 0, 0] = 1
    metric = SegmentationMetric(num_classes=2)
    metric.update(torch.zeros(pixels, dtype=torch.uint8), truth)
    assert metric.confusion.tolist() == [[4100**2 - 1, 0], [1, 0]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), classes=st.integers(2, 6))
def test_ignored_pixels_and_permuted_labels(seed, classes):
    predicted, truth = noisy(classes, seed, (2, 4, 5))
    hidden = torch.from_numpy(np.random.default_rng(seed).random(truth.shape) < 0.3)
    some = truth.masked_fill(hidden, 255)
    wrong = torch.where(hidden, (predicted + 1) % classes, predicted)
    options = {"num_classes": classes, "ignore_index": 255, "per_image": True}
    scores = scored(predicted, some, **options)
    assert scored(wrong, some, **options) == pytest.approx(scores, nan_ok=True)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(classes))
    table = torch.cat([order, torch.full((256 - classes,), 255)])
    renamed = scored(order[predicted], table[some], **options)
    for name in ("miou", "mdice", "fwiou", "pixel_accuracy", "micro/iou", "macro/accuracy", "image/miou"):
        assert renamed[name] == pytest.approx(scores[name], nan_ok=True)
    perfect = scored(some.where(~hidden, 0), some, **options)
    for name in ("miou", "mdice", "fwiou", "pixel_accuracy", "weighted/f1", "image/miou", "image/mdice"):
        assert perfect[name] == 1.0 or hidden.all()


def test_wrong_arguments():
    for arguments, message in (
        ({"num_classes": 3, "mode": "multi"}, "mode"),
        ({"num_classes": 3, "mode": "binary"}, "one class"),
        ({"num_classes": 3, "threshold": 0.4}, "threshold"),
        ({"num_classes": 3, "mode": "multilabel", "threshold": (0.5, 0.4)}, "threshold"),
        ({"num_classes": 3, "mode": "multilabel", "threshold": (0.5, 0.4, 0.0)}, "threshold"),
        ({"num_classes": 1, "threshold": (0.5, 0.4)}, "threshold"),
        ({"num_classes": 3, "one_vs_rest": 0.4}, "one_vs_rest"),
        ({"num_classes": 3, "one_vs_rest": 1.0}, "one_vs_rest"),
        ({"num_classes": 3, "mode": "multilabel", "one_vs_rest": 0.5}, "multilabel"),
        ({"num_classes": 3, "ignore_index": 2.0}, "ignore_index"),
        ({"num_classes": True}, "num_classes"),
    ):
        with pytest.raises(ConfigError, match=message):
            SegmentationMetric(**arguments)


@pytest.mark.parametrize(
    "other",
    [{"ignore_index": 0}, {"labels": LabelSpec(("a", "b", "c"))}, {"num_classes": 3, "empty": 1, "per_image": True}],
)
def test_counts_of_other_rules_are_not_merged(other):
    per_image = other.get("per_image", False)
    metric = SegmentationMetric(num_classes=3, per_image=per_image)
    with pytest.raises(ConfigError):
        metric.merge(SegmentationMetric(**({"num_classes": 3} | other)))
    metric.merge(SegmentationMetric(num_classes=3, per_image=per_image))
