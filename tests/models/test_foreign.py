"""Other authors' weights in our networks: the same answers, or a clear refusal."""

import os
import pickle
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
    CheckpointUnsafeError,
    UnknownNameError,
)

sys.path.insert(0, str(Path(__file__).parent))
import foreign_networks as foreign

NETWORKS = {
    "milesial": lambda: foreign.Milesial(classes=2),
    "milesial bilinear": lambda: foreign.Milesial(classes=2, bilinear=True),
    "milesial with biases": lambda: foreign.Milesial(bias=True),
    "leejunhyun-unet": lambda: foreign.Lee(classes=3),
    "leejunhyun-r2unet": lambda: foreign.Lee(recurrent=True),
    "mateuszbuda": lambda: foreign.Mateuszbuda(),
    "cityscapes-unet": lambda: foreign.CityscapesUNet(),
    "cityscapes-r2unet": lambda: foreign.CityscapesR2UNet(),
    "cityscapes-ddunet": lambda: foreign.CityscapesDDUNet(),
}


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


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_the_originals(name):
    theirs = trained(NETWORKS[name]())
    assert_same_answers(unetzoo.from_foreign(theirs.state_dict()), theirs, (256, 256) if "ddunet" in name else (64, 48))


def test_milesial_pads_at_odd_sizes_and_so_do_we():
    theirs = trained(foreign.Milesial())
    assert_same_answers(unetzoo.from_foreign(theirs.state_dict()), theirs, (45, 51))


def test_helens_network_is_named_by_hand_and_matched_by_shape():
    theirs = trained(foreign.Helen())
    assert_same_answers(unetzoo.from_foreign(theirs.state_dict(), layout="helen"), theirs, (48, 64))
    with pytest.raises(CheckpointMismatchError, match="whose network is this"):
        unetzoo.from_foreign(theirs.state_dict())
    ours = unetzoo.build(
        "bnunet", classes=11, encoder_channels=(4, 8, 16, 32, 64), conv_bias=True,
        act={"type": "leaky_relu", "negative_slope": 0.05},
    ).eval()  # fmt: skip
    with pytest.warns(UserWarning, match="shape and order alone"):
        assert unetzoo.load_weights(ours, theirs.state_dict()).layout == "unknown"
    assert_same_answers(ours, theirs, (48, 64))


def test_biases_before_batch_norm_move_into_the_running_mean():
    theirs = trained(foreign.Milesial(bias=True))
    ours = unetzoo.build("bnunet", encoder_channels=(4, 8, 16, 32, 64), align="pad").eval()
    loaded = unetzoo.load_weights(ours, theirs.state_dict())
    assert loaded.layout == "milesial" and len(loaded.folded) == 18
    assert_same_answers(ours, theirs, (48, 48))


def test_biases_behind_a_nonlinearity_cannot_be_folded():
    theirs = trained(foreign.CityscapesUNet())
    ours = unetzoo.build(
        "bnunet", classes=19, encoder_channels=(4, 8, 16, 32, 64), up="bilinear", order="conv-act-bn", concat="up-skip"
    )
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(CheckpointMismatchError, match="conv_bias=True"):
        unetzoo.load_weights(ours, theirs.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def wrap_lightning(state):
    extra = {"criterion.weight": torch.ones(2)}
    return {"state_dict": {f"model.{k}": v for k, v in state.items()} | extra, "epoch": 3, "hyper_parameters": {}}


WRAPPINGS = {
    "bare": lambda state: state,
    "DataParallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "compiled DataParallel": lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
    "Lightning": wrap_lightning,
    "mask_values": lambda state: state | {"mask_values": [0, 1]},
    "trainer": lambda state: {"model_state_dict": state, "optimizer": {"lr": 1}, "epoch": 7},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings_are_taken_off(wrapping, tmp_path):
    theirs = trained(foreign.Milesial())
    torch.save(WRAPPINGS[wrapping](theirs.state_dict()), tmp_path / "net.pth")
    assert_same_answers(unetzoo.from_foreign(tmp_path / "net.pth"), theirs, (32, 32))


def test_safetensors_and_our_own_names(tmp_path, model_name):
    from conftest import image, tensors, tiny

    first, second = tiny(model_name).eval(), tiny(model_name).eval()
    save_file(first.state_dict(), tmp_path / "net.safetensors")
    loaded = unetzoo.load_weights(second, tmp_path / "net.safetensors")
    assert loaded.layout == "unetzoo" and loaded.tensors == len(first.state_dict())
    x = image(first)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(tensors(first(x)), tensors(second(x)), strict=True))


def test_smp_checkpoints_load_into_smp_networks(tmp_path):
    import segmentation_models_pytorch as smp

    theirs = trained(smp.Unet("resnet18", encoder_weights=None, classes=3))
    torch.save({"state_dict": {f"model.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "smp.ckpt")
    ours = unetzoo.build("smp-unet", encoder_name="resnet18", classes=3).eval()
    assert unetzoo.load_weights(ours, tmp_path / "smp.ckpt").layout == "unetzoo"
    assert_same_answers(ours, theirs, (64, 64))


def test_another_network_is_refused_with_a_table_and_nothing_changes():
    ours = unetzoo.build("bnunet", encoder_channels=(4, 8, 16))
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(CheckpointMismatchError, match=r"layers match\n.*network \d+, checkpoint \d+"):
        unetzoo.load_weights(ours, foreign.Milesial().state_dict())
    with pytest.raises(CheckpointMismatchError, match=r"network \(1, 4, 1, 1\), checkpoint \(5, 4, 1, 1\)"):
        unetzoo.load_weights(ours, unetzoo.build("bnunet", classes=5, encoder_channels=(4, 8, 16)).state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_equal_tensors_that_compute_something_else_are_refused():
    state = foreign.Milesial(bias=True).state_dict()
    ours = unetzoo.build("bnunet", encoder_channels=(4, 8, 16, 32, 64), conv_bias=True, concat="up-skip", act="gelu")
    with pytest.raises(CheckpointMismatchError, match="act='relu', concat='skip-up'"):
        unetzoo.load_weights(ours, state)


def test_attention_networks_are_nobody_we_know():
    state = foreign.Lee().state_dict() | {"Att5.psi.0.weight": torch.zeros(1)}
    with pytest.raises(CheckpointMismatchError, match="whose network"):
        unetzoo.from_foreign(state)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_in_a_file_is_run(tmp_path):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"weight": Canary(tmp_path / "sung")}))
    torch.save({"weight": Canary(tmp_path / "sung")}, tmp_path / "new.pth")
    for name in ("bad.pth", "new.pth"):
        with pytest.raises(CheckpointUnsafeError, match="would run code"):
            unetzoo.from_foreign(tmp_path / name)
    assert not (tmp_path / "sung").exists()


def test_bad_files_are_our_errors(tmp_path):
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08" + bytes(40))
    torch.save(foreign.Milesial().state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    for name in ("empty.pth", "text.pth", "broken.safetensors", "cut.pth"):
        with pytest.raises(CheckpointCorruptError, match=name):
            unetzoo.from_foreign(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"missing\.pth"):
        unetzoo.from_foreign(tmp_path / "missing.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        unetzoo.from_foreign(tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no weights"):
        unetzoo.from_foreign({"epoch": 3})
    with pytest.raises(UnknownNameError, match="did you mean 'milesial'"):
        unetzoo.from_foreign(foreign.Milesial().state_dict(), layout="milesal")
    with pytest.raises(CheckpointMismatchError, match="not the layout"):
        unetzoo.from_foreign(foreign.Lee().state_dict(), layout="milesial")
