"""`predict_batch` delivers what `predict` delivers, for every kind of network."""

import pytest
import torch
from torch import nn

import unetzoo
from unetzoo.errors import InputShapeError, PluginContractError
from unetzoo.inference import predict_batch
from unetzoo.models import Geometry

WIDTHS = (4, 8, 16)


def networks():
    torch.manual_seed(0)
    return {
        "padded": unetzoo.build("bnunet", in_channels=1, classes=3, encoder_channels=WIDTHS),
        "valid": unetzoo.build("unet", in_channels=1, classes=2, encoder_channels=WIDTHS, padding="valid"),
        "two heads": unetzoo.build("dualunet", in_channels=1, encoder_channels=WIDTHS),
        "half size": unetzoo.build("dualunet", in_channels=1, encoder_channels=WIDTHS, out_stride=2),
        "foreign": unetzoo.build("smp-unet", in_channels=1, classes=2, encoder_name="resnet18", encoder_weights=None),
    }


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("size", [(32, 48), (33, 75), (3, 1)])
def test_a_batch_is_padded_like_each_of_its_images(name, size):
    net = networks()[name]
    images = torch.rand(2, 1, *size)
    output = predict_batch(net, images)
    single = [unetzoo.predict(net, image) for image in images]
    if isinstance(output, torch.Tensor):
        output, single = (output,), [(logits,) for logits in single]
    for head, expected in zip(output, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(head, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_odd_sides_differ_from_the_bare_network():
    net = networks()["padded"]
    images = torch.rand(2, 1, 33, 75)
    with torch.no_grad():
        bare = net.eval()(images)
    assert (predict_batch(net, images) - bare).abs().max() > 1e-3


def test_tiles_are_those_of_predict():
    net = networks()["two heads"]
    images = torch.rand(2, 1, 200, 90)
    output = predict_batch(net, images, tile=128)
    assert output._fields == ("mask", "depth")
    expected = torch.stack([unetzoo.predict(net, image, tile=128).depth for image in images])
    assert torch.equal(output.depth, expected)


def test_modes_are_restored_and_nothing_is_recorded():
    net = networks()["padded"].train()
    net.decoder.eval()
    logits = predict_batch(net, torch.rand(1, 1, 20, 20))
    assert net.training and not net.decoder.training and not logits.requires_grad


def test_a_classification_head_is_dropped():
    net = unetzoo.build("bnunet", in_channels=1, encoder_channels=WIDTHS, aux_params={"classes": 2})
    assert predict_batch(net, torch.rand(2, 1, 16, 16)).shape == (2, 1, 16, 16)


@pytest.mark.parametrize("shape", [(1, 20, 20), (0, 1, 20, 20), (2, 3, 20, 20), (2, 1, 0, 20)])
def test_batches_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(InputShapeError):
        predict_batch(networks()["padded"], torch.zeros(shape))


def test_an_output_of_another_size_is_refused():
    net = nn.Conv2d(1, 2, 3)
    net.geometry = Geometry(minimum=1, stride=1)
    with pytest.raises(PluginContractError):
        predict_batch(net, torch.rand(1, 1, 8, 8))
