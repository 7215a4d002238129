"""Predictions of GeoTIFF files keep their position on Earth, and pixels without data stay without."""

import json

import numpy as np
import pytest
import tifffile
import torch
from conftest import tiny
from exporting import run_folder
from PIL import Image

import unetzoo
from unetzoo import cli
from unetzoo.images import Pixels, Preprocess
from unetzoo.images.georeference import Georeference
from unetzoo.inference import Predictor, predict_to
from unetzoo.inference.results import DEFAULT_PRODUCTS

rasterio = pytest.importorskip("rasterio")
pytestmark = [pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
              pytest.mark.filterwarnings("ignore:Dataset has no geotransform")]  # fmt: skip
PIXELS = Pixels(5, range=[0, 4095])


def transform(kind, shift=0.0):
    from affine import Affine

    if kind == "rotated":
        return Affine(8.0, 3.0, 500_000.0 + shift, 3.0, -8.0, 5_000_000.0)
    return Affine(10.0, 0.0, 500_000.0 + shift, 0.0, -10.0, 5_000_000.0)


def scene(path, kind="upright", crs="EPSG:32633", nodata=0, shift=0.0, **options):
    values = np.random.default_rng(0).integers(1, 4096, (5, 80, 100)).astype(np.uint16)
    values[:, :20, :30] = 0
    with rasterio.open(path, "w", driver="GTiff", height=80, width=100, count=5, dtype="uint16", crs=crs, nodata=nodata,
                       transform=transform(kind, shift), tiled=True, blockxsize=32, blockysize=32,
                       **options) as file:  # fmt: skip
        file.write(values)
    return path


def network(classes=3):
    torch.manual_seed(0)
    return unetzoo.build("bnunet", in_channels=5, classes=classes, encoder_channels=(4, 8, 16))


def where(path):
    with rasterio.open(path) as file:
        return file.crs, file.transform, (file.height, file.width), file.nodata


@pytest.mark.parametrize("options", [{}, {"kind": "rotated"}, {"crs": "EPSG:4326"}, {"bigtiff": "yes"}])
def test_predictions_keep_the_georeference(tmp_path, options):
    path = scene(tmp_path / "a.tif", **options)
    predictor = Predictor(network(), preprocess=Preprocess(), pixels=PIXELS)
    assert predictor.predict_files(path, tmp_path / "out") == []
    predict_to(network(), path, tmp_path / "b.tif", preprocess=Preprocess(), pixels=PIXELS, tile=64)
    crs, place, size, _ = where(path)
    for written in (tmp_path / "out" / "a.tif", tmp_path / "b.tif"):
        assert where(written) == (crs, place, size, 255.0)
    with rasterio.open(tmp_path / "out" / "a.tif") as file, rasterio.open(tmp_path / "b.tif") as streamed:
        classes, also = file.read(1), streamed.read(1)
        assert file.colormap(1)[1][:3] == unetzoo.LabelSpec.indexed(3).palette[1]
    assert (classes[:20, :30] == 255).all() and (classes[20:] < 3).all() and (classes[:, 30:] < 3).all()
    assert (classes == also).mean() > 0.999
    mask = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert np.array_equal(mask[20:], classes[20:])
    facts = predictor.segment(path).facts()
    assert facts["missing"] == 600 and sum(one["pixels"] for one in facts["classes"].values()) == 80 * 100 - 600
    assert sum(one["share"] for one in facts["classes"].values()) == pytest.approx(1)


def test_the_command_line_writes_geotiff_by_default(tmp_path, monkeypatch):
    products = []
    monkeypatch.setattr(Predictor, "predict_files", lambda *args, **options: products.append(options["products"]) or [])
    run = run_folder(tmp_path / "run", tiny("bnunet", classes=1, in_channels=3))
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", str(run), str(scene(tmp_path / "a.tif")), str(tmp_path / "out")])
    assert not ended.value.code
    assert products == [DEFAULT_PRODUCTS]


def test_coco_regions_skip_pixels_without_data(tmp_path):
    predictor = Predictor(network(), preprocess=Preprocess(), pixels=PIXELS)
    predictor.predict_files(scene(tmp_path / "a.tif"), tmp_path / "out", products="json,coco_rle")
    found = json.loads((tmp_path / "out" / "annotations.coco_rle.json").read_text())["annotations"]
    facts = json.loads((tmp_path / "out" / "a.json").read_text())["classes"]
    background = next(iter(facts.values()))["pixels"]
    assert 0 < sum(one["area"] for one in found) == sum(one["pixels"] for one in facts.values()) - background


def test_images_without_georeference_have_no_geotiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 50, 5), np.uint16), photometric="minisblack",
                     planarconfig="contig")  # fmt: skip
    Predictor(network(), preprocess=Preprocess(), pixels=PIXELS).predict_files(tmp_path / "a.tif", tmp_path / "out")
    assert not (tmp_path / "out" / "a.tif").exists() and (tmp_path / "out" / "a.png").exists()
    assert Georeference.of(tmp_path / "a.tif") is None and Georeference.of(tmp_path / "out" / "a.png") is None


def test_several_labels_per_pixel(tmp_path):
    path = scene(tmp_path / "a.tif")
    predictor = Predictor(network(), preprocess=Preprocess(), pixels=PIXELS, mode="multilabel")
    assert predictor.predict_files(path, tmp_path / "out", products="geotiff") == []
    with rasterio.open(tmp_path / "out" / "a.tif") as file:
        planes = file.read()
        assert file.count == 3 and file.crs == where(path)[0]
    assert set(np.unique(planes[:, 20:])) <= {0, 1} and (planes[:, :20, :30] == 255).all()


def test_a_resumed_stream_keeps_its_georeference(tmp_path, monkeypatch):
    path = scene(tmp_path / "a.tif")
    options = {"preprocess": Preprocess(), "pixels": PIXELS, "tile": 56}
    predict_to(network(), path, tmp_path / "whole.tif", **options)
    from unetzoo.inference.resumable_writer import ResumableWriter

    write, calls = ResumableWriter.write, []

    def stopping(self, start, bands):
        if calls:
            raise KeyboardInterrupt
        calls.append(start)
        write(self, start, bands)

    monkeypatch.setattr(ResumableWriter, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        predict_to(network(), path, tmp_path / "b.tif", **options)
    monkeypatch.setattr(ResumableWriter, "write", write)
    predict_to(network(), path, tmp_path / "b.tif", resume=True, **options)
    assert where(tmp_path / "b.tif") == where(tmp_path / "whole.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), tifffile.imread(tmp_path / "whole.tif"))


def test_differences_of_the_ground(tmp_path):
    first = Georeference.of(scene(tmp_path / "a.tif"))
    assert first.system == "EPSG:32633"
    with rasterio.open(tmp_path / "a.tif") as file:
        assert np.allclose(first.matrix, np.array(file.transform).reshape(3, 3)[:2])
    assert first.difference(Georeference.of(scene(tmp_path / "same.tif"))) == ""
    assert first.difference(Georeference.of(scene(tmp_path / "near.tif", shift=2.0))) == ""
    assert "3.0 pixels" in first.difference(Georeference.of(scene(tmp_path / "far.tif", shift=30.0)))
    assert "EPSG:4326" in first.difference(Georeference.of(scene(tmp_path / "other.tif", crs="EPSG:4326")))
    rotated = Georeference.of(scene(tmp_path / "turned.tif", kind="rotated"))
    with rasterio.open(tmp_path / "turned.tif") as file:
        assert np.allclose(rotated.matrix, np.array(file.transform).reshape(3, 3)[:2])
    assert first.difference(rotated)
