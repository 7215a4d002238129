"""Properties that every loss guarantees."""

from __future__ import annotations

import math

import pytest
import torch
from losses.cases import CASES, DEPTH, IGNORE, LABELED, NEIGHBORS, build, ids, make

from unetzoo import LOSSES
from unetzoo.errors import DataError, InputShapeError, LabelRangeError, SizeMismatchError


def ignoring(case) -> dict:
    return {"ignore_index": IGNORE} if case in LABELED else {}


def value_and_gradient(loss, output, target, weight=None):
    leaf = output.clone().requires_grad_()
    value = loss(leaf, target, weight=weight)
    assert value.shape == ()
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def test_every_builtin_has_a_case():
    built_in = {name for name in LOSSES.names() if LOSSES.entry(name).builtin}
    others = {name for name in built_in if name == "multitask" or name.startswith("smp-")}  # a batch; no weight
    assert built_in - others <= {case[0] for case in CASES}


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
                continue  # errors that are equal only in fp32: another subgradient, equally valid
            worst = (gradient.double() - true_gradient).abs().max().item()
            assert worst <= 0.02 * true_gradient.abs().max().item() + 1e-6, where


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_gradcheck_with_ignored_and_weighted_pixels(case):
    if case[0] == "berhu":
        pytest.skip("its gradient holds c constant: test_depth_losses.py has it in closed form")
    loss = build(case, **ignoring(case))
    output, target = make(case, (2, 3, 3), dtype=torch.float64)
    if case in LABELED:
        target[..., 0, 1] = IGNORE
    weight = torch.rand(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight[:, 2, 2] = 0.0
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight=weight), (output.requires_grad_(),))


@pytest.mark.parametrize("case", LABELED, ids=ids)
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


@pytest.mark.parametrize("by", ["ignore_index", "weight"])
@pytest.mark.parametrize("case", LABELED, ids=ids)
def test_nan_and_inf_under_ignored_pixels_change_neither_value_nor_gradient(case, by):
    loss = build(case, **ignoring(case))
    output, target = make(case)
    weight = None
    if by == "weight":
        weight = torch.ones(2, 6, 6)
        weight[:, 2:4] = 0.0
    else:
        target[..., 2:4, :] = IGNORE
    value, gradient = value_and_gradient(loss, output, target, weight)
    for wrong in (math.nan, math.inf, -math.inf, 3e38):
        for channels in (slice(None), slice(1)):
            other = output.clone()
            other[:, channels, 2:4] = wrong
            other_value, other_gradient = value_and_gradient(loss, other, target, weight)
            assert torch.equal(value, other_value) and torch.equal(gradient, other_gradient)
    assert not gradient[..., 2:4, :].any() and gradient.any()
    output[:, :, 5] = math.nan
    assert loss(output, target, weight=weight).isnan()


@pytest.mark.parametrize("case", LABELED, ids=ids)
def test_ignored_weightless_and_cut_off_are_the_same(case):
    output, target = make(case)
    ignored = target.clone()
    ignored[..., 4:, :] = IGNORE
    mask = torch.ones(2, 6, 6, dtype=torch.bool)
    mask[:, 4:] = False
    cut = build(case)(output[:, :, :4], target[..., :4, :])
    assert cut != 0
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


@pytest.mark.parametrize("case", [case for case in CASES if case[0] not in NEIGHBORS], ids=ids)
def test_a_weight_of_two_is_a_pixel_seen_twice(case):
    output, target = make(case, (1, 4, 6))
    weight = torch.ones(1, 4, 6)
    weight[..., 4:] = 2.0
    twice = [torch.cat([x, x[..., 4:]], -1) for x in (output, target)]
    torch.testing.assert_close(build(case)(output, target, weight=weight), build(case)(*twice))


@pytest.mark.parametrize("case", LABELED, ids=ids)
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


KINDS = list({(case[0], case[2], case[3]): case for case in CASES}.values())
COMPILED = [  # one of each loss; the others are slow
    pytest.param(case, marks=pytest.mark.slow if any(case[0] == before[0] for before in KINDS[:number]) else ())
    for number, case in enumerate(KINDS)
]


# What torch 2.10 does itself when it compiles an autograd.Function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("case", COMPILED, ids=ids)
def test_it_compiles_as_one_graph_in_which_a_wrong_label_gives_nan(case):
    """The compiled path is the one of accelerators: no look at the labels' values, NaN instead."""
    torch._dynamo.reset()
    loss = build(case)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    output, target = make(case)
    expected = loss(output, target)
    torch.testing.assert_close(compiled(output, target), expected)
    leaf = output.clone().requires_grad_()
    torch.testing.assert_close(compiled(leaf, target).detach(), expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(leaf, target), expected)
    if case in DEPTH:
        return
    target[..., 0, 0] = IGNORE
    assert compiled(output, target).isnan()
    ignoring = build(case, ignore_index=IGNORE)
    compiled = torch.compile(ignoring, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(output, target), ignoring(output, target))
    target[..., 0, 1] = -1
    assert compiled(output, target).isnan()


@pytest.mark.parametrize("case", LABELED, ids=ids)
def test_label_outside_the_classes_is_named(case):
    output, target = make(case)
    target[0, ..., 0, 0] = 7
    target[1, ..., 0, 0] = -3
    count = 2 * (case[2] if case[3] else 1)
    with pytest.raises(LabelRangeError, match=rf"{count} .*-3, 7") as caught:
        build(case)(output, target)
    assert "ignore_index" in caught.value.hint
    with pytest.raises(LabelRangeError, match=rf"{count // 2} .*-3"):
        build(case, ignore_index=7)(output, target)


FLOATS = [case for case in LABELED if case[2] == 1 or case[3]]


@pytest.mark.parametrize("case", [case for case in FLOATS if case[0] != "border_ce"], ids=ids)
def test_binary_and_multilabel_masks_may_be_floats_of_0_and_1(case):
    """As SMP's notebooks pass them."""
    output, target = make(case)
    loss = build(case, ignore_index=IGNORE)
    target[..., 2:4, :] = IGNORE
    assert torch.equal(loss(output, target.float()), loss(output, target))
    for wrong in (0.5, math.nan):
        soft = target.float()
        soft[..., 0, 0] = wrong
        with pytest.raises(DataError):
            loss(output, soft)
    with pytest.raises(LabelRangeError):
        loss(output, target.float() + 1)
    if case[0] == "dice":
        compiled = torch.compile(loss, backend="eager", fullgraph=True)
        assert compiled(output, soft).isnan()


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_misfits_are_refused(case):
    output, target = make(case)
    loss = build(case)
    with pytest.raises(SizeMismatchError, match="target"):
        loss(output, target[..., :-1])
    with pytest.raises(SizeMismatchError, match="weight"):
        loss(output, target, weight=torch.ones(2, 6, 5))
    with pytest.raises(InputShapeError):
        loss(output[0], target)
    with pytest.raises(DataError):
        loss(output.long(), target)
    if case in LABELED:
        with pytest.raises(DataError) as caught:
            loss(output, target.float() + 0.5)
        assert "long()" in caught.value.hint
        with pytest.raises(DataError) as caught:
            loss(output, target.to("meta"))
        assert "to('cpu')" in caught.value.hint


@pytest.mark.parametrize("case", [case for case in LABELED if not case[3]], ids=ids)
def test_integers_of_any_kind_and_one_channel_targets(case):
    output, target = make(case)
    expected = build(case)(output, target)
    for other in (target.to(torch.uint8), target.to(torch.int32), target[:, None]):
        assert torch.equal(build(case)(output, other), expected)
