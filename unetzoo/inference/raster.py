"""Images too large to hold: read by windows from tiled TIFF files, memory maps and whatever can be sliced."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import tifffile
from torch import Tensor

from ..errors import DataError, ImageDecodeError, InputShapeError
from ..images.arrays import FULL_SCALE
from .images import PathLike

SEGMENT = 256 * 2**20  # bytes of a decoded tile or strip, at most
SUFFIXES = {".npy": "NumPy", ".tif": "TIFF", ".tiff": "TIFF"}
COLORS = (
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.YCBCR,  # what JPEG tiles are stored as; they are decoded to RGB
    tifffile.PHOTOMETRIC.SEPARATED,
)
TRANSPARENCY = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


class Sliced(Protocol):
    """What has a shape and gives parts: a memory map, an array of zarr or h5py."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C)."""
        ...

    @property
    def dtype(self) -> Any:
        """Of its values."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """A part."""
        ...


class Raster:
    """An image (H, W, C) that is read by parts.

    Args:
        values: The image.
        name: For errors.
    """

    def __init__(self, values: Sliced, name: object) -> None:
        shape = tuple(values.shape)
        if len(shape) not in (2, 3):
            raise InputShapeError("one image at a time", subject=name, expected="(H, W) or (H, W, C)", found=shape)
        self.values, self.name = values, name
        self.shape = (shape[0], shape[1], shape[2] if len(shape) == 3 else 1)
        self.dtype = np.dtype(values.dtype)
        if min(self.shape) < 1:
            raise InputShapeError("an empty image", subject=name, found=shape)
        if self.dtype.kind != "f" and self.dtype.name not in FULL_SCALE:
            raise DataError(
                "integers of unknown full scale",
                subject=name,
                expected="uint8, uint16, bool or floats",
                found=self.dtype,
                hint="convert the image, scaled as in training",
            )

    def held(self, rows: int) -> int:
        """Bytes that reading windows of so many rows, one row of them after the other, holds."""
        return 0

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """A part (h, w, C).

        Raises:
            ImageDecodeError: It cannot be read.
        """
        try:
            part = np.asarray(self.values[top:bottom, left:right])
        except Exception as error:  # whatever the owner of the values raises
            raise _unreadable(self.name, error) from error
        return part if part.ndim == 3 else part[..., None]


class TiffRaster(Raster):
    """A TIFF file, decoded tile by tile (or strip by strip) where a window lies; transparency is left out.

    Args:
        file: The opened file.
        name: For errors.
    """

    def __init__(self, file: tifffile.TiffFile, name: object) -> None:
        self.page: Any = _only_page(file, name)
        page = self.page
        self.file = file.filehandle
        self.samples = int(page.samplesperpixel)
        drawn = self.samples - sum(extra in TRANSPARENCY for extra in page.extrasamples)
        super().__init__(_Shaped((page.imagelength, page.imagewidth, drawn), page.dtype), name)
        self.separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and self.samples > 1
        chunks: tuple[int, ...] = page.chunks
        self.chunk = chunks[1:3] if self.separate and len(chunks) == 3 else chunks[:2]
        self.down, self.across = (-(-n // c) for n, c in zip(self.shape[:2], self.chunk, strict=True))
        self._check(os.fstat(self.file.fileno()).st_size)
        self._decoded: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = self._most = 0

    def held(self, rows: int) -> int:
        """See `Raster.held`: windows side by side share a column of tiles; strips are as wide as the image."""
        down = min(self.down, rows // self.chunk[0] + 2)
        planes = self.samples if self.separate else 1
        self._most = down * min(self.across, 2) * planes * self._segment_bytes()
        return self._most

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """See `Raster.read`."""
        channels = self.shape[2]
        part = np.empty((bottom - top, right - left, channels), self.dtype)
        tall, wide = self.chunk
        for y in range(top // tall, -(-bottom // tall)):
            for x in range(left // wide, -(-right // wide)):
                rows = slice(max(top, y * tall), min(bottom, (y + 1) * tall))
                columns = slice(max(left, x * wide), min(right, (x + 1) * wide))
                for plane in range(channels if self.separate else 1):
                    segment = self._segment((plane * self.down + y) * self.across + x)
                    inside = segment[
                        rows.start - y * tall : rows.stop - y * tall, columns.start - x * wide : columns.stop - x * wide
                    ]
                    into = slice(plane, plane + 1) if self.separate else slice(None)
                    part[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, into] = inside[
                        ..., : 1 if self.separate else channels
                    ]
        return part

    def _segment(self, index: int) -> np.ndarray:
        if index in self._decoded:
            self._decoded.move_to_end(index)
            return self._decoded[index]
        try:
            data = self._bytes_of(index)
            tables = {"jpegtables": self.page.jpegtables} if self.page.jpegtables else {}
            decoded = self.page.decode(data, index, **tables)[0]
            samples = 1 if self.separate else self.samples
            segment = np.zeros((*self.chunk, samples), self.dtype) if decoded is None else decoded[0]
            if segment.shape[2] != samples:
                raise ValueError(f"a segment of {segment.shape[2]} samples, not {samples}")
        except Exception as error:  # decoders raise whatever they please on broken files
            raise _unreadable(self.name, error) from error
        self._decoded[index] = segment
        self._bytes += segment.nbytes
        while self._bytes > self._most and len(self._decoded) > 1:
            self._bytes -= self._decoded.popitem(last=False)[1].nbytes
        return segment

    def _bytes_of(self, index: int) -> bytes | None:
        if not self.page.databytecounts[index]:
            return None  # left out of a sparse file
        self.file.seek(self.page.dataoffsets[index])
        return self.file.read(self.page.databytecounts[index])

    def _segment_bytes(self) -> int:
        return self.chunk[0] * self.chunk[1] * (1 if self.separate else self.samples) * self.dtype.itemsize

    def _check(self, size: int) -> None:
        page = self.page
        if self._segment_bytes() > SEGMENT:
            raise DataError(
                "the image cannot be read by parts",
                subject=self.name,
                expected=f"tiles or strips of at most {SEGMENT // 2**20} MB",
                found=f"{self.chunk[0]}×{self.chunk[1]} pixels in one",
                hint="save it in tiles, e.g. tifffile.imwrite(path, data, tile=(512, 512))",
            )
        if page.photometric not in COLORS:
            found = tifffile.PHOTOMETRIC(page.photometric).name.lower()
            hint = "convert the image to gray or RGB"
            raise DataError("unknown colors", subject=self.name, expected="gray or RGB", found=found, hint=hint)
        turn = page.tags.valueof("Orientation", 1)
        if turn != 1:
            raise DataError(
                "the image is stored turned or mirrored",
                subject=self.name,
                expected="orientation 1",
                found=turn,
                hint="save it upright",
            )
        wanted = self.down * self.across * (self.samples if self.separate else 1)
        if len(page.dataoffsets) < wanted or len(page.databytecounts) < wanted:
            raise _unreadable(self.name, f"{len(page.dataoffsets)} of {wanted} tiles or strips")
        end = max(start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False))
        if end > size:
            raise _unreadable(self.name, f"{size:,} bytes where its tiles end at {end:,}: it is truncated")


class _Shaped:
    """Shape and type of values that are read otherwise."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError


