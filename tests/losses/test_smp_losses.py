"""SMP's losses by name: SMP's values behind our call; their deviations are declared in the kit's cases."""

import inspect

import pytest
import segmentation_models_pytorch as smp
import torch

from unetzoo import LOSSES
from unetzoo.errors import ConfigError, LabelRangeError, SizeMismatchError, UnknownKeywordError

NAMES = LOSSES.names("smp-*")
BY_MODE = {"dice": smp.losses.DiceLoss, "jaccard": smp.losses.JaccardLoss, "tversky": smp.losses.TverskyLoss,
           "focal": smp.losses.FocalLoss, "lovasz": smp.losses.LovaszLoss}  # fmt: skip


def pair(mode, ignored=None):
    generator = torch.Generator().manual_seed(0)
    channels = {"binary": 1, "multiclass": 3, "multilabel": 2}[mode]
    output = torch.randn(2, channels, 7, 9, generator=generator)
    shape = (2, 2, 7, 9) if mode == "multilabel" else (2, 7, 9)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    if ignored is not None:
        target[..., 0, :] = ignored
    return output, target


def test_all_of_smps_losses_are_there():
    theirs = {name for name, value in vars(smp.losses).items() if inspect.isclass(value)}
    short = {"SoftBCEWithLogitsLoss": "softbce", "SoftCrossEntropyLoss": "softce"}
    assert {f"smp-{short.get(name, name.removesuffix('Loss').lower())}" for name in theirs} == set(NAMES)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("name", BY_MODE)
def test_the_numbers_are_smps(name, mode):
    more = {"gamma": 1.5} if name in ("tversky", "focal") else {}
    output, target = pair(mode)
    expected = BY_MODE[name](mode=mode, **more)(output, target if mode != "binary" else target[:, None])
    assert torch.equal(LOSSES.build(f"smp-{name}", mode=mode, **more)(output, target), expected)
    if mode != "multilabel":
        assert torch.equal(LOSSES.build(f"smp-{name}", mode=mode, **more)(output, target[:, None]), expected)


@pytest.mark.parametrize("name", BY_MODE)
def test_ignored_labels_reach_smp(name):
    output, target = pair("multiclass", ignored=255)
    expected = BY_MODE[name](mode="multiclass", ignore_index=255)(output, target)
    loss = LOSSES.build(f"smp-{name}", mode="multiclass", ignore_index=255)
    assert torch.equal(loss(output, target), expected)
    with pytest.raises(LabelRangeError, match="255"):
        LOSSES.build(f"smp-{name}", mode="multiclass")(output, target)


def test_those_without_a_mode():
    output, target = pair("binary")
    theirs = smp.losses.SoftBCEWithLogitsLoss(smooth_factor=0.1, pos_weight=torch.tensor([[[2.0]]]))
    expected = theirs(output, target[:, None].float())
    assert torch.equal(LOSSES.build("smp-softbce", smooth_factor=0.1, pos_weight=2.0)(output, target), expected)
    expected = smp.losses.MCCLoss()(output.sigmoid(), target[:, None].float())
    assert torch.equal(LOSSES.build("smp-mcc")(output, target), expected)
    output, target = pair("multilabel")
    theirs = smp.losses.SoftBCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 3.0]).reshape(2, 1, 1))
    expected = theirs(output, target.float())
    assert torch.equal(LOSSES.build("smp-softbce", pos_weight=[2.0, 3.0])(output, target), expected)
    output, target = pair("multiclass")
    expected = smp.losses.SoftCrossEntropyLoss(smooth_factor=0.2, reduction="sum")(output, target)
    assert torch.equal(LOSSES.build("smp-softce", smooth_factor=0.2, reduction="sum")(output, target), expected)
    plain = torch.nn.functional.cross_entropy(output, target)
    torch.testing.assert_close(LOSSES.build("smp-softce")(output, target), plain)
    with pytest.raises(TypeError):  # SMP's own default, which ours replaces
        smp.losses.SoftCrossEntropyLoss()(output, target)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_is_refused_and_none_is_not(name):
    mode = "multiclass" if name == "smp-softce" else "binary"
    loss = LOSSES.build(name, **({"mode": mode} if "mode" in inspect.signature(LOSSES.get(name)).parameters else {}))
    output, target = pair(mode)
    assert loss(output.requires_grad_(), target, weight=None).requires_grad
    with pytest.raises(ConfigError, match="weight"):
        loss(output, target, weight=torch.ones(2, 7, 9))
    with pytest.raises(SizeMismatchError):
        loss(output, target[..., :-1])


@pytest.mark.parametrize("name", NAMES)
def test_keywords_are_explicit(name):
    parameters = inspect.signature(LOSSES.get(name)).parameters.values()
    assert not [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert "from_logits" not in inspect.signature(LOSSES.get("smp-lovasz")).parameters
    with pytest.raises(UnknownKeywordError):
        LOSSES.build(name, ignore_indx=3)


def test_wrong_keywords_are_refused_as_ours_are():
    with pytest.raises(ConfigError, match="mode"):
        LOSSES.build("smp-dice")
    with pytest.raises(ConfigError, match="binary"):
        LOSSES.build("smp-dice", mode="binari")
    with pytest.raises(ConfigError, match="keywords"):
        LOSSES.build("smp-dice", mode="binary", classes=[0])
    for name, more in (("smp-focal", {"mode": "binary"}), ("smp-softbce", {}), ("smp-softce", {})):
        with pytest.raises(ConfigError, match="reduction"):
            LOSSES.build(name, reduction="none", **more)


def test_focal_with_multilabel_cannot_ignore_pixels():
    """SMP's own raises an IndexError when it is called."""
    assert LOSSES.build("smp-focal", mode="multilabel") is not None
    with pytest.raises(ConfigError) as caught:
        LOSSES.build("smp-focal", mode="multilabel", ignore_index=255)
    assert caught.value.subject == "ignore_index" and "focal" in caught.value.hint


def test_they_can_be_used_in_a_recipe():
    loss = LOSSES.build("multitask", heads={"mask": {"smp-focal": 0.5, "smp-dice": {"weight": 0.5, "smooth": 1.0}}})
    output, target = pair("binary")
    focal, dice = smp.losses.FocalLoss("binary"), smp.losses.DiceLoss("binary", smooth=1.0)
    expected = 0.5 * focal(output, target[:, None]) + 0.5 * dice(output, target[:, None])
    torch.testing.assert_close(loss(output, {"mask": target}), expected)
