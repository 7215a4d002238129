"""Each network against its paper: sizes, layers, initialization, recurrence, dilations."""

import pytest
import torch
import torch.nn.functional as F
from conftest import image, tiny
from torch import nn

import unetzoo
from unetzoo.errors import ConfigError, InputShapeError
from unetzoo.models import base

# Figure 1 of the paper: sizes after each convolution, and the crop on each side of a skip
CONTRACTING = {0: (570, 568), 1: (282, 280), 2: (138, 136), 3: (66, 64), 4: (30, 28)}
EXPANDING = {3: (56, 54, 52), 2: (104, 102, 100), 1: (200, 198, 196), 0: (392, 390, 388)}
CROPS = {3: 4, 2: 16, 1: 40, 0: 88}


def test_unet_has_every_size_of_figure_1():
    net, sizes = tiny("unet", in_channels=1, classes=2).eval(), {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _m, _i, out, name=name: sizes.update({name: out.shape[-1]}))
    with torch.no_grad():
        assert net(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    for level, expected in CONTRACTING.items():
        assert (sizes[f"encoder.blocks.{level}.0"], sizes[f"encoder.blocks.{level}.2"]) == expected
    for level, expected in EXPANDING.items():
        place = 3 - level  # the decoder runs from the coarsest level
        found = tuple(sizes[f"decoder.{part}"] for part in (f"ups.{place}", f"blocks.{place}.0", f"blocks.{place}.2"))
        assert found == expected
        assert (CONTRACTING[level][1] - found[0]) / 2 == CROPS[level]


def test_unet_crops_the_middle_of_the_skip_and_puts_it_first():
    net = tiny("unet", in_channels=1, encoder_channels=(1, 1, 1)).eval()
    seen = {}
    net.decoder.blocks[1].register_forward_pre_hook(lambda _m, inputs: seen.update(joined=inputs[0]))
    net.encoder.blocks[0].register_forward_hook(lambda _m, _i, out: seen.update(skip=out))
    net(torch.randn(1, 1, 44, 44))
    size = seen["joined"].shape[-1]
    margin = (seen["skip"].shape[-1] - size) // 2
    assert torch.equal(seen["joined"][:, 0], seen["skip"][:, 0, margin:-margin, margin:-margin])


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_valid_unet_accepts_exactly_the_sizes_at_which_every_pooling_is_even(depth):
    def runs(size):  # by the arithmetic of the layers, independently of the formula
        sizes = []
        for _ in range(depth):
            size -= 4
            if size < 2 or size % 2:
                return None
            sizes.append(size)
            size //= 2
        size -= 4
        for skip in reversed(sizes):
            if size < 1:
                return None
            size = 2 * size - 4
            assert skip >= size
        return size if size >= 1 else None

    geometry = tiny("unet", encoder_channels=(2,) * (depth + 1)).geometry
    for size in range(1, 700):
        out = runs(size)
        assert geometry.accepts(size) == (out is not None), size
        if out is not None:
            assert geometry.output(size) == out


def test_unet_names_the_nearest_valid_sizes():
    with pytest.raises(InputShapeError) as error:
        tiny("unet")(torch.zeros(1, 3, 256, 252))
    assert error.value.subject == "256×252" and "252 or 268" in error.value.hint


def test_unet_drops_out_at_the_end_of_the_contracting_path_alone():
    places = [name for name, m in tiny("unet").named_modules() if isinstance(m, nn.Dropout)]
    assert places == ["encoder.blocks.3.4", "encoder.blocks.4.4"]
    assert all(m.p == 0.5 for m in tiny("unet").modules() if isinstance(m, nn.Dropout))
    without = tiny("unet", dropout=0.0).train()
    x = image(without)
    assert torch.equal(without(x), without(x))


def test_unet_initialization_layer_by_layer():
    torch.manual_seed(0)
    net = unetzoo.build("unet", in_channels=1, classes=2, encoder_channels=(64, 128, 256))
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            nodes = layer.in_channels * layer.kernel_size[0] ** 2
        elif isinstance(layer, nn.ConvTranspose2d):
            nodes = layer.in_channels  # a 2×2 kernel of stride 2: one input pixel a unit
        else:
            continue
        assert layer.weight.std().item() == pytest.approx(
            (2 / nodes) ** 0.5, rel=0.15 if layer.weight.numel() < 999 else 0.05
        ), name
        assert not layer.bias.any()


def test_r2unet_equals_its_equations_with_shared_weights():
    net = tiny("r2unet", encoder_channels=(4, 4, 4)).eval()
    unit = net.encoder.blocks[0]
    for p in unit.parameters():
        nn.init.normal_(p, std=0.3)
    x = torch.randn(1, 3, 8, 8)

    def layer(block, x):
        conv, norm = block.conv[0], block.conv[1]

        def f(z):
            z = F.conv2d(z, conv.weight, conv.bias, padding=1)
            z = (z - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
            return (z * norm.weight[:, None, None] + norm.bias[:, None, None]).relu()

        o = f(x)
        o = f(x + o)
        return f(x + o)

    projected = F.conv2d(x, unit.project.weight, unit.project.bias)
    expected = projected + layer(unit.layers[1], layer(unit.layers[0], projected))
    torch.testing.assert_close(unit(x), expected, rtol=1e-4, atol=1e-4)
    # the known wrong one overwrites its input, so that it convolves x + x
    first = unit.layers[0]
    doubled = first.conv(projected)
    for _ in range(2):
        doubled = first.conv(doubled + doubled)
    assert not torch.allclose(first(projected), doubled)


def test_r2unet_shares_weights_over_steps():
    def count(t):
        return sum(p.numel() for p in tiny("r2unet", t=t).parameters())

    assert count(1) == count(2) == count(5)  # an unshared recurrence grows with t


def test_r2unet_paper_variant_is_equation_1():
    net = tiny("r2unet", variant="paper", encoder_channels=(4, 4, 4)).eval()
    layer = net.encoder.blocks[0].layers[0]
    x = torch.randn(1, 3, 8, 8)
    fed = F.conv2d(x, layer.feed.weight, layer.feed.bias, padding=1)
    o = fed.relu()
    for _ in range(2):
        o = (fed + F.conv2d(o, layer.recurrent.weight, layer.recurrent.bias, padding=1)).relu()
    torch.testing.assert_close(layer(x), o)


def test_r2unet_cityscapes_adds_the_skip_after_the_unit():
    net = tiny("r2unet", variant="cityscapes", encoder_channels=(4, 4, 4)).eval()
    features = net.encoder(torch.randn(1, 3, 16, 16))
    x = features[2]
    for up, unit, skip in zip(net.decoder.ups, net.decoder.blocks, (features[1], features[0]), strict=True):
        x = unit(up(x)) + skip
    assert torch.equal(net.decoder(features), x)


def shared_and_stepwise(x, passes):
    """A recurrent layer of either kind with the same weights, after a number of training passes over x."""
    shared, stepwise = (
        tiny("r2unet", variant=variant, encoder_channels=(4, 4, 4)).encoder.blocks[0].layers[0].train()
        for variant in ("shared", "stepwise")
    )
    stepwise.conv.load_state_dict(shared.conv[0].state_dict())
    with torch.no_grad():
        answers = [(shared(x), stepwise(x)) for _ in range(passes)]
    return shared, stepwise, answers[-1]


def test_r2unet_stepwise_trains_like_shared():
    _, _, (shared, stepwise) = shared_and_stepwise(torch.randn(2, 4, 8, 8), 1)
    torch.testing.assert_close(stepwise, shared)


def test_r2unet_stepwise_evaluates_as_it_trains_and_shared_does_not():
    x = 0.1 * torch.randn(2, 4, 16, 16)  # far below the maps that come back
    shared, stepwise, (trained, _) = shared_and_stepwise(x, 200)  # until the running statistics are settled
    with torch.no_grad():
        torch.testing.assert_close(stepwise.eval()(x), trained, rtol=0.01, atol=0.02)
        assert (shared.eval()(x) - trained).abs().max() > 0.5


@pytest.mark.parametrize("variant", ["shared", "stepwise", "paper", "cityscapes"])
def test_r2unet_starts_with_sane_outputs(variant):
    torch.manual_seed(0)
    net = unetzoo.build("r2unet", variant=variant, encoder_channels=(16, 32, 64, 128)).train()
    assert 1e-3 < net(torch.randn(2, 3, 32, 32)).std().item() < 100


def test_ddunet_dilates_the_two_coarsest_levels_and_normalizes_after_relu():
    net = tiny("ddunet")
    for blocks, expected in ((net.encoder.blocks, (1, 1, 3, 3)), (net.decoder.blocks, (3, 1, 1))):
        for block, dilation in zip(blocks, expected, strict=True):
            for unit in block:
                assert [type(m) for m in unit] == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
                assert unit[0].dilation == (dilation, dilation)
                assert unit[0].bias is not None
    assert [up.kernel_size[0] for up in net.decoder.ups] == [3, 3, 2]
    assert [up.in_channels == up.out_channels for up in net.decoder.ups] == [True] * 3


def test_ddunet_original_has_the_printed_sizes_and_no_other():
    net, sizes = tiny("ddunet", variant="original").eval(), []
    for module in [*net.encoder.blocks, *net.decoder.ups, *net.decoder.blocks]:
        module.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 256, 256)).shape[-1] == 256
    encoder, (up3, block3, up2, block2, up1, block1) = sizes[:4], sizes[4:]
    assert encoder == [256, 128, 56, 20]
    assert (up3, block3, up2, block2, up1, block1) == (56, 48, 128, 128, 256, 256)
    with pytest.raises(InputShapeError) as error:
        net(torch.zeros(1, 3, 264, 264))
    assert "256×256" in error.value.expected
    with pytest.raises(ConfigError):
        tiny("ddunet", variant="original", encoder_channels=(4, 8, 16))


