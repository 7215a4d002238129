"""Regions decoded separately against the same regions of the whole output, and the saved computation."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import PADDED, small, tensors
from torch.utils.flop_counter import FlopCounterMode

import unetzoo
from unetzoo.errors import ConfigError, InputShapeError
from unetzoo.inference.views import View
from unetzoo.models import BNUNet
from unetzoo.models.regions import RegionNetwork, part

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
def test_any_region_equals_that_of_the_whole(name, config):
    net, rng = small(name, **config).double(), random.Random(0)
    image = torch.rand(1, 2, 60, 84, dtype=torch.float64)
    with torch.no_grad():
        whole = tensors(net(image))
        height, width = whole[0].shape[-2:]
        regions = [(spans(rng, height), spans(rng, width)) for _ in range(40)]
        regions += [(range(height), range(width)), (range(height - 1, height), range(1))]
        for region in regions:
            for found, wanted in zip(tensors(net.decode_region(image, region)), whole, strict=True):
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
    pixel = operations(lambda: net.decode_region(image, (range(40, 41), range(40, 41))))
    assert encoder < pixel < encoder + 0.1 * (whole - encoder)


@pytest.mark.parametrize(("name", "config"), PADDED)
def test_exact_tiles_decode_what_they_keep(name, config, monkeypatch):
    net, asked = small(name, **config).double(), []
    decode, handle = net.decode_region, net.register_forward_hook(lambda *_: asked.append(None))
    monkeypatch.setattr(net, "decode_region", lambda x, region: asked.append(region) or decode(x, region))
    image = torch.rand(2, 150, 220, dtype=torch.float64)
    whole = unetzoo.predict(net, image, tta="d4")
    assert asked == [None] * 8
    handle.remove()
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
def test_networks_that_decode_only_whole_maps_declare_it(name, config):
    net = small(name, **config).double()
    assert not net.decodes_regions
    size = net.geometry.fit(64)
    with pytest.raises(ConfigError):
        net.decode_region(torch.rand(1, 2, size, size, dtype=torch.float64), (range(2), range(2)))


def test_invalid_regions_are_refused():
    net, image, corner = small("bnunet").double(), torch.rand(1, 2, 40, 40, dtype=torch.float64), (range(5), range(5))
    with pytest.raises(InputShapeError) as error:
        net.decode_region(image[..., 1:], corner)
    assert "multiples of 4" in str(error.value.expected)
    for region in [(range(41), range(5)), (range(-1, 5), range(5)), (range(5), range(3, 3))]:
        with pytest.raises(InputShapeError) as error:
            net.decode_region(image, region)
        assert "40×40" in str(error.value.expected)
    with pytest.raises(InputShapeError):
        RegionNetwork(net, corner, (40, 40))(image[..., :36, :])
    with pytest.raises(ConfigError) as error:
        net.train().decode_region(image, corner)
    assert error.value.hint == "net.eval()"


class Otherwise(BNUNet):
    """Uses an encoder map outside the decoder, so that decoding only a region would be wrong."""

    def forward(self, x):
        features = self.encoder(x)
        return self.segmentation_head(self.decoder(features) + features[0])


def test_networks_with_another_forward_do_not_inherit_it():
    net = Otherwise(encoder_channels=(4, 8, 16)).eval()
    assert not net.decodes_regions and small("bnunet").decodes_regions
    with pytest.raises(ConfigError):
        net.decode_region(torch.rand(1, 3, 64, 64), (range(5), range(5)))


def test_labels_are_those_of_the_whole_image():
    net, image = small("bnunet", aux_params={"classes": 2}), torch.rand(1, 2, 64, 64)
    with torch.no_grad():
        (whole, labels), (region, same) = net(image), net.decode_region(image, (range(5), range(9, 30)))
    assert torch.equal(labels, same)
    torch.testing.assert_close(region, whole[..., :5, 9:30])


def test_the_network_is_not_touched_not_even_by_an_error():
    net, image = small("dualunet"), torch.rand(1, 2, 64, 64)
    before, config = {name: id(module) for name, module in net.named_modules()}, dict(net.config)
    with torch.no_grad():
        wanted = tensors(net(image))
        net.decode_region(image, (range(5), range(5)))
        with pytest.raises(InputShapeError):
            RegionNetwork(net, (range(5), range(5)), (64, 64))(image[..., 1:])
        assert all(torch.equal(a, b) for a, b in zip(tensors(net(image)), wanted, strict=True))
    assert {name: id(module) for name, module in net.named_modules()} == before and net.config == config


def test_threads_decode_different_regions_at_once():
    net, image = small("r2unet").double(), torch.rand(1, 2, 64, 64, dtype=torch.float64)
    regions = [(range(n, n + 9), range(2 * n, 2 * n + 5)) for n in range(16)]
    with torch.no_grad():
        whole = net(image)

    def decode(region):
        with torch.no_grad():
            return net.decode_region(image, region)

    with ThreadPoolExecutor(4) as pool:
        for region, found in zip(regions, pool.map(decode, regions), strict=True):
            torch.testing.assert_close(found, part(whole, region), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "config"), [("bnunet", {}), ("dualunet", {"out_stride": 2})])
def test_a_region_network_compiles_and_exports(name, config):
    net, image = small(name, **config), torch.rand(1, 2, 64, 64)
    cropped = RegionNetwork(net, (range(3, 20), range(9)), (64, 64))
    with torch.no_grad():
        wanted = tensors(cropped(image))
        torch.compiler.reset()
        compiled = torch.compile(cropped, fullgraph=True, backend="aot_eager")
        program = torch.export.export(cropped, (image,), strict=True).module()
        for run in (compiled, program):
            for a, b in zip(tensors(run(image)), wanted, strict=True):
                torch.testing.assert_close(a, b)


def test_optimized_networks_decode_regions_unless_compiled():
    net, region = small("r2unet"), (range(10, 30), range(5, 17))
    fast, image = unetzoo.optimize(net), torch.rand(1, 2, 64, 64)
    assert fast.decodes_regions
    with torch.no_grad():
        wanted = part(net(image), region)
        assert (fast.decode_region(image, region) - wanted).abs().max() < 1e-5 * wanted.abs().max()
