"""Datasets of images with many channels, more than 8 bits, or a file per channel: from the file to the prediction."""

import numpy as np
import pytest
import tifffile
import torch
from many_channels import FIVE, TWO, draw
from PIL import Image

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.datasets import (
    Albumentations,
    BatchTransform,
    Csv,
    FileDataset,
    FileLayout,
    FilePattern,
    Folder,
    Transform,
    cached,
    statistics,
)
from unetzoo.datasets.stats import clipping
from unetzoo.doctor import audit
from unetzoo.errors import ConfigError, DataError, PairingError, PluginError, UnsupportedImageError
from unetzoo.images import Pixels, Preprocess
from unetzoo.inference import Predictor, predict_to
from unetzoo.training import Trainer


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_folder_of_five_channels(tmp_path, dtype, suffix):
    data = Folder(draw(tmp_path, dtype=dtype, suffix=suffix), **FIVE, **TWO)
    sample = data[0]
    assert sample["image"].dtype == np.float32 and sample["image"].shape == (32, 32, 5)
    assert data.pixels == Pixels(5, range=[100, 4000])
    stored = data.read_stored(0).values.astype(np.float64)
    assert np.allclose(sample["image"], (stored - 100) / 3900, atol=1e-6)
    chosen = Folder(tmp_path, bands=[5, 1], range="dtype", **TWO)
    assert np.array_equal(chosen.read_stored(2).values, data.read_stored(2).values[..., [4, 0]])


def test_csv(tmp_path):
    draw(tmp_path, 2)
    (tmp_path / "data.csv").write_text("image,mask\n" + "".join(f"images/{i}.tif,masks/{i}.png\n" for i in range(2)))
    data = Csv(tmp_path, **FIVE, **TWO)
    assert np.array_equal(data[1]["image"], Folder(tmp_path, **FIVE, **TWO)[1]["image"])
    assert np.array_equal(data.read_stored(1).values, Folder(tmp_path, **FIVE, **TWO).read_stored(1).values)


def test_a_dataset_of_a_plugin_declares_its_channels(tmp_path):
    class Scenes(FileDataset):
        layouts = (FileLayout("scenes", "images/ and masks/", labels=unetzoo.LabelSpec(**TWO), files=(
            FilePattern("image", "images/{name}.tif"), FilePattern("mask", "masks/{name}.png")),
            pixels=Pixels(bands=[2, 4], range=[100, 4000])),)  # fmt: skip
        splits = ("all",)

    draw(tmp_path, 2)
    assert Scenes(tmp_path, "all")[0]["image"].shape == (32, 32, 2)
    assert Scenes(tmp_path, "all", pixels={"channels": 5, "range": "dtype"})[0]["image"].shape == (32, 32, 5)
    with pytest.raises(ConfigError) as caught:
        Scenes(tmp_path, "all", pixels={"channel": 5})
    assert "channels" in caught.value.hint


def test_without_a_range_the_error_names_what_to_declare(tmp_path):
    draw(tmp_path)
    with pytest.raises(UnsupportedImageError) as caught:
        Folder(tmp_path, **TWO)[0]
    assert "channels=5" in caught.value.hint and "range" in caught.value.hint
    with pytest.raises(UnsupportedImageError) as caught:
        Folder(tmp_path, channels=5, **TWO)
    assert "6 faults" in caught.value.found and "range" in caught.value.hint


def test_mixed_images_are_named_together(tmp_path):
    draw(tmp_path, 30)
    for index in range(3, 27):
        values = np.zeros((32, 32, 4 if index % 2 else 5), np.uint16 if index % 2 else np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"{index}.tif", values, photometric="minisblack", planarconfig="contig")
    with pytest.raises(UnsupportedImageError) as caught:
        Folder(tmp_path, **FIVE, **TWO)
    lines = caught.value.found.splitlines()
    assert lines[0] == "24 faults" and lines[-1].strip() == "… and 4 more"
    assert (
        sum("4 channels of 16 bits" in line for line in lines) + sum("8 bits, others" in line for line in lines) == 20
    )


