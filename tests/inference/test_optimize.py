"""`optimize`: less work, the same answers."""

import copy

import pytest
import torch
from conftest import OURS, image, tensors, tiny
from torch import nn

import unetzoo
from unetzoo.errors import ConfigError, PluginContractError
from unetzoo.inference import winograd
from unetzoo.inference.rewriting import transposed
from unetzoo.inference.winograd import WinogradConv, transforms


def lived(net):
    """Statistics as training leaves them: none 0 or 1, so that a fold that is forgotten shows."""
    torch.manual_seed(3)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, -1.5, 1.5)
            nn.init.normal_(layer.bias, std=0.5)
            layer.running_mean.normal_(std=0.5)
            layer.running_var.uniform_(0.3, 3)
    return net.eval()


VARIANTS = [
    *[(name, {}) for name in OURS],
    ("bnunet", {"up": "upsample_conv", "conv_bias": True}),
    ("bnunet", {"up": "bilinear", "order": "conv-act-bn"}),
    ("r2unet", {"variant": "stepwise"}),
    ("r2unet", {"variant": "paper"}),
    ("r2unet", {"variant": "cityscapes"}),
    ("dualunet", {"variant": "original"}),
]


@pytest.mark.parametrize(("name", "config"), VARIANTS)
def test_same_answers_and_the_original_is_left_alone(name, config):
    size = {"encoder_channels": None} if config.get("variant") == "original" else {}
    net = lived(unetzoo.build(name, **config) if size else tiny(name, **config))
    before = copy.deepcopy(net.state_dict())
    fast = unetzoo.optimize(net)
    x = image(net, 80 if not size else 192, batch=1)
    with torch.no_grad():
        for found, wanted in zip(tensors(fast(x)), tensors(net(x)), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert fast.report.error <= 1e-4
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_what_is_folded_is_gone_and_what_may_not_be_stays():
    bn, r2, dd = (unetzoo.optimize(lived(tiny(name))) for name in ("bnunet", "r2unet", "ddunet"))
    assert len(bn.report.folded) == 18 and not bn.report.kept
    assert len(r2.report.folded) == 22 and len(r2.report.merged) == 4  # each shared block once, and four up-samplings
    assert not dd.report.folded and len(dd.report.kept) == 14  # behind a non-linearity
    assert not [layer for layer in r2.modules() if isinstance(layer, nn.BatchNorm2d | nn.Upsample)]


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2"])
def test_foreign_networks_too(encoder):
    net = lived(unetzoo.build("smp-unet", encoder_name=encoder, classes=2))
    norms = sum(type(layer) is nn.BatchNorm2d for layer in net.modules())
    fast = unetzoo.optimize(net)
    assert len(fast.report.folded) == norms and not fast.report.kept
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        wanted = net(x)
        torch.testing.assert_close(fast(x), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 4, 1, 1), (1, 2, 8, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_one_transposed_convolution_for_nearest_and_convolution(shape, bias):
    conv = nn.Conv2d(shape[1], 6, 3, padding=1, bias=bias).double()
    x = torch.randn(shape, dtype=torch.double)
    wanted = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(transposed(conv)(x), wanted, rtol=1e-12, atol=1e-12)


class Branching(nn.Module):
    """A convolution whose answer goes past its batch norm as well: folding would be wrong."""

    in_channels = 3

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.second, self.last = (
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3, padding=1),
        )  # fmt: skip
        self.after = nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.conv(x)
        return self.after(self.last(self.norm(x) + x * 2 + self.second(x)))


class Hidden(Branching):
    def forward(self, x):
        x = self.conv(x)
        return self.after(self.last(self.norm(x) + x * 2))  # no layer sees the second use


@pytest.mark.parametrize("kind", [Branching, Hidden])
def test_what_would_change_the_answer_is_taken_back(kind):
    net = lived(kind())
    fast = unetzoo.optimize(net)
    assert fast.report.folded == ("after",) and "norm" in fast.report.kept
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), net(x), rtol=1e-5, atol=1e-5)


def test_predicts_like_the_original():
    net = lived(tiny("bnunet", up="upsample_conv", classes=3))
    fast = unetzoo.optimize(net)
    image = torch.rand(3, 61, 90)
    wanted = unetzoo.predict(net, image)
    torch.testing.assert_close(unetzoo.predict(fast, image), wanted, rtol=1e-4, atol=1e-4)
    assert fast.geometry == net.geometry