@contextmanager
def open_raster(source: PathLike | Sliced) -> Iterator[Raster]:
    """An image to read windows of.

    Args:
        source: A tiled TIFF file, a `.npy` file, or anything with `shape`, `dtype` and slices (H, W) or (H, W, C).

    Raises:
        ImageDecodeError: Missing, broken or truncated.
        DataError: Of another kind; several images; a type or layout that cannot be read by parts.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise DataError(
                "cannot read this kind of file by windows",
                subject=path,
                expected=", ".join(SUFFIXES),
                found=path.suffix or "no suffix",
                hint="save it as a tiled TIFF, or use unetzoo.predict if it fits into memory",
            )
        if not path.is_file():
            raise ImageDecodeError("no such file", subject=path, hint="check the path")
        if kind == "NumPy":
            yield Raster(_memory_map(path), path)
        else:
            with _opened(path) as file:
                yield _tiff(file, path)
    elif isinstance(source, Tensor) or not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
        raise DataError(
            "nothing to read windows of",
            found=type(source).__name__,
            expected="a path, or an array (H, W[, C]) that can be sliced",
            hint="tensors are for unetzoo.predict" if isinstance(source, Tensor) else None,
        )
    else:
        yield Raster(source, f"the {type(source).__name__}")


def _memory_map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a broken header may raise anything
        raise _unreadable(path, error) from error


def _opened(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def _tiff(file: tifffile.TiffFile, path: Path) -> Raster:
    try:
        return TiffRaster(file, path)
    except DataError:
        raise
    except Exception as error:  # tags that contradict each other
        raise _unreadable(path, error) from error


def _only_page(file: tifffile.TiffFile, name: object) -> Any:
    pages: list[Any] = [page for page in file.pages if not cast(Any, page).is_reduced]
    if len(pages) != 1:
        raise DataError(
            "one image at a time",
            subject=name,
            found=f"{len(pages)} pages",
            hint="save each page as a file of its own",
        )
    page = pages[0]
    if page.imagedepth != 1:
        raise DataError("one image at a time", subject=name, found=f"{page.imagedepth} layers")
    if page.dtype is None:
        raise DataError("unreadable image", subject=name, found=f"{page.bitspersample} bits a sample")
    return page


def _unreadable(name: object, error: object) -> ImageDecodeError:
    found = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
    hint = "the file is broken; fetch or save it again"
    if "imagecodecs" in str(error):
        hint = "install the package imagecodecs, which decodes this compression"
    return ImageDecodeError("unreadable image", subject=name, found=found, hint=hint)
