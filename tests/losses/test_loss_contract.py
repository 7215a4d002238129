"""What every loss keeps, whatever it computes: one table of cases, every built-in in it."""

from __future__ import annotations

import math

import pytest
import torch

from unetzoo import LOSSES
from unetzoo.errors import DataError, InputShapeError, LabelRangeError, SizeMismatchError

IGNORE = 255
# name, keywords, channels of the output, whether each channel has labels of its own
CASES = [
    ("ce", {}, 3, False),
    ("ce", {"class_weights": [0.5, 1.0, 3.0], "label_smoothing": 0.1}, 3, False),
    ("bce", {}, 1, False),
    ("bce", {"pos_weight": 3.0}, 1, False),
    ("bce", {"pos_weight": [1.0, 4.0]}, 2, True),
    *(
        (name, keywords, channels, mode == "multilabel")
        for name in ("dice", "jaccard", "tversky")
        for mode, channels in (("binary", 1), ("multiclass", 3), ("multilabel", 2))
        for keywords in (
            {"mode": mode},
            {"mode": mode, "log_loss": True, "per_image": True},
            {"mode": mode, "smooth": 1.0, "empty": "skip"},
        )
    ),
    ("dice", {"mode": "multiclass", "classes": [0, 2], "class_weights": [1.0, 2.0, 3.0]}, 3, False),
    ("tversky", {"mode": "multiclass", "alpha": 0.7, "beta": 0.3, "per_image": True, "empty": "formula"}, 3, False),
    ("tversky", {"mode": "binary", "gamma": 0.75}, 1, False),
    *(
        (name, {"mode": mode, **keywords}, channels, mode == "multilabel")
        for name, variants in (
            ("mcc", ({}, {"per_image": True}, {"empty": "skip"})),
            ("lovasz", ({}, {"per_image": True, "empty": "skip"})),
            ("focal", ({}, {"alpha": 0.25, "gamma": 0.5}, {"normalized": True}, {"reduced_threshold": 0.5})),
        )
        for mode, channels in (("binary", 1), ("multiclass", 3), ("multilabel", 2))
        for keywords in variants
    ),
    ("focal", {"mode": "multilabel", "class_weights": [1.0, 3.0], "normalized": True}, 2, True),
    ("border_ce", {}, 1, False),
    ("border_ce", {"sigma": 1.0}, 2, False),
    ("border_ce", {"w0": 3.0, "class_weights": [0.5, 1.0, 2.0]}, 3, False),
    ("l1", {}, 1, None),
    ("rmse", {}, 1, None),
    ("berhu", {}, 1, None),
    ("silog", {}, 1, None),
    ("silog", {"variance_focus": 1.0}, 1, None),
    ("gradient", {}, 1, None),
    ("gradient", {"scales": 3}, 1, None),
    ("depth_ssim", {}, 1, None),
    ("ssim", {}, 1, None),
    ("ssim", {"win_size": 3}, 2, None),
    ("ssim", {"from_logits": True, "win_size": 5}, 1, None),
    ("ms_ssim", {}, 1, None),
    ("ms_ssim", {"win_size": 3, "weights": [0.4, 0.6]}, 2, None),
]
LABELLED = [case for case in CASES if case[3] is not None]
DEPTH = [case for case in CASES if case[3] is None]
# Compare a pixel with its neighbours: a pixel cannot be seen twice without moving the others, an image can.
NEIGHBOURS = {"border_ce", "gradient", "depth_ssim", "ssim", "ms_ssim"}


def ids(case) -> str:
    return case[0] + "-" + "-".join(f"{key}={value}" for key, value in case[1].items())


def build(case, **more):
    return LOSSES.build(case[0], **case[1], **more)


def make(case, size=(2, 6, 6), seed=0, dtype=torch.float32):
    """A random output and target for a case."""
    _, _, channels, several = case
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = size
    output = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)
    if several is None:
        output = output.abs() + 0.1  # a depth, as silog wants it
        return output, torch.rand(batch, channels, height, width, generator=generator).to(dtype)
    shape = (batch, channels, height, width) if several else size
    return output, torch.randint(0, max(2, 1 if several else channels), shape, generator=generator)


def ignoring(case) -> dict:
    return {"ignore_index": IGNORE} if case in LABELLED else {}


