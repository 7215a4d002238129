"""Properties of every network: parameters, geometry, cards, outputs."""

import pytest
import torch
from conftest import OURS, image, tensors, tiny

import unetzoo
from unetzoo.errors import ConfigError
from unetzoo.models import card, facts

# (model, configuration, parameters): summed by hand or from the peers' own networks
PARAMETERS = [
    ("unet", {"in_channels": 1, "classes": 1}, 31_030_593),
    ("unet", {"in_channels": 1, "classes": 2}, 31_030_658),
    ("unet", {"in_channels": 3, "classes": 1}, 31_031_745),
    ("unet", {"in_channels": 3, "classes": 2}, 31_031_810),
    ("bnunet", {}, 31_037_633),
    ("bnunet", {"classes": 2}, 31_037_698),
    ("bnunet", {"conv_bias": True}, 31_043_521),
    ("bnunet", {"up": "bilinear", "width_factor": 2}, 17_262_977),
    (
        "bnunet",
        {"classes": 11, "conv_bias": True, "hidden_act": {"type": "leaky_relu", "negative_slope": 0.05}},
        31_044_171,
    ),
    ("bnunet", {"conv_bias": True, "up": "upsample_conv"}, 34_527_041),
    ("bnunet", {"classes": 19, "conv_bias": True, "up": "bilinear", "order": "conv-act-bn"}, 31_391_891),
    ("r2unet", {}, 39_091_393),
    ("r2unet", {"classes": 2}, 39_091_458),
    ("r2unet", {"classes": 19}, 39_092_563),
    ("r2unet", {"classes": 19, "variant": "stepwise"}, 39_116_115),  # two norms more: 2·2·(2·1984 + 2·960)
    ("r2unet", {"classes": 19, "variant": "cityscapes"}, 49_526_163),
    ("r2unet", {"in_channels": 1, "encoder_channels": (16, 32, 64, 128), "variant": "paper"}, 1_046_529),
    ("ddunet", {"classes": 19}, 10_805_267),
    ("ddunet", {}, 10_804_097),
    ("ddunet", {"classes": 19, "variant": "original"}, 10_805_267),
    ("dualunet", {"variant": "original"}, 34_520_514),
]


@pytest.mark.parametrize(("name", "config", "count"), PARAMETERS, ids=str)
def test_parameters(name, config, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in unetzoo.build(name, **config).parameters()) == count


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("unet", {}),
        ("unet", {"padding": "same"}),
        ("bnunet", {}),
        ("bnunet", {"up": "upsample_conv"}),
        ("r2unet", {}),
        ("r2unet", {"variant": "stepwise"}),
        ("r2unet", {"variant": "cityscapes"}),
        ("r2unet", {"variant": "paper", "t": 3}),
        ("ddunet", {}),
        ("dualunet", {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_geometry_agrees_with_gradients(name, config, depth):
    net = unetzoo.build(name, encoder_channels=(2,) * (depth + 1), **config)
    geometry = net.geometry
    assert facts.reach(net, geometry.halo) == (geometry.halo, geometry.receptive_field)


def test_halos_are_the_known_ones():
    assert [tiny(name).geometry.halo for name in ("unet", "bnunet", "r2unet")] == [92, 94, 298]
    assert tiny("bnunet", up="upsample_conv").geometry.halo == 110
    assert tiny("bnunet", up="bilinear").geometry.halo is None


def test_every_card_is_complete_and_every_fact_holds():
    rows = list(card.verify())
    assert {name for name, _, _ in rows} == set(OURS)
    assert [
        (name, fact.name, fact.stated, measured) for name, fact, measured in rows if not fact.agrees(measured)
    ] == []
    for name in OURS:
        c = unetzoo.MODELS.get(name).card
        assert c.facts
        assert all(d.paper and d.ours and d.reason for d in c.deviations)


def test_verify_detects_a_wrong_fact():
    fact = facts.parameters(1, in_channels=1)
    assert not fact.agrees(fact.measure(unetzoo.models.UNet))
    with pytest.raises(ConfigError):
        list(card.verify("smp-*"))


def test_info_shows_all_known_facts(model_name):
    found = unetzoo.info(model_name)
    assert found.parameters == sum(p.numel() for p in unetzoo.build(model_name).parameters())
    assert "classes" in found.signature
    assert found.output_sizes
    assert found.receptive_field > 100
    assert found.to_dict()["card"]["deviations"]


def test_outputs_are_deterministic(model_name):
    net = tiny(model_name).eval()
    x = image(net)
    assert all(torch.equal(a, b) for a, b in zip(tensors(net(x)), tensors(net(x)), strict=True))
