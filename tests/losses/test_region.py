"""Dice, Jaccard and Tversky against the plain formula, by hand and against SMP."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from unetzoo.errors import ConfigError, InputShapeError
from unetzoo.losses import DiceLoss, JaccardLoss, TverskyLoss


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


BOTH = [DiceLoss, JaccardLoss]
RNG = np.random.default_rng(0)


def plain(kind, logits, labels, mode, weight, ignore, smooth=0.0, log=False, per_image=False, empty="penalize"):
    """The formula, word for word, with one-hot maps, in float64."""
    channels = logits.shape[1]
    if mode == "multiclass":
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        y = np.stack([labels == k for k in range(channels)], 1).astype(float)
        w = np.broadcast_to((weight * (labels != ignore))[:, None], p.shape)
    else:
        p = 1 / (1 + np.exp(-logits))
        labels = labels.reshape(p.shape)
        y, w = (labels == 1).astype(float), weight[:, None] * (labels != ignore)
    groups = [[n] for n in range(len(p))] if per_image else [list(range(len(p)))]
    terms = []
    for images in groups:
        for k in range(channels):
            pk, yk, wk = p[images, k], y[images, k], w[images, k]
            i, a, b = (wk * pk * yk).sum(), (wk * pk).sum(), (wk * yk).sum()
            if b > 0:
                below = {
                    DiceLoss: (a + b) / 2,
                    JaccardLoss: a + b - i,
                    TverskyLoss: i + 0.7 * (a - i) + 0.2 * (b - i),
                }[kind]
                score = (i + smooth) / (below + smooth)
            elif empty == "skip" or wk.sum() == 0:
                continue
            else:
                score = 1 - a / wk.sum()
            terms.append(math.log1p(1e-7) - math.log(score + 1e-7) if log else 1 - score)
    return np.mean(terms)


@pytest.mark.parametrize("options", [{}, {"log": True}, {"smooth": 2.0, "per_image": True}, {"empty": "skip"}], ids=str)
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("kind", [*BOTH, TverskyLoss])
def test_is_the_plain_formula(kind, mode, options):
    channels = {"binary": 1, "multiclass": 5, "multilabel": 3}[mode]
    logits = 2 * RNG.normal(size=(2, channels, 40, 50))
    shape = (2, 3, 40, 50) if mode == "multilabel" else (2, 40, 50)
    labels = RNG.integers(0, 4 if mode == "multiclass" else 2, shape)  # class 4 of the five is empty
    labels[1][labels[1] == 1] = 0  # class 1 is empty in the second image
    labels[..., :3] = 255
    weight = RNG.random((2, 40, 50))
    expected = plain(kind, logits, labels, mode, weight, 255, **options)
    keywords = {"log_loss" if key == "log" else key: value for key, value in options.items()}
    if kind is TverskyLoss:
        keywords |= {"alpha": 0.7, "beta": 0.2}
    loss = kind(mode, ignore_index=255, **keywords)
    for dtype, bar in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        value = loss(torch.tensor(logits, dtype=dtype), torch.tensor(labels), weight=torch.tensor(weight))
        assert value.item() == pytest.approx(expected, rel=bar)


@pytest.mark.parametrize("kind", BOTH)
def test_keeps_its_precision_on_large_images(kind):
    """The sums of 10⁶ pixels in fp32: adding them up one by one would lose the fourth digit."""
    logits = RNG.normal(size=(1, 2, 1024, 1024)).astype(np.float32)
    labels = (RNG.random((1, 1024, 1024)) < 0.9).astype(int)
    expected = plain(kind, logits.astype(float), labels, "multiclass", np.ones((1, 1024, 1024)), None)
    assert kind("multiclass")(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 4), ("multilabel", 3)])
@pytest.mark.parametrize("kind", BOTH)
def test_is_smps_value_where_no_class_is_empty(kind, mode, channels, smooth):
    import segmentation_models_pytorch as smp

    logits = torch.randn(2, channels, 8, 8)
    labels = torch.randint(0, max(2, channels), (2, channels, 8, 8) if mode == "multilabel" else (2, 8, 8))
    labels = labels.clamp(max=1) if mode == "multilabel" else labels
    labels[..., 0, :] = 255
    keywords = {"smooth": smooth, "ignore_index": 255}
    if mode != "binary":
        keywords |= {"classes": [0, 2], "class_weights": [1.0, 2.0, 5.0, 1.0][:channels]}
    theirs = getattr(smp.losses, kind.__name__)(mode, **keywords)
    torch.testing.assert_close(kind(mode, **keywords)(logits, labels), theirs(logits, labels))


def test_by_hand():
    """p = (.5, .5, .5, .5), y = (1, 1, 0, 0): I = 1, P = 2, T = 2; Dice 2/4, Jaccard 1/3."""
    logits, labels = torch.zeros(1, 1, 1, 4), torch.tensor([[[1, 1, 0, 0]]])
    assert DiceLoss("binary")(logits, labels).item() == pytest.approx(1 / 2)
    assert JaccardLoss("binary")(logits, labels).item() == pytest.approx(2 / 3)
    assert DiceLoss("binary", log_loss=True)(logits, labels).item() == pytest.approx(math.log(2), rel=1e-6)
    half = torch.full((1, 1, 1, 4), 0.5)
    assert DiceLoss("binary", from_logits=False)(half, labels).item() == pytest.approx(1 / 2)
    weight = torch.tensor([[[3.0, 1.0, 1.0, 1.0]]])  # I = 2, P = 3, T = 4
    assert DiceLoss("binary")(logits, labels, weight=weight).item() == pytest.approx(1 - 4 / 7)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("kind", BOTH)
def test_false_positives_on_an_empty_mask_cost_and_have_a_gradient(kind, log):
    """SMP: loss 0 and no gradient here."""
    logits = torch.full((1, 1, 4, 4), 2.0, requires_grad=True)
    loss = kind("binary", log_loss=log)(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    p = 1 / (1 + math.exp(-2))
    assert loss.item() == pytest.approx(-math.log(1 - p) if log else p, rel=1e-5)
    loss.backward()
    assert logits.grad is not None and (logits.grad > 1e-3).all()
    skipped = kind("binary", log_loss=log, empty="skip")(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    assert skipped == 0


@pytest.mark.parametrize("kind", BOTH)
def test_skip_takes_an_empty_class_out_of_the_mean(kind):
    """Class 2 has no pixel: the mean is over the other two, not two thirds of it."""
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 2, (1, 4, 4))
    some = kind("multiclass", classes=[0, 1])(logits, labels)
    torch.testing.assert_close(kind("multiclass", empty="skip")(logits, labels), some)
    absent = logits.softmax(1)[:, 2].mean()
    torch.testing.assert_close(kind("multiclass")(logits, labels), (2 * some + absent) / 3)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_full_512_mask_in_half_precision(kind, dtype):
    """SMP: NaN in fp16, as the sum of 2¹⁸ ones overflows."""
    logits = torch.full((1, 1, 512, 512), 3.0, dtype=dtype, requires_grad=True)
    loss = kind("binary")(logits, torch.ones(1, 512, 512, dtype=torch.int64))
    loss.backward()
    p = 1 / (1 + math.exp(-3))
    assert loss.item() == pytest.approx(1 - (2 * p / (1 + p) if kind is DiceLoss else p), rel=1e-3)
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_scores_are_taken_outside_autocast():
    class Probe(DiceLoss):
        def overlap(self, sums):
            product = sums.true.T @ sums.true  # autocast would give bf16
            assert product.dtype == torch.float64 and not torch.is_autocast_enabled("cpu")
            return super().overlap(sums)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Probe("binary")(torch.zeros(1, 1, 4, 4).bfloat16(), torch.ones(1, 4, 4, dtype=torch.int64)) > 0


def test_log_loss_has_a_gradient_where_everything_is_wrong():
    logits = torch.full((1, 1, 4, 4), -18.0, requires_grad=True)
    DiceLoss("binary", log_loss=True)(logits, torch.ones(1, 4, 4, dtype=torch.int64)).backward()
    assert logits.grad is not None and (logits.grad < -1e-3).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from(["binary", "multiclass", "multilabel"]))
def test_properties(seed, mode):
    generator = torch.Generator().manual_seed(seed)
    channels = {"binary": 1, "multiclass": 4, "multilabel": 3}[mode]
    logits = 3 * torch.randn(2, channels, 4, 5, generator=generator, dtype=torch.float64)
    shape = (2, channels, 4, 5) if mode == "multilabel" else (2, 4, 5)
    labels = torch.randint(0, 4 if mode == "multiclass" else 2, shape, generator=generator)
    dice, jaccard = DiceLoss(mode)(logits, labels), JaccardLoss(mode)(logits, labels)
    assert 0 <= dice <= jaccard <= 1
    if mode == "binary" and labels.any():
        d, j = 1 - dice, 1 - jaccard
        torch.testing.assert_close(d, 2 * j / (1 + j))
    one_hot = torch.stack([labels == k for k in range(channels)], 1) if mode == "multiclass" else labels == 1
    sure = (one_hot.reshape(logits.shape).double() - 0.5) * 200
    assert DiceLoss(mode)(sure, labels) < 1e-9 and JaccardLoss(mode, log_loss=True)(sure, labels) < 1e-6
    if mode == "multiclass":
        order = torch.randperm(4, generator=generator)
        torch.testing.assert_close(DiceLoss(mode)(logits[:, order], order.argsort()[labels]), dice)


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="multiclass"):
        DiceLoss("multi-class")  # pyright: ignore
    with pytest.raises(ConfigError, match="empty"):
        DiceLoss("binary", empty="zero")  # pyright: ignore
    with pytest.raises(ConfigError, match="classes"):
        JaccardLoss("binary", class_weights=[1.0])
    with pytest.raises(ConfigError, match="classes"):
        DiceLoss("multiclass", classes=[])
    with pytest.raises(ConfigError, match="classes"):
        DiceLoss("multiclass", classes=[3])(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(InputShapeError, match="binary"):
        DiceLoss("multiclass")(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(InputShapeError, match="multiclass"):
        DiceLoss("binary")(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="smooth"):
        DiceLoss("binary", smooth=-1.0)


@pytest.mark.parametrize("absent", [False, True])
def test_tversky_expresses_the_helen_systems_loss(absent):
    """1 − Σpt / (0.7Σp + 0.3Σt + 1e-7), the mean over images and classes; 1 for a class that is not there."""
    logits, labels = RNG.normal(size=(3, 11, 16, 16)), RNG.integers(0, 9 if absent else 11, (3, 16, 16))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    t = np.stack([labels == k for k in range(11)], 1).astype(float)
    expected = np.mean(1 - (p * t).sum((2, 3)) / (0.7 * p.sum((2, 3)) + 0.3 * t.sum((2, 3)) + 1e-7))
    loss = TverskyLoss("multiclass", alpha=0.7, beta=0.3, per_image=True, empty="formula")
    for dtype in (torch.float32, torch.float64):
        value = loss(torch.tensor(logits, dtype=dtype), torch.tensor(labels))
        assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("log_loss", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 0.75, 2.0])
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 4), ("multilabel", 3)])
def test_tversky_is_smps_value_where_no_class_is_empty(mode, channels, gamma, log_loss):
    import segmentation_models_pytorch as smp

    logits = torch.randn(2, channels, 8, 8)
    labels = torch.randint(0, max(2, channels), (2, channels, 8, 8) if mode == "multilabel" else (2, 8, 8))
    labels = labels.clamp(max=1) if mode == "multilabel" else labels
    keywords = {"alpha": 0.2, "beta": 0.9, "gamma": gamma, "log_loss": log_loss}
    theirs = smp.losses.TverskyLoss(mode, **keywords)
    torch.testing.assert_close(TverskyLoss(mode, **keywords)(logits, labels), theirs(logits, labels))


def test_tversky_is_dice_and_jaccard_at_their_constants():
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 2, (2, 8, 8))
    for constant, other in ((0.5, DiceLoss), (1.0, JaccardLoss)):
        same = TverskyLoss("multiclass", alpha=constant, beta=constant)
        torch.testing.assert_close(same(logits, labels), other("multiclass")(logits, labels))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_tversky_power_at_zero(gamma):
    logits = torch.full((1, 1, 2, 2), 100.0, requires_grad=True)
    loss = TverskyLoss("binary", gamma=gamma)(logits, torch.ones(1, 2, 2, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and logits.grad is not None and not logits.grad.any()


def test_tversky_power_is_a_chord_below_eps():
    p = torch.full((1, 1, 1, 1), 1 - 2e-8, dtype=torch.float64)  # Dice loss (1 − p) / (1 + p) = 1e-8
    loss = TverskyLoss("binary", from_logits=False, gamma=0.5)(p, torch.ones(1, 1, 1, dtype=torch.int64))
    assert loss.item() == pytest.approx(0.1 * math.sqrt(1e-7), rel=1e-6)


def test_tversky_wrong_arguments():
    for wrong in (
        {"alpha": -1.0},
        {"alpha": 0.0, "beta": 0.0},
        {"gamma": 0.0},
        {"gamma": math.nan},
        {"beta": math.inf},
    ):
        with pytest.raises(ConfigError, match="constants"):
            TverskyLoss("binary", **wrong)
    with refused(ConfigError, subject="empty", expected="formula"):
        TverskyLoss("binary", empty="zero")  # type: ignore[arg-type]
