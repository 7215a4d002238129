"""Deep supervision: outputs in training mode, the loss, and a training run."""

import math

import pytest
import torch
from unetzoo_attention import DeepSupervision, Supervised, UNetPlusPlus

import unetzoo
from unetzoo.errors import ConfigError
from unetzoo.models import MaskDepth
from unetzoo.training import load_recipe, train

SIX = {"encoder_channels": [2] * 6, "mid_channels": [2] * 6, "decoder_mid_channels": [2] * 5}


@pytest.mark.parametrize(
    ("name", "options", "sides"), [("unetplusplus", {"encoder_channels": [2, 4, 4]}, 2), ("u2net", SIX, 6)]
)
def test_side_outputs_are_there_in_training_alone(name, options, sides):
    net = unetzoo.build(name, classes=3, deep_supervision=True, **options)
    x = torch.randn(2, 3, 33, 40)
    output = net(x)
    assert isinstance(output, Supervised)
    assert [tuple(side.shape) for side in output.split()] == [(2, 3, 33, 40)] * sides
    assert isinstance(net.eval()(x), torch.Tensor)
    plain = unetzoo.build(name, classes=3, **options)
    assert isinstance(plain(x), torch.Tensor)


def test_the_fused_mask_of_u2net_is_a_mixture_of_its_sides():
    net = unetzoo.build("u2net", deep_supervision=True, **SIX)
    mask, sides = net(torch.randn(2, 3, 32, 32))
    weight, bias = net.segmentation_head[0].weight[0, :, 0, 0], net.segmentation_head[0].bias
    torch.testing.assert_close(mask[:, 0], torch.einsum("k,nkhw->nhw", weight, sides) + bias)


def test_the_loss_is_the_weighted_sum_over_mask_and_sides():
    torch.manual_seed(0)
    logits = torch.randn(4, 2, 3, 5, 6)
    output = Supervised(logits[0], torch.cat(list(logits[1:]), dim=1))
    target, weight = torch.randint(0, 3, (2, 5, 6)), torch.rand(2, 5, 6)
    loss = DeepSupervision({"ce": 1.0}, mode="multiclass", mask_weight=0.5, side_weight=2.0)

    def entropy(x):
        picked = torch.gather(x, 1, target[:, None])[:, 0]
        return ((torch.logsumexp(x, 1) - picked) * weight).sum() / weight.sum()

    expected = 0.5 * entropy(logits[0]) + 2.0 * sum(entropy(x) for x in logits[1:])
    torch.testing.assert_close(loss(output, target, weight=weight), expected)
    torch.testing.assert_close(loss(logits[0], target, weight=weight), entropy(logits[0]))


def test_terms_keep_their_names_with_and_without_sides():
    loss = DeepSupervision({"bce": 1.0, "dice": 0.5}, mask_weight=0.0)
    mask, batch = torch.zeros(1, 1, 4, 4), {"mask": torch.ones(1, 4, 4, dtype=torch.int64)}
    supervised = loss.terms(Supervised(mask, torch.zeros(1, 4, 4, 4)), batch)
    assert list(supervised) == list(loss.terms(mask, batch)) == ["bce", "dice"]
    assert supervised["bce"].item() == pytest.approx(4 * math.log(2))
    other = loss.terms(MaskDepth(mask, mask), batch)
    assert list(other) == ["bce", "dice"] and other["bce"].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_the_mode_reaches_the_losses_that_take_one(mode):
    generator = torch.Generator().manual_seed(0)
    channels = 1 if mode == "binary" else 3
    shape = (2, 3, 5, 6) if mode == "multilabel" else (2, 5, 6)
    logits = torch.randn(2, channels, 5, 6, generator=generator)
    target = torch.randint(0, 2, shape, generator=generator)
    for spec, smooth in ((1.0, 0.0), ({"smooth": 2.0}, 2.0)):
        loss = DeepSupervision({"dice": spec}, mode=mode)
        alone = unetzoo.LOSSES.build("dice", mode=mode, smooth=smooth)
        torch.testing.assert_close(loss(logits, target), alone(logits, target))
    named = DeepSupervision({"dice": {"mode": mode}}, mode="binary" if mode == "multilabel" else "multilabel")
    alone = unetzoo.LOSSES.build("dice", mode=mode)
    torch.testing.assert_close(named(logits, target), alone(logits, target))


@pytest.mark.parametrize(
    "given",
    [
        {"mask_weight": -1.0},
        {"mask_weight": 0.0, "side_weight": 0.0},
        {"mode": "binry"},
        {"losses": {"dise": 1.0}},
        {"losses": {}},
        {"losses": 1.0},
    ],
)
def test_useless_settings_are_refused(given):
    with pytest.raises(ConfigError):
        DeepSupervision(**{"losses": {"dice": 1.0}, **given})


def test_a_table_of_losses_hands_it_the_side_outputs_its_mode_and_its_weight():
    generator = torch.Generator().manual_seed(0)
    mask, sides = torch.randn(1, 3, 4, 4, generator=generator), torch.randn(1, 6, 4, 4, generator=generator)
    target = torch.randint(0, 3, (1, 4, 4), generator=generator)
    target[0, 0] = 255
    table = {"weight": 0.5, "mask_weight": 0.0, "losses": {"dice": 1.0}}
    heads = {"mask": {"deep-supervision": table}}
    loss = unetzoo.LOSSES.build("multitask", heads=heads, num_classes=3, ignore_index=255)
    dice = unetzoo.LOSSES.build("dice", mode="multiclass", ignore_index=255)
    for output, each in ((Supervised(mask, sides), sides.split(3, dim=1)), (mask, [mask])):
        terms = loss.terms(output, {"mask": target})
        assert list(terms) == ["deep-supervision/dice"]
        expected = 0.5 * sum(dice(side, target) for side in each)
        torch.testing.assert_close(terms["deep-supervision/dice"], expected)