def test_a_file_per_channel(tmp_path):
    draw(tmp_path / "five", 4)
    five = Folder(tmp_path / "five", range=[100, 4000], channels=5, **TWO)
    for kind in ("images", "masks"):
        (tmp_path / "split" / kind).mkdir(parents=True)
    for index in range(4):
        for channel in range(5):
            plane = five.read_stored(index).values[..., channel]
            Image.fromarray(plane).save(tmp_path / "split" / "images" / f"{index}_{channel:04d}.png")
        (tmp_path / "split" / "masks" / f"{index}.png").write_bytes(
            (tmp_path / "five" / "masks" / f"{index}.png").read_bytes()
        )
    data = Folder(tmp_path / "split", channels=5, channel_files="_{:04d}", range=[100, 4000], **TWO)
    assert len(data) == 4 and data[0]["id"] == "0"
    assert all(np.array_equal(data[i]["image"], five[i]["image"]) for i in range(4))
    assert len(data.sources()) == 4 * 6
    chosen = Folder(tmp_path / "split", channel_files=["_0004", "_0001"], range=[100, 4000], **TWO)
    assert np.array_equal(chosen[3]["image"], five[3]["image"][..., [4, 1]])
    for index in range(3):
        (tmp_path / "split" / "images" / f"{index}_0002.png").unlink()
    with pytest.raises(PairingError) as caught:
        Folder(tmp_path / "split", channels=5, channel_files="_{:04d}", range=[100, 4000], **TWO)
    assert "3 faults" in caught.value.found and "2_0002.png" in caught.value.found


def test_missing_data_is_ignored(tmp_path):
    draw(tmp_path, 1)
    values = np.full((32, 32, 5), 500, np.uint16)
    values[:4] = 0
    tifffile.imwrite(tmp_path / "images" / "0.tif", values, photometric="minisblack", planarconfig="contig",
                     extratags=[(42113, 2, 0, "0", True)])  # fmt: skip
    sample = Folder(tmp_path, ignore_index=255, **FIVE, **TWO)[0]
    assert (sample["mask"][:4] == 255).all() and (sample["mask"][4:] < 2).all()
    assert (Folder(tmp_path, **FIVE, **TWO)[0]["mask"] < 2).all()
    negative = Folder(tmp_path, ignore_index=-100, **FIVE, **TWO)[0]["mask"]
    assert (negative[:4] == -100).all() and (negative[4:] >= 0).all()


@pytest.mark.parametrize("size", [None, 24])
def test_transforms_in_loader_and_on_device_agree(tmp_path, size):
    data = Folder(draw(tmp_path), **FIVE, **TWO)
    options = {"size": size, "crop": 16, "hflip": 0.5, "rotate": 20, "brightness": 0.2, "contrast": 0.2}
    for elastic in (None, 4):
        loader, device = (Transform(**options, elastic=elastic, on=on) for on in ("loader", "device"))
        first, second = ([move(data[i], np.random.default_rng(i)) for i in range(4)] for move in (loader, device))
        batch = BatchTransform(device)(torch.utils.data.default_collate(second))
        for sample, image in zip(first, batch["image"], strict=True):
            assert sample["image"].shape == (5, 16, 16) and 0 <= sample["image"].min() and sample["image"].max() <= 1
            assert torch.allclose(sample["image"], image, atol=1e-4)


def test_validation_equals_preprocessing_and_keeps_more_than_8_bits(tmp_path):
    data = Folder(draw(tmp_path), **FIVE, **TWO)
    for size in (None, 48):
        for normalize in ("unit", "minmax", "standard", {"mean": [0.1] * 5, "std": [0.2] * 5}):
            transform = Transform(size, normalize=normalize, train=False)
            expected = transform(data[0], np.random.default_rng(0))["image"]
            found = Preprocess(transform.size, normalize)(data[0]["image"])
            assert torch.allclose(found, expected, atol=1e-5)
    assert len(np.unique(Preprocess()(data[0]["image"]))) > 1000


def test_cache(tmp_path):
    data = Folder(draw(tmp_path), **FIVE, **TWO)
    kept = cached(data, folder=tmp_path / "cache", workers=0, progress=False)
    assert np.array_equal(kept[2]["image"], data[2]["image"]) and kept.pixels == data.pixels
    small = cached(data, 16, folder=tmp_path / "cache", workers=0, progress=False)
    assert small[0]["image"].dtype == np.float32 and small[0]["image"].shape == (16, 16, 5)
    other = cached(Folder(tmp_path, channels=5, range=[0, 4000], **TWO), folder=tmp_path / "cache", workers=0,
                   progress=False)  # fmt: skip
    assert not np.array_equal(other[2]["image"], kept[2]["image"])