def value_and_gradient(loss, output, target, weight=None):
    leaf = output.clone().requires_grad_()
    value = loss(leaf, target, weight=weight)
    assert value.shape == ()
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def test_every_builtin_has_a_case():
    built_in = {name for name in LOSSES.names() if LOSSES.entry(name).builtin}
    assert built_in - {"multitask"} <= {case[0] for case in CASES}  # multitask reads a batch, not a target


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_stress_grid(case, dtype):
    """Finite, and within 2 % of float64, at any logit and for any mask."""
    channels = case[2]
    loss = build(case, **ignoring(case))
    _, like = make(case, (2, 4, 4))
    one_pixel, everywhere = torch.zeros_like(like), torch.full_like(like, 1)
    one_pixel[..., 1, 2] = 1
    nothing = torch.zeros(2, 4, 4)
    situations = {"empty": (one_pixel * 0, None), "full": (everywhere, None), "one pixel": (one_pixel, None)}
    if case in DEPTH:
        situations["all ignored"] = (everywhere, nothing)
    else:
        situations["all ignored"] = (torch.full_like(like, IGNORE), None)
        situations["all weightless"] = (one_pixel, nothing)
    for logit in (0.0, *(sign * size for size in (1.0, 20.0, 88.0, 1e4) for sign in (1, -1))):
        output = torch.zeros(2, channels, 4, 4).to(dtype)
        output[:, 0] = logit
        output[..., 3] *= -1
        for situation, (target, weight) in situations.items():
            value, gradient = value_and_gradient(loss, output, target, weight)
            true_value, true_gradient = value_and_gradient(loss, output.double(), target, weight)
            where = f"logit {logit}, {situation}"
            assert math.isfinite(value) and gradient.isfinite().all(), where
            assert gradient.dtype == dtype
            assert value.item() == pytest.approx(true_value.item(), rel=0.02, abs=1e-6), where
            if "all" in situation:
                assert value == 0 and not gradient.any(), where
            if case[0] == "lovasz" and case[1]["mode"] == "multiclass":
                continue  # errors that are equal in fp32 alone: another subgradient, as good
            worst = (gradient.double() - true_gradient).abs().max().item()
            assert worst <= 0.02 * true_gradient.abs().max().item() + 1e-6, where


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_gradcheck_with_ignored_and_weighted_pixels(case):
    if case[0] == "berhu":
        pytest.skip("its gradient holds c constant: test_depth_losses.py has it in closed form")
    loss = build(case, **ignoring(case))
    output, target = make(case, (2, 3, 3), dtype=torch.float64)
    if case in LABELLED:
        target[..., 0, 1] = IGNORE
    weight = torch.rand(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight[:, 2, 2] = 0.0
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight=weight), (output.requires_grad_(),))


@pytest.mark.parametrize("case", LABELLED, ids=ids)
def test_ignored_pixels_change_neither_value_nor_gradient(case):
    loss = build(case, ignore_index=IGNORE)
    output, target = make(case)
    target[..., 2:4, :] = IGNORE
    other = output.clone()
    other[..., 2:4, :] = 50.0 * torch.randn(other[..., 2:4, :].shape, generator=torch.Generator().manual_seed(3))
    value, gradient = value_and_gradient(loss, output, target)
    other_value, other_gradient = value_and_gradient(loss, other, target)
    assert torch.equal(value, other_value) and torch.equal(gradient, other_gradient)
    assert not gradient[..., 2:4, :].any() and gradient.any()


@pytest.mark.parametrize("case", LABELLED, ids=ids)
def test_ignored_weightless_and_cut_off_are_the_same(case):
    output, target = make(case)
    ignored = target.clone()
    ignored[..., 4:, :] = IGNORE
    mask = torch.ones(2, 6, 6, dtype=torch.bool)
    mask[:, 4:] = False
    cut = build(case)(output[:, :, :4], target[..., :4, :])
    assert cut > 0
    torch.testing.assert_close(build(case, ignore_index=IGNORE)(output, ignored), cut)
    torch.testing.assert_close(build(case)(output, target, weight=mask), cut)
    torch.testing.assert_close(build(case)(output, target, weight=mask[:, None].float()), cut)


@pytest.mark.parametrize("case", DEPTH, ids=ids)
@pytest.mark.parametrize("nothing", [float("nan"), float("inf"), 50.0])
def test_invalid_pixels_change_neither_value_nor_gradient(case, nothing):
    output, target = make(case, (2, 7, 7))
    weight = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(2))
    weight[0, 2:4, :] = 0.0
    weight[1, 5, 5] = 0.0
    invalid = (weight == 0)[:, None].expand_as(output)
    value, gradient = value_and_gradient(build(case), output, target, weight)
    others = output.masked_fill(invalid, -nothing), target.masked_fill(invalid, nothing)
    other_value, other_gradient = value_and_gradient(build(case), *others, weight)
    assert torch.equal(value, other_value) and torch.equal(gradient, other_gradient)
    assert not gradient[invalid].any() and gradient.any()


