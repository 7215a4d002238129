"""Other authors' weights in our networks: the same outputs, or a clear error."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import unetzoo
from unetzoo.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    ConfigError,
    MissingKeywordError,
)
from unetzoo.models.layouts import block

sys.path.insert(0, str(Path(__file__).parent))
import foreign_networks as foreign

NETWORKS = {
    "milesial": (lambda: foreign.Milesial(classes=2), {}),
    "milesial bilinear": (lambda: foreign.Milesial(classes=2, bilinear=True), {}),
    "milesial with biases": (lambda: foreign.Milesial(bias=True), {"layout": "milesial"}),
    "helen": (foreign.Helen, {"layout": "helen"}),
    "leejunhyun-unet": (lambda: foreign.Lee(classes=3), {}),
    "leejunhyun-r2unet": (lambda: foreign.Lee(recurrent=True), {"t": 2}),
    "leejunhyun-r2unet of the training script": (lambda: foreign.Lee(recurrent=True, t=3), {"t": 3}),
    "mateuszbuda": (foreign.Mateuszbuda, {}),
    "cityscapes-unet": (foreign.CityscapesUNet, {}),
    "cityscapes-r2unet": (foreign.CityscapesR2UNet, {}),
    "cityscapes-ddunet": (foreign.CityscapesDDUNet, {}),
}
WIDTHS = (4, 8, 16, 32, 64)
LEAKY = {"type": "leaky_relu", "negative_slope": 0.05}


def trained(net, seed=0):
    """Weights, statistics and biases as training leaves them: none 0 or 1."""
    torch.manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.3)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
            layer.running_mean.normal_(std=0.3)
            layer.running_var.uniform_(0.5, 2)
    return net.eval()


def assert_same_answers(ours, theirs, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(x)
        scale = expected.abs().max().clamp(min=1)
        torch.testing.assert_close(ours(x) / scale, expected / scale, rtol=0, atol=1e-5)


def unchanged(net):
    """Remembers a network's state; calling it asserts that it is the same."""
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    return lambda: all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_originals(name):
    make, options = NETWORKS[name]
    theirs = trained(make())
    ours = unetzoo.from_foreign(theirs.state_dict(), **options)
    assert_same_answers(ours, theirs, (256, 256) if "ddunet" in name else (64, 48))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_order_of_the_tensors_does_not_matter(name, tmp_path):
    make, options = NETWORKS[name]
    theirs = trained(make())
    state = theirs.state_dict()
    save_file(state, tmp_path / "net.safetensors")  # sorts by name
    expected = unetzoo.from_foreign(state, **options).state_dict()
    for source in (dict(reversed(state.items())), tmp_path / "net.safetensors"):
        found = unetzoo.from_foreign(source, **options).state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("size", [(33, 33), (45, 51), (75, 75)])
@pytest.mark.parametrize(("make", "options"), [(foreign.Milesial, {}), (foreign.Helen, {"layout": "helen"})])
def test_odd_sizes_are_padded_as_in_the_original(make, options, size):
    theirs = trained(make())
    assert_same_answers(unetzoo.from_foreign(theirs.state_dict(), **options), theirs, size)


def test_weights_of_two_networks_need_their_layout():
    theirs = trained(foreign.Helen())
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(theirs.state_dict())
    assert "'milesial'" in str(error.value.expected) and "'helen'" in str(error.value.expected)
    assert "layout=" in error.value.hint
    right = unetzoo.build(
        "bnunet", classes=11, encoder_channels=WIDTHS, conv_bias=True, hidden_act=LEAKY, align="pad"
    ).eval()
    assert unetzoo.from_foreign(theirs.state_dict(), into=right) is right
    assert_same_answers(right, theirs, (33, 33))
    for wrong in ({"hidden_act": LEAKY}, {"hidden_act": "gelu", "align": "pad"}):
        net = unetzoo.build("bnunet", classes=11, encoder_channels=WIDTHS, conv_bias=True, **wrong)
        same = unchanged(net)
        with pytest.raises(CheckpointMismatchError):
            unetzoo.from_foreign(theirs.state_dict(), into=net)
        assert same()
    with pytest.raises(CheckpointMismatchError):
        unetzoo.from_foreign(theirs.state_dict(), layout="milesial", into=right)


