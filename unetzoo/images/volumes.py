"""Volumes: NIfTI files, and TIFF files of several pages, read and written slice by slice.

A slice along z has rows of y and columns of x, as viewers show it; a slice along x or y has rows of z.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError, ImageDecodeError, UnsupportedImageError
from ..io import replacing, write_bytes
from .decode import PathLike, empty_file, our_errors, too_large
from .pixels import AXES
from .tiff import is_tiff, read_pages

NIFTI_SUFFIXES = (".nii", ".nii.gz")
VALUES = 8  # maximum number of values in a volume, relative to the largest number of pixels that Pillow allows
_DEFLATE = 1100  # gzip cannot compress further than this
_QUIET = logging.Logger("nifti", logging.CRITICAL)  # of headers with faults that do not matter
_HEADERS = {348: "Nifti1Header", 540: "Nifti2Header"}


class Volume(NamedTuple):
    """A NIfTI volume.

    Args:
        stored: The stored values (X, Y, Z, C); memory-mapped if the file is not compressed.
        scale: Slope and intercept of the values; None if they are stored as they are.
        header: The header, an object of nibabel.
    """

    stored: np.ndarray
    scale: tuple[float, float] | None
    header: Any

    @property
    def bytes(self) -> int:
        """Memory of the values."""
        return 0 if isinstance(self.stored, np.memmap) else self.stored.nbytes

    def read(self, index: int, axis: str | None) -> np.ndarray:
        """A slice (H, W, C), with the values that nibabel returns."""
        # indexed, since `np.take` would copy the whole volume
        part = self.stored[(slice(None),) * AXES.index(axis or "z") + (index,)].swapaxes(0, 1)
        part = np.ascontiguousarray(part, part.dtype.newbyteorder("="))
        with np.errstate(all="ignore"):  # infinite values
            return part if self.scale is None else part * self.scale[0] + self.scale[1]


_MOST_KEPT = 2**30
_KEPT: OrderedDict[tuple[str, int, int], Volume] = OrderedDict()
_LOCK = Lock()


def is_nifti(path: PathLike) -> bool:
    """Whether a file has a suffix of NIfTI files."""
    return os.fspath(path).lower().endswith(NIFTI_SUFFIXES)


def volume_shape(path: PathLike, axis: str | None = "z") -> tuple[int, int, int]:
    """Number of slices, height and width of a volume.

    Args:
        path: A NIfTI file, or a TIFF file whose pages are slices.
        axis: The axis along which it is cut: "x", "y" or "z", which is the only one for TIFF files.

    Raises:
        ConfigError: Another axis for a TIFF file; nibabel is not installed.
        ImageDecodeError: Broken, missing or another kind of file.
        ImageTooLargeError: More pixels than allowed.
    """
    subject = os.fspath(path)
    if is_nifti(path):
        sides = nifti_header(path).shape[:3]
        width, height = (side for name, side in zip(AXES, sides, strict=True) if name != (axis or "z"))
        return sides[AXES.index(axis or "z")], height, width
    if axis not in (None, "z"):
        raise ConfigError("only slices along z can be read from TIFF files", subject=subject, expected='axis = "z"',
                          found=axis, hint='set axis="z", or save the volume as NIfTI')  # fmt: skip
    return _tiff_shape(subject, *file_state(subject))


def open_nifti(path: PathLike) -> Volume:
    """Read a NIfTI file. The last files are kept, up to 1 GiB of values, since slices are read one by one.

    Raises:
        ConfigError: nibabel is not installed.
        ImageDecodeError: Broken, missing or another kind of file.
        ImageTooLargeError: More pixels than allowed.
    """
    subject = os.fspath(path)
    key = subject, *file_state(subject)
    with _LOCK:
        if key in _KEPT:
            _KEPT.move_to_end(key)
            return _KEPT[key]
        volume = _KEPT[key] = _read(_nifti(*key), subject)
        while len(_KEPT) > 1 and sum(volume.bytes for volume in _KEPT.values()) > _MOST_KEPT:
            _KEPT.popitem(last=False)
        return volume


def file_state(subject: str) -> tuple[int, int]:
    """Size and time of a file, so that a changed file is read again."""
    with our_errors(subject):
        status = os.stat(subject)
        if not status.st_size:
            raise empty_file(subject)
        return status.st_size, status.st_mtime_ns


class NiftiHeader(NamedTuple):
    """What the header of a NIfTI file declares.

    Args:
        header: The header, an object of nibabel.
        shape: (X, Y, Z, C).
        dtype: Data type of the stored values.
        offset: Where they start.
        zipped: Whether the file is compressed.
    """

    header: Any
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    zipped: bool


def nifti_header(path: PathLike) -> NiftiHeader:
    """Read the header of a NIfTI file.

    Raises:
        ConfigError: nibabel is not installed.
        ImageDecodeError: Broken, missing or another kind of file.
        ImageTooLargeError: More pixels than allowed.
    """
    subject = os.fspath(path)
    return _nifti(subject, *file_state(subject))


@lru_cache(maxsize=4096)
def _nifti(subject: str, size: int, changed: int) -> NiftiHeader:
    try:
        import nibabel
    except ImportError as error:
        raise ConfigError("NIfTI files need nibabel", subject=subject, expected="the package nibabel", found="none",
                          hint='pip install "unetzoo[medical]"') from error  # fmt: skip
    with our_errors(subject), _opened(subject) as (file, zipped):
        start = file.read(max(_HEADERS))
        kind = next((name for length, name in _HEADERS.items() for order in ("little", "big")
                     if start[:4] == length.to_bytes(4, order)), None)  # fmt: skip
        if kind is None or len(start) < 352:
            raise ImageDecodeError("not a NIfTI file", subject=subject, expected="a NIfTI-1 or NIfTI-2 header",
                                   found=repr(start[:4]), hint="download or convert the file again")  # fmt: skip
        klass = getattr(nibabel, kind)
        header = klass.from_fileobj(io.BytesIO(start[: klass.template_dtype.itemsize]), check=False)
        header.check_fix(_QUIET, error_level=40)
        shape, dtype, offset = tuple(map(int, header.get_data_shape())), header.get_data_dtype(), _offset(header)
        _check(shape, dtype, subject)
        needed = math.prod(shape) * dtype.itemsize
        most = size * _DEFLATE if zipped else size
        if not klass.template_dtype.itemsize <= offset <= most - needed:
            raise _truncated(subject, offset + needed, most)
        return NiftiHeader(header, (*shape, 1, 1)[:4] if len(shape) < 4 else shape[:4], dtype, offset, zipped)


@contextmanager
def _opened(subject: str) -> Iterator[tuple[Any, bool]]:
    """An open file, decompressed, and whether it is compressed."""
    with open(subject, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield gzip.GzipFile(fileobj=raw) if zipped else raw, zipped


def _read(found: NiftiHeader, subject: str) -> Volume:
    with our_errors(subject):
        if found.zipped:
            needed = math.prod(found.shape) * found.dtype.itemsize
            with _opened(subject) as (file, _):
                file.seek(found.offset)
                data = file.read(needed)
            if len(data) < needed:
                raise _truncated(subject, needed, len(data))
            stored = np.frombuffer(data, found.dtype).reshape(found.shape, order="F")
        else:
            stored = np.memmap(subject, found.dtype, "r", found.offset, found.shape, order="F")
        scale: Any = found.header.get_slope_inter()
        return Volume(stored, None if scale in ((None, None), (1.0, 0.0)) else scale, found.header)


def _offset(header: Any) -> int:
    offset = float(header["vox_offset"])
    return int(offset) if 0 <= offset < 2**62 else -1


def _check(shape: tuple[int, ...], dtype: np.dtype, subject: str) -> None:
    """Refuse volumes of other axes, types or sizes before anything is allocated."""
    if len(shape) < 2 or min(shape) < 1 or math.prod(shape[4:]) > 1:
        raise ImageDecodeError("not a volume", subject=subject, expected="(X, Y, Z) or (X, Y, Z, channels)",
                               found=shape, hint="save one volume per file")  # fmt: skip
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise UnsupportedImageError("not numbers that can be read", subject=subject, expected="integers or floats",
                                    found=dtype, hint="convert the file")  # fmt: skip
    most = Image.MAX_IMAGE_PIXELS
    if most and math.prod(shape) > VALUES * most:
        raise too_large(subject, "×".join(map(str, shape)))


def _truncated(subject: str, needed: int, found: int) -> ImageDecodeError:
    return ImageDecodeError("unreadable volume", subject=subject, expected=f"{needed:,} bytes",
                            found=f"{found:,} or fewer", hint="the file is truncated; download it again")  # fmt: skip


@lru_cache(maxsize=256)
def _tiff_shape(subject: str, size: int, changed: int) -> tuple[int, int, int]:
    import tifffile

    with our_errors(subject):
        with open(subject, "rb") as file:
            if not is_tiff(file):
                raise ImageDecodeError("not a volume", subject=subject, expected="NIfTI, or TIFF of several pages",
                                       found="another kind of file", hint="leave axis out for images")  # fmt: skip
        numbers = slice_pages(subject)
        with tifffile.TiffFile(subject, _multifile=False) as tiff:
            pages = (tiff.pages[number].aspage() for number in numbers)
            sizes = sorted({(int(page.imagelength), int(page.imagewidth)) for page in pages})
        if len(sizes) > 1:
            found = ", ".join(f"{width}×{height}" for height, width in sizes[:4])
            raise DataError("slices of different sizes", subject=subject, expected="pages of one size", found=found,
                            hint="save each image as a separate file")  # fmt: skip
        return len(numbers), *sizes[0]


def slice_pages(path: PathLike) -> list[int]:
    """The pages of a TIFF file that are slices: all but smaller versions and masks of others.

    Raises:
        ImageDecodeError: Broken pages.
    """
    pages = read_pages(path, path)
    return [page.number for page in pages if page.is_image] or [pages[0].number]


def write_volume(target: Path, labels: np.ndarray, source: PathLike, axis: str) -> None:
    """Write a label map per slice as a volume of the format of its source.

    Args:
        target: The file to write; replaced when it is complete.
        labels: (slices, H, W), of small unsigned integers.
        source: The volume that was predicted; a NIfTI file gets its affine matrix and the rest of its header.
        axis: The axis along which it was cut.

    Raises:
        OSError: The file cannot be written.
    """
    if not is_nifti(source):
        import tifffile

        with replacing(target) as partial:
            tifffile.imwrite(partial, labels, photometric="minisblack", compression="zlib", metadata=None)
        return
    import nibabel

    header = open_nifti(source).header.copy()
    header.set_data_dtype(labels.dtype)
    header.set_slope_inter(1, 0)
    header.set_data_offset(0)  # nibabel puts it behind the header
    values = np.moveaxis(labels.swapaxes(1, 2), 0, AXES.index(axis))
    data = getattr(nibabel, type(header).__name__.replace("Header", "Image"))(values, None, header).to_bytes()
    write_bytes(target, gzip.compress(data, 6, mtime=0) if target.suffix == ".gz" else data)
