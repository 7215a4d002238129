"""The sum of losses over heads: from tables and callables, and its errors."""

from __future__ import annotations

import json
import math
import tomllib
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from unetzoo import LOSSES
from unetzoo.errors import ConfigError, PluginContractError, UnknownKeywordError, UnknownNameError
from unetzoo.losses import BCELoss, CELoss, DiceLoss, JaccardLoss, L1Loss, MultiTaskLoss


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class MaskDepth(NamedTuple):
    mask: Tensor
    depth: Tensor


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.zeros(2, 3, 4, 4),
        "mask": torch.randint(0, 2, (2, 4, 4), generator=generator),
        "depth": torch.rand(2, 1, 4, 4, generator=generator),
        "valid": torch.rand(2, 1, 4, 4, generator=generator) > 0.3,
        "weight": torch.rand(2, 4, 4, generator=generator),
        "id": ["a", "b"],
    }


@pytest.fixture
def output():
    generator = torch.Generator().manual_seed(1)
    return MaskDepth(torch.randn(2, 1, 4, 4, generator=generator), torch.rand(2, 1, 4, 4, generator=generator))


HEADS = tomllib.loads("""
    [heads.mask]
    bce = 1.0
    dice = { weight = 0.5, smooth = 1.0 }
    [heads.depth]
    l1 = 2
""")["heads"]


def test_two_heads_are_the_sum_of_their_terms(output, batch):
    loss = LOSSES.build("multitask", heads=json.loads(json.dumps(HEADS)))
    expected = {
        "mask/bce": BCELoss()(output.mask, batch["mask"], weight=batch["weight"]),
        "mask/dice": 0.5 * DiceLoss("binary", smooth=1.0)(output.mask, batch["mask"], weight=batch["weight"]),
        "depth/l1": 2.0 * L1Loss()(output.depth, batch["depth"], weight=batch["valid"]),
    }
    terms = loss.terms(output, batch)
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    torch.testing.assert_close(loss(output, batch), sum(expected.values(), start=torch.zeros(())))


def test_weight_and_valid_are_optional(output, batch):
    del batch["weight"], batch["valid"]
    terms = MultiTaskLoss(HEADS).terms(output, batch)
    torch.testing.assert_close(terms["mask/bce"], BCELoss()(output.mask, batch["mask"]))
    torch.testing.assert_close(terms["depth/l1"], 2 * L1Loss()(output.depth, batch["depth"]))


def test_a_plain_tensor_is_the_mask(batch):
    logits = torch.randn(2, 3, 4, 4)
    batch["mask"][0, 0] = 255
    loss = MultiTaskLoss({"mask": {"ce": 1.0, "jaccard": 1.0}}, num_classes=3, ignore_index=255)
    terms = loss.terms(logits, batch)
    assert list(terms) == ["ce", "jaccard"]
    given = {"target": batch["mask"], "weight": batch["weight"]}
    torch.testing.assert_close(terms["ce"], CELoss(ignore_index=255)(logits, **given))
    torch.testing.assert_close(terms["jaccard"], JaccardLoss("multiclass", ignore_index=255)(logits, **given))


def test_keywords_of_the_table_override_inherited_ones():
    table = {"dice": {"mode": "multilabel", "ignore_index": 7}, "bce": 1.0}
    loss = MultiTaskLoss({"mask": table}, num_classes=3, ignore_index=255)
    dice, bce = (term.loss for term in loss._terms)
    assert isinstance(dice, DiceLoss) and (dice.mode, dice.ignore_index) == ("multilabel", 7)
    assert isinstance(bce, BCELoss) and bce.ignore_index == 255


def test_ready_losses(output, batch):
    def edges(output, target, *, weight=None):
        return (output - target).abs().max()

    loss = MultiTaskLoss({"mask": DiceLoss("binary"), "depth": edges})
    terms = loss.terms(output, batch)
    assert list(terms) == ["mask/DiceLoss", "depth/edges"]
    torch.testing.assert_close(terms["depth/edges"], (output.depth - batch["depth"]).abs().max())


def test_gradient_reaches_every_head(output, batch):
    leaves = MaskDepth(*(head.clone().requires_grad_() for head in output))
    MultiTaskLoss(HEADS)(leaves, batch).backward()
    assert all(leaf.grad is not None and leaf.grad.any() for leaf in leaves)


def test_buffers_follow_the_module():
    loss = MultiTaskLoss({"mask": {"ce": {"class_weights": [1.0, 2.0]}}}, num_classes=2)
    assert [buffer.device.type for buffer in loss.to("meta").buffers()] == ["meta"]


