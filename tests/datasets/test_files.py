"""The label-error matrix: each fault is caught by name, or handled as documented."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refused

from unetzoo.datasets import Folder
from unetzoo.datasets.files import read_image, read_mask, read_rgba, read_stack, stack_shape
from unetzoo.datasets.listing import list_images
from unetzoo.errors import (
    DataError,
    ImageDecodeError,
    ImageTooLargeError,
    LabelRangeError,
    PairingError,
    UnetzooError,
)
from unetzoo.labels import LabelSpec

BINARY = LabelSpec(("background", "cell"), ids=(0, 255))
FOUR = LabelSpec(("a", "b", "c", "d"))


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def stripes(*values, dtype=np.uint8):
    return np.repeat(np.array([values], dtype), 4, axis=0)


def test_0_255_is_declared_never_guessed(tmp_path):
    path = save(tmp_path / "m.png", stripes(0, 255, 255))
    assert read_mask(path, BINARY).tolist() == [[0, 1, 1]] * 4
    with refused(LabelRangeError, subject="m.png", found="255 (8 px)", hint="declare ids=[0, 255]"):
        read_mask(path, LabelSpec(("background", "cell")))


def test_ignored_values(tmp_path):
    path = save(tmp_path / "m.png", stripes(0, 1, 255))
    spec = LabelSpec(("a", "b"), ignore_ids=(255,), ignore_index=255)
    assert read_mask(path, spec)[0].tolist() == [0, 1, 255]
    negative = read_mask(path, LabelSpec(("a", "b"), ignore_ids=(255,), ignore_index=-100))
    assert negative[0].tolist() == [0, 1, -100] and negative.dtype == np.int32
    with pytest.raises(LabelRangeError, match="ignore_ids"):
        read_mask(path, LabelSpec(("a", "b")))


def test_a_palette_keeps_its_indices(tmp_path):
    image = Image.fromarray(stripes(0, 1, 2, 3)).convert("P")
    image = Image.new("P", (4, 4))
    image.putpalette([10, 200, 30, 99, 99, 99, 0, 0, 0, 255, 0, 0])
    image.putdata(stripes(0, 1, 2, 3).ravel().tolist())
    image.save(tmp_path / "m.png")
    image.save(tmp_path / "m.gif")
    assert read_mask(tmp_path / "m.png", FOUR)[0].tolist() == [0, 1, 2, 3]
    image.save(tmp_path / "t.png", transparency=0)
    assert read_mask(tmp_path / "t.png", FOUR)[0].tolist() == [0, 1, 2, 3]


def test_16_bit_and_1_bit(tmp_path):
    wide = LabelSpec(("a", "b"), ids=(0, 40000))
    for name in ("m.png", "m.tif"):
        assert read_mask(save(tmp_path / name, stripes(0, 40000, dtype=np.uint16)), wide)[0].tolist() == [0, 1]
    with pytest.raises(LabelRangeError, match="40000"):
        read_mask(tmp_path / "m.png", FOUR)
    Image.fromarray(stripes(0, 255)).convert("1").save(tmp_path / "one.png")
    assert read_mask(tmp_path / "one.png", FOUR)[0].tolist() == [0, 1]


@pytest.mark.parametrize("bits", [2, 4])
def test_small_grays_are_not_spread(tmp_path, bits):
    """Pillow reads a 2-bit gray 1 as 85: the file's own number counts."""
    import zlib

    row = bytes([0b00011011]) if bits == 2 else bytes([0x01, 0x23])

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    )
    (tmp_path / "m.png").write_bytes(data)
    assert read_mask(tmp_path / "m.png", FOUR).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "m.png"), ("RGBA", "m.png"), ("LA", "m.png"), ("CMYK", "m.tif"), ("F", "m.tif"), ("I", "m.tif"),
     ("L", "m.jpg"), ("RGB", "m.jpg"), ("RGB", "m.webp")],
)  # fmt: skip
def test_files_without_labels(tmp_path, mode, name):
    Image.new(mode, (4, 4)).save(tmp_path / name)
    with pytest.raises(ImageDecodeError, match="label file") as caught:
        read_mask(tmp_path / name, BINARY)
    assert caught.value.subject == str(tmp_path / name) and caught.value.hint
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_values_of_an_interpolated_mask(tmp_path):
    mask = Image.fromarray(stripes(0, 255)).resize((64, 64), Image.Resampling.BILINEAR)
    mask.save(tmp_path / "m.png")
    with pytest.raises(LabelRangeError, match="interpolated"):
        read_mask(tmp_path / "m.png", BINARY)


