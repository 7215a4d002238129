"""`predict_to` against `predict` on the same image, and what goes wrong on disks."""

import json
import os

import numpy as np
import pytest
import tifffile
import torch
from predicting import knowing
from refusals import refused
from streaming import agree, classes_of, random_image, small
from torch import nn

import unetzoo
from unetzoo import predict
from unetzoo.errors import ConfigError
from unetzoo.images import as_tensor
from unetzoo.inference import Preprocess, predict_to, resumable_writer
from unetzoo.models.base import Geometry


@pytest.mark.parametrize(
    "layout",
    [
        {"tile": (64, 64)},
        {"tile": (64, 48), "compression": "zlib"},
        {"tile": (32, 64), "planarconfig": "separate", "compression": "zlib"},
        {"rowsperstrip": 7},
        {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
        {"rowsperstrip": 5, "planarconfig": "separate"},
        {"tile": (64, 64), "bigtiff": True, "byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_layouts(tmp_path, layout, dtype):
    image = random_image(131, 203, 3, dtype)
    stored = image.transpose(2, 0, 1) if "planarconfig" in layout else image
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="rgb", **layout)
    net = small(in_channels=3)
    predict_to(net, tmp_path / "in.tif", tmp_path / "out.npy", tile=96)
    assert agree(np.load(tmp_path / "out.npy"), classes_of(net, image))


def test_transparency_is_left_out_and_gray_has_one_channel(tmp_path):
    image = random_image(70, 90, 4)
    tifffile.imwrite(tmp_path / "rgba.tif", image, photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32))
    tifffile.imwrite(tmp_path / "gray.tif", image[..., 0], tile=(32, 32))
    for name, seen in (("rgba", image[..., :3]), ("gray", image[..., 0])):
        net = small(in_channels=3 if seen.ndim == 3 else 1)
        predict_to(net, tmp_path / f"{name}.tif", tmp_path / f"{name}.npy")
        assert agree(np.load(tmp_path / f"{name}.npy"), classes_of(net, seen))


@pytest.mark.parametrize("suffix", ["npy", "tif", "TIFF"])
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (513, 2), (600, 520)])
def test_targets_of_any_size(tmp_path, suffix, size):
    image = random_image(*size)
    net = small("unet")
    predict_to(net, image, tmp_path / f"out.{suffix}", tile=200)
    path = tmp_path / f"out.{suffix}"
    found = np.load(path) if suffix == "npy" else tifffile.imread(path)
    assert found.dtype == np.uint8 and agree(found, classes_of(net, image))
    assert [p.name for p in tmp_path.iterdir()] == [f"out.{suffix}"]


@pytest.mark.parametrize("blend", ["exact", "constant", "gaussian"])
@pytest.mark.parametrize("tta", [None, "flips", "d4"])
def test_the_output_equals_that_of_predict(tmp_path, blend, tta):
    net, image = small(), random_image(150, 131)
    options = {"tile": (64, 72), "blend": blend, "tta": tta}
    predict_to(net, image, tmp_path / "out.npy", probabilities=tmp_path / "p.npy", **options)
    expected = predict(net, image, **options)
    assert agree(np.load(tmp_path / "out.npy"), expected.argmax(0).numpy())
    found = torch.from_numpy(np.load(tmp_path / "p.npy").astype(np.float32)).permute(2, 0, 1)
    assert torch.allclose(found, expected.softmax(0), atol=1e-3)


def test_depth_and_half_resolution(tmp_path):
    net, image = small("dualunet", out_stride=2), random_image(101, 90)
    predict_to(net, image, tmp_path / "out.npy", depth=tmp_path / "depth.tif", tile=80)
    whole = predict(net, image)
    assert agree(np.load(tmp_path / "out.npy"), whole.mask.argmax(0).numpy())
    depth = tifffile.imread(tmp_path / "depth.tif")
    assert depth.dtype == np.float32 and np.allclose(depth, whole.depth[0], atol=1e-5)


class Many(nn.Module):
    """Class of a pixel: its value."""

    geometry = Geometry(minimum=1, stride=1, halo=0)

    def forward(self, x):
        levels = torch.arange(300, dtype=x.dtype).view(1, -1, 1, 1)
        return -(x * 65535 - levels).abs()


def test_more_than_256_classes_and_one(tmp_path):
    image = random_image(20, 31, 1, np.uint16) % 300
    predict_to(knowing(Many(), as_tensor), image, tmp_path / "many.tif", tile=16)
    found = tifffile.imread(tmp_path / "many.tif")
    assert found.dtype == np.uint16 and np.array_equal(found, image[..., 0])
    net, image = small(classes=1), random_image(40, 50)
    predict_to(net, image, tmp_path / "one.npy", threshold=0.4)
    assert np.array_equal(np.load(tmp_path / "one.npy"), (predict(net, image)[0].sigmoid() > 0.4).numpy())


