"""Declared channels and ranges: files written by the libraries that own their formats, read equal to the pixel."""

import io
import json

import numpy as np
import pytest
import tifffile
import torch
from images.test_decode import png16
from PIL import Image

from unetzoo.errors import (
    ConfigError,
    DataError,
    ImageDecodeError,
    ImageTooLargeError,
    SizeMismatchError,
    UnsupportedImageError,
)
from unetzoo.images import Pixels, decode_image, read_image
from unetzoo.images.display import as_rgb
from unetzoo.images.percentiles import percentiles
from unetzoo.images.reading import read_stored
from unetzoo.images.source import open_source
from unetzoo.report.images import inputs_of

pytestmark = [pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
              pytest.mark.filterwarnings("ignore:Dataset has no geotransform")]  # fmt: skip
HEIGHT, WIDTH = 45, 70
TYPES = [np.uint8, np.uint16, np.int16, np.float32]
LAYOUTS = {
    "interleaved": {},
    "planar": {"planarconfig": "separate"},
    "tiled": {"tile": (16, 32)},
    "planar tiles": {"planarconfig": "separate", "tile": (16, 32)},
    "BigTIFF": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "deflate": {"compression": "zlib", "tile": (32, 32)},
}


def values_of(channels, dtype, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(channels)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(height, width, channels)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, (height, width, channels), dtype, endpoint=True)


def write_tiff(path, values, **options):
    if options.get("planarconfig") == "separate" and values.shape[2] > 1:
        values = np.moveaxis(values, 2, 0)
    elif values.shape[2] > 1:
        options = {"planarconfig": "contig", **options}
    else:
        values, options = values[..., 0], {k: v for k, v in options.items() if k != "planarconfig"}
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("dtype", TYPES)
def test_tiff_of_tifffile(tmp_path, dtype, channels, layout):
    values = values_of(channels, dtype)
    path = write_tiff(tmp_path / "a.tif", values, **LAYOUTS[layout])
    high = 200 if dtype == np.uint8 else 1000
    pixels = Pixels(channels, range=[-10, high])
    assert np.array_equal(read_stored(path, pixels).values, values)
    expected = np.clip((values.astype(np.float64) + 10) / (high + 10), 0, 1)
    image = read_image(path, pixels)
    assert image.dtype == np.float32 and np.abs(image - expected).max() < 1e-5
    with open_source(path, pixels) as source:
        assert np.array_equal(source.read(5, 40, 3, 60), image[5:40, 3:60])
    chosen = Pixels(bands=[channels, 1, 1], range="dtype")
    assert np.array_equal(read_stored(path, chosen).values, values[..., [channels - 1, 0, 0]])
    with pytest.raises(UnsupportedImageError) as caught:
        read_image(path, Pixels(channels + 3, range="dtype"))
    assert f"channels={channels}" in caught.value.hint


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 32, "blockysize": 16}, {"interleave": "pixel"},
                                     {"compress": "deflate", "predictor": 2}, {"compress": "packbits"},
                                     {"bigtiff": "yes"}, {"sparse_ok": True}])  # fmt: skip
def test_tiff_of_rasterio(tmp_path, dtype, options):
    rasterio = pytest.importorskip("rasterio")
    if dtype == "float32" and "predictor" in options:
        options = {"compress": "deflate"}
    values = np.moveaxis(values_of(5, dtype), 2, 0)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=5, dtype=dtype,
        crs="EPSG:32633", transform=rasterio.transform.from_origin(500_000, 5_000_000, 10, 10), **options,
    ) as file:  # fmt: skip
        if "sparse_ok" not in options:
            file.write(values)
    with rasterio.open(tmp_path / "a.tif") as file:
        expected = np.moveaxis(file.read([3, 2, 1]), 0, 2)
    pixels = Pixels(bands=[3, 2, 1], range="dtype")
    assert np.array_equal(read_stored(tmp_path / "a.tif", pixels).values, expected)
    with open_source(tmp_path / "a.tif", pixels) as source:
        assert np.array_equal(source.read(0, HEIGHT, 0, WIDTH), read_image(tmp_path / "a.tif", pixels))


