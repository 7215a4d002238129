"""Properties of every loss, on whatever hypothesis comes up with."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses.cases import CASES, DEPTH, IGNORE, LABELED, build, ids, make

few = settings(max_examples=6, deadline=None)
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
ROUNDING = 1e-12
# Least for the truth, but not 0 there: smoothed labels say that nothing is certain, and an absent class may cost 1.
NOT_ZERO = [c for c in LABELED if c[0] == "boundary" or "label_smoothing" in c[1] or c[1].get("empty") == "formula"]
# Not the same for every class: label 0 is the background, or a list says so.
UNEQUAL = {"classes", "class_weights"}
SYMMETRIC = [c for c in LABELED if c[2] > 1 and not c[3] and c[0] != "border_ce" and not UNEQUAL & set(c[1])]
# Means over pixels or over images, where the halves of a batch weigh the same.
MEANS = [
    c
    for c in CASES
    if (c[0] in {"ce", "bce", "focal", "l1", "ssim", "gradient"} or c[1].get("per_image"))
    and not (c[1].get("normalized") or c[1].get("empty") == "skip" or (c[0] == "ce" and "class_weights" in c[1]))
]


@pytest.mark.parametrize("case", LABELED, ids=ids)
@given(seed=seeds, size=sizes)
@few
def test_nothing_costs_less_than_the_truth(case, seed, size):
    output, target = make(case, size, seed, torch.float64)
    if case[3] or case[2] == 1:
        certain = torch.where(target.reshape(output.shape) == 1, 200.0, -200.0).double()
    else:
        certain = torch.full_like(output, -200.0).scatter(1, target[:, None], 200.0)
    value, least = build(case)(output, target), build(case)(certain, target)
    if case not in NOT_ZERO:
        assert -ROUNDING <= least <= 2e-6
    if "label_smoothing" not in case[1]:
        assert value >= least - ROUNDING


@pytest.mark.parametrize("case", DEPTH, ids=ids)
@given(seed=seeds, size=sizes)
@few
def test_the_same_map_costs_nothing(case, seed, size):
    output, _ = make(case, size, seed, torch.float64)
    target = output.sigmoid() if case[1].get("from_logits") else output
    assert abs(build(case)(output, target)) < 1e-6
    assert build(case)(output + torch.rand_like(output), target) >= 0


@pytest.mark.parametrize("case", CASES, ids=ids)
@given(seed=seeds, size=sizes)
@few
def test_bounds(case, seed, size):
    output, target = make(case, size, seed, torch.float64)
    value = build(case)(30 * output, target).item()
    name, keywords = case[0], case[1]
    least, most = 0.0, math.inf
    if name == "boundary":
        most = math.hypot(*size[1:])
        least = -most
    elif name in {"dice", "jaccard", "tversky"} and not keywords.get("log_loss"):
        most = 1.0
    elif name == "lovasz" and keywords["mode"] == "multiclass":
        most = 1.0
    elif name in {"mcc", "ssim", "ms_ssim"}:
        most = 2.0
    assert least - ROUNDING <= value <= most + ROUNDING


@pytest.mark.parametrize("case", SYMMETRIC, ids=ids)
@given(seed=seeds, size=sizes)
@few
def test_the_classes_have_no_order(case, seed, size):
    output, target = make(case, size, seed, torch.float64)
    order = torch.randperm(case[2], generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(build(case)(output[:, order], order.argsort()[target]), build(case)(output, target))


@pytest.mark.parametrize("case", MEANS, ids=ids)
@given(seed=seeds, size=st.tuples(st.integers(1, 2), st.integers(2, 5), st.integers(2, 5)))
@few
def test_a_batch_is_the_mean_of_its_halves(case, seed, size):
    output, target = make(case, (2 * size[0], *size[1:]), seed, torch.float64)
    loss = build(case)
    first, second = (loss(output[part], target[part]) for part in (slice(0, size[0]), slice(size[0], None)))
    torch.testing.assert_close(loss(output, target), (first + second) / 2)


@pytest.mark.parametrize("case", CASES, ids=ids)
@given(seed=seeds)
@few
def test_images_have_no_order(case, seed):
    output, target = make(case, (3, 4, 5), seed, torch.float64)
    torch.testing.assert_close(build(case)(output.flip(0), target.flip(0)), build(case)(output, target))


@pytest.mark.parametrize("case", LABELED, ids=ids)
@given(seed=seeds, share=st.floats(0.0, 1.0))
@few
def test_ignored_pixels_have_no_effect(case, seed, share):
    loss = build(case, ignore_index=IGNORE)
    output, target = make(case, (2, 5, 6), seed, torch.float64)
    generator = torch.Generator().manual_seed(seed)
    ignored = torch.rand(target.shape, generator=generator) < share
    target = target.masked_fill(ignored, IGNORE)
    other = torch.where(ignored.view(2, -1, 5, 6), 50 * torch.randn(output.shape, generator=generator).double(), output)
    answers = []
    for values in (output, other):
        leaf = values.clone().requires_grad_()
        value = loss(leaf, target)
        answers += [(value.detach(), *torch.autograd.grad(value, leaf))]
    (value, gradient), (again, slope) = answers
    torch.testing.assert_close(value, again, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=1e-12, atol=1e-12)
    assert not gradient[ignored.view(2, -1, 5, 6).expand_as(gradient)].any()