def test_statistics_and_the_percentiles_of_a_dataset(tmp_path):
    data = Folder(draw(tmp_path), channels=5, range="percentile", **TWO)
    with pytest.raises(ConfigError) as caught:
        data[0]
    assert "stats" in caught.value.hint
    found = statistics(data)
    raw = np.concatenate([data.read_stored(i).values.reshape(-1, 5) for i in range(6)]).astype(np.float64)
    limits = np.array(found.range)
    assert np.abs(limits - np.quantile(raw, (0.001, 0.999), axis=0).T).max() <= 2
    scaled = np.clip((raw - limits[:, 0]) / (limits[:, 1] - limits[:, 0]), 0, 1)
    assert np.allclose([channel.mean for channel in found.image], scaled.mean(0), atol=1e-5)
    assert np.allclose([channel.std for channel in found.image], scaled.std(0), atol=1e-5)
    assert "range = [[" in found.recipe_line
    again = statistics(Folder(tmp_path, channels=5, range=found.range, **TWO))
    assert again.image == found.image and again.range is None


def test_statistics_count_what_a_range_clips(tmp_path):
    draw(tmp_path)
    assert statistics(Folder(tmp_path, **FIVE, **TWO)).clipped == 0
    found = statistics(Folder(tmp_path, channels=5, range=[100, 2000], **TWO))
    assert 0.1 < found.clipped < 0.6
    outside = clipping(Folder(tmp_path, channels=5, range=[100, 2000], **TWO))
    assert outside.share == found.clipped and len(outside.extremes) == len(outside.range) == 1
    (low, high), (start, end) = *outside.extremes, *outside.range
    assert 100 <= low <= start < end <= high <= 3000 and outside.line in str(outside)
    assert clipping(Folder(tmp_path, channels=5, range=outside.range, **TWO)) is None


def small(channels=5):
    torch.manual_seed(0)
    return unetzoo.build("bnunet", in_channels=channels, classes=2, encoder_channels=(4, 8, 16))


def test_training_prediction_and_streaming(tmp_path):
    data = Folder(draw(tmp_path / "data"), transform=Transform(16, train=False), **FIVE, **TWO)
    net = small()
    Trainer(net, unetzoo.LOSSES.build("ce"), epochs=1, progress=False).fit(data)
    net.save_pretrained(tmp_path / "net")
    bundle = unetzoo.load(tmp_path / "net")
    assert bundle.pixels == Pixels(5, range=[100, 4000])
    assert Predictor(bundle).predict_files(tmp_path / "data" / "images", tmp_path / "out") == []
    result = Predictor(bundle).segment(tmp_path / "data" / "images" / "0.tif")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "0.png")), result.label_map)
    again = Predictor(bundle).segment(data.load(0)["image"])
    assert np.array_equal(again.label_map, result.label_map)
    with pytest.raises(DataError):
        Predictor(bundle).segment(data.read_stored(0).values)


@pytest.mark.parametrize("normalize", ["unit", "minmax", "standard"])
@pytest.mark.parametrize(
    "pixels", [Pixels(5, range=[100, 4000]), Pixels(5, range="image"), Pixels(bands=[5, 3], range="dtype")]
)
def test_streaming_equals_prediction(tmp_path, pixels, normalize):
    values = np.random.default_rng(0).integers(0, 4096, (90, 100, 5)).astype(np.uint16)
    values[:9, :9] = 0
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32), photometric="minisblack", planarconfig="contig",
                     extratags=[(42113, 2, 0, "0", True)])  # fmt: skip
    net, preprocess = small(pixels.channels), Preprocess(normalize=normalize)
    predict_to(net, tmp_path / "a.tif", tmp_path / "b.npy", preprocess=preprocess, pixels=pixels, tile=64)
    expected = Predictor(net, preprocess=preprocess, pixels=pixels).segment(tmp_path / "a.tif").label_map
    assert (np.load(tmp_path / "b.npy") == expected).mean() > 0.999


