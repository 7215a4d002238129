from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image
from refusals import refused

from unetzoo.datasets.depth_files import read_depth
from unetzoo.errors import ConfigError, ImageDecodeError

GRAY = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def write(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_eight_bits(tmp_path, ending):
    for i, array in enumerate((GRAY, np.stack([GRAY] * 3, axis=2))):
        depth = read_depth(write(tmp_path / f"{i}.{ending}", array))
        assert depth.dtype == np.float32 and depth.shape == GRAY.shape
        np.testing.assert_allclose(depth, GRAY / 255.0, atol=1e-7)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_jpeg(tmp_path, mode):
    path = tmp_path / "d.jpg"
    Image.fromarray(GRAY).convert(mode).save(path, quality=95)
    np.testing.assert_allclose(read_depth(path), GRAY / 255.0, atol=8 / 255)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits(tmp_path, ending):
    array = (GRAY.astype(np.uint16) * 270) + 3
    path = write(tmp_path / f"d.{ending}", array)
    np.testing.assert_allclose(read_depth(path), array / 65535.0, atol=1e-7)
    np.testing.assert_allclose(read_depth(path, scale=0.001), array / 1000.0, rtol=1e-6)


def test_big_endian_tiff(tmp_path):
    array = GRAY.astype(np.uint16) * 270
    tifffile.imwrite(tmp_path / "d.tif", array, byteorder=">")
    np.testing.assert_allclose(read_depth(tmp_path / "d.tif", 1.0), array)


def test_float_keeps_its_values_and_its_gaps(tmp_path):
    array = GRAY.astype(np.float32) / 7
    array[0, :2] = np.nan, np.inf
    path = write(tmp_path / "d.tif", array)
    np.testing.assert_array_equal(read_depth(path), array)
    np.testing.assert_array_equal(read_depth(path, 2.0), array * 2)


def test_palettes_are_read_by_their_colors(tmp_path):
    image = Image.fromarray(GRAY).convert("P")
    image.save(tmp_path / "gray.png")
    np.testing.assert_allclose(read_depth(tmp_path / "gray.png"), GRAY / 255.0, atol=1e-7)
    image.putpalette([i % 256 for i in range(768)])
    image.save(tmp_path / "jet.png")
    with refused(ImageDecodeError, subject="jet.png", found="colors"):
        read_depth(tmp_path / "jet.png")


def test_refused(tmp_path):
    colors = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    with refused(ImageDecodeError, found="colors"):
        read_depth(write(tmp_path / "c.png", colors))
    with pytest.raises(ImageDecodeError, match="mode RGBA"):
        read_depth(write(tmp_path / "a.png", np.zeros((8, 8, 4), np.uint8)))
    path = write(tmp_path / "i.tif", np.full((4, 4), 70_000, np.int32))
    with pytest.raises(ImageDecodeError, match="unknown scale"):
        read_depth(path)
    assert read_depth(path, 1e-3).max() == 70
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="scale"):
            read_depth(path, scale)
    (tmp_path / "e.png").write_bytes(b"")
    with pytest.raises(ImageDecodeError):
        read_depth(tmp_path / "e.png")
    with pytest.raises(ImageDecodeError, match="no such file"):
        read_depth(tmp_path / "none.png")


@pytest.mark.realdata
def test_eva_depth(real):
    for path in (real / "fgbg_depth" / "composites" / "fg_bg_depth").iterdir():
        depth = read_depth(path)
        assert depth.ndim == 2 and 0 <= depth.min() < depth.max() <= 1