@pytest.mark.parametrize("case", DEPTH, ids=ids)
def test_invalid_and_cut_off_are_the_same(case):
    output, target = make(case, (2, 12, 12))
    valid = torch.zeros(2, 12, 12, dtype=torch.bool)
    valid[:, :8] = True
    cut = build(case)(output[:, :, :8], target[:, :, :8])
    assert cut > 0
    if "ssim" in case[0]:  # windows reach over the edge of the valid area, and are cut off there
        assert build(case)(output, target, weight=valid).item() == pytest.approx(cut.item(), rel=0.4)
    else:
        torch.testing.assert_close(build(case)(output, target, weight=valid), cut)


@pytest.mark.parametrize("case", DEPTH, ids=ids)
def test_a_valid_nan_is_not_hidden(case):
    output, target = make(case)
    target[0, 0, 3, 3] = float("nan")
    assert build(case)(output, target).isnan()


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_an_image_of_weight_two_is_an_image_seen_twice(case):
    output, target = make(case, (2, 5, 6))
    if case[1].get("per_image"):
        pytest.skip("every image counts the same")
    weight = torch.ones(2, 5, 6)
    weight[1] = 2.0
    twice = [torch.cat([x, x[1:]]) for x in (output, target)]
    torch.testing.assert_close(build(case)(output, target, weight=weight), build(case)(*twice))


@pytest.mark.parametrize("case", [case for case in CASES if case[0] not in NEIGHBOURS], ids=ids)
def test_a_weight_of_two_is_a_pixel_seen_twice(case):
    output, target = make(case, (1, 4, 6))
    weight = torch.ones(1, 4, 6)
    weight[..., 4:] = 2.0
    twice = [torch.cat([x, x[..., 4:]], -1) for x in (output, target)]
    torch.testing.assert_close(build(case)(output, target, weight=weight), build(case)(*twice))


@pytest.mark.parametrize("case", LABELLED, ids=ids)
def test_an_image_with_nothing_to_count_changes_nothing(case):
    loss = build(case, ignore_index=IGNORE)
    output, target = make(case)
    target[1] = IGNORE
    torch.testing.assert_close(loss(output, target), loss(output[:1], target[:1]))


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_computes_in_fp32_under_autocast(case):
    output, target = make(case, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = build(case)(output, target)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, build(case)(output.float(), target))


@pytest.mark.parametrize("case", {(c[0], c[2], c[3]): c for c in CASES}.values(), ids=ids)
def test_compiles_whole_and_then_makes_a_wrong_label_nan(case):
    """The compiled path is the one of accelerators: no look at the labels' values, NaN instead."""
    torch._dynamo.reset()
    loss = build(case)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    output, target = make(case)
    torch.testing.assert_close(compiled(output, target), loss(output, target))
    if case in DEPTH:
        return
    target[..., 0, 0] = IGNORE
    assert compiled(output, target).isnan()
    ignoring = build(case, ignore_index=IGNORE)
    compiled = torch.compile(ignoring, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(output, target), ignoring(output, target))
    target[..., 0, 1] = -1
    assert compiled(output, target).isnan()


@pytest.mark.parametrize("case", LABELLED, ids=ids)
def test_label_outside_the_classes_is_named(case):
    output, target = make(case)
    target[0, ..., 0, 0] = 7
    target[1, ..., 0, 0] = -3
    count = 2 * (case[2] if case[3] else 1)
    with pytest.raises(LabelRangeError, match=rf"found {count} labels of value -3, 7.*ignore_index"):
        build(case)(output, target)
    with pytest.raises(LabelRangeError, match=f"found {count // 2} labels of value -3"):
        build(case, ignore_index=7)(output, target)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_misfits_are_refused(case):
    output, target = make(case)
    loss = build(case)
    with pytest.raises(SizeMismatchError, match="target does not fit"):
        loss(output, target[..., :-1])
    with pytest.raises(SizeMismatchError, match="weight does not fit"):
        loss(output, target, weight=torch.ones(2, 6, 5))
    with pytest.raises(InputShapeError, match=r"N, C, H, W"):
        loss(output[0], target)
    with pytest.raises(DataError, match="floating point"):
        loss(output.long(), target)
    if case in LABELLED:
        with pytest.raises(DataError, match=r"target\.long\(\)"):
            loss(output, target.float())


@pytest.mark.parametrize("case", [case for case in LABELLED if not case[3]], ids=ids)
def test_integers_of_any_kind_and_one_channel_targets(case):
    output, target = make(case)
    expected = build(case)(output, target)
    for other in (target.to(torch.uint8), target.to(torch.int32), target[:, None]):
        assert torch.equal(build(case)(output, other), expected)
