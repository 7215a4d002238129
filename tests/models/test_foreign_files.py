"""Files of weights: wrappings, formats, damage, and code that is never run."""

import argparse
import os
import pickle
import sys
import zipfile
from pathlib import Path
from random import Random

import numpy as np
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
    ConfigError,
    UnknownNameError,
)

sys.path.insert(0, str(Path(__file__).parent))
import foreign_networks as foreign
from test_foreign import assert_same_answers, trained


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
    "nnU-Net": lambda state: {"network_weights": state, "_best_ema": np.float64(0.8), "init_args": {"fold": 0}},
    "timm": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1), "version": 2},
    "BasicSR": lambda state: {"params": state},
    "weights": lambda state: {"weights": state},
    "only the moving average": lambda state: {"state_dict_ema": state, "ema_decay": 0.99},
    "moving average of DataParallel": lambda state: {
        "model_ema": {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in state.items()}
    },
    "NumPy numbers": lambda state: state | {"best_acc": np.float64(0.9), "epoch": np.int64(3), "curve": np.ones(4)},
    "backbone": lambda state: {"state_dict": {f"backbone.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings_are_taken_off(wrapping, tmp_path):
    theirs = trained(foreign.Milesial())
    torch.save(WRAPPINGS[wrapping](theirs.state_dict()), tmp_path / "net.pth")
    assert_same_answers(unetzoo.from_foreign(tmp_path / "net.pth"), theirs, (32, 32))


@pytest.mark.parametrize("names", [("model", "ema"), ("state_dict", "state_dict_ema"), ("params", "params_ema")])
def test_one_of_several_sets_of_weights_is_chosen_by_key(names, tmp_path):
    plain, averaged = trained(foreign.Milesial(), seed=0), trained(foreign.Milesial(), seed=1)
    torch.save(dict(zip(names, (plain.state_dict(), averaged.state_dict()), strict=True)), tmp_path / "net.pth")
    with pytest.raises(CheckpointMismatchError) as error:
        unetzoo.from_foreign(tmp_path / "net.pth")
    assert all(f"key={name!r}" in str(error.value.expected) for name in names)
    for name, theirs in zip(names, (plain, averaged), strict=True):
        assert_same_answers(unetzoo.from_foreign(tmp_path / "net.pth", key=name), theirs, (32, 32))


def test_a_key_leads_to_any_table():
    theirs = trained(foreign.Milesial())
    held = {"callbacks": {"average": {"shadow": theirs.state_dict()}}, "a.b": {"state_dict": theirs.state_dict()}}
    for key in ("callbacks.average.shadow", "a.b"):
        assert_same_answers(unetzoo.from_foreign(held, key=key), theirs, (32, 32))
    with pytest.raises(CheckpointMismatchError):
        unetzoo.from_foreign(held, key="callbacks.average")
    with pytest.raises(CheckpointError) as error:
        unetzoo.from_foreign(held)
    assert "key='a.b'" in error.value.hint


def test_a_module_is_read_as_its_state_dict():
    theirs = trained(foreign.Milesial())
    assert_same_answers(unetzoo.from_foreign(theirs), theirs, (32, 32))
    assert_same_answers(unetzoo.from_foreign({"model": theirs, "epoch": 3}), theirs, (32, 32))
    with pytest.raises(ConfigError):
        unetzoo.from_foreign(None)


def test_a_network_with_a_backbone_keeps_its_names():
    def network():
        return nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 3), "classifier": nn.Conv2d(4, 2, 1)})

    theirs, ours = network(), network()
    unetzoo.from_foreign(theirs.state_dict(), into=ours)
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


def test_safetensors_are_recognized_by_content(tmp_path):
    theirs = trained(foreign.Milesial())
    save_file(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    assert_same_answers(unetzoo.from_foreign(tmp_path / "pytorch_model.bin"), theirs, (32, 32))


def zipped(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")


MISTAKEN = {
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html><html></html>"), "download"),
    "Git LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "lfs pull"),
    "TorchScript": (lambda path: torch.jit.script(nn.ReLU()).save(path), "state_dict()"),
    "exported program": (lambda path: zipped(path, "net/archive_format"), "unetzoo.load"),
    "zip": (lambda path: zipped(path, "notes.txt"), "unpack"),
    "compressed": (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(20)), "unpack"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kind", MISTAKEN)
def test_other_files_are_named(kind, suffix, tmp_path):
    write, hint = MISTAKEN[kind]
    path = tmp_path / f"weights.{suffix}"
    write(path)
    with pytest.raises(CheckpointError) as error:
        unetzoo.from_foreign(path)
    assert kind in str(error.value.found) and hint in error.value.hint and error.value.subject == path
    assert not isinstance(error.value, CheckpointCorruptError)


def test_pickles_of_junk_are_our_errors(tmp_path):
    random = Random(0)
    for start in (b"\x80\x02", b"\x80\x02.", b"(", b""):
        for _ in range(20):
            (tmp_path / "junk.pth").write_bytes(start + random.randbytes(40))
            with pytest.raises((CheckpointCorruptError, CheckpointUnsafeError)) as error:
                unetzoo.from_foreign(tmp_path / "junk.pth")
            assert "weights_only" not in str(error.value)


def test_safetensors_and_our_own_names(tmp_path, model_name):
    from conftest import image, tensors, tiny

    first, second = tiny(model_name).eval(), tiny(model_name).eval()
    save_file(first.state_dict(), tmp_path / "net.safetensors")
    assert unetzoo.from_foreign(tmp_path / "net.safetensors", into=second) is second
    x = image(first)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(tensors(first(x)), tensors(second(x)), strict=True))


def test_smp_checkpoints_load_into_smp_networks(tmp_path):
    import segmentation_models_pytorch as smp

    theirs = trained(smp.Unet("resnet18", encoder_weights=None, classes=3))
    torch.save({"state_dict": {f"model.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "smp.ckpt")
    ours = unetzoo.build("smp-unet", encoder_name="resnet18", classes=3).eval()
    unetzoo.from_foreign(tmp_path / "smp.ckpt", into=ours)
    assert_same_answers(ours, theirs, (64, 64))


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_in_a_file_is_run(tmp_path):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"weight": Canary(tmp_path / "sung")}))
    torch.save({"weight": Canary(tmp_path / "sung")}, tmp_path / "new.pth")
    for name in ("bad.pth", "new.pth"):
        with pytest.raises(CheckpointUnsafeError):
            unetzoo.from_foreign(tmp_path / name)
    assert not (tmp_path / "sung").exists()


def test_bad_files_are_our_errors(tmp_path):
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08" + bytes(40))
    torch.save(foreign.Milesial().state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    for name in ("empty.pth", "text.pth", "broken.safetensors", "cut.pth"):
        with pytest.raises(CheckpointCorruptError) as error:
            unetzoo.from_foreign(tmp_path / name)
        assert error.value.subject == tmp_path / name
    with pytest.raises(CheckpointError):
        unetzoo.from_foreign(tmp_path / "missing.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError):
        unetzoo.from_foreign(tmp_path / "list.pth")
    with pytest.raises(CheckpointError):
        unetzoo.from_foreign({"epoch": 3})
    with pytest.raises(UnknownNameError) as error:
        unetzoo.from_foreign(foreign.Milesial().state_dict(), layout="milesal")
    assert "'milesial'" in error.value.hint
    with pytest.raises(CheckpointMismatchError):
        unetzoo.from_foreign(foreign.Lee().state_dict(), layout="milesial")