@pytest.mark.parametrize(
    ("heads", "error", "message"),
    [
        ({}, ConfigError, "needs heads"),
        ({"mask": {}}, ConfigError, "needs losses"),
        ({"mask": 1.0}, ConfigError, "needs losses"),
        ({"mask": {"dise": 1.0}}, UnknownNameError, "did you mean 'dice'"),
        ({"mask": {"dice": {"smoth": 1.0}}}, UnknownKeywordError, "did you mean 'smooth'"),
        ({"mask": {"dice": "1.0"}}, ConfigError, "unusable weight.*'dice' of head 'mask'"),
        ({"mask": {"dice": True}}, ConfigError, "unusable weight"),
        ({"mask": {"dice": float("nan")}}, ConfigError, "unusable weight"),
        ({"mask": {"dice": {"weight": -1.0}}}, ConfigError, "unusable weight"),
        ({"mask": {"multitask": 1.0}}, ConfigError, "incomplete.*'heads'"),
    ],
)
def test_wrong_tables(heads, error, message):
    with pytest.raises(error, match=message):
        MultiTaskLoss(heads)


def test_wrong_outputs_and_batches(output, batch):
    with pytest.raises(UnknownNameError, match="dept") as caught:
        MultiTaskLoss({"dept": {"l1": 1.0}})(output, batch)
    assert "depth" in caught.value.hint
    with pytest.raises(UnknownNameError, match="depth") as caught:
        MultiTaskLoss(HEADS)(output.mask, batch)
    assert "mask" in caught.value.hint
    with pytest.raises(PluginContractError):
        MultiTaskLoss(HEADS)((*output, output.mask), batch)
    del batch["depth"]
    with pytest.raises(ConfigError, match="depth") as caught:
        MultiTaskLoss(HEADS)(output, batch)
    assert "l1" in caught.value.subject
    with pytest.raises(ConfigError, match="num_classes"):
        MultiTaskLoss(HEADS, num_classes=0)


def test_every_loss_can_be_used_by_name(output, batch):
    """`mode`, `classes` and `ignore_index` reach those that take them; a mask may be compared as probabilities."""
    names = {name for name in LOSSES.names() if name != "multitask" and not name.startswith("smp-")}
    depth = {"l1", "rmse", "berhu", "silog", "gradient", "depth_ssim", "ssim", "ms_ssim"}
    mask = {name: 1.0 for name in names - depth - {"ce"}} | {"ssim": {"from_logits": True}}
    loss = MultiTaskLoss({"mask": mask, "depth": dict.fromkeys(depth & names, 0.5)}, num_classes=1, ignore_index=255)
    terms = loss.terms(output, batch)
    assert set(terms) == {f"mask/{name}" for name in mask} | {f"depth/{name}" for name in depth}
    assert all(term.isfinite() and term > 0 for term in terms.values())
    taken = [term.loss for term in loss._terms if hasattr(term.loss, "ignore_index")]
    assert len(taken) == len(names - depth) - 1 and all(loss.ignore_index == 255 for loss in taken)

    many = {name: 1.0 for name in names - depth - {"bce"}}
    loss = MultiTaskLoss({"mask": many}, num_classes=3)
    assert all(getattr(term.loss, "mode", "multiclass") == "multiclass" for term in loss._terms)
    assert loss(torch.randn(2, 3, 4, 4), batch).isfinite()


def learning(**more):
    return MultiTaskLoss(HEADS, weighting="uncertainty", **more)


def test_learned_weights_follow_kendall(output, batch):
    """exp(−s)·L + s/2 for each head, and the sum of the terms is the loss."""
    fixed, loss = MultiTaskLoss(HEADS).terms(output, batch), learning()
    for name, term in fixed.items():  # s = 0 at first
        torch.testing.assert_close(loss.terms(output, batch)[name], term)
    (s,) = loss.parameters()
    with torch.no_grad():
        s.copy_(torch.tensor([0.7, -1.2]))
    terms = loss.terms(output, batch)
    assert list(terms) == ["mask/bce", "mask/dice", "depth/l1", "mask/uncertainty", "depth/uncertainty"]
    for name in ("mask/bce", "mask/dice"):
        torch.testing.assert_close(terms[name], math.exp(-0.7) * fixed[name])
    torch.testing.assert_close(terms["depth/l1"], math.exp(1.2) * fixed["depth/l1"])
    assert (terms["mask/uncertainty"].item(), terms["depth/uncertainty"].item()) == pytest.approx((0.35, -0.6))
    torch.testing.assert_close(loss(output, batch), sum(terms.values(), start=torch.zeros(())))