def test_weights_without_biases_need_the_layout_of_their_activation():
    """Weights do not determine the activation, so a leaky network requires the layout's name."""
    state = trained(foreign.Milesial()).state_dict()
    net = unetzoo.build("bnunet", encoder_channels=WIDTHS, hidden_act=LEAKY, align="pad")
    same = unchanged(net)
    with pytest.raises(CheckpointMismatchError) as caught:
        unetzoo.from_foreign(state, into=net)
    assert same() and "layout='helen'" in caught.value.hint
    unetzoo.from_foreign(state, into=net, layout="helen")
    assert torch.equal(net.encoder.blocks[0][0][0].weight, state["inc.double_conv.0.weight"])
    other = unetzoo.build("bnunet", encoder_channels=WIDTHS, hidden_act="gelu", align="pad")
    with pytest.raises(CheckpointMismatchError) as caught:
        unetzoo.from_foreign(state, into=other)
    assert "layout=" not in caught.value.hint


def test_the_number_of_recurrent_steps_has_to_be_given():
    theirs = trained(foreign.Lee(recurrent=True, t=3))
    with pytest.raises(MissingKeywordError) as error:
        unetzoo.from_foreign(theirs.state_dict())
    assert error.value.subject == "t" and "t=" in error.value.hint
    net = unetzoo.build("r2unet", encoder_channels=WIDTHS, t=3).eval()  # the builder of the network declares it
    assert_same_answers(unetzoo.from_foreign(theirs.state_dict(), into=net), theirs, (32, 32))


def test_biases_before_batch_norm_move_into_the_running_mean():
    theirs = trained(foreign.Milesial(bias=True))
    ours = unetzoo.build("bnunet", encoder_channels=WIDTHS, align="pad").eval()
    assert_same_answers(unetzoo.from_foreign(theirs.state_dict(), into=ours), theirs, (48, 48))
    own = unetzoo.from_foreign(theirs.state_dict(), layout="milesial")  # the same from a checkpoint of ours
    again = unetzoo.build("bnunet", encoder_channels=WIDTHS, align="pad").eval()
    assert_same_answers(unetzoo.from_foreign(own.state_dict(), into=again), theirs, (48, 48))


def test_biases_behind_a_nonlinearity_cannot_be_folded():
    theirs = trained(foreign.CityscapesUNet())
    ours = unetzoo.build(
        "bnunet", classes=19, encoder_channels=WIDTHS, up="bilinear", order="conv-act-bn", concat="up-skip"
    )
    same = unchanged(ours)
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(theirs.state_dict(), into=ours)
    assert "conv_bias=True" in error.value.hint and same()


def test_unknown_names_are_matched_where_shapes_prove_it():
    theirs = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    ours = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    with pytest.warns(UserWarning, match="no known layout"):
        unetzoo.from_foreign(theirs.state_dict(), into=ours.eval())
    assert_same_answers(ours, theirs, (5, 5))


def test_norms_go_with_the_convolution_before_them(tmp_path):
    def network(*order):
        layers = {"first": nn.Conv2d(3, 4, 3), "norm1": nn.BatchNorm2d(4), "then": nn.Conv2d(4, 4, 1)}
        layers["norm2"] = nn.BatchNorm2d(4)
        return nn.ModuleDict({f"{order[0]}{name}": layers[name] for name in order[1:]})

    theirs = trained(network("x", "first", "norm1", "then", "norm2"))
    ours = network("y", "then", "norm2", "first", "norm1")
    with pytest.warns(UserWarning, match="no known layout"):
        unetzoo.from_foreign(theirs.state_dict(), into=ours)
    assert torch.equal(ours["ynorm2"].running_mean, theirs["xnorm2"].running_mean)
    assert torch.equal(ours["ynorm1"].running_var, theirs["xnorm1"].running_var)
    save_file(theirs.state_dict(), tmp_path / "net.safetensors")  # the order is lost, and with it the norms' owners
    with pytest.warns(UserWarning, match="no known layout"), pytest.raises(CheckpointMismatchError):
        unetzoo.from_foreign(tmp_path / "net.safetensors", into=ours)


def test_ambiguous_shapes_are_refused_with_a_table_and_load_by_a_table_of_names():
    theirs = trained(foreign.Renamed(classes=2))
    ours = unetzoo.build("bnunet", classes=2, encoder_channels=(4, 8, 16), conv_bias=True).eval()
    same = unchanged(ours)
    with pytest.warns(UserWarning, match="no known layout"), pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(theirs.state_dict(), into=ours)
    assert "4×4×3×3 + norm 4" in str(error.value.found) and "left.0.3" in str(error.value.found)
    assert "layout={" in error.value.hint and same()
    names = {"last": "segmentation_head.0"}
    for level in range(3):
        names |= block(f"left.{level}", f"encoder.blocks.{level}")
    for step in range(2):
        names |= block(f"right.{step}.1", f"decoder.blocks.{step}") | {f"right.{step}.0": f"decoder.ups.{step}"}
    assert_same_answers(unetzoo.from_foreign(theirs.state_dict(), names, into=ours), theirs, (16, 20))
    del names["last"]
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(theirs.state_dict(), names, into=ours)
    assert "last.weight" in str(error.value.found) and "segmentation_head.0.weight" in str(error.value.found)
    with pytest.raises(ConfigError):
        unetzoo.from_foreign(theirs.state_dict(), names)