def test_channels_in_the_pages_of_ome_and_imagej_files(tmp_path):
    values = values_of(5, np.uint16)
    planes = np.moveaxis(values, 2, 0)
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", planes, imagej=True, metadata={"axes": "CYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "c.tif", planes, photometric="minisblack", tile=(16, 16), compression="zlib")
    for name in ("a.ome.tif", "b.tif", "c.tif"):
        for pixels in (Pixels(5, range="dtype"), Pixels(bands=[4, 2], range="dtype")):
            expected = values if pixels.bands is None else values[..., [3, 1]]
            assert np.array_equal(read_stored(tmp_path / name, pixels).values, expected)
            with open_source(tmp_path / name, pixels) as source:
                assert np.array_equal(source.read(3, 40, 9, 60), read_image(tmp_path / name, pixels)[3:40, 9:60])
    tifffile.imwrite(tmp_path / "slices.ome.tif", planes, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    for pixels in (Pixels(5, range="dtype"), 3):
        with pytest.raises(DataError) as caught:
            read_image(tmp_path / "slices.ome.tif", pixels)
        assert "5" in str(caught.value.found) and caught.value.hint


def test_a_stack_of_gray_pages_is_no_rgb_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values_of(3, np.uint8).transpose(2, 0, 1).copy(), photometric="minisblack")
    with pytest.raises(ImageDecodeError):
        read_image(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", Pixels(bands=[1, 2, 3])).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(("channels", "color"), [(1, 0), (3, 2), (4, 6)])
def test_png_of_16_bits(tmp_path, channels, color):
    values = values_of(channels, np.uint16)
    path = png16(tmp_path / "a.png", values, color)
    pixels = Pixels(channels, range="dtype")
    assert np.array_equal(read_stored(path, pixels).values, values)
    assert np.array_equal(read_image(path, pixels), values.astype(np.float32) * np.float32(1 / 65535))
    if channels == 4:  # transparency is dropped, as of 8 bits
        assert np.array_equal(read_stored(path, Pixels(3, range="dtype")).values, values[..., :3])


def test_files_of_16_bits_that_cannot_be_read_completely_are_refused(tmp_path):
    paths = [png16(tmp_path / "a.png", values_of(2, np.uint16), 4), tmp_path / "deep.ppm"]
    paths[1].write_bytes(b"P6 2 2 4095\n" + bytes(24))
    for path in paths:
        with pytest.raises(UnsupportedImageError) as caught:
            read_image(path, Pixels(3, range="dtype"))
        assert caught.value.subject == str(path) and caught.value.hint


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_stored_channels_of_8_bit_files(tmp_path, mode, channels):
    values = values_of(channels, np.uint8)
    Image.fromarray(values[..., 0] if channels == 1 else values, mode).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", Pixels(bands=range(channels, 0, -1))), values[..., ::-1])
    if channels in (2, 4):
        assert np.array_equal(read_image(tmp_path / "a.png", channels), values)


@pytest.mark.parametrize("dtype", [*TYPES, np.float64, np.int32])
@pytest.mark.parametrize("fortran", [False, True])
def test_arrays(tmp_path, dtype, fortran):
    values = values_of(5, dtype)
    stored = np.asfortranarray(values) if fortran else values
    np.save(tmp_path / "a.npy", stored)
    np.savez_compressed(tmp_path / "a.npz", image=stored)
    np.savez(tmp_path / "b.npz", image=stored)
    for name in ("a.npy", "a.npz", "b.npz"):
        assert np.array_equal(read_stored(tmp_path / name, Pixels(5, range=[0, 9])).values, values)
    np.save(tmp_path / "gray.npy", values[..., 0])
    assert np.array_equal(read_stored(tmp_path / "gray.npy", Pixels(1, range=[0, 9])).values[..., 0], values[..., 0])


def test_arrays_that_are_no_image_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((3, 3)), b=np.zeros((3, 3)))
    np.save(tmp_path / "line.npy", np.zeros(9))
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.zeros((3, 3, 3), complex))
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "<f8", "fortran_order": False, "shape": (9_000, 9_000, 3)})
    (tmp_path / "short.npy").write_bytes(header.getvalue() + bytes(100))
    for name in ("two.npz", "line.npy", "objects.npy", "complex.npy", "short.npy"):
        with pytest.raises(DataError) as caught:
            read_image(tmp_path / name, Pixels(3, range=[0, 1]))
        assert caught.value.subject == str(tmp_path / name) and caught.value.hint, name
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 3)})
    (tmp_path / "huge.npy").write_bytes(header.getvalue())
    with pytest.raises(ImageTooLargeError):
        read_image(tmp_path / "huge.npy")


