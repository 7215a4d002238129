"""Exported files: damaged, touched by other tools, or none of ours."""

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import tiny
from exporting import SPEC, Plain, pixels, warmed
from predicting import knowing
from refusals import refused

import unetzoo
from unetzoo.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointWriteError,
    UnetzooError,
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported ONNX file."""
    net = warmed("bnunet", classes=3, encoder_channels=(4, 8, 16))
    return unetzoo.export(net, tmp_path_factory.mktemp("exported") / "net.onnx", labels=SPEC).path


def test_files_that_are_none(tmp_path):
    with refused(CheckpointError, subject="none.onnx", hint="check the path"):
        unetzoo.inference.load_artifact(tmp_path / "none.onnx")
    for name in ("a.onnx", "a.pt2"):
        (tmp_path / name).write_bytes(b"broken")
        for check in (True, False):
            with pytest.raises(CheckpointCorruptError):
                unetzoo.inference.load_artifact(tmp_path / name, check=check)
    torch.export.save(torch.export.export(Plain(), (torch.zeros(2),)), tmp_path / "foreign.pt2")
    for check in (True, False):
        with pytest.raises(CheckpointError):
            unetzoo.inference.load_artifact(tmp_path / "foreign.pt2", check=check)
    (tmp_path / "file").write_bytes(b"")
    with refused(CheckpointWriteError, subject=tmp_path / "file" / "net.pt2"):
        unetzoo.export(Plain(), tmp_path / "file" / "net.pt2", size=(8, 8))


def test_files_that_other_tools_have_touched(tmp_path, exported):
    model = onnx.load(exported)
    entry = model.metadata_props.add()
    entry.key, entry.value = "onnx.infer", "onnxruntime.quant"  # as ONNX Runtime's quantizer does
    onnx.save(model, tmp_path / "quantized.onnx")
    with pytest.raises(CheckpointCorruptError) as caught:
        unetzoo.inference.load_artifact(tmp_path / "quantized.onnx")
    assert caught.value.subject == tmp_path / "quantized.onnx" and "check=False" in caught.value.hint
    assert unetzoo.inference.load_artifact(tmp_path / "quantized.onnx", check=False).info["classes"] == list(SPEC.names)
    for key in ("format", "outputs"):
        kept = [entry for entry in model.metadata_props if entry.key != key]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(CheckpointError) as other:
            unetzoo.inference.load_artifact(tmp_path / "other.onnx", check=False)
        assert not isinstance(other.value, CheckpointCorruptError)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_damaged_files_raise_our_errors_only(tmp_path, exported, suffix):
    data = exported.read_bytes()
    if suffix == ".pt2":
        data = unetzoo.export(Plain(), tmp_path / "good.pt2", verify=False).path.read_bytes()
    rng, image, refused = np.random.default_rng(0), pixels(20, 31), 0
    cut = [data[:length] for length in (0, 7, len(data) // 2, len(data) - 1)]
    for number in range(len(cut) + 12):
        damaged = bytearray(cut[number] if number < len(cut) else data)
        if number >= len(cut):
            for place in rng.integers(0, 3000 if number % 2 else len(data), 5):
                damaged[place] = rng.integers(256)
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(damaged)
        try:
            unetzoo.inference.load_artifact(path, check=False)(image)
        except UnetzooError:
            refused += 1
    assert refused > len(cut)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_flipped_bit_and_every_cut_is_refused(tmp_path, exported, suffix):
    path = exported if suffix == ".onnx" else unetzoo.export(Plain(), tmp_path / "a.pt2", verify=False).path
    data, rng = path.read_bytes(), np.random.default_rng(0)
    bad = tmp_path / f"bad{suffix}"
    places = {0, len(data) - 1, len(data) - 65, *rng.integers(0, len(data), 150).tolist()}
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(flipped)
        with pytest.raises(CheckpointCorruptError):
            unetzoo.inference.load_artifact(bad)
    for length in (0, 1, 63, 64, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:length])
        with pytest.raises(CheckpointCorruptError):
            unetzoo.load(bad)
    bad.write_bytes(data)
    assert unetzoo.inference.load_artifact(bad).info["format"] == 2


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_no_paths_of_this_machine_are_exported(tmp_path, suffix):
    made = unetzoo.export(knowing(tiny("bnunet", classes=2)), tmp_path / f"net{suffix}", verify=False)
    data = made.path.read_bytes()
    for package in (unetzoo, torch):
        assert str(Path(package.__file__).parent).encode() not in data
    if suffix == ".pt2":
        assert zipfile.ZipFile(made.path).testzip() is None
    else:
        onnx.checker.check_model(onnx.load(made.path))
