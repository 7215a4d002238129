"""`predict` against the network itself on images padded by numpy, and tiles against wholes."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import OURS, PADDED, small, tensors
from refusals import refused
from torch import nn

import unetzoo
from unetzoo import predict
from unetzoo.errors import ConfigError, DataError, InputShapeError, PluginContractError
from unetzoo.inference.windows import minimum_tile
from unetzoo.models import MaskDepth
from unetzoo.models.base import Geometry


@pytest.fixture
def one_order(monkeypatch):
    """Convolutions that sum in one order for every window size; oneDNN's depend on it where channels are few."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def draw(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def differ(first, second):
    """Largest difference, relative to the largest output."""
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs)


def reference(net, image):
    """The house's definition of the whole, by numpy."""
    g = net.geometry
    height, width = image.shape[1:]
    grown = [n + 2 * g.margin for n in (height, width)]
    if g.step == 1:
        sizes = [max(g.minimum, -(-n // g.stride) * g.stride) for n in grown]
    else:
        sizes = [g.fit(n) for n in grown]
    pads = [(g.margin, size - n - g.margin) for size, n in zip(sizes, (height, width), strict=True)]
    canvas = np.pad(image.numpy(), [(0, 0), *pads], mode="reflect")
    with torch.inference_mode():
        answer = net(torch.from_numpy(canvas)[None])
    shape = slice(max(1, height // g.out_stride)), slice(max(1, width // g.out_stride))
    return [head[0][:, shape[0], shape[1]] for head in tensors(answer)]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (7, 40), (33, 61), (64, 64)])
def test_whole_images_of_any_size(name, size):
    net = small(name)
    image = draw(2, *size)
    answer = predict(net, image)
    assert isinstance(answer, MaskDepth) == (name == "dualunet")
    assert tensors(answer)[0].shape == (3, *size)
    for head, expected in zip(tensors(answer), reference(net, image), strict=True):
        assert torch.equal(head, expected)


@pytest.mark.parametrize(("name", "config"), [("dualunet", {"out_stride": 2}), ("dualunet", {"variant": "original"})])
@pytest.mark.parametrize("size", [(1, 1), (5, 34), (40, 64)])
def test_wholes_of_other_variants(name, config, size):
    net = small(name, **config)
    image = draw(2, *size)
    answer = predict(net, image)
    scale = net.geometry.out_stride
    assert tensors(answer)[0].shape == (3, *(max(1, n // scale) for n in size))
    assert differ(answer, reference(net, image)) == 0


def test_the_tiled_valid_unet_equals_the_whole_bit_by_bit(one_order):
    net = small("unet")
    smallest = minimum_tile(net.geometry)
    for size in range(1, 3 * smallest + 1):
        image = draw(2, size, 5)
        assert torch.equal(predict(net, image, tile=smallest), predict(net, image)), size


def test_a_tiled_padded_unet_equals_the_whole_at_every_size():
    net = small("bnunet")
    smallest = minimum_tile(net.geometry)
    for size in range(1, 3 * smallest + 1):
        image = draw(2, 5, size)
        assert differ(predict(net, image, tile=smallest), predict(net, image)) <= 1e-5, size


@pytest.mark.parametrize(("name", "config"), PADDED)
def test_tiled_padded_networks_equal_the_whole(name, config):
    net = small(name, **config)
    smallest = minimum_tile(net.geometry)
    for tile, size in [
        (smallest, (2 * smallest + 3, smallest + 1)),
        (smallest + 7, (smallest + 41, 9)),
        ((smallest, smallest + 12), (smallest + 4, smallest + 50)),
    ]:
        image = draw(2, *size)
        assert differ(predict(net, image, tile=tile), predict(net, image)) <= 1e-5


@pytest.mark.parametrize(("name", "config"), PADDED)
def test_context_is_enough_in_double_precision(name, config):
    net = small(name, **config).double()
    smallest = minimum_tile(net.geometry)
    image = draw(2, 2 * smallest, 6).double()
    whole = predict(net, image)
    assert tensors(whole)[0].dtype == torch.float64
    assert differ(predict(net, image, tile=smallest), whole) <= 1e-12


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_four_poolings(one_order, padding):
    net = small("unet", encoder_channels=(2, 4, 4, 4, 4), padding=padding)
    image = draw(2, 130, 301)
    assert differ(predict(net, image, tile=minimum_tile(net.geometry)), predict(net, image)) <= 1e-5 * (
        padding == "same"
    )


def test_context_beyond_the_margin():
    """The printed dual network pads inside its encoder: its borders affect more than its output leaves out."""
    net = small("dualunet", variant="original").double()
    net.geometry = replace(net.geometry, halo=27)  # by gradients
    image = draw(2, 150, 31).double()
    assert differ(predict(net, image, tile=minimum_tile(net.geometry)), predict(net, image)) <= 1e-12


@pytest.mark.parametrize("name", OURS)
def test_flips_are_the_mean_of_mirrored_images(name):
    net = small(name)
    size = net.geometry.fit(net.geometry.minimum + 24) - 2 * net.geometry.margin  # no padding beyond the margins
    image = draw(2, size, size)
    turned = [tensors(predict(net, image.flip(d))) for d in ([], [2], [1], [1, 2])]
    back = [[head.flip(d) for head in answer] for answer, d in zip(turned, ([], [2], [1], [1, 2]), strict=True)]
    mean = [sum(parts) / 4 for parts in zip(*back, strict=True)]
    assert differ(predict(net, image, tta="flips"), mean) <= 1e-6
    assert type(predict(net, image, tta="flips")) is type(predict(net, image))


@pytest.mark.parametrize(("name", "config"), [("unet", {}), ("bnunet", {}), ("dualunet", {"out_stride": 2})])
def test_flips_by_tiles(name, config):
    net = small(name, **config)
    tile = minimum_tile(net.geometry)
    image = draw(2, tile + 31, 2 * tile)
    assert differ(predict(net, image, tta="flips", tile=tile), predict(net, image, tta="flips")) <= 1e-5


class Position(nn.Module):
    """Returns its input in two heads; has no geometry."""

    class Two(NamedTuple):
        one: torch.Tensor
        two: torch.Tensor

    def forward(self, x):
        return self.Two(x, 2 * x)


@pytest.mark.parametrize("blend", ["constant", "gaussian"])
def test_blending_keeps_values_on_which_windows_agree(blend):
    image = draw(1, 70, 133)
    answer = predict(Position(), image, tile=(32, 50), blend=blend)
    assert isinstance(answer, Position.Two)
    assert torch.allclose(answer.one, image, atol=1e-6) and torch.allclose(answer.two, 2 * image, atol=1e-6)
    assert predict(Position(), image.half(), tile=32, blend=blend).one.dtype == torch.float16


class Bright(nn.Module):
    """Returns the brightest value of its window at every pixel."""

    def forward(self, x):
        return x.amax((2, 3), keepdim=True).expand(-1, -1, *x.shape[2:])


def test_weights_by_hand():
    image = torch.zeros(1, 1, 28)
    image[..., 0] = 1.0  # seen only by the first window: [0, 16) and [12, 28)
    constant = predict(Bright(), image, tile=16, blend="constant")[0, 0]
    assert constant.tolist() == [1.0] * 12 + [0.5] * 4 + [0.0] * 12
    bell = predict(Bright(), image, tile=16, blend="gaussian")[0, 0]
    g = [np.exp(-0.5 * ((i - 7.5) / 2) ** 2) for i in range(16)]
    assert bell[12:16].tolist() == pytest.approx([g[i] / (g[i] + g[i - 12]) for i in range(12, 16)])


@pytest.mark.parametrize("blend", ["constant", "gaussian"])
@pytest.mark.parametrize(
    ("name", "config", "tile"),
    [("unet", {}, 44), ("bnunet", {"up": "bilinear"}, 32), ("dualunet", {"out_stride": 2}, 24), ("dualunet", {}, 20)],
)
def test_blending_our_networks(name, config, tile, blend):
    net = small(name, **config)
    image = draw(2, 71, 50)
    answer, whole = predict(net, image, tile=tile, blend=blend), predict(net, image)
    assert [head.shape for head in tensors(answer)] == [head.shape for head in tensors(whole)]
    assert differ(answer, whole) < 1.0 and all(head.isfinite().all() for head in tensors(answer))
    assert differ(predict(net, image, tile=500, blend=blend), whole) == 0


def test_blending_exact_windows_of_a_valid_network_equals_the_whole():
    net = small("unet")
    image = draw(2, 71, 50)
    assert differ(predict(net, image, tile=60, blend="gaussian"), predict(net, image)) <= 1e-5


@pytest.mark.parametrize("name", ["smp-unet", "smp-fpn", "smp-deeplabv3plus"])
def test_smps_own(name):
    torch.manual_seed(0)
    net = unetzoo.build(name, encoder_name="resnet18", classes=2, aux_params={"classes": 4}).eval()
    image = draw(3, 50, 37)
    answer = predict(net, image)
    assert answer.shape == (2, 50, 37)
    with torch.inference_mode():
        stride = net.encoder.output_stride  # 16 where the encoder is dilated, else 32
        canvas = np.pad(image.numpy(), [(0, 0), (0, -50 % stride), (0, -37 % stride)], mode="reflect")
        assert differ(answer, net(torch.from_numpy(canvas)[None])[0][0, :, :50, :37]) <= 1e-6
    assert predict(net, image, tile=32, blend="gaussian").shape == (2, 50, 37)
    with refused(ConfigError, hint='blend="gaussian"'):
        predict(net, image, tile=32)


def test_smps_own_that_do_not_take_every_multiple_of_their_stride():
    pan = unetzoo.build("smp-pan", encoder_name="resnet18", classes=2)  # pools its deepest map three times
    assert predict(pan, draw(3, 20, 133)).shape == (2, 20, 133)
    options = {"encoder_name": "tu-vit_tiny_patch16_224", "classes": 2}
    fixed = unetzoo.build("smp-dpt", **options)
    assert predict(fixed, draw(3, 100, 33)).shape == (2, 100, 33)
    with refused(InputShapeError, expected=224, hint="tile=224"):
        predict(fixed, draw(3, 100, 225))
    assert predict(fixed, draw(3, 100, 250), tile=224, blend="gaussian").shape == (2, 100, 250)
    free = unetzoo.build("smp-dpt", **options, encoder_kwargs={"dynamic_img_size": True})
    assert predict(free, draw(3, 100, 250)).shape == (2, 100, 250)


def test_aux_labels_are_left_out():
    net = small("bnunet", aux_params={"classes": 4})
    assert predict(net, draw(2, 9, 9)).shape == (3, 9, 9)


def test_arrays():
    net = small("bnunet", in_channels=1)
    gray = np.random.default_rng(0).integers(0, 256, (20, 31), np.uint8)
    answer = predict(net, torch.from_numpy(gray[None] / np.float32(255)))
    for same in (gray, gray[..., None], gray.astype(np.uint16) * 257, gray / 255.0, (gray / 255.0).astype(">f4")):
        assert differ(predict(net, same), answer) <= 1e-5
    assert predict(net, gray > 100).shape == predict(net, gray[::-1, ::-1]).shape == (3, 20, 31)
    color = predict(small("bnunet"), np.zeros((20, 31, 2), np.uint8))
    assert color.shape == (3, 20, 31) and color.device.type == "cpu" and color.dtype == torch.float32


def test_each_part_keeps_its_mode_and_nothing_is_recorded():
    net = small("unet").train()
    net.encoder.eval()
    before = {name: module.training for name, module in net.named_modules()}
    image = draw(2, 20, 20).requires_grad_()
    first, second = predict(net, image), predict(net, image)
    assert torch.equal(first, second)  # dropout rests
    assert {name: module.training for name, module in net.named_modules()} == before
    first += 1  # an ordinary tensor
    assert not first.requires_grad and not first.is_inference()
    with pytest.raises(RuntimeError), torch.no_grad():
        net.encoder.forward = lambda x: torch.zeros(1, 2) @ torch.zeros(1, 2)
        predict(net, image)
    assert net.training


@pytest.mark.slow
def test_images_beyond_the_offsets_of_onednn():
    side = 5800  # 16 channels of float32 take more than 2 GiB; with two threads, a contiguous 1×1 convolution crashes
    net = nn.Conv2d(8, 17, 1)
    net.geometry = Geometry(minimum=1, stride=1)
    image = torch.rand(8, side, side)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.allclose(predict(net, image)[..., -1:, :], predict(net, image[:, -1:]), atol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_half_precision_networks_take_images_in_any_precision():
    net = small("bnunet").to(torch.bfloat16)
    answer = predict(net, draw(2, 20, 20).double())
    assert answer.dtype == torch.bfloat16 and answer.shape == (3, 20, 20)


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        (torch.zeros(1, 2, 8, 8), InputShapeError, "one image at a time"),
        (torch.zeros(8, 8), InputShapeError, "C, H, W"),
        (np.zeros((1, 8, 8, 2)), InputShapeError, "one image at a time"),
        (torch.zeros(2, 0, 8), InputShapeError, "empty"),
        (torch.zeros(3, 8, 9), InputShapeError, "expected 2 channels, found 3.*in_channels=3"),
        (torch.zeros(8, 9, 2), InputShapeError, "move the axis"),
        (np.zeros((2, 8, 9), np.float32), InputShapeError, "expected 2 channels, found 9"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), DataError, r"x\.float\(\) / 255"),
        (np.zeros((8, 8, 2), np.int32), DataError, "full scale"),
        ([[1.0]], DataError, "tensor or an array"),
    ],
)
def test_wrong_images(image, error, says):
    with pytest.raises(error, match=says):
        predict(small("bnunet"), image)


def test_wrong_arguments():
    net, image = small("bnunet"), draw(2, 200, 200)
    with refused(ConfigError, hint="'flips'"):
        predict(net, image, tta="flip")
    with refused(ConfigError, hint="'exact'"):
        predict(net, image, blend="exakt")
    with refused(ConfigError, hint="tile=52"):
        predict(net, image, tile=40)
    with refused(ConfigError, hint="unetzoo.build"):
        predict("unet", image)


class Halving(nn.Module):
    def forward(self, x):
        return x[..., ::2, ::2]


class Table(nn.Module):
    def __init__(self, key):
        super().__init__()
        self.key = key

    def forward(self, x):
        return {self.key: x}


def test_networks_that_break_the_contract():
    with refused(PluginContractError, hint="geometry"):
        predict(Halving(), draw(1, 8, 8))
    with refused(PluginContractError, found="dict"):
        predict(Table("masks"), draw(1, 8, 8))
    image = draw(1, 8, 8)
    assert torch.equal(predict(Table("out"), image), image)  # as torchvision's networks return it
    net = Halving()
    net.geometry = Geometry(minimum=2, stride=2, out_stride=2, halo=0)
    image = draw(1, 9, 8)
    assert torch.equal(predict(net, image), image[:, :8:2, ::2])
    assert torch.equal(predict(net, image, tile=2), image[:, :8:2, ::2])