def test_prediction_of_a_file_per_channel(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for channel in range(2):
        for name in "ab":
            Image.fromarray(rng.integers(0, 4096, (20, 30)).astype(np.uint16)).save(
                tmp_path / "in" / f"{name}_{channel}.png"
            )
    predictor = Predictor(small(2), preprocess=Preprocess(), pixels=Pixels(2, files="_{}", range=[0, 4095]))
    assert predictor.predict_files(tmp_path / "in", tmp_path / "out", products="mask") == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_albumentations(tmp_path):
    data = Folder(draw(tmp_path), **FIVE, **TWO)
    move = Albumentations([{"name": "RandomGamma", "p": 1.0}, {"name": "HorizontalFlip", "p": 1.0}])
    image = move(data[0], np.random.default_rng(0))["image"]
    assert image.shape == (5, 32, 32) and len(torch.unique(image)) > 1000
    with pytest.raises(PluginError) as caught:
        Albumentations([{"name": "HueSaturationValue", "p": 1.0}])(data[0], np.random.default_rng(0))
    assert "channel" in caught.value.found
    with pytest.raises(DataError) as caught:
        Albumentations([{"name": "Normalize"}])(data[0], np.random.default_rng(0))
    assert "normalize=" in caught.value.hint


@pytest.mark.parametrize("wrap", [lambda move: move, lambda move: Albumentations([{"name": "NoOp"}], then=move)])
def test_colors_of_other_channels_than_rgb_are_not_shifted(tmp_path, wrap):
    draw(tmp_path, channels=6)
    data = Folder(tmp_path, channels=6, range=[0, 4000], transform=wrap(Transform(hue=10)), **TWO)
    net = small(6)
    with pytest.raises(ConfigError) as caught:
        Trainer(net, unetzoo.LOSSES.build("ce"), epochs=1, progress=False).fit(data)
    assert "hue" in caught.value.hint


@pytest.mark.parametrize("size", [None, (24, 40)])
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_an_exported_file_reads_the_same_images(tmp_path, suffix, size):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    draw(tmp_path, 2)
    trained = ModelBundle(small(), preprocess=Preprocess(size, "unit"), pixels=Pixels(5, range=[100, 4000]))
    made = unetzoo.export(trained, tmp_path / f"net{suffix}")
    assert made.info["input"]["dtype"] == "float32"
    assert made.info["input"]["pixels"] == trained.pixels.to_dict()
    opened = unetzoo.load(made.path)
    assert opened.bundle.pixels == trained.pixels
    expected = Predictor(trained).segment(tmp_path / "images" / "0.tif").label_map
    assert (Predictor(opened.bundle).segment(tmp_path / "images" / "0.tif").label_map == expected).mean() > 0.999
    with pytest.raises(ConfigError) as caught:
        unetzoo.export(trained, tmp_path / f"net{suffix}", dtype="uint8")
    assert "0…1" in caught.value.hint


@pytest.mark.parametrize("mask", ["{}.png", "{}.ome.png", "{}.OME.tif"])
def test_masks_of_ome_tiff_files(tmp_path, mask):
    """The stem of a.ome.tif is a, and that of masks saved with the suffix of the image only replaced, too."""
    values = np.random.default_rng(0).integers(0, 4096, (5, 5, 24, 20)).astype(np.uint16)
    for index in range(5):
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / f"{index}.ome.tif", values[index], metadata={"axes": "CYX"})
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(24, 20, dtype=np.uint8)).save(tmp_path / "masks" / mask.format(index))
    sample = Folder(tmp_path, channels=5, range=[0, 4095], classes=2)[3]
    assert sample["id"] == "3" and np.allclose(sample["image"], values[3].transpose(1, 2, 0) / 4095)
    report = audit(tmp_path)
    assert report.dataset == "folder" and report.proposal["channels"] == 5 and not report.errors
    predictor = Predictor(small(), preprocess=Preprocess(), pixels=Pixels(5, range=[0, 4095]))
    assert predictor.predict_files(tmp_path / "images", tmp_path / "out", products="mask") == []
    assert (tmp_path / "out" / "3.png").is_file()
