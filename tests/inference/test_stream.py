"""`predict_to` against `predict` on the same image, and what goes wrong on disks."""

import json
import os

import numpy as np
import pytest
import tifffile
import torch
from predicting import knowing
from refusals import refused
from torch import nn

import unetzoo
from unetzoo import predict
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, InputShapeError
from unetzoo.images import as_tensor
from unetzoo.inference import Preprocess, predict_to, resumable_writer
from unetzoo.models.base import Geometry

CHANNELS = {"in_channels": 2, "classes": 3, "encoder_channels": (4, 8, 16)}


def small(name="bnunet", **config):
    torch.manual_seed(0)
    return knowing(unetzoo.build(name, **{**CHANNELS, **config}).eval(), as_tensor)


def random_image(height, width, channels=2, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def classes_of(net, image, **options):
    answer = predict(net, image, **options)
    mask = answer if isinstance(answer, torch.Tensor) else answer[0]
    return (mask[0] > 0 if len(mask) == 1 else mask.argmax(0)).numpy()


def agree(found, expected):
    """The same classes but for pixels where two classes are equal up to rounding."""
    assert found.shape == expected.shape
    return (found != expected).mean() <= 1e-3


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
def test_the_answer_is_that_of_predict(tmp_path, blend, tta):
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
def test_a_runs_preparation_sees_the_whole_image(tmp_path, normalize):
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


def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch):
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


