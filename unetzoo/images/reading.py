"""`read_image`: whole image files as arrays, with the channels and the range that `Pixels` declares."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import Image

from ..errors import ImageDecodeError, SizeMismatchError, UnsupportedImageError
from .decode import PathLike, as_channels, deep_colors, opened, our_errors, split_name, too_large
from .percentiles import percentiles
from .pixels import Pairs, Pixels, scaled
from .tiff import TiffPage, is_tiff, mask_of, read_pages
from .volumes import file_state, is_nifti, open_nifti, slice_pages, volume_shape

VALUES = 8  # maximum number of values in an array, relative to the largest number of pixels that Pillow allows


class Stored(NamedTuple):
    """The declared channels of a file, as stored.

    Args:
        values: (H, W, C), in the data type of the file.
        bits: Bits per channel in the file.
        missing: bool (H, W), where the file has no data; None if it has data everywhere.
    """

    values: np.ndarray
    bits: int
    missing: np.ndarray | None = None


class Decoded(NamedTuple):
    """A decoded image.

    Args:
        image: uint8 (H, W, C), or float32 in 0…1 if a range is declared.
        missing: bool (H, W), where the file has no data; None if it has data everywhere.
    """

    image: np.ndarray
    missing: np.ndarray | None


def read_image(path: PathLike, channels: int | Pixels = 3) -> np.ndarray:
    """Decode an image, rotated upright by its EXIF orientation and without transparency.

    Args:
        path: A PNG, JPEG, TIFF, BMP, GIF or WebP file, or an array (H, W) or (H, W, C) in a `.npy` or `.npz` file. If
            each channel is in a file of its own, the file of the first one.
        channels: 3 for RGB (gray is repeated), 1 for gray (RGB becomes its luminance), another number for the channels
            as stored, or a `Pixels`.

    Shape:
        Returns uint8 (H, W, channels); with a `Pixels` that declares a range, float32 in 0…1.

    Raises:
        ImageDecodeError: The file is damaged or missing, has several images or other channels, or has more than 8 bits
            per channel and no range is declared.
        ImageTooLargeError: The image has more pixels than Pillow's decompression bomb limit.

    Examples:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/gray.png"
        >>> Image.new("L", (4, 2), 7).save(path)
        >>> read_image(path).shape, read_image(path, channels=1).shape
        ((2, 4, 3), (2, 4, 1))
        >>> read_image(path, Pixels(bands=[1, 1], range=[0, 14]))[0, 0].tolist()
        [0.5, 0.5]
    """
    return decode_image(path, channels).image


def decode_image(path: PathLike, channels: int | Pixels = 3, index: int | None = None) -> Decoded:
    """Decode an image as `read_image` does, and find out where it has no data.

    Args:
        path: As in `read_image`, or a volume.
        channels: As in `read_image`; for a volume, a `Pixels` with an axis.
        index: Number of the slice of a volume. The range "image" is then that of the volume.

    Raises:
        ImageDecodeError: As in `read_image`.
        ImageTooLargeError: As in `read_image`.
    """
    pixels = channels if isinstance(channels, Pixels) else Pixels(channels)
    stored = read_stored(path, pixels, index)
    if index is not None and pixels.range == "image":
        subject = os.fspath(path)
        pixels = replace(pixels, range=_volume_range(subject, pixels, *file_state(subject)))
    return _ranged(stored, pixels, os.fspath(path))


@lru_cache(maxsize=1024)
def _volume_range(subject: str, pixels: Pixels, size: int, changed: int) -> Pairs:
    """The percentiles of a volume."""
    count = volume_shape(subject, pixels.axis)[0]
    return percentiles(lambda: (read_stored(subject, pixels, index).values for index in range(count)))


def decode_array(values: np.ndarray, pixels: Pixels, subject: str) -> np.ndarray:
    """Select the declared channels of an array (H, W) or (H, W, C), and map its range, as `read_image` does for files.

    Raises:
        ImageDecodeError: Other channels, or more than 8 bits per channel and no range is declared.
    """
    values = np.atleast_3d(values)
    if values.dtype == np.uint8 and pixels.converts_colors and pixels.range is None and values.shape[2] in (1, 3, 4):
        return as_channels(Image.fromarray(values[..., 0] if values.shape[2] == 1 else values), pixels.channels)
    return _ranged(_stored(values, pixels, subject), pixels, subject).image


def _ranged(stored: Stored, pixels: Pixels, subject: str) -> Decoded:
    """Map the declared range to 0…1."""
    if pixels.range is None:
        return Decoded(stored.values, stored.missing)
    with our_errors(subject):
        if pixels.range == "image":
            limits = percentiles(lambda: [stored.values], stored.missing)
        else:
            limits = pixels.limits(stored.values.dtype, stored.bits, subject)
        image = scaled(stored.values, limits)
        if stored.missing is not None:
            image[stored.missing] = 0
    return Decoded(image, stored.missing)


def missing_in(path: PathLike, channels: int | Pixels = 3) -> np.ndarray | None:
    """Find out where an image has no data, as bool (H, W); files that do not declare missing data are not decoded.

    Raises:
        ImageDecodeError: As in `read_image`.
    """
    subject = os.fspath(path)
    with our_errors(subject), open(path, "rb") as file:
        pages = read_pages(file, subject) if is_tiff(file) else []
    if any(page.nodata is not None or page.is_mask for page in pages):
        return read_stored(path, channels if isinstance(channels, Pixels) else Pixels(channels)).missing
    return None


def read_stored(path: PathLike, pixels: Pixels, index: int | None = None) -> Stored:
    """Read the declared channels of an image, or of a slice of a volume, without mapping their range.

    Raises:
        ImageDecodeError: As in `read_image`.
        ImageTooLargeError: As in `read_image`.
    """
    subject = os.fspath(path)
    if not pixels.files:
        return _read_file(subject, pixels, index)
    parts = [_read_file(str(file), pixels, index) for file in channel_files(path, pixels)]
    kinds = {(part.values.shape, part.values.dtype.name, part.bits) for part in parts}
    if len(kinds) > 1:
        found = ", ".join(f"{shape[1]}×{shape[0]} of {bits} bits" for shape, _, bits in sorted(kinds))
        raise SizeMismatchError("the files of an image differ", subject=subject, expected="one size and data type",
                                found=found, hint="correct the files of its channels")  # fmt: skip
    missing = [part.missing for part in parts if part.missing is not None]
    everywhere = np.logical_and.reduce(missing) if len(missing) == len(parts) else None
    return Stored(np.concatenate([part.values for part in parts], axis=2), parts[0].bits, everywhere)


def channel_files(path: PathLike, pixels: Pixels) -> list[Path]:
    """The files of an image's channels, given the first of them.

    Raises:
        ImageDecodeError: The name does not end as declared.
    """
    first = Path(path)
    if not pixels.files:
        return [first]
    stem, suffix = split_name(first)
    if not stem.endswith(pixels.files[0]):
        raise ImageDecodeError("not the first channel of an image", subject=os.fspath(path),
                               expected=f"a stem that ends in {pixels.files[0]!r}", found=first.name,
                               hint="give the file of the first channel")  # fmt: skip
    stem = stem.removesuffix(pixels.files[0])
    return [first.with_name(stem + ending + suffix) for ending in pixels.files]


def _read_file(subject: str, pixels: Pixels, index: int | None) -> Stored:
    if index is not None:
        return _read_slice(subject, pixels, index)
    if is_nifti(subject):
        raise UnsupportedImageError("a volume, not an image", subject=subject, expected="the axis of its slices",
                                    found="NIfTI", hint='declare axis="x", "y" or "z"')  # fmt: skip
    with our_errors(subject), open(subject, "rb") as file:
        array = _read_array(file, subject)
        if array is not None:
            return _stored(array, pixels, subject)
        pages = read_pages(file, subject) if is_tiff(file) else []
        if pages and not _is_for_pillow(pages, pixels):
            return _read_tiff(file, pages, pixels, subject)
    with opened(subject, first_frame=True) as found:
        if found.bits > 8:
            _check_depth(len(found.image.getbands()), np.dtype(np.uint16), found.bits, pixels, subject)
            return _stored(deep_colors(subject, found), pixels, subject, found.bits)
        if not pixels.converts_colors:
            return _stored(_as_stored(found.image), pixels, subject)
        values = as_channels(found.image, pixels.channels)
    return Stored(values, 8, _missing(pages, values, subject))


def _read_tiff(file: BinaryIO, pages: Sequence[TiffPage], pixels: Pixels, subject: str) -> Stored:
    from .tiff_source import open_tiff

    page = next((page for page in pages if page.is_image), pages[0])
    if page.bits > 8:
        channels = page.samples * sum(one.is_image for one in pages)
        _check_depth(channels, np.dtype(np.float32 if page.is_float else np.uint16), page.bits, pixels, subject)
    with open_tiff(subject, pixels, pages=pages, file=file) as source:
        _check_depth(source.samples, source.dtype, source.bits, pixels, subject)
        values = source.whole()
        return Stored(values, source.bits, source.missing(values))


def _read_slice(subject: str, pixels: Pixels, index: int) -> Stored:
    if is_nifti(subject):
        volume = open_nifti(subject)
        return _stored(volume.read(index, pixels.axis), pixels, subject, volume.stored.dtype.itemsize * 8)
    from .tiff_source import open_tiff

    with open_tiff(subject, pixels, slice_pages(subject)[index]) as source:
        _check_depth(source.samples, source.dtype, source.bits, pixels, subject)
        return Stored(source.whole(), source.bits)


def _is_for_pillow(pages: Sequence[TiffPage], pixels: Pixels) -> bool:
    """Whether a TIFF file is of a kind that Pillow decodes and converts to gray or RGB."""
    page = next((page for page in pages if page.is_image), pages[0])
    return pixels.converts_colors and page.bits <= 8 and not (page.is_gray and page.samples == pixels.channels == 3)


def _as_stored(image: Image.Image) -> np.ndarray:
    """The channels of an image (H, W, C); a palette becomes its colors."""
    if image.mode == "P" or image.mode == "1":
        image = image.convert("RGB" if image.mode == "P" else "L")
    return np.atleast_3d(np.asarray(image))


def _stored(values: np.ndarray, pixels: Pixels, subject: str, bits: int = 0) -> Stored:
    bits = bits or values.dtype.itemsize * 8
    channels = values.shape[2]
    _check_depth(channels, values.dtype, bits, pixels, subject)
    kept = pixels.kept(channels, (channels - 1,) if channels in (2, 4) else (), bits, subject)
    return Stored(values if kept is None else values[..., kept], bits)


def _check_depth(channels: int, dtype: np.dtype, bits: int, pixels: Pixels, subject: str) -> None:
    """Refuse values without a meaning for the declaration."""
    if pixels.range is None and dtype != np.uint8:
        more = "" if pixels.bands or channels == pixels.per_file else f", and the channels, e.g. channels={channels}"
        raise UnsupportedImageError(
            "more than 8 bits per channel",
            subject=subject,
            expected="8 bits",
            found=f"{channels} channel{'s' * (channels != 1)} of {bits} bits",
            hint=f"declare the range of values, e.g. range=[0, 4095], since the file does not contain it{more}",
        )
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise UnsupportedImageError(
            "not numbers that can be read", subject=subject, expected="integers or floats", found=dtype,
            hint="convert the file",
        )  # fmt: skip


@contextmanager
def _array_file(file: BinaryIO, subject: str) -> Iterator[tuple[BinaryIO, int] | None]:
    """The content of a `.npy` file, or of the only array in a `.npz` file, and its size; None for other files."""
    start = file.read(6)
    file.seek(0)
    if start == b"\x93NUMPY":
        yield file, os.fstat(file.fileno()).st_size
    elif start.startswith(b"PK") and subject.lower().endswith(".npz"):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(names) != 1:
                found = ", ".join(names[:8]) or "none"
                raise ImageDecodeError("not a single array", subject=subject, found=found, expected="one",
                                       hint="save the image by itself")  # fmt: skip
            with archive.open(names[0]) as inner:
                yield cast(BinaryIO, inner), archive.getinfo(names[0]).file_size
    else:
        yield None


def _array_header(file: BinaryIO, size: int, subject: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and data type of an array that is an image of reasonable size."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if len(shape) not in (2, 3) or min(shape) < 1 or dtype.hasobject:
        raise ImageDecodeError("not an image", subject=subject, expected="an array (H, W) or (H, W, C) of numbers",
                               found=f"{dtype} {shape}", hint="save one image per file, channels last")  # fmt: skip
    count, most = math.prod(shape), Image.MAX_IMAGE_PIXELS
    if most and (shape[0] * shape[1] > most or count > VALUES * most):
        raise too_large(subject, f"{shape}")
    if count * dtype.itemsize > size:
        raise ImageDecodeError("unreadable image", subject=subject, expected=f"{count * dtype.itemsize:,} bytes",
                               found=f"{size:,}", hint="the file is truncated; save it again")  # fmt: skip
    return shape, fortran, dtype


def array_kind(file: BinaryIO, subject: str) -> tuple[tuple[int, ...], np.dtype] | None:
    """Shape and data type of the image in a `.npy` or `.npz` file; None for other files.

    Raises:
        ImageDecodeError: Not an image.
    """
    with _array_file(file, subject) as found:
        if found is None:
            return None
        shape, _, dtype = _array_header(*found, subject)
        return shape, dtype


def _read_array(file: BinaryIO, subject: str) -> np.ndarray | None:
    """The image (H, W, C) of a `.npy` or `.npz` file; None for other files."""
    with _array_file(file, subject) as found:
        if found is None:
            return None
        shape, fortran, dtype = _array_header(*found, subject)
        data = found[0].read(math.prod(shape) * dtype.itemsize)
        return np.atleast_3d(np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C"))


def _missing(pages: Sequence[TiffPage], values: np.ndarray, subject: str) -> np.ndarray | None:
    """Where a TIFF file that Pillow decoded has no data."""
    image = next((page for page in pages if page.is_image), None)
    mask = mask_of(pages)
    found = None
    if image is not None and image.nodata is not None:
        found = np.asarray(np.equal(values, image.nodata).all(2))
    if mask is not None:
        from .tiff_source import read_mask_page

        empty = ~read_mask_page(subject, mask)
        if empty.shape == values.shape[:2]:
            found = empty if found is None else found | empty
    return found
