"""Regions of the answer, decoded alone, against the same region of the whole answer; and how much less is computed."""

import random

import pytest
import torch
from conftest import PADDED, small, tensors
from torch.utils.flop_counter import FlopCounterMode

import unetzoo
from unetzoo.errors import ConfigError, InputShapeError
from unetzoo.inference.views import View
from unetzoo.models.regions import part

WHOLE = [
    ("unet", {}),
    ("bnunet", {"up": "bilinear"}),
    ("ddunet", {"variant": "original", "encoder_channels": (4, 8, 16, 24)}),
    ("dualunet", {"variant": "original", "encoder_channels": (4, 8, 16, 24, 32, 40)}),
]


def spans(rng, size):
    start, stop = sorted(rng.sample(range(size + 1), 2))
    return range(start, stop)


@pytest.mark.parametrize(("name", "config"), PADDED)
def test_any_region_is_that_of_the_whole(name, config):
    net, rng = small(name, **config).double(), random.Random(0)
    image = torch.rand(1, 2, 60, 84, dtype=torch.float64)
    with torch.no_grad():
        whole = tensors(net(image))
        height, width = whole[0].shape[-2:]
        regions = [(spans(rng, height), spans(rng, width)) for _ in range(40)]
        regions += [(range(height), range(width)), (range(height - 1, height), range(1))]
        for region in regions:
            for found, wanted in zip(tensors(net(image, region)), whole, strict=True):
                torch.testing.assert_close(found, part(wanted, region), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "config"), PADDED)
def test_one_pixel_costs_the_encoder_and_little_more(name, config):
    net = small(name, **config).double()
    image = torch.rand(1, 2, 160, 160, dtype=torch.float64)

    def operations(call):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    encoder, whole = operations(lambda: net.encoder(image)), operations(lambda: net(image))
    pixel = operations(lambda: net(image, (range(40, 41), range(40, 41))))
    assert encoder < pixel < encoder + 0.1 * (whole - encoder)


@pytest.mark.parametrize(("name", "config"), PADDED)
def test_exact_tiles_decode_what_they_keep(name, config, monkeypatch):
    net, asked = small(name, **config).double(), []
    forward = net.forward
    monkeypatch.setattr(net, "forward", lambda x, region=None: asked.append(region) or forward(x, region))
    image = torch.rand(2, 150, 330, dtype=torch.float64)
    whole = unetzoo.predict(net, image, tta="d4")
    assert asked == [None] * 8
    tiled = unetzoo.predict(net, image, tile=144, tta="d4")
    assert len(asked) > 16 and None not in asked[8:]
    for found, wanted in zip(tensors(tiled), tensors(whole), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("turns", range(-1, 5))
@pytest.mark.parametrize("mirror", [False, True])
def test_turned_regions(mirror, turns):
    view, region = View(mirror=mirror, turns=turns), (range(2, 5), range(1, 7))
    answer = torch.arange(77).reshape(1, 7, 11)
    turned = part(view.turned(answer), view.turned_region(region, (7, 11)))
    assert torch.equal(view.turned_back(turned), part(answer, region))


@pytest.mark.parametrize(("name", "config"), WHOLE)
def test_networks_that_answer_whole_maps_say_so(name, config):
    net = small(name, **config).double()
    assert not net.decodes_regions
    size = net.geometry.fit(64)
    with pytest.raises(ConfigError, match="cannot decode a region"):
        net(torch.rand(1, 2, size, size, dtype=torch.float64), (range(2), range(2)))


def test_what_would_be_wrong_is_refused():
    net, image, corner = small("bnunet").double(), torch.rand(1, 2, 40, 40, dtype=torch.float64), (range(5), range(5))
    with pytest.raises(InputShapeError, match="multiples of 4"):
        net(image[..., 1:], corner)
    for region in [(range(41), range(5)), (range(-1, 5), range(5)), (range(5), range(3, 3))]:
        with pytest.raises(InputShapeError, match="within 40×40"):
            net(image, region)
    with pytest.raises(ConfigError, match="evaluation mode"):
        net.train()(image, corner)


def test_optimized_networks_decode_regions_unless_compiled():
    net, region = small("r2unet"), (range(10, 30), range(5, 17))
    fast, image = unetzoo.optimize(net), torch.rand(1, 2, 64, 64)
    assert fast.decodes_regions
    with torch.no_grad():
        wanted = part(net(image), region)
        assert (fast(image, region) - wanted).abs().max() < 1e-5 * wanted.abs().max()
