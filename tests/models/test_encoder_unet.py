"""The U-Net decoder over ready encoders."""

import pytest
import torch

import unetzoo
from unetzoo.errors import ConfigError, UnknownNameError
from unetzoo.models.pretrained import encoder_statistics

VIT = {"encoder_name": "tu-vit_tiny_patch16_224"}


@pytest.mark.parametrize("options", [
    {}, {"encoder_depth": 3}, {"encoder_name": "tu-mobilenetv3_small_050"}, {"encoder_name": "unetzoo-bn"},
    VIT, {**VIT, "encoder_depth": 4}, {"encoder_name": "tu-vit_tiny_patch16_224", "in_channels": 1},
])  # fmt: skip
def test_any_size_and_channels(options):
    net = unetzoo.build("encoder-unet", classes=4, **options).eval()
    with torch.no_grad():
        for size in ((32, 64), (33, 47), (65, 100)):
            assert net(torch.rand(1, options.get("in_channels", 3), *size)).shape == (1, 4, *size)


@pytest.mark.parametrize("name", ["tu-vit_small_patch14_dinov2", "tu-vit_small_patch16_dinov3"])
def test_transformers_with_other_patches_and_positions(name):
    net = unetzoo.build("encoder-unet", encoder_name=name).eval()
    with torch.no_grad():
        strides = [round(64 / feature.shape[-1]) for feature in net.encoder(torch.rand(1, 3, 64, 64))]
    assert strides == [1, 2, 4, 8, 16, 32]


def test_a_transformer_sees_the_whole_image():
    net = unetzoo.build("encoder-unet", **VIT).eval()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    net(image)[0, 0, 2, 2].backward()
    assert image.grad[0, :, 60:, 60:].abs().sum() > 0


def test_it_trains_saves_and_loads(tmp_path):
    net = unetzoo.build("encoder-unet", encoder_depth=3, **{"encoder_name": "resnet18"})
    loss = net(torch.rand(2, 3, 32, 32)).mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in net.decoder.parameters())
    net.save_pretrained(str(tmp_path))
    again = unetzoo.from_pretrained(tmp_path)
    x = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), again.eval()(x))


def test_wrong_arguments():
    with pytest.raises(UnknownNameError) as caught:
        unetzoo.build("encoder-unet", encoder_name="resnet19")
    assert "resnet18" in caught.value.hint
    for options in ({"decoder_channels": (8, 8)}, {**VIT, "encoder_depth": 3}):
        with pytest.raises(ConfigError):
            unetzoo.build("encoder-unet", **options)


@pytest.mark.parametrize("name", ["resnet18", "tu-tf_efficientnet_lite0", "mobilenet_v2"])
def test_statistics_of_encoders(name):
    statistics = encoder_statistics(name)
    assert set(statistics) == {"mean", "std"}
    assert all(0 < value < 1 for values in statistics.values() for value in values)