def test_a_file_per_channel(tmp_path):
    values = values_of(3, np.uint16)
    for index in range(3):
        Image.fromarray(values[..., index]).save(tmp_path / f"case_{index:04d}.png")
    pixels = Pixels(3, files="_{:04d}", range="dtype")
    assert np.array_equal(read_stored(tmp_path / "case_0000.png", pixels).values, values)
    swapped = Pixels(files=["_0002", "_0000"], range="dtype")
    assert np.array_equal(read_stored(tmp_path / "case_0002.png", swapped).values, values[..., [2, 0]])
    with pytest.raises(ImageDecodeError):
        read_image(tmp_path / "case_0001.png", pixels)
    Image.fromarray(values[:-1, :, 2]).save(tmp_path / "case_0002.png")
    with pytest.raises(SizeMismatchError):
        read_image(tmp_path / "case_0000.png", pixels)
    (tmp_path / "case_0001.png").unlink()
    with pytest.raises(ImageDecodeError) as caught:
        read_image(tmp_path / "case_0000.png", pixels)
    assert caught.value.subject == str(tmp_path / "case_0001.png")


def test_a_range_of_8_bit_images_keeps_their_colors(tmp_path):
    Image.fromarray(values_of(1, np.uint8)[..., 0]).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", Pixels(range=[51, 204]))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.float32
    expected = np.clip((values_of(1, np.uint8).astype(np.float64) - 51) / 153, 0, 1)
    assert np.abs(image - expected).max() < 1e-6


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_of_8_bits_do_not_have_the_range_of_more(tmp_path, mode):
    Image.new(mode, (8, 8)).save(tmp_path / "a.png")
    pixels = Pixels(1 if mode == "L" else 3, range=[0, 4095])
    with pytest.raises(UnsupportedImageError) as caught:
        read_image(tmp_path / "a.png", pixels)
    assert caught.value.subject == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("dtype", "bits", "limits"),
    [("uint8", 8, (0, 255)), ("uint16", 16, (0, 65535)), ("uint16", 12, (0, 4095)), ("float32", 32, (0, 1)),
     ("int16", 16, (-32768, 32767))],
)  # fmt: skip
def test_the_range_of_a_data_type(dtype, bits, limits):
    assert Pixels(1, range="dtype").limits(np.dtype(dtype), bits) == (limits,)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64, np.int32])
def test_percentiles(dtype):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(200, 150, 2)) * [20, 30] + [100, 120]).clip(0, 255).astype(dtype)
    found = np.array(percentiles(lambda: [values[:90], values[90:]]))
    expected = np.quantile(values.astype(np.float64), (0.001, 0.999), axis=(0, 1)).T
    assert np.abs(found - expected).max() <= (1 if np.dtype(dtype).kind != "f" else 0.3)


def test_each_image_by_its_own_percentiles(tmp_path):
    values = values_of(2, np.float32) * np.float32([1, 1000])
    path = write_tiff(tmp_path / "a.tif", values, tile=(16, 16))
    image = read_image(path, Pixels(2, range="image"))
    assert image.min() == 0 and image.max() == 1 and np.abs(image.mean((0, 1)) - 0.5).max() < 0.1
    with open_source(path, Pixels(2, range="image")) as source:
        assert np.array_equal(source.read(0, HEIGHT, 0, WIDTH), image)
    constant = write_tiff(tmp_path / "b.tif", np.full((5, 5, 2), 7, np.uint16))
    assert not read_image(constant, Pixels(2, range="image")).any()


