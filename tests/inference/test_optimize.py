"""`optimize`: less work, the same outputs."""

import copy

import pytest
import torch
from conftest import OURS, image, tensors, tiny
from torch import nn

import unetzoo
from unetzoo.errors import ConfigError, PluginContractError
from unetzoo.inference.rewriting import transposed


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
def test_the_output_is_equal_and_the_original_unchanged(name, config):
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


def test_folded_layers_are_gone_and_others_stay():
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
    """A convolution whose output also bypasses its batch norm, so that folding would be wrong."""

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
def test_rewrites_that_change_the_output_are_undone(kind):
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
    with pytest.raises(PluginContractError):
        unetzoo.optimize(net, dtype=torch.bfloat16, tolerance=1e-6)


def test_half_precision_takes_and_returns_float32():
    net = lived(tiny("dualunet", classes=3))
    fast = unetzoo.optimize(net, dtype=torch.bfloat16)
    x = image(net, 64, batch=1)
    with torch.no_grad():
        for found, wanted in zip(tensors(fast(x)), tensors(net(x)), strict=True):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, wanted, rtol=0, atol=0.1 * float(wanted.abs().max()))
    assert unetzoo.predict(fast, x[0]).mask.dtype == torch.bfloat16  # in the precision of the weights


def test_outputs_in_a_dict_stay_in_a_dict():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x):
            return {"out": self.conv(x)}

    x = torch.rand(1, 3, 16, 16)
    fast = unetzoo.optimize(Table().eval(), example=x)
    assert fast(x)["out"].shape == (1, 2, 16, 16)


@pytest.mark.parametrize(("units", "expected"), [("amx", torch.bfloat16), (None, torch.float32)])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch, units, expected):
    monkeypatch.setattr("unetzoo.precision.bf16_units", lambda: units)
    fast = unetzoo.optimize(lived(tiny("bnunet", classes=3)), dtype="auto")
    assert fast.report.dtype == expected
    small = lived(tiny("bnunet", classes=3))
    assert unetzoo.optimize(small, dtype="auto", example=image(small, 32, batch=1)).report.dtype == torch.float32


class NearlyTied(nn.Module):
    """Two classes whose logits differ by less than bfloat16 resolves."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        logits = self.conv(x) + 2
        return torch.cat([logits, logits + 1e-4 * (x[:, :1] - 0.5)], 1)


def test_labels_of_the_example_must_stay():
    net, x = lived(tiny("bnunet", classes=3)), torch.rand(1, 3, 64, 64)
    assert unetzoo.optimize(net, example=x).report.equal_labels == 1
    tied = NearlyTied().eval()
    with pytest.raises(PluginContractError) as caught:
        unetzoo.optimize(tied, example=x, dtype=torch.bfloat16)
    assert "dtype=torch.float32" in caught.value.hint
    assert unetzoo.optimize(tied, example=x, dtype=torch.bfloat16, tolerance=0.1).report.equal_labels < 0.9


def test_misuse_is_refused(tmp_path):
    fast = unetzoo.optimize(tiny("bnunet"))
    with pytest.raises(ConfigError):
        unetzoo.optimize(tiny("bnunet"), dtype="foo")
    for refused in (fast.train, lambda: fast.save_pretrained(tmp_path)):
        with pytest.raises(ConfigError) as caught:
            refused()
        assert caught.value.hint
    assert not fast.eval().training
    with pytest.raises(AttributeError):
        _ = fast.no_such_thing
    with pytest.raises(ConfigError) as caught:
        unetzoo.optimize(nn.Sequential(nn.Conv2d(3, 1, 1)))
    assert "example" in caught.value.hint
    assert unetzoo.optimize(nn.Sequential(nn.Conv2d(3, 1, 1)), example=torch.zeros(1, 3, 8, 8)).report.error == 0


@pytest.mark.slow
def test_compiled_with_constants_folded_in():
    net = lived(tiny("r2unet"))
    fast = unetzoo.optimize(net, compile=True)
    x = image(net, 64, batch=1)
    with torch.inference_mode():
        wanted = net(x)
        assert (fast(x) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
