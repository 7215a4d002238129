"""NIfTI volumes and multi-page TIFF files, against nibabel and tifffile."""

import gzip
import os
import resource

import numpy as np
import pytest
import tifffile
from mutants import mutants

from unetzoo.errors import (
    ConfigError,
    DataError,
    ImageDecodeError,
    ImageTooLargeError,
    SizeMismatchError,
    UnetzooError,
    UnsupportedImageError,
)
from unetzoo.images import Pixels, decode_image, read_stored
from unetzoo.images.volumes import open_nifti, volume_shape, write_volume

nibabel = pytest.importorskip("nibabel")
AFFINE = np.array([[2, 0, 0.1, -9], [0, -3, 0, 4], [0.2, 0, 4, 7], [0, 0, 0, 1.0]])
RNG = np.random.default_rng(0)


def nifti(path, values, kind=nibabel.Nifti1Image, header=None, dtype=None):
    image = kind(values, AFFINE, header)
    if dtype is not None:
        image.set_data_dtype(dtype)
    nibabel.save(image, path)
    return path


def check_slices(path):
    """Every slice along every axis has nibabel's values; a slice along z shows y down and x to the right."""
    expected = np.asarray(nibabel.load(path).dataobj)
    for number, axis in enumerate("xyz"):
        count, height, width = volume_shape(path, axis)
        assert count == expected.shape[number]
        for index in range(count):
            part = open_nifti(path).read(index, axis)
            assert part.shape[:2] == (height, width) and part.dtype.isnative
            wanted = np.take(expected, index, number).swapaxes(0, 1)
            assert (part == (wanted if wanted.ndim == 3 else wanted[..., None])).all()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_slices_have_the_values_of_nibabel(ending, kind, dtype, tmp_path):
    check_slices(nifti(tmp_path / f"a{ending}", (RNG.normal(size=(5, 6, 7)) * 50 + 100).astype(dtype), kind))


def test_scaled_big_endian_and_four_dimensional_volumes(tmp_path):
    big = nibabel.Nifti1Header(endianness=">")
    path = nifti(tmp_path / "a.nii.gz", RNG.normal(size=(5, 6, 7)).astype(np.float32), header=big, dtype=np.int16)
    assert nibabel.load(path).dataobj.slope != 1 and nibabel.load(path).header.endianness == ">"
    check_slices(path)
    check_slices(nifti(tmp_path / "b.nii", RNG.integers(0, 255, (5, 6, 7, 3), np.uint8)))
    check_slices(nifti(tmp_path / "c.nii", RNG.integers(0, 255, (5, 6, 7, 1, 1), np.uint8)[..., 0]))
    flat = nifti(tmp_path / "d.nii", RNG.integers(0, 255, (5, 6), np.uint8))
    assert volume_shape(flat) == (1, 6, 5)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_labels_are_written_with_the_affine_of_the_source(ending, kind, axis, tmp_path):
    source = nifti(tmp_path / f"a{ending}", RNG.normal(size=(5, 6, 7)).astype(np.float32), kind, dtype=np.int16)
    labels = RNG.integers(0, 4, volume_shape(source, axis), np.uint8)
    target = tmp_path / f"out{ending}"
    write_volume(target, labels, source, axis)
    written, original = nibabel.load(target), nibabel.load(source)
    assert np.array_equal(written.affine, original.affine) and type(written) is kind
    assert written.header.get_zooms() == original.header.get_zooms()
    assert written.header.get_xyzt_units() == original.header.get_xyzt_units()
    assert written.get_data_dtype() == np.uint8 and written.dataobj.slope == 1
    assert written.shape == original.shape
    for index in range(len(labels)):
        assert (open_nifti(target).read(index, axis)[..., 0] == labels[index]).all()