def test_several_frames(tmp_path):
    frames = [Image.fromarray(stripes(0, i)) for i in (1, 2)]
    for name in ("m.tif", "m.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        for read in (lambda p: read_mask(p, FOUR), read_image):
            with pytest.raises(ImageDecodeError, match="2 frames"):
                read(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_both_of_a_pair(tmp_path, orientation):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    rows = {1: [[0, 1, 2], [3, 4, 5]], 2: [[2, 1, 0], [5, 4, 3]], 3: [[5, 4, 3], [2, 1, 0]], 4: [[3, 4, 5], [0, 1, 2]],
            5: [[0, 3], [1, 4], [2, 5]], 6: [[3, 0], [4, 1], [5, 2]], 7: [[5, 2], [4, 1], [3, 0]],
            8: [[2, 5], [1, 4], [0, 3]]}  # fmt: skip
    spec = LabelSpec(tuple("abcdef"))
    for name in ("m.png", "m.tif"):
        path = save(tmp_path / name, array, exif=exif)
        assert read_mask(path, spec).tolist() == rows[orientation]
        assert read_image(path, channels=1)[..., 0].tolist() == rows[orientation]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp", "webp"])
def test_truncated_and_foreign_files(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 2, (64, 64), np.uint8) * 255
    whole = save(tmp_path / f"a.{suffix}", noise).read_bytes()
    for cut in (0, 5, len(whole) // 2):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(whole[:cut])
        with pytest.raises(ImageDecodeError):
            read_image(path)
    (tmp_path / "text.png").write_text("not an image")
    for path in (tmp_path / "text.png", tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageDecodeError):
            read_mask(path, BINARY)


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "a.png", stripes(0))
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageDecodeError, match="permission"):
        read_image(path)


def test_bombs(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", np.zeros((30, 30), np.uint8))
    for limit in (800, 100):  # Pillow only warns at the first
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for read in (read_image, lambda p: read_mask(p, BINARY)):
            with pytest.raises(ImageTooLargeError) as caught:
                read(path)
            assert "900 pixels" in caught.value.found and "unetzoo stream" in caught.value.hint


def test_too_little_memory(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", stripes(0))

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with refused(ImageTooLargeError, subject="a.png"):
        read_image(path)


def test_images(tmp_path):
    gray = save(tmp_path / "g.png", stripes(7, 9))
    assert read_image(gray).shape == (4, 2, 3) and read_image(gray, 1).shape == (4, 2, 1)
    Image.new("CMYK", (4, 4)).save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg").tolist() == [[[255] * 3] * 4] * 4
    with pytest.raises(ImageDecodeError, match="8 bits"):
        read_image(save(tmp_path / "deep.png", stripes(7, 999, dtype=np.uint16)))
    assert read_rgba(save(tmp_path / "r.png", np.full((2, 2, 4), 9, np.uint8))).tolist() == [[[9] * 4] * 2] * 2
    with pytest.raises(ImageDecodeError, match="alpha"):
        read_rgba(gray)


def test_stacks(tmp_path):
    stack = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    assert stack_shape(tmp_path / "s.tif") == (2, 3, 4) and (read_stack(tmp_path / "s.tif") == stack).all()
    tifffile.imwrite(tmp_path / "f.tif", stack.astype(np.float32), photometric="minisblack")
    (tmp_path / "x.tif").write_bytes(b"II*\0nonsense")
    raw = bytearray((tmp_path / "s.tif").read_bytes())
    (start,) = struct.unpack_from("<I", raw, 4)
    tags = {struct.unpack_from("<H", raw, start + 2 + 12 * i)[0]: start + 2 + 12 * i for i in range(raw[start])}
    struct.pack_into("<I", raw, tags[256] + 8, 0)  # a width of 0
    (tmp_path / "empty.tif").write_bytes(raw)
    for name in ("f.tif", "x.tif", "none.tif", "empty.tif"):
        with pytest.raises(ImageDecodeError):
            read_stack(tmp_path / name)


PICTURES = {}
for _kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"):
    _file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (12, 12, 3), np.uint8)).save(_file, _kind)
    PICTURES[_kind] = _file.getvalue()


@pytest.mark.parametrize("kind", sorted(PICTURES))
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_mutants_raise_only_our_errors(tmp_path_factory, kind, data):
    raw = bytearray(PICTURES[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"mutant.{kind.lower()}"
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    for read in (read_image, lambda p: read_mask(p, BINARY), read_rgba):
        try:
            assert read(path).dtype == np.uint8
        except UnetzooError:
            pass


def test_pairing_tells_all_faults_together(make_pairs, tmp_path):
    make_pairs([f"{i}" for i in range(40)])
    assert [sample.name for sample in Folder(tmp_path, classes=256).files][:12] == list(map(str, range(12)))
    for i in range(30):
        (tmp_path / "masks" / f"{i}.png").unlink()
    (tmp_path / "masks" / "stranger.png").write_bytes(b"")
    Image.new("L", (2, 2)).save(tmp_path / "images" / "35.bmp")
    with pytest.raises(PairingError) as caught:
        Folder(tmp_path, classes=256)
    assert caught.value.subject == tmp_path and "32 faults" in str(caught.value.found)
    named = str(caught.value.found).splitlines()[1:]
    assert len(named) == 21 and str(tmp_path / "images" / "0.png") in named[0]


def test_mask_suffix(make_pairs, tmp_path):
    make_pairs(["a", "b"])
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_stem(path.stem + "_mask"))
    assert len(Folder(tmp_path, classes=256, mask_suffix="_mask")) == 2
    (tmp_path / "masks" / "a_mask.png").rename(tmp_path / "masks" / "a.png")
    with pytest.raises(PairingError) as caught:
        Folder(tmp_path, classes=256, mask_suffix="_mask")
    assert "masks/{name}_mask.png" in str(caught.value.found)


def test_folders(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    (tmp_path / "empty" / ".hidden.png").write_text("")
    with refused(DataError, found="notes.txt"):
        list_images(tmp_path / "empty")
    with refused(DataError, hint="fetch it"):
        list_images(tmp_path / "none", "fetch it")
    with pytest.raises(DataError, match="not a folder"):
        list_images(tmp_path / "empty" / "notes.txt")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        list_images(tmp_path / "empty")
