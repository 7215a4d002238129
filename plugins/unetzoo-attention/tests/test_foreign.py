"""The cited authors' weights load exactly: the same outputs, or a refusal."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

import unetzoo
from unetzoo.errors import CheckpointMismatchError, MissingKeywordError

spec = importlib.util.spec_from_file_location("attention_foreign", Path(__file__).parent / "foreign_networks.py")
foreign = importlib.util.module_from_spec(spec)
spec.loader.exec_module(foreign)

SIX = ((4, 6, 8, 8, 8, 8), (2, 3, 2, 3, 2, 3), (2, 3, 2, 3, 2))
SMALL = ([4] * 6, [2] * 6, [2] * 5)
NETWORKS = {
    "attention-unet": (lambda: foreign.LeeAttention(classes=2), {}, (48, 32)),
    "attention-unet of one width": (lambda: foreign.LeeAttention(widths=(8, 8, 8, 8, 8)), {}, (48, 32)),
    "r2attention-unet": (lambda: foreign.LeeAttention(t=2), {"t": 2}, (48, 32)),
    "r2attention-unet of the training script": (lambda: foreign.LeeAttention(t=3), {"t": 3}, (48, 32)),
    "unetplusplus": (lambda: foreign.NestedUNet(classes=2), {}, (48, 32)),
    "unetplusplus of one width": (lambda: foreign.NestedUNet(widths=(8, 8, 8, 8, 8)), {}, (48, 32)),
    "u2net": (lambda: foreign.U2NET(*SIX), {}, (75, 50)),
    "u2net-small": (lambda: foreign.U2NET(*SMALL), {}, (75, 50)),
}
PUBLISHED = {
    "attention-unet": (lambda: foreign.LeeAttention(widths=(64, 128, 256, 512, 1024)), {}, 34_878_573),
    "r2attention-unet": (lambda: foreign.LeeAttention(widths=(64, 128, 256, 512, 1024), t=2), {"t": 2}, 39_442_925),
    "unetplusplus": (lambda: foreign.NestedUNet(widths=(32, 64, 128, 256, 512)), {}, 9_163_329),
    "u2net": (
        lambda: foreign.U2NET((64, 128, 256, 512, 512, 512), (32, 32, 64, 128, 256, 256), (16, 32, 64, 128, 256)),
        {},
        44_009_869,
    ),
    "u2net-small": (lambda: foreign.U2NET([64] * 6, [16] * 6, [16] * 5), {}, 1_131_181),
}


def trained(net):
    """Weights, statistics and biases as training leaves them: none 0 or 1."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.3)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
            layer.running_mean.normal_(std=0.3)
            layer.running_var.uniform_(0.5, 2)
    return net.double().eval()


def assert_same_outputs(ours, theirs, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected, found = theirs(x), ours.double()(x)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_originals(name):
    make, options, size = NETWORKS[name]
    theirs = trained(make())
    assert_same_outputs(unetzoo.from_foreign(theirs.state_dict(), **options), theirs, size)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_built_before_is_filled(name):
    make, options, size = NETWORKS[name]
    theirs = trained(make())
    config = unetzoo.from_foreign(theirs.state_dict(), **options).config
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    ours = unetzoo.build(name.partition(" ")[0], **arguments).eval()
    assert unetzoo.from_foreign(theirs.state_dict(), into=ours) is ours
    assert_same_outputs(ours, theirs, size)


@pytest.mark.parametrize("name", PUBLISHED)
def test_checkpoints_of_the_published_sizes_fill_the_network_of_that_count(name):
    make, options, parameters = PUBLISHED[name]
    with torch.device("meta"):
        theirs = make()
    assert sum(p.numel() for p in theirs.parameters()) == parameters
    state = {key: torch.zeros(1).expand(tensor.shape) for key, tensor in theirs.state_dict().items() if tensor.ndim}
    ours = unetzoo.from_foreign(state, **options)
    assert sum(p.numel() for p in ours.parameters()) == parameters
    assert all(not p.any() for p in ours.parameters())


def test_the_number_of_recurrent_steps_has_to_be_given():
    with pytest.raises(MissingKeywordError) as error:
        unetzoo.from_foreign(foreign.LeeAttention(t=2).state_dict())
    assert error.value.subject == "t"


def test_other_up_sampling_is_refused():
    theirs = foreign.NestedUNet(widths=(8, 8, 8))
    ours = unetzoo.build("unetplusplus", encoder_channels=(8, 8, 8))
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(theirs.state_dict(), into=ours)
    assert "bilinear" in str(error.value.expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_names_of_nobody_are_refused_where_gates_could_be_swapped():
    theirs = foreign.LeeAttention(widths=(4, 8, 16))
    state = {"net_" + name.replace("W_g", "a").replace("W_x", "b"): t for name, t in theirs.state_dict().items()}
    ours = unetzoo.build("attention-unet", encoder_channels=(4, 8, 16))
    with pytest.warns(UserWarning, match="no known layout"), pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(state, into=ours)
    assert "decoder.gates.0.gating.0" in str(error.value.found)