def test_only_trained_branches_are_pruned():
    with pytest.raises(ConfigError) as error:
        UNetPlusPlus(encoder_channels=(2, 4, 4)).pruned(1)
    assert error.value.subject == "level 1" and "deep_supervision=False" in error.value.found
    with pytest.raises(ConfigError) as error:
        UNetPlusPlus(encoder_channels=(2, 4, 4), deep_supervision=True).pruned(3)
    assert error.value.subject == "level 3"


def test_a_replaced_head_stays_the_mean_of_the_branches_and_is_pruned():
    net = UNetPlusPlus(encoder_channels=(2, 4, 4), deep_supervision=True).eval()
    net.segmentation_head[0] = torch.nn.Conv2d(4, 3, 1, bias=False)
    x = torch.randn(2, 3, 12, 9)
    with torch.no_grad():
        branches = [net.pruned(level)(x) for level in (1, 2)]
        torch.testing.assert_close(net(x), (branches[0] + branches[1]) / 2)
    net.segmentation_head[0] = torch.nn.Conv2d(4, 3, 3, padding=1)
    assert net(x).shape == (2, 3, 12, 9)
    with pytest.raises(ConfigError) as error:
        net.pruned(1)
    assert "(3, 3)" in error.value.found


def test_side_outputs_of_other_classes_are_not_mistaken_for_fewer_sides():
    net = unetzoo.build("u2net", deep_supervision=True, **SIX)
    net.segmentation_head[0] = torch.nn.Conv2d(6, 3, 1)  # the six sides still have one class each
    x = torch.randn(2, 3, 32, 32)
    with pytest.raises(ConfigError) as error:
        net(x)
    assert "classes=3" in error.value.hint
    assert net.eval()(x).shape == (2, 3, 32, 32)


def test_a_pruned_network_is_saved_and_comes_back(tmp_path):
    net = UNetPlusPlus(classes=2, encoder_channels=(2, 4, 4), deep_supervision=True, aux_params={"classes": 3}).eval()
    small = net.pruned(1)
    assert not small.training
    small.save_pretrained(tmp_path)
    x = torch.randn(1, 3, 21, 18)
    torch.testing.assert_close(unetzoo.from_pretrained(tmp_path)(x), small(x))


def test_the_trainer_trains_every_branch():
    torch.manual_seed(0)
    data = unetzoo.DATASETS.build("composites", size=32, length=16, channels=3)
    data.transform = unetzoo.datasets.Transform(labels=data.labels)
    net = unetzoo.build("unetplusplus", encoder_channels=(4, 8, 8), deep_supervision=True)
    loss = DeepSupervision({"bce": 1.0}, mask_weight=0.0, side_weight=0.5)
    batch = torch.stack([data[n]["image"] for n in range(8)]), torch.stack([data[n]["mask"] for n in range(8)])
    before = [loss(side, batch[1]).item() for side in net(batch[0]).split()]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    rows = unetzoo.Trainer(net, loss, optimizer=optimizer, epochs=10, batch_size=8, progress=False).fit(data, data)
    after = [loss(side, batch[1]).item() for side in net.train()(batch[0]).split()]
    assert all(late < 0.8 * early for early, late in zip(before, after, strict=True))
    assert {"train/bce", "val/bce"} <= rows[-1].keys()


@pytest.mark.parametrize("name", ["attention-composites", "unetplusplus-composites"])
def test_the_recipes_learn(name, tmp_path):
    small = ["data.train.length=160", "data.val.length=40", "data.size=48", "model.encoder_channels=[8,16,32]"]
    less = [*small, "train.epochs=3", "train.batch_size=8", "optimizer.lr=1e-2"]
    result = train(name, less, out=tmp_path / "run", progress=False)
    assert result.scores["iou/foreground"] > 0.35  # everything foreground would score 0.12


def test_the_recipe_supervises_every_branch():
    """Its loss is the mean over the branches, and a term has one name in training and in validation."""
    torch.manual_seed(0)
    recipe = load_recipe("unetplusplus-composites")
    net, loss = unetzoo.build(recipe.model.name, **recipe.model.options), recipe.make_loss()
    data = unetzoo.DATASETS.build("composites", size=32, length=4, channels=3)
    data.transform = unetzoo.datasets.Transform(labels=data.labels)
    image, mask = (torch.stack([data[n][key] for n in range(4)]) for key in ("image", "mask"))
    output, bce = net(image), unetzoo.LOSSES.build("bce")
    expected = sum(bce(side, mask).item() for side in output.split()) / 3
    assert len(output.split()) == 3
    assert loss.terms(output, {"mask": mask})["deep-supervision/bce"].item() == pytest.approx(expected, rel=1e-3)
    row = unetzoo.Trainer(net, loss, steps=1, progress=False).fit(data, data)[0]
    terms = {name.partition("/")[2] for name in row if name.startswith("train/")}
    assert terms == {name.partition("/")[2] for name in row if name.startswith("val/")}
    assert terms == {"loss", "deep-supervision/bce", "deep-supervision/dice"}