def test_no_room_is_said_before_any_work(tmp_path, monkeypatch):
    def refuse(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with refused(ConfigError, expected="MB", found="No space left"):
        predict_to(small(), random_image(90, 90), tmp_path / "out.npy", depth=None)
    assert list(tmp_path.iterdir()) == []


def broken_tiffs(folder):
    path = folder / "good.tif"
    tifffile.imwrite(path, random_image(200, 200, 2), tile=(64, 64), compression="zlib", planarconfig="contig")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    middle = bytearray(data)
    middle[len(data) // 2 : len(data) // 2 + 400] = rng.bytes(400)
    return {
        "truncated": data[: len(data) * 2 // 3],
        "damaged": bytes(middle),
        "empty": b"",
        "text": b"II not a TIFF at all",
        "header": data[:8] + rng.bytes(len(data) - 8),
    }


@pytest.mark.parametrize("kind", ["truncated", "damaged", "empty", "text", "header"])
def test_broken_tiffs(tmp_path, kind, caplog):
    (tmp_path / "bad.tif").write_bytes(broken_tiffs(tmp_path)[kind])
    with refused(DataError, subject="bad.tif"):
        predict_to(small(), tmp_path / "bad.tif", tmp_path / "out.npy", tile=96)
    assert not (tmp_path / "out.npy").exists()


def test_mutated_tiffs_raise_our_errors_only(tmp_path):
    tifffile.imwrite(tmp_path / "good.tif", random_image(60, 60, 1)[..., 0], tile=(32, 32), compression="zlib")
    data, rng = (tmp_path / "good.tif").read_bytes(), np.random.default_rng(1)
    net = small(in_channels=1)
    outcomes = []
    for number in range(60):
        mutant = bytearray(data)
        for place in rng.integers(0, 400 if number % 2 else len(data), 3):
            mutant[place] = rng.integers(256)
        (tmp_path / "bad.tif").write_bytes(mutant)
        try:
            predict_to(net, tmp_path / "bad.tif", tmp_path / f"{number}.npy", memory="50MB")
            outcomes.append("read")
        except (DataError, ConfigError):
            outcomes.append("refused")
    assert outcomes.count("refused") > 10


def test_sources_that_cannot_be_read(tmp_path):
    net, image = small(), random_image(70, 80)
    out = tmp_path / "out.npy"
    tifffile.imwrite(tmp_path / "pages.tif", random_image(40, 40, 5).transpose(2, 0, 1), photometric="minisblack")
    tifffile.imwrite(tmp_path / "turned.tif", image[..., 0], extratags=[(274, 3, 1, 6, True)])
    tifffile.imwrite(tmp_path / "white.tif", image[..., 0], photometric="miniswhite")
    tifffile.imwrite(
        tmp_path / "palette.tif", image[..., 0], photometric="palette", colormap=np.zeros((3, 256), np.uint16)
    )
    (tmp_path / "in.png").write_bytes(b"")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00 no header")
    np.save(tmp_path / "short.npy", image)
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-5])
    for source, error in [
        ("none.tif", ImageDecodeError),
        ("in.png", DataError),
        ("pages.tif", DataError),
        ("turned.tif", DataError),
        ("palette.tif", DataError),
        ("white.tif", DataError),  # gray is no 2 channels
        ("bad.npy", ImageDecodeError),
        ("short.npy", ImageDecodeError),
    ]:
        with pytest.raises(error) as caught:
            predict_to(net, tmp_path / source, out)
        assert caught.value.hint
        assert caught.value.subject == tmp_path / source
    for source, error in [
        (image[..., :1], InputShapeError),
        (image.astype(np.int64), DataError),
        (image[0, 0], InputShapeError),
        (image[:0], InputShapeError),
        (torch.zeros(2, 9, 9), DataError),
        (None, DataError),
    ]:
        with pytest.raises(error):
            predict_to(net, source, out)
    assert not out.exists() and not out.with_name("out.npy.part").exists()


def test_wrong_arguments(tmp_path):
    net, image = small(), random_image(200, 180)
    out = tmp_path / "out.npy"
    (tmp_path / "there.npy").write_bytes(b"mine")
    for target, options, fields in [
        (tmp_path / "there.npy", {}, {"subject": "there.npy"}),
        (tmp_path / "out.png", {}, {"expected": ".npy, .tif", "found": ".png"}),
        (tmp_path / "none" / "out.npy", {}, {"subject": tmp_path / "none"}),
        (out, {"depth": tmp_path / "d.npy"}, {"subject": "d.npy"}),
        (out, {"probabilities": tmp_path / "p.tif"}, {"found": "p.tif"}),
        (out, {"probabilities": out}, {"found": "out.npy, "}),
        (out, {"tile": 40}, {"hint": "tile=52"}),
        (out, {"tile": "large"}, {"found": "large"}),
        (out, {"memory": "much"}, {"found": "much", "expected": "2GB"}),
        (out, {"memory": "10KB"}, {"expected": "MB", "hint": "more memory"}),
        (out, {"memory": "1MB", "tile": 160}, {"expected": "MB", "subject": "windows of"}),
        (out, {"tta": "paper"}, {"found": "paper", "hint": "d4"}),
        (out, {"preprocess": Preprocess(size=(64, 64))}, {"expected": "a tensor", "hint": "without resizing"}),
    ]:
        with refused(ConfigError, **fields):
            predict_to(net, image, target, **options)
    assert (tmp_path / "there.npy").read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["there.npy"]
    with refused(DataError, expected="uint8", found="uint16", hint="8 bits"):
        predict_to(net, image.astype(np.uint16), out, preprocess=Preprocess())


def test_the_command(tmp_path, monkeypatch, capsys):
    from unetzoo.cli import main
    from unetzoo.inference import ModelBundle

    net, image = small(), random_image(90, 120)
    tifffile.imwrite(tmp_path / "in.tif", image, planarconfig="contig", photometric="minisblack", tile=(32, 32))
    trained = ModelBundle(net, unetzoo.LabelSpec.indexed(3), Preprocess())
    monkeypatch.setattr("unetzoo.training.load_run", lambda run: trained)
    main_arguments = [
        "stream",
        "run",
        str(tmp_path / "in.tif"),
        str(tmp_path / "out.tif"),
        "--device",
        "cpu",
        "--quiet",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*main_arguments, "--memory", "20MB", "--tta", "flips"])
    assert ended.value.code in (0, None)
    shown = capsys.readouterr().out
    assert "1 window of" in shown and "pixels encoded twice" in shown
    assert agree(tifffile.imread(tmp_path / "out.tif"), classes_of(net, image, tta="flips"))
    with pytest.raises(SystemExit) as ended:
        main(main_arguments)
    assert ended.value.code == 2 and "exists already" in capsys.readouterr().err
    monkeypatch.setattr("unetzoo.training.load_run", lambda run: trained._replace(mode="multilabel"))
    with pytest.raises(SystemExit) as ended:
        main(main_arguments)
    assert ended.value.code == 2 and "several labels" in capsys.readouterr().err
