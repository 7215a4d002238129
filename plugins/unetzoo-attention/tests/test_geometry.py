"""What the networks say of their reach: measured by gradients, and by tiles that equal the whole."""

import pytest
import torch
from torch import nn

import unetzoo

SIX = {"encoder_channels": [2] * 6, "mid_channels": [1] * 6, "decoder_mid_channels": [1] * 5}
NETS = [
    ("attention-unet", {"encoder_channels": [2, 2, 2, 2, 2]}, 110),
    ("attention-unet", {"encoder_channels": [2, 2, 2, 2], "gates": "paper"}, 54),
    ("r2attention-unet", {"encoder_channels": [2, 2, 2, 2], "t": 1}, 100),
    ("r2attention-unet", {"encoder_channels": [2, 2, 2]}, 66),
    ("unetplusplus", {"encoder_channels": [2, 2, 2, 2, 2]}, 94),
    ("resunet", {"encoder_channels": [2, 2, 2, 2]}, 39),
    ("u2net", SIX, 3296),
]


def measured(net):
    """Halo and receptive field: how far gradients reach from pixels of a block of one stride, its ends included.

    All weights are positive and poolings averages, so that no path is switched off or cancelled.
    """
    for part in list(net.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(part.weight, 1.0 / part.weight[0].numel())
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        for name, child in part.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(part, name, nn.AvgPool2d(2, ceil_mode=child.ceil_mode))
    stride, guess = net.geometry.stride, net.geometry.halo
    x = torch.rand(1, 3, stride, (2 * guess // stride + 9) * stride).double().requires_grad_()
    answer = net.double().eval()(x).sum(dim=(0, 1, 2))
    start = answer.shape[0] // 2 // stride * stride
    ranges = []
    for pixel in (start, start + 1, start + stride // 2, start + stride - 1):
        (gradient,) = torch.autograd.grad(answer[pixel], x, retain_graph=True)
        columns = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        ranges.append((int(columns[0]), int(columns[-1])))
    halo = max(start - ranges[0][0], ranges[-1][1] - (start + stride - 1))
    return halo, max(high - low + 1 for low, high in ranges)


@pytest.mark.parametrize(("name", "options", "halo"), NETS)
def test_the_halo_is_how_far_gradients_reach(name, options, halo):
    net = unetzoo.build(name, **options)
    assert net.geometry.halo == halo
    assert measured(net) == (halo, net.geometry.receptive_field)


@pytest.mark.parametrize(("name", "options", "halo"), NETS)
def test_tiles_equal_the_whole(name, options, halo):
    torch.manual_seed(0)
    net = unetzoo.build(name, classes=2, **options).double().eval()
    stride = net.geometry.stride
    tile = 2 * -(-halo // stride) * stride + 2 * stride
    image = torch.randn(3, stride - 1, tile + 3 * stride + 5).double()
    whole = unetzoo.predict(net, image)
    torch.testing.assert_close(unetzoo.predict(net, image, tile=tile), whole, rtol=1e-9, atol=1e-9)


def test_aligned_corners_have_no_halo():
    net = unetzoo.build("unetplusplus", encoder_channels=[2, 2, 2, 2], up="bilinear")
    assert net.geometry.halo is None and net.geometry.receptive_field is None
    with pytest.raises(unetzoo.errors.ConfigError):
        unetzoo.predict(net, torch.randn(3, 64, 64), tile=32)


def test_a_tile_without_a_core_is_refused_with_the_smallest():
    net = unetzoo.build("u2net", **SIX)
    with pytest.raises(unetzoo.errors.ConfigError) as error:
        unetzoo.predict(net, torch.randn(3, 7000, 7000), tile=512)
    assert "6624" in str(error.value)