def test_learned_weights_settle_at_half_the_inverse_loss(output, batch):
    """∂/∂s (exp(−s)·L + s/2) = 0 where exp(−s) = 1 / 2L."""
    loss = learning()
    fixed = MultiTaskLoss(HEADS).terms(output, batch)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        loss(output, batch).backward()
        optimizer.step()
    sums = torch.stack([fixed["mask/bce"] + fixed["mask/dice"], fixed["depth/l1"]])
    assert loss.log_variance is not None
    torch.testing.assert_close(torch.exp(-loss.log_variance.detach()), 1 / (2 * sums), rtol=1e-3, atol=0)


def test_learned_weights_are_kept_and_fixed_ones_are_not_there():
    loss = learning()
    assert list(loss.state_dict()) == ["log_variance"] and not list(MultiTaskLoss(HEADS).parameters())
    assert not MultiTaskLoss(HEADS).state_dict()


def test_wrong_weighting():
    with pytest.raises(ConfigError, match="weighting"):
        MultiTaskLoss(HEADS, weighting="learned")  # pyright: ignore
    with pytest.raises(ConfigError, match="two heads"):
        MultiTaskLoss({"mask": {"bce": 1.0}}, weighting="uncertainty")


class Sides(NamedTuple):
    mask: Tensor
    sides: Tensor


class Whole(torch.nn.Module):
    """A loss of every part of an output."""

    def terms(self, output, batch):
        parts = [output] if isinstance(output, Tensor) else list(output)
        target = batch["mask"].float()[:, None]
        return {"near": sum((part - target).abs().mean() for part in parts), "flat": batch["weight"].mean()}


def test_a_loss_with_terms_receives_the_whole_output_and_batch(batch):
    logits = torch.randn(2, 2, 1, 4, 4)
    output, target = Sides(logits[0], logits[1]), batch["mask"].float()[:, None]
    near = [(part - target).abs().mean() for part in logits]
    for given, expected in ((output, near[0] + near[1]), (output.mask, near[0])):
        terms = MultiTaskLoss({"mask": Whole()}).terms(given, batch)
        assert list(terms) == ["Whole/near", "Whole/flat"]
        torch.testing.assert_close(terms["Whole/near"], expected)
        torch.testing.assert_close(terms["Whole/flat"], batch["weight"].mean())


def test_terms_of_such_a_loss_are_weighted(output, batch, monkeypatch):
    monkeypatch.setattr(LOSSES, "_local", {})
    LOSSES.register("whole")(lambda: Whole())
    heads = {"mask": {"whole": 0.25, "bce": 1.0}, "depth": {"l1": 2.0}}
    own = Whole().terms(output, batch)
    terms = MultiTaskLoss(heads).terms(output, batch)
    assert list(terms) == ["mask/whole/near", "mask/whole/flat", "mask/bce", "depth/l1"]
    torch.testing.assert_close(terms["mask/whole/near"], 0.25 * own["near"])
    loss = MultiTaskLoss(heads, weighting="uncertainty")
    assert loss.log_variance is not None
    with torch.no_grad():
        loss.log_variance.copy_(torch.tensor([0.7, -1.2]))
    torch.testing.assert_close(loss.terms(output, batch)["mask/whole/flat"], math.exp(-0.7) * 0.25 * own["flat"])


def test_one_multitask_loss_is_a_part_of_another(output, batch):
    inner = MultiTaskLoss(HEADS)
    terms = MultiTaskLoss({"mask": inner}).terms(output, batch)
    assert list(terms) == [f"MultiTaskLoss/{name}" for name in ("mask/bce", "mask/dice", "depth/l1")]
    torch.testing.assert_close(sum(terms.values(), start=torch.zeros(())), inner(output, batch))
    signed = MultiTaskLoss({"mask": {"boundary": 1.0}})
    with pytest.raises(ConfigError, match="without bound"):
        MultiTaskLoss({"mask": signed, "depth": {"l1": 1.0}}, weighting="uncertainty")


def test_names_of_terms_do_not_depend_on_other_outputs(output, batch):
    """So that a network with more outputs in training than in evaluation has one curve of each."""
    loss = MultiTaskLoss({"mask": {"bce": 1.0}})
    assert list(loss.terms(output, batch)) == list(loss.terms(output.mask, batch)) == ["bce"]
