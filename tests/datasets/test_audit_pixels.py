"""The doctor on images with many channels, more than 8 bits, missing data or a georeference."""

import tomllib

import numpy as np
import pytest
import tifffile
from auditing import codes
from many_channels import TWO, draw
from PIL import Image

from unetzoo.datasets import Folder
from unetzoo.doctor import audit

pytestmark = [pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
              pytest.mark.filterwarnings("ignore:Dataset has no geotransform")]  # fmt: skip


def cases(report, code):
    return next(finding for finding in report.findings if finding.code == code).cases


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_undeclared_channels_and_range_are_proposed(tmp_path, dtype, suffix):
    report = audit(draw(tmp_path, 8, dtype=dtype, suffix=suffix), dataset="folder")
    assert codes(report) == {"undeclared-pixels", "undeclared-labels"} and not report.errors
    proposal = dict(report.proposal)
    assert proposal["channels"] == 5 and len(proposal["range"]) == 5
    data = Folder(tmp_path, **proposal)
    assert 0.1 < data[0]["image"].mean() < 0.6 and data[0]["image"].max() == 1
    assert not codes(audit(tmp_path, dataset="folder", options=proposal))


def test_gray_of_16_bits(tmp_path):
    draw(tmp_path, 6)
    for index in range(6):
        (tmp_path / "images" / f"{index}.tif").unlink()
        values = np.random.default_rng(index).integers(0, 4096, (32, 32)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "images" / f"{index}.png")
    report = audit(tmp_path, dataset="folder")
    assert report.proposal["channels"] == 1 and len(report.proposal["range"]) == 2 and not report.errors


def test_images_of_a_kind_that_is_not_read(tmp_path):
    draw(tmp_path)
    colors = np.zeros((3, 2**16), np.uint16)
    for index, path in enumerate(sorted((tmp_path / "images").iterdir())):
        values = np.random.default_rng(index).integers(0, 2**16, (32, 32)).astype(np.uint16)
        tifffile.imwrite(path, values, photometric="palette", colormap=colors)
    report = audit(tmp_path)
    (error,) = report.errors
    assert error.code == "unsupported-image" and error.count == 6 and "palette" in error.cases[0].detail


def test_mixed_images(tmp_path):
    draw(tmp_path, 8)
    for index, (channels, dtype) in {3: (4, np.uint16), 5: (5, np.float32), 7: (5, np.uint8)}.items():
        values = np.random.default_rng(0).integers(0, 200, (32, 32, channels)).astype(dtype)
        tifffile.imwrite(tmp_path / "images" / f"{index}.tif", values, photometric="minisblack", planarconfig="contig")
    options = {"channels": 5, "range": [0, 4095], **TWO}
    report = audit(tmp_path, dataset="folder", options=options)
    assert {"other-channels", "mixed-types"} <= codes(report, "error")
    assert [case.file for case in cases(report, "other-channels")] == ["images/3.tif", "images/7.tif"]
    assert [case.file for case in cases(report, "mixed-types")] == ["images/5.tif"]


def test_a_range_that_clips(tmp_path):
    draw(tmp_path)
    report = audit(tmp_path, dataset="folder", options={"channels": 5, "range": [0, 1000], **TWO})
    assert codes(report, "warning") == {"range-clips"}
    detail = cases(report, "range-clips")[0].detail
    stored = np.stack([tifffile.imread(path) for path in (tmp_path / "images").iterdir()])
    assert "25.0%" in detail and f"{stored.min()} to {stored.max()}" in detail
    found = tomllib.loads(detail[detail.index("range = ") :])["range"]
    assert np.abs(np.subtract(found, np.quantile(stored, (0.001, 0.999)))).max() <= 2
    for good in ([0, 4095], "image", found):
        assert not codes(audit(tmp_path, dataset="folder", options={"channels": 5, "range": good, **TWO}))


def test_a_range_of_each_channel_that_clips(tmp_path):
    narrow = {"channels": 5, "range": [[0, 4095]] * 4 + [[0, 1000]], **TWO}
    report = audit(draw(tmp_path), dataset="folder", options=narrow)
    detail = cases(report, "range-clips")[0].detail
    found = tomllib.loads(detail[detail.index("range = ") :])["range"]
    assert detail.count(" to ") == len(found) == 5
    assert not codes(audit(tmp_path, dataset="folder", options={**narrow, "range": found}))


def test_a_range_that_clips_the_samples_of_a_dataset(tmp_path):
    data = Folder(draw(tmp_path), channels=5, range=[0, 1000], **TWO)
    assert "range = [" in cases(audit(data), "range-clips")[0].detail
    assert "range-clips" not in audit(Folder(tmp_path, channels=5, range=[0, 4095], **TWO)).codes


def test_a_missing_channel(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for index in range(4):
        for channel in range(2):
            values = np.random.default_rng(9 * index + channel).integers(0, 4096, (32, 32)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / "images" / f"{index}_{channel:04d}.png")
        mask = np.zeros((32, 32), np.uint8)
        mask[index : index + 9, 4:20] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    options = {"channels": 2, "channel_files": "_{:04d}", "range": [0, 4095], **TWO}
    assert not codes(audit(tmp_path, dataset="folder", options=options), "error", "warning")
    (tmp_path / "images" / "2_0001.png").unlink()
    report = audit(tmp_path, dataset="folder", options=options)
    assert cases(report, "missing-file")[0].detail == "2_0001.png"


def test_image_and_mask_of_other_ground(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        for kind, count, dtype, shift in (("images", 5, "uint16", 0), ("masks", 1, "uint8", 40 * (index == 3))):
            values = rng.integers(0, 4096, (5, 32, 32)).astype(np.uint16)
            if kind == "masks":
                values = np.zeros((1, 32, 32), np.uint8)
                values[0, index : index + 12, 3:20] = 1
            place = rasterio.transform.from_origin(500_000 + shift, 5_000_000, 10, 10)
            with rasterio.open(tmp_path / kind / f"{index}.tif", "w", driver="GTiff", height=32, width=32, count=count,
                               dtype=dtype, crs="EPSG:32633", transform=place) as file:  # fmt: skip
                file.write(values)
    report = audit(tmp_path, dataset="folder", options={"channels": 5, "range": [0, 4095], "classes": 2})
    assert codes(report, "error") == {"other-ground"}
    (case,) = cases(report, "other-ground")
    assert case.file == "masks/3.tif" and "4.0 pixels" in case.detail


def test_the_sheet_shows_them(tmp_path):
    draw(tmp_path / "data")
    audit(
        tmp_path / "data",
        dataset="folder",
        options={"channels": 5, "range": [0, 4095], **TWO},
        sheet=tmp_path / "a.png",
    )
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 500


def test_a_file_per_channel_is_recognized_and_its_range_proposed(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    rng = np.random.default_rng(0)
    for name in "abcdef":
        for channel, highest in enumerate((4000, 200)):
            values = rng.integers(0, highest, (16, 16)).astype(np.uint16)
            tifffile.imwrite(tmp_path / "images" / f"{name}_{channel:04d}.tif", values)
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    report = audit(tmp_path)
    assert report.dataset == "folder" and not report.errors and report.samples == 6
    declared = {**report.options, **report.proposal}
    assert (declared["channels"], declared["channel_files"]) == (2, "_{:04d}")
    assert [high for _, high in declared["range"]] == pytest.approx([4000, 200], rel=0.02)
    assert Folder(tmp_path, **declared)[0]["image"].shape == (16, 16, 2)
    assert not audit(tmp_path, "folder", options=declared).errors
