"""Cross entropy with Dice or Jaccard: against the formula with one-hot maps, and against the losses apart."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from unetzoo.errors import ConfigError
from unetzoo.losses import BCELoss, CELoss, DiceCELoss, DiceLoss, JaccardCELoss, JaccardLoss

RNG = np.random.default_rng(0)
PAIRS = [(DiceCELoss, DiceLoss), (JaccardCELoss, JaccardLoss)]
MODES = {"binary": 1, "multiclass": 5, "multilabel": 3}
IGNORE = 255


def problem(mode, size=(2, 20, 30)):
    """Class 4 of the five is empty, and class 1 in the second image."""
    channels = MODES[mode]
    shape = (size[0], channels, *size[1:]) if mode == "multilabel" else size
    labels = RNG.integers(0, 4 if mode == "multiclass" else 2, shape)
    labels[1][labels[1] == 1] = 0
    labels[..., :3] = IGNORE
    return 2 * RNG.normal(size=(size[0], channels, *size[1:])), labels, RNG.random(size)


def formula(kind, mode, logits, labels, weight, *, per_image, smooth, per_class, smoothing):
    """Value and gradient in float64 by one-hot maps; the gradient by autograd over these few lines."""
    x = torch.tensor(logits, requires_grad=True)
    labels, w = torch.tensor(labels), torch.tensor(weight)[:, None]
    channels = x.shape[1]
    c = torch.ones(channels, dtype=torch.float64) if per_class is None else torch.tensor(per_class).double()
    if mode == "multiclass":
        labels = labels[:, None]
        w = w * (labels != IGNORE)
        y = (labels == torch.arange(channels).view(-1, 1, 1)).double()
        log_p = x - x.exp().sum(1, keepdim=True).log()
        p, soft = log_p.exp(), (1 - smoothing) * y + smoothing / channels
        entropy = -(w * soft * c.view(-1, 1, 1) * log_p).sum() / (w * y * c.view(-1, 1, 1)).sum()
    else:
        labels = labels.reshape(x.shape)
        w = w * (labels != IGNORE)
        y = (labels == 1).double()
        p = 1 / (1 + torch.exp(-x))
        each = -(y * p.log() + (1 - y) * (1 - p).log())
        entropy = (w * c.view(-1, 1, 1) * each).sum() / (w * c.view(-1, 1, 1)).sum()
    w = w.expand_as(p)
    axes = (2, 3) if per_image else (0, 2, 3)
    i, a, b, all_of = ((w * part).sum(axes) for part in (p * y, p, y, torch.ones_like(p)))
    score = (i + smooth) / ((a + b) / 2 + smooth if kind is DiceCELoss else a + b - i + smooth)
    region = torch.where(b > 0, 1 - score, a / all_of)
    region = (region * c).sum() / (torch.ones_like(region) * c).sum()
    value = 0.7 * region + 0.4 * entropy
    value.backward()
    assert x.grad is not None
    return value.item(), x.grad


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [DiceCELoss, JaccardCELoss])
def test_value_and_gradient_are_the_plain_formulas(kind, mode):
    logits, labels, weight = problem(mode)
    weights_of = [None] if mode == "binary" else [None, [1.0, 0.5, 2.0, 4.0, 0.25][: MODES[mode]]]
    smoothings = [0.0, 0.2] if mode == "multiclass" else [0.0]
    for per_image, smooth, per_class, smoothing in itertools.product((False, True), (0.0, 1.0), weights_of, smoothings):
        expected, slope = formula(
            kind, mode, logits, labels, weight,
            per_image=per_image, smooth=smooth, per_class=per_class, smoothing=smoothing,
        )  # fmt: skip
        loss = kind(
            mode, 0.7, 0.4, ignore_index=IGNORE, per_image=per_image, smooth=smooth, class_weights=per_class,
            label_smoothing=smoothing,
        )  # fmt: skip
        for dtype, bar in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            x = torch.tensor(logits, dtype=dtype, requires_grad=True)
            value = loss(x, torch.tensor(labels), weight=torch.tensor(weight))
            value.backward()
            assert value.item() == pytest.approx(expected, rel=bar) and x.grad is not None
            assert (x.grad - slope).abs().max() <= max(bar, 1e-12) * slope.abs().max()


@pytest.mark.parametrize(
    "options", [{}, {"log_loss": True}, {"empty": "skip", "eps": 1e-3}, {"per_image": True}], ids=str
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "region"), PAIRS)
def test_is_the_sum_of_the_losses_apart(kind, region, mode, options):
    logits, labels, weight = problem(mode)
    apart = (
        region(mode, ignore_index=IGNORE, **options),
        (CELoss if mode == "multiclass" else BCELoss)(ignore_index=IGNORE),
    )
    together = kind(mode, region_weight=2.0, ce_weight=0.5, ignore_index=IGNORE, **options)
    arguments = torch.tensor(logits), torch.tensor(labels)
    expected = sum(
        part * loss(*arguments, weight=torch.tensor(weight)) for part, loss in zip((2.0, 0.5), apart, strict=True)
    )
    torch.testing.assert_close(together(*arguments, weight=torch.tensor(weight)), expected)
    if mode != "binary":
        chosen = kind(mode, classes=[0, 2], ce_weight=0.0, ignore_index=IGNORE, **options)
        torch.testing.assert_close(
            chosen(*arguments), region(mode, classes=[0, 2], ignore_index=IGNORE, **options)(*arguments)
        )


@pytest.mark.parametrize("absent", [False, True])
def test_is_smps_dice_and_torchs_cross_entropy(absent):
    """In SMP an absent class counts as a perfect 0 in Dice; here `empty` decides."""
    import segmentation_models_pytorch as smp

    logits, labels = torch.randn(2, 4, 16, 16), torch.randint(0, 3 if absent else 4, (2, 16, 16))
    labels[0, :4] = IGNORE
    theirs = smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)(logits, labels)
    theirs = theirs + torch.nn.CrossEntropyLoss(ignore_index=IGNORE)(logits, labels)
    ours = DiceCELoss("multiclass", ignore_index=IGNORE)(logits, labels)
    if absent:
        p = logits.softmax(1)[:, 3][labels != IGNORE].mean()
        theirs = theirs + p / 4
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", ["channels last", "cropped", "transposed"])
@pytest.mark.parametrize("mode", MODES)
def test_any_layout_of_the_logits(mode, layout):
    logits, labels, _ = problem(mode)
    x = torch.tensor(logits)
    other = {
        "channels last": lambda: x.contiguous(memory_format=torch.channels_last),
        "cropped": lambda: torch.nn.functional.pad(x, (2, 3, 4, 1))[:, :, 4:-1, 2:-3],
        "transposed": lambda: x.transpose(2, 3).contiguous().transpose(2, 3),
    }[layout]()
    assert torch.equal(x, other)
    gradients = []
    for values in (x, other):
        leaf = values.detach().requires_grad_()
        DiceCELoss(mode, ignore_index=IGNORE)(leaf, torch.tensor(labels)).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="weights"):
        DiceCELoss("binary", region_weight=-1.0)
    with pytest.raises(ConfigError, match="weights"):
        DiceCELoss("binary", region_weight=0.0, ce_weight=0.0)
    with pytest.raises(ConfigError, match="weights"):
        JaccardCELoss("binary", ce_weight=math.nan)
    with pytest.raises(ConfigError, match="label_smoothing"):
        DiceCELoss("multilabel", label_smoothing=0.1)
    with pytest.raises(ConfigError, match="label_smoothing"):
        DiceCELoss("multiclass", label_smoothing=1.0)
    with pytest.raises(ConfigError, match="class_weights"):
        JaccardCELoss("binary", class_weights=[1.0])
    with pytest.raises(ConfigError, match="multilabel"):
        DiceCELoss("multi-label")  # pyright: ignore
    with pytest.raises(ConfigError, match="class_weights"):
        DiceCELoss("multiclass", class_weights=[1, 2])(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long())