def test_half_precision():
    net = lived(tiny("bnunet", classes=3))
    fast = unetzoo.optimize(net, dtype=torch.bfloat16)
    assert fast.report.dtype == torch.bfloat16 and next(fast.parameters()).dtype == torch.bfloat16
    with pytest.raises(PluginContractError, match="answers something else"):
        unetzoo.optimize(net, dtype=torch.bfloat16, tolerance=1e-6)


def test_misuse_is_refused(tmp_path):
    fast = unetzoo.optimize(tiny("bnunet"))
    with pytest.raises(ConfigError, match="cannot be trained"):
        fast.train()
    with pytest.raises(ConfigError, match="cannot be saved"):
        fast.save_pretrained(tmp_path)
    assert not fast.eval().training
    with pytest.raises(AttributeError):
        _ = fast.no_such_thing
    with pytest.raises(ConfigError, match="give an example"):
        unetzoo.optimize(nn.Sequential(nn.Conv2d(3, 1, 1)))
    assert unetzoo.optimize(nn.Sequential(nn.Conv2d(3, 1, 1)), example=torch.zeros(1, 3, 8, 8)).report.error == 0


@pytest.mark.slow
def test_compiled_with_constants_folded_in():
    net = lived(tiny("r2unet"))
    fast = unetzoo.optimize(net, compile=True)
    x = image(net, 64, batch=1)
    with torch.inference_mode():
        wanted = net(x)
        assert (fast(x) - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 2, 17, 30), (1, 4, 64, 5), (3, 1, 9, 9), (1, 2, 3, 3)])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("relu", [True, False])
def test_a_convolution_by_tiles(shape, padding, relu, monkeypatch):
    monkeypatch.setattr(winograd, "STRIP", 1)  # the least: several strips where there are several rows of tiles
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], 5, 3, padding=padding, bias=relu)
    tiled, x = WinogradConv(conv, relu), torch.randn(shape)
    wanted = nn.functional.conv2d(x.double(), conv.weight.double(), None if conv.bias is None else conv.bias.double(),
                                  padding=padding)  # fmt: skip
    with torch.no_grad():
        found = tiled(x)
    torch.testing.assert_close(found.double(), wanted.relu() if relu else wanted, rtol=1e-5, atol=1e-5)


def test_the_image_has_a_gradient_through_tiles():
    net = lived(tiny("bnunet", encoder_channels=(64,) * 3))
    slopes = []
    for each in (net, unetzoo.optimize(net)):
        leaf = image(net, 32).requires_grad_()
        each(leaf).square().mean().backward()
        slopes.append(leaf.grad)
    torch.testing.assert_close(*slopes, rtol=1e-2, atol=1e-4 * float(slopes[0].abs().max()))


def test_the_transforms_multiply_polynomials_exactly():
    before, kernel, after = transforms()
    x, taps = torch.randn(6, dtype=torch.double), torch.randn(3, dtype=torch.double)
    wanted = torch.stack([x[i : i + 3] @ taps for i in range(4)])
    torch.testing.assert_close(after @ ((kernel @ taps) * (before @ x)), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "count"), [("bnunet", 9), ("r2unet", 12), ("unet", 9), ("ddunet", 7)])
def test_wide_convolutions_are_computed_by_tiles(name, count):
    widths = (64,) * 3 if name != "ddunet" else (64,) * 4
    net = lived(tiny(name, encoder_channels=widths))
    fast = unetzoo.optimize(net)
    assert len(fast.report.tiled) == count and not fast.report.merged and fast.report.error <= 1e-4
    layers = [layer for layer in fast.modules() if isinstance(layer, WinogradConv)]
    assert len(layers) == count and all(layer.relu for layer in layers)
    for size in (32, 75):
        x = image(net, size, batch=2)
        with torch.no_grad():
            wanted = net(x)
            torch.testing.assert_close(fast(x), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    assert not unetzoo.optimize(net, winograd=False).report.tiled
    assert not unetzoo.optimize(net.double()).report.tiled


def test_tiles_are_refused_where_they_cannot_be():
    with pytest.raises(ConfigError, match="cannot be computed by tiles"):
        unetzoo.optimize(tiny("bnunet").double(), winograd=True)
    with pytest.raises(ConfigError, match="compiled"):
        unetzoo.optimize(tiny("bnunet"), winograd=True, compile=True)


def test_tiles_that_round_too_much_are_taken_back(monkeypatch):
    net = lived(tiny("bnunet", encoder_channels=(64,) * 3))
    monkeypatch.setattr(winograd, "POINTS", (0.0, 1.0, -1.0, 90.0, -90.0))
    assert not unetzoo.optimize(net).report.tiled
    with pytest.raises(PluginContractError):
        unetzoo.optimize(net, winograd=True)