def test_a_changed_file_is_read_again(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.uint8))
    assert not open_nifti(path).read(0, "z").any()
    nifti(path, np.ones((3, 4, 6), np.uint8))
    os.utime(path, ns=(1, 1))
    assert open_nifti(path).read(5, "z").all() and volume_shape(path) == (6, 4, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}, {"imagej": True}]
)
def test_the_pages_of_a_tiff_are_slices(options, dtype, tmp_path):
    stack = RNG.integers(0, 4, (4, 20, 30)).astype(dtype)
    gray = {} if "imagej" in options else {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", stack, **gray, **options)
    pixels = Pixels(1, range=None if dtype == np.uint8 else [0, 4], axis="z")
    for index in range(4):
        assert (read_stored(tmp_path / "a.tif", pixels, index).values[..., 0] == stack[index]).all()
        expected = stack[index] if dtype == np.uint8 else stack[index] / np.float32(4)
        assert (decode_image(tmp_path / "a.tif", pixels, index).image[..., 0] == expected).all()
    stack = stack.astype(np.uint8)
    assert volume_shape(tmp_path / "a.tif") == (4, 20, 30)
    write_volume(tmp_path / "b.tif", stack, tmp_path / "a.tif", "z")
    assert (tifffile.imread(tmp_path / "b.tif") == stack).all()
    assert volume_shape(tmp_path / "b.tif") == (4, 20, 30)


def test_files_that_are_no_volumes(tmp_path):
    with pytest.raises(ImageDecodeError):
        volume_shape(tmp_path / "missing.nii.gz")
    for name, data in (("a.nii", b""), ("b.nii.gz", gzip.compress(b"0" * 400)), ("c.nii", b"\x5c\1\0\0" + b"\0" * 500)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageDecodeError) as caught:
            volume_shape(tmp_path / name)
        assert caught.value.subject == str(tmp_path / name) and caught.value.hint
    (tmp_path / "d.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageDecodeError):
        volume_shape(tmp_path / "d.png")
    pages = [np.zeros((4, 5), np.uint8), np.zeros((4, 6), np.uint8)]
    with tifffile.TiffWriter(tmp_path / "e.tif") as file:
        for page in pages:
            file.write(page, photometric="minisblack")
    with pytest.raises(DataError, match="sizes"):
        volume_shape(tmp_path / "e.tif")
    with pytest.raises(ConfigError):
        volume_shape(tmp_path / "e.tif", "x")
    complexes = nifti(tmp_path / "f.nii", np.zeros((3, 4, 5), np.complex64))
    with pytest.raises(UnsupportedImageError):
        volume_shape(complexes)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.uint8))
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[42:48] = (30000).to_bytes(2, "little") * 3
    path.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(ImageTooLargeError):
        volume_shape(path)
    header[42:48] = b"".join(n.to_bytes(2, "little") for n in (800, 800, 1000))
    path.write_bytes(gzip.compress(bytes(header)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageDecodeError, match="truncated"):
        volume_shape(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_without_nibabel_the_error_names_the_extra(tmp_path, monkeypatch):
    path = nifti(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8))
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(ConfigError) as caught:
        volume_shape(path)
    assert "unetzoo[medical]" in caught.value.hint


def seeds(folder):
    image = nibabel.Nifti1Image(RNG.integers(0, 99, (8, 7, 3)).astype(np.int16), AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"by a scanner"))
    nibabel.save(image, folder / "a.nii")
    nifti(folder / "b.nii", RNG.normal(size=(8, 7, 6)).astype(np.float32), nibabel.Nifti2Image)
    nifti(folder / "c.nii.gz", RNG.integers(0, 9, (8, 7, 6), np.uint8))
    nifti(folder / "d.nii.gz", RNG.normal(size=(8, 7, 6)).astype(np.float32), dtype=np.int16)
    tifffile.imwrite(folder / "e.tif", RNG.integers(0, 9, (6, 7, 8), np.uint8), photometric="minisblack")
    tifffile.imwrite(folder / "f.tif", RNG.integers(0, 999, (4, 20, 20), np.uint16), photometric="minisblack",
                     compression="zlib", tile=(16, 16))  # fmt: skip
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_all(path):
    """Read the first and last slices along every axis, and write labels for it."""
    for axis in "xyz" if path.suffix != ".tif" else "z":
        pixels = Pixels(1, range="dtype", axis=axis)
        count, height, width = volume_shape(path, axis)
        for index in (0, count - 1):
            assert decode_image(path, pixels, index).image.shape == (height, width, 1)
        if count == 3:  # of few, since it waits for the disk
            write_volume(path.parent / "out.nii", np.zeros((count, height, width), np.uint8), path, axis)


def test_channels_in_files_and_ranges(tmp_path):
    volumes = [RNG.integers(0, 1000, (5, 6, 7)).astype(np.int16) for _ in range(2)]
    for index, values in enumerate(volumes):
        nifti(tmp_path / f"a_{index:04d}.nii.gz", values)
    path = tmp_path / "a_0000.nii.gz"
    for axis, number in (("x", 0), ("y", 1), ("z", 2)):
        pixels = Pixels(2, range=[0, 1000], files="_{:04d}", axis=axis)
        image = decode_image(path, pixels, 3).image
        expected = np.stack([np.take(values, 3, number).T for values in volumes], 2) / 1000
        assert image.dtype == np.float32 and np.allclose(image, expected, atol=1e-6)
    limits = [np.quantile(values, (0.001, 0.999)) for values in volumes]
    image = decode_image(path, Pixels(2, range="image", files="_{:04d}", axis="z"), 3).image
    for channel, (low, high) in enumerate(limits):
        expected = np.clip((volumes[channel][:, :, 3].T - low) / (high - low), 0, 1)
        assert np.allclose(image[..., channel], expected, atol=0.01)
    with pytest.raises(UnsupportedImageError):
        decode_image(path, Pixels(1, axis="z"), 0)
    with pytest.raises(ConfigError):
        Pixels(1, axis="w")
    nifti(tmp_path / "a_0001.nii.gz", volumes[0][1:])
    with pytest.raises(SizeMismatchError):
        decode_image(path, Pixels(2, range=[0, 1000], files="_{:04d}", axis="z"), 0)


def test_two_thousand_mutants_give_our_errors(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = seeds(tmp_path / "whole")
    plain = {name: gzip.decompress(data) if name.endswith("gz") else data for name, data in whole.items()}
    before, outcomes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {"read": 0, "refused": 0}
    for number, mutant in enumerate(mutants(whole, 5, 3000)):
        data = mutant.data
        if mutant.origin.endswith("gz") and number % 2:  # damaged before it was compressed
            data = gzip.compress(next(mutants({mutant.origin: plain[mutant.origin]}, number, 1)).data, 1)
        path = tmp_path / mutant.origin
        path.write_bytes(data)
        os.utime(path, ns=(number, number))
        try:
            read_all(path)
            outcomes["read"] += 1
        except UnetzooError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_empty_and_truncated_files(tmp_path, name):
    path = nifti(tmp_path / name, RNG.normal(size=(40, 30, 20)))
    content = path.read_bytes()
    for size in (0, 100, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(ImageDecodeError) as caught:
            read_stored(path, Pixels(1, range="dtype", axis="z"), 0)
        assert ("without content" in caught.value.what) == (size == 0)
        assert "Error" not in str(caught.value)