@pytest.mark.parametrize("normalize", ["unit", "minmax", "standard", {"mean": [0.2, 0.3], "std": [0.5, 0.25]}])
def test_preprocessing_of_a_run_uses_the_whole_image(tmp_path, normalize):
    image = random_image(150, 100) // 2 + 40
    image[:70] //= 2
    net = small()
    predict_to(net, image, tmp_path / "out.npy", preprocess=Preprocess(normalize=normalize), tile=80)
    assert agree(np.load(tmp_path / "out.npy"), classes_of(net, Preprocess(normalize=normalize)(image)))


def test_a_gray_memory_map_is_only_read(tmp_path):
    net, image = small(in_channels=1), random_image(40, 30, 1)
    np.save(tmp_path / "in.npy", image[..., 0])
    predict_to(net, tmp_path / "in.npy", tmp_path / "out.npy", preprocess=Preprocess())
    assert agree(np.load(tmp_path / "out.npy"), classes_of(net, image))


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("blend", ["exact", "gaussian"])
@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_going_on_after_an_interruption(tmp_path, monkeypatch, blend, suffix):
    net, image = small(), random_image(400, 61)
    options = {"blend": blend, "probabilities": tmp_path / "p.npy"}
    once = tmp_path / f"once.{suffix}"
    predict_to(net, image, once, blend=blend, tile=96, probabilities=tmp_path / "once_p.npy")
    written = resumable_writer.ResumableWriter.write

    def stopping(self, start, bands):
        if start > 200:
            raise Interrupted
        written(self, start, bands)

    path = tmp_path / f"out.{suffix}"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(resumable_writer.ResumableWriter, "write", stopping)
        predict_to(net, image, path, tile=96, **options)
    assert not path.exists() and (tmp_path / f"out.{suffix}.part").exists()
    with refused(ConfigError, hint="resume=True"):
        predict_to(net, image, path, tile=96, **options)
    others = {
        "network": {"net": small(classes=4)},
        "source": {"image": image[:-1]},
        "tile": {"tile": 112},
        "preprocess": {"preprocess": Preprocess(normalize="standard")},
        "labels": {"labels": unetzoo.LabelSpec(("a", "b", "c"))},
        "threshold": {"threshold": 0.3},
    }
    for name, other in others.items():
        changed = {"net": net, "image": image, **options, **other}
        with pytest.raises(ConfigError) as caught:
            predict_to(changed.pop("net"), changed.pop("image"), path, resume=True, **changed)
        assert name in caught.value.found
    leaky = small()
    for module in list(leaky.modules()):
        for child, layer in module.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(module, child, nn.LeakyReLU(0.05))
    with pytest.raises(ConfigError) as caught:  # the same tensors
        predict_to(leaky, image, path, resume=True, **options)
    assert "network" in caught.value.found
    monkeypatch.chdir(tmp_path)
    path = path.name
    streamed = predict_to(net, image, path, resume=True, **options)
    assert 0 < streamed.rows < 400 and streamed.tiling.plan.tile[0] == (92 if blend == "exact" else 96)
    read = np.load if suffix == "npy" else tifffile.imread
    assert np.array_equal(read(path), read(once))
    assert np.array_equal(np.load(tmp_path / "p.npy"), np.load(tmp_path / "once_p.npy"))
    assert {p.name for p in tmp_path.iterdir()} == {once.name, path, "p.npy", "once_p.npy"}


def test_a_full_disk_keeps_finished_rows(tmp_path, monkeypatch):
    net, image = small(), random_image(300, 61)
    put = resumable_writer._put

    def full(file, place, values):
        if place > 10_000:
            raise OSError(28, "No space left on device")
        put(file, place, values)

    with monkeypatch.context() as patch, refused(ConfigError, found="No space left", hint="--resume"):
        patch.setattr(resumable_writer, "_put", full)
        predict_to(net, image, tmp_path / "out.npy", tile=96)
    assert json.loads((tmp_path / "out.npy.part.json").read_text())["rows"] > 0
    predict_to(net, image, tmp_path / "out.npy", tile=96, resume=True)
    assert agree(np.load(tmp_path / "out.npy"), classes_of(net, image))


def test_missing_space_is_reported_before_any_work(tmp_path, monkeypatch):
    def refuse(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with refused(ConfigError, expected="MB", found="No space left"):
        predict_to(small(), random_image(90, 90), tmp_path / "out.npy", depth=None)
    assert list(tmp_path.iterdir()) == []