DAMAGE = {
    "NaN": lambda x: x.clone().fill_(float("nan")),
    "infinity in float32": lambda x: x.double() * 1e300,
    "int8": lambda x: x.to(torch.int8),
    "complex": lambda x: x.to(torch.complex64),
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "another shape": lambda x: x[:1],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("tensor", ["up1.conv.double_conv.4.running_var", "up1.conv.double_conv.0.weight"])
def test_unusable_weights_change_nothing(damage, tensor):
    state = trained(foreign.Milesial()).state_dict()
    state[tensor] = DAMAGE[damage](state[tensor])
    ours = unetzoo.build("bnunet", encoder_channels=WIDTHS, align="pad")
    same = unchanged(ours)
    with pytest.raises(CheckpointError) as error:
        unetzoo.from_foreign(state, into=ours)
    assert "decoder.blocks.0" in str(error.value.found) and same()
    with pytest.raises(CheckpointError):
        unetzoo.from_foreign(state)


def test_damaged_biases_are_not_folded():
    state = trained(foreign.Milesial(bias=True)).state_dict()
    state["inc.double_conv.0.bias"][1] = float("nan")
    ours = unetzoo.build("bnunet", encoder_channels=WIDTHS, align="pad")
    same = unchanged(ours)
    with pytest.raises(CheckpointCorruptError):
        unetzoo.from_foreign(state, into=ours)
    assert same()


def test_saved_networks_with_nan_are_refused(tmp_path, model_name):
    from conftest import tiny

    net = tiny(model_name)
    next(iter(net.parameters())).data.view(-1)[0] = float("nan")
    net.save_pretrained(tmp_path)
    for load in (unetzoo.from_pretrained, type(net).from_pretrained):
        with pytest.raises(CheckpointCorruptError):
            load(tmp_path)


def test_smps_saved_networks_with_nan_are_refused(tmp_path):
    import segmentation_models_pytorch as smp

    net = smp.Unet("resnet18", encoder_weights=None)
    net.segmentation_head[0].bias.data[0] = float("inf")
    net.save_pretrained(tmp_path)
    with pytest.raises(CheckpointCorruptError):
        unetzoo.from_pretrained(tmp_path)


def test_another_network_is_refused_with_a_table_and_nothing_changes():
    ours = unetzoo.build("bnunet", encoder_channels=(4, 8, 16), align="pad")
    same = unchanged(ours)
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(foreign.Milesial().state_dict(), into=ours)
    assert "lacks down3.maxpool_conv.1.double_conv.0.weight" in str(error.value.found)
    other = unetzoo.build("bnunet", classes=5, encoder_channels=(4, 8, 16))
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(other.state_dict(), into=ours)
    assert "network (1, 4, 1, 1), checkpoint (5, 4, 1, 1)" in str(error.value.found) and same()
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(foreign.Milesial().state_dict(), "milesial", into=unetzoo.build("unet"))
    assert "bnunet" in error.value.hint
    with pytest.raises(ConfigError):
        unetzoo.from_foreign(foreign.Milesial().state_dict(), into=ours, classes=3)


def test_unused_tensors_are_reported():
    ours = unetzoo.build("bnunet", encoder_channels=(4, 8, 16))
    scored = unetzoo.build("bnunet", encoder_channels=(4, 8, 16), aux_params={"classes": 2})
    with pytest.warns(UserWarning, match="classification_head"):
        unetzoo.from_foreign(scored.state_dict(), into=ours)


def test_equal_tensors_that_compute_something_else_are_refused():
    state = foreign.Milesial(bias=True).state_dict()
    ours = unetzoo.build(
        "bnunet", encoder_channels=WIDTHS, conv_bias=True, concat="up-skip", hidden_act={"type": "gelu"}
    )
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(state, into=ours)
    assert "hidden_act='relu'" in str(error.value.expected) and "concat='skip-up'" in str(error.value.expected)
    plain = unetzoo.build("bnunet", encoder_channels=WIDTHS, conv_bias=True, align="pad", hidden_act={"type": "relu"})
    unetzoo.from_foreign(state, into=plain)