@pytest.mark.parametrize("value", [np.nan, -9999])
def test_pixels_without_data(tmp_path, value):
    rasterio = pytest.importorskip("rasterio")
    values = values_of(2, np.float32)
    values[3:9, 5:20] = value
    values[0, 0, 0] = value  # has data in the other channel
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=2, dtype="float32",
                       nodata=value, tiled=True, blockxsize=16, blockysize=16) as file:  # fmt: skip
        file.write(np.moveaxis(values, 2, 0))
    with rasterio.open(tmp_path / "a.tif") as file:
        expected = file.dataset_mask() == 0
    for pixels in (Pixels(2, range="image"), Pixels(2, range=[-1, 1])):
        image, missing = decode_image(tmp_path / "a.tif", pixels)
        assert np.array_equal(missing, expected) and not image[missing].any() and np.isfinite(image).all()
        assert image.mean() > 0.3  # the value of missing data is not a value of the image
        with open_source(tmp_path / "a.tif", pixels) as source:
            window = source.read(2, 30, 4, 40)
            assert np.array_equal(window, image[2:30, 4:40])
            assert np.array_equal(source.missing(window, 2, 4), expected[2:30, 4:40])


def test_an_internal_mask_is_missing_data(tmp_path):
    image, mask = values_of(3, np.uint8), np.zeros((HEIGHT, WIDTH), bool)
    mask[10:, 20:] = True
    for name, values, pixels in (("rgb", image, Pixels()), ("five", values_of(5, np.uint8), Pixels(5))):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            kind = {"photometric": "rgb"} if name == "rgb" else {"photometric": "minisblack", "planarconfig": "contig"}
            file.write(values, metadata=None, **kind)
            file.write(mask, photometric="mask", subfiletype=4, compression="zlib", metadata=None)
        found = decode_image(tmp_path / f"{name}.tif", pixels)
        assert np.array_equal(found.image, values) and np.array_equal(found.missing, ~mask)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 0}, {"channels": 2.0}, {"channels": True}, {"bands": []}, {"bands": [0, 1]}, {"bands": "12"},
        {"channels": 2, "bands": [1, 2, 3]}, {"range": [5, 5]}, {"range": [9, 1]}, {"range": "percentiles"},
        {"range": [0, float("nan")]}, {"channels": 3, "range": [[0, 1], [0, 1]]}, {"range": [0, 1, 2]},
        {"files": ["_a", "_a"]}, {"files": "_{:q}"}, {"files": "_{}_{}"}, {"files": "same"},
        {"bands": [1, 2], "files": ["_a", "_b"]}, {"channels": 3, "files": ["_a", "_b"]},
    ],
)  # fmt: skip
def test_wrong_declarations(options):
    with pytest.raises(ConfigError) as caught:
        Pixels(**options)
    assert caught.value.hint and caught.value.found


def test_a_declaration_survives_json():
    for pixels in (Pixels(), Pixels(bands=[3, 2, 7], range=[[0, 1], [2, 3], [4, 5]]), Pixels(2, files="_{:04d}"),
                   Pixels(5, range="image")):  # fmt: skip
        assert Pixels.from_dict(json.loads(json.dumps(pixels.to_dict()))) == pixels


def test_the_percentiles_of_a_dataset_have_to_be_computed_first(tmp_path):
    path = write_tiff(tmp_path / "a.tif", values_of(1, np.uint16))
    with pytest.raises(ConfigError) as caught:
        read_image(path, Pixels(1, range="percentile"))
    assert "stats" in caught.value.hint


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_rendering(channels):
    levels = values_of(channels, np.uint8)
    shown = as_rgb(levels)
    assert shown.shape == (HEIGHT, WIDTH, 3) and shown.dtype == np.uint8
    assert np.array_equal(shown, levels[..., :3] if channels > 2 else np.repeat(levels[..., :1], 3, 2))
    dark = as_rgb((levels / 255 * 0.1).astype(np.float32))
    assert dark.max() == 255 and dark.min() == 0
    captioned = inputs_of(torch.from_numpy((levels.transpose(2, 0, 1) / 255).astype(np.float32)))
    assert captioned["input"].shape == (HEIGHT, WIDTH, 3)


def test_a_compression_that_needs_another_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", tifffile._imagecodecs)
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=40, width=50, count=5, dtype="uint16",
                       compress="lzw") as file:  # fmt: skip
        file.write(np.zeros((5, 40, 50), np.uint16))
    with pytest.raises(ImageDecodeError) as caught:
        read_image(tmp_path / "a.tif", Pixels(5, range="dtype"))
    assert "unetzoo[tiff]" in caught.value.hint