@pytest.mark.parametrize(("size", "out"), [(192, 66), (224, 98)])
def test_dualunet_original_sizes(size, out):
    net = tiny("dualunet", variant="original").eval()
    answer = net(torch.randn(1, 6, size, size))
    assert answer.shape == (1, 1, out, out)
    assert answer.min() >= 0  # the defect that the card names


def test_dualunet_heads():
    net = tiny("dualunet", classes=2, out_stride=2).eval()
    net.decoder.depth_head[0].weight.data *= 1e-3  # untrained statistics saturate the sigmoid
    answer = net(torch.randn(1, 6, 192, 192))
    assert isinstance(answer, base.MaskDepth)
    assert answer.mask.shape == (1, 2, 96, 96)
    assert answer.depth.shape == (1, 1, 96, 96)
    assert 0 < answer.depth.min() <= answer.depth.max() < 1


@pytest.mark.parametrize("encoder", ["resnet18", "vgg11_bn", "mit_b0", "tu-convnext_atto", "tu-vit_tiny_patch16_224"])
def test_dualunet_takes_foreign_encoders(encoder):
    net = unetzoo.build("dualunet", encoder_name=encoder, decoder_channels=(16, 8, 8, 8, 8), in_channels=3)
    answer = net(torch.randn(2, 3, 50, 65))
    assert answer.mask.shape[-2:] == answer.depth.shape[-2:] == (50, 65)
    (answer.mask.square().mean() + answer.depth.square().mean()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("config", "part", "told"),
    [
        ({"encoder_name": "tu-vit_tiny_patch16_224", "encoder_depth": 3}, "expected", "4 or 5"),
        ({"encoder_name": "resnet17"}, "hint", "'resnet18'"),
        ({"encoder_name": "resnet18", "encoder_channels": (8, 16, 32)}, "subject", "encoder_name and encoder_channels"),
        ({"encoder_name": "resnet18", "decoder_channels": (8, 8)}, "expected", "5 widths"),
        ({"variant": "original", "out_stride": 2}, "expected", "out_stride=1"),
    ],
    ids=str,
)
def test_dualunet_refuses(config, part, told):
    with pytest.raises(ConfigError) as error:
        unetzoo.build("dualunet", **config)
    assert told in getattr(error.value, part)
