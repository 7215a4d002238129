"""Files whose bits, colors or structure do not follow from Pillow's mode."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from hostile import hostile_tiffs
from PIL import Image

from unetzoo.datasets.depth_files import read_depth
from unetzoo.datasets.files import read_stack, stack_shape
from unetzoo.doctor.probe import read_image_facts
from unetzoo.errors import DataError, ImageDecodeError, ImageTooLargeError, UnsupportedImageError
from unetzoo.images import read_image, read_rgba
from unetzoo.images.decode import bits_of
from unetzoo.images.tiff import read_pages

RGB, GRAY_ALPHA, RGBA = 2, 4, 6  # color types of PNG


def png16(path, samples, color):
    """A PNG of 16 bits per channel; Pillow cannot write colors of that depth."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def deep_files(folder):
    rng = np.random.default_rng(0)
    for channels, color in ((3, RGB), (2, GRAY_ALPHA), (4, RGBA)):
        yield png16(folder / f"{channels}.png", rng.integers(0, 4096, (6, 8, channels), np.uint16), color)
    for channels, options in (
        (3, {}),
        (3, {"planarconfig": "separate"}),
        (3, {"compression": "zlib"}),
        (4, {"extrasamples": ["unassalpha"]}),
    ):
        values = rng.integers(0, 4096, (16, 16, channels), np.uint16)
        values = values.transpose(2, 0, 1) if "planarconfig" in options else values
        path = folder / f"{channels}{len(list(folder.iterdir()))}.tif"
        tifffile.imwrite(path, values, photometric="rgb", **options)
        yield path
    path = folder / "deep.ppm"
    path.write_bytes(b"P6 2 2 4095\n" + rng.integers(0, 4096, (2, 2, 3)).astype(">u2").tobytes())
    yield path


def test_colors_of_16_bits_are_refused_as_gray_is(tmp_path):
    files = list(deep_files(tmp_path))
    assert len(files) == 8
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "gray.png")
    for path in (*files, tmp_path / "gray.png"):
        for read in (read_image, lambda p: read_image(p, 1), read_rgba):
            with pytest.raises(ImageDecodeError) as caught:
                read(path)
            assert caught.value.subject == str(path) and caught.value.hint
    for path in files:
        with pytest.raises(ImageDecodeError):
            read_depth(path)


@pytest.mark.parametrize(
    ("mode", "name", "bits"),
    [("1", "a.png", 1), ("L", "a.png", 8), ("P", "a.gif", 8), ("RGB", "a.bmp", 8), ("RGBA", "a.webp", 8),
     ("RGB", "a.jpg", 8), ("RGB", "a.ppm", 8), ("RGB", "a.tif", 8), ("F", "a.tif", 32), ("I", "a.tif", 32)],
)  # fmt: skip
def test_bits_of_files_written_by_pillow(mode, name, bits):
    file = io.BytesIO()
    Image.new(mode, (4, 4)).save(file, Image.registered_extensions()["." + name.split(".")[1]])
    assert bits_of(Image.open(file)) == bits


def test_a_bitmap_of_16_bits_per_pixel_is_an_image_of_8_bits(tmp_path):
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, 8, 0, 0, 0, 0)
    pixels = struct.pack("<4H", 0x7FFF, 0, 0x7C00, 0x001F)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 54 + 8, 0, 0, 54) + header + pixels)
    assert read_image(tmp_path / "a.bmp").tolist() == [[[255, 0, 0], [0, 0, 255]], [[255] * 3, [0] * 3]]


def test_masks_and_thumbnails_inside_a_tiff_are_skipped(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(image, photometric="rgb", tile=(16, 16), metadata=None)
        file.write(np.ones((32, 48), bool), photometric="mask", subfiletype=4, metadata=None)
        file.write(image[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    assert [page.is_image for page in read_pages(tmp_path / "a.tif")] == [True, False, False]
    assert np.array_equal(read_image(tmp_path / "a.tif"), image)
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as file:
        file.write(image[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        file.write(image, photometric="rgb", metadata=None)
    assert np.array_equal(read_image(tmp_path / "thumb.tif"), image)


def test_many_channels_are_named(tmp_path):
    bands = np.zeros((9, 8, 5), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(UnsupportedImageError) as caught:
        read_image(tmp_path / "a.tif")
    assert "5 channels of 16 bits" in str(caught.value.found)
    facts = read_image_facts(tmp_path, "a.tif")
    assert facts.fault == "unsupported-image" and "5 channels of 16 bits" in facts.detail


@pytest.mark.parametrize(
    ("start", "name", "error"),
    [
        (b"\0\0\0\x1cftypheic", "HEIC", UnsupportedImageError),
        (b"\0\0\0\x0cJXL ", "JPEG XL", UnsupportedImageError),
        (bytes(128) + b"DICM", "DICOM", UnsupportedImageError),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", ImageDecodeError),
        (b"<!DOCTYPE html>", "HTML", ImageDecodeError),
    ],
)
def test_unreadable_images_are_named(tmp_path, start, name, error):
    (tmp_path / "a.png").write_bytes(start + bytes(600))
    with pytest.raises(ImageDecodeError) as caught:
        read_image(tmp_path / "a.png")
    assert type(caught.value) is error and name in str(caught.value.found) and "broken" not in caught.value.hint
    fault = "unsupported-image" if error is UnsupportedImageError else "not-an-image"
    assert read_image_facts(tmp_path, "a.png").fault == fault


def test_an_unreadable_compression_is_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = int.from_bytes(data[4:8], "little")
    for entry in range(first + 2, first + 2 + 12 * int.from_bytes(data[first : first + 2], "little"), 12):
        if data[entry : entry + 2] == (259).to_bytes(2, "little"):
            data[entry + 8 : entry + 10] = (34887).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(UnsupportedImageError) as caught:
        read_image(tmp_path / "a.tif")
    assert "LERC" in str(caught.value.found)


@pytest.mark.parametrize(("content", "what"), [(b"", "without content"), (b"no image", "supported format")])
def test_files_that_are_no_images(tmp_path, content, what):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageDecodeError) as caught:
        read_image(tmp_path / "a.png")
    assert what in caught.value.what and "Error" not in str(caught.value)


def test_too_large_an_image_names_the_command_for_it(tmp_path, monkeypatch):
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageTooLargeError) as caught:
        read_image(tmp_path / "a.png")
    assert "unetzoo stream" in caught.value.hint and "MAX_IMAGE_PIXELS" not in caught.value.hint


@pytest.mark.parametrize("kind", hostile_tiffs())
def test_hostile_tiffs_are_refused_at_once(tmp_path, kind):
    (tmp_path / "a.tif").write_bytes(hostile_tiffs()[kind])
    began = time.process_time()
    for read in (read_image, read_stack, stack_shape, read_depth):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "a.tif")
        assert caught.value.subject == str(tmp_path / "a.tif")
    assert time.process_time() - began < 4


def test_the_doctor_finds_them_too(tmp_path):
    for path in deep_files(tmp_path):
        facts = read_image_facts(tmp_path, path.name)
        assert facts.fault == "sixteen-bit-image", path.name
