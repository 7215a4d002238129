"""Windows of images too large for memory: TIFF and `.npy` files and anything that can be sliced.

A window of a TIFF file has the pixels that `read_image` gives for the same file: structure and color model are read
from the same tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin
from torch import Tensor

from ..errors import DataError, ImageDecodeError
from .array_source import ArraySource, ImageSource, Sliced, unreadable
from .decode import PathLike, as_channels
from .tiff import read_pages

SEGMENT = 256 * 2**20  # maximum bytes of a decoded tile or strip
SUFFIXES = {".npy": "NumPy", ".tif": "TIFF", ".tiff": "TIFF"}
_GRAY, _RGB, _CMYK, _YCBCR = 1, 2, 5, 6  # PhotometricInterpretation
_JPEG = {6, 7, 33007, 34892}  # compressions that are decoded to RGB
_ALPHA = {1, 2}  # ExtraSamples: associated (premultiplied), unassociated


class TiffSource(ImageSource):
    """The image of a TIFF file; only the tiles or strips of a window are decoded.

    Args:
        file: The open file.
        number: Index of the page.
        channels: Input channels of the network, if known: 8-bit colors are converted to gray (1) or RGB (3) as
            `read_image` does; if the file has this number of channels, they are returned as stored.
        name: Its name in errors.

    Raises:
        DataError: Pixels of a kind that cannot be read in windows.
    """

    def __init__(self, file: tifffile.TiffFile, number: int, channels: int | None, name: object) -> None:
        page: Any = file.pages[number]
        self.file, self.page, self.samples = file.filehandle, page, int(page.samplesperpixel)
        if page.imagedepth != 1 or page.dtype is None:
            found = f"{page.imagedepth} layers" if page.imagedepth != 1 else f"{page.bitspersample} bits per sample"
            raise DataError("not a single image of whole bytes", subject=name, found=found)
        self.mode: tuple[str, str] | None = None  # Pillow's mode and packing, if colors are converted
        self.kept = self._colors(channels, name)
        super().__init__(name, (page.imagelength, page.imagewidth, self.kept), page.dtype)
        self.planes = self.samples if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and self.samples > 1 else 1
        chunks: tuple[int, ...] = page.chunks
        self.tall, self.wide = chunks[1:3] if self.planes > 1 and len(chunks) == 3 else chunks[:2]
        self.down, self.across = -(-self.shape[0] // self.tall), -(-self.shape[1] // self.wide)
        self._check()
        self.segment = lru_cache(self.planes)(self._decode)

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """See `ImageSource.read`."""
        part = np.empty((bottom - top, right - left, self.planes, self.samples // self.planes), self.dtype)
        for y in range(top // self.tall, -(-bottom // self.tall)):
            into_rows, rows = _overlap(top, bottom, y * self.tall, self.tall)
            for x in range(left // self.wide, -(-right // self.wide)):
                into_columns, columns = _overlap(left, right, x * self.wide, self.wide)
                for plane in range(self.planes):
                    part[into_rows, into_columns, plane] = self.segment(plane, y, x)[rows, columns]
        part = part.reshape(*part.shape[:2], self.samples)
        if self.mode is None:
            return part[..., : self.kept]
        mode, packing = self.mode
        image = Image.frombytes(mode, (right - left, bottom - top), part.tobytes(), "raw", packing)
        return as_channels(image, self.kept)

    def blocks(self) -> Iterator[np.ndarray]:
        """See `ImageSource.blocks`."""
        height, width, _ = self.shape
        for top in range(0, height, self.tall):
            for left in range(0, width, self.wide):
                yield self.read(top, min(top + self.tall, height), left, min(left + self.wide, width))

    def cache_bytes(self, rows: int) -> int:
        """See `ImageSource.cache_bytes`."""
        return self._shared(rows) * self._segment_bytes()

    def cache(self, rows: int) -> None:
        """See `ImageSource.cache`."""
        self.segment = lru_cache(self._shared(rows))(self._decode)

    def _shared(self, rows: int) -> int:
        """Segments of a window that its neighbor needs too: a column of tiles; strips are as wide as the image."""
        return min(self.down, rows // self.tall + 2) * min(self.across, 2) * self.planes

    def _decode(self, plane: int, y: int, x: int) -> np.ndarray:
        index, samples, page = (plane * self.down + y) * self.across + x, self.samples // self.planes, self.page
        if not page.databytecounts[index]:
            return np.zeros((self.tall, self.wide, samples), self.dtype)  # omitted from a sparse file
        try:
            self.file.seek(page.dataoffsets[index])
            data = self.file.read(page.databytecounts[index])
            tables = {"jpegtables": page.jpegtables} if page.jpegtables else {}
            segment = page.decode(data, index, **tables)[0][0]
            if segment.shape[2] != samples:
                raise ValueError(f"a segment of {segment.shape[2]} samples, not {samples}")
        except Exception as error:  # decoders raise anything for broken files
            raise unreadable(self.name, error) from error
        return segment

    def _segment_bytes(self) -> int:
        return self.tall * self.wide * self.samples // self.planes * self.page.dtype.itemsize

    def _colors(self, channels: int | None, name: object) -> int:
        """The number of channels that are read; other 8-bit colors are converted as by Pillow."""
        page, samples = self.page, self.samples
        extra = tuple(int(kind) for kind in page.extrasamples)
        colors = _RGB if page.photometric == _YCBCR and page.compression in _JPEG else int(page.photometric)
        stored = colors in (_GRAY, _RGB, _CMYK) and not _ALPHA & set(extra)
        if stored and channels in (samples, None):
            return samples
        if page.dtype == np.uint8:
            key = (b"II", colors, (1,), 1, (8,) * samples, extra)
            mode, packing = TiffImagePlugin.OPEN_INFO.get(key, ("", ""))
            wanted = channels if channels in (1, 3) else 1 if mode in ("L", "La", "LA") else 3
            if mode and not page.is_subsampled and _converts(mode, packing, samples, wanted):
                self.mode = mode, packing
                return wanted
        elif colors in (_GRAY, _RGB) and 1 not in extra:
            return 3 if colors == _RGB and channels == 3 else samples - len(_ALPHA & set(extra))
        raise DataError(
            "unknown colors",
            subject=name,
            expected="gray or RGB",
            found=f"{tifffile.PHOTOMETRIC(page.photometric).name.lower()}, {samples} samples of {page.dtype}",
            hint="convert the image to gray or RGB",
        )

    def _check(self) -> None:
        page = self.page
        if self._segment_bytes() > SEGMENT:
            raise DataError(
                "the image cannot be read in windows",
                subject=self.name,
                expected=f"tiles or strips of at most {SEGMENT // 2**20} MB",
                found=f"{self.tall}×{self.wide} pixels in one",
                hint="save it in tiles, e.g. tifffile.imwrite(path, data, tile=(512, 512))",
            )
        turn = page.tags.valueof("Orientation", 1)
        if turn != 1:
            raise DataError(
                "the image is stored rotated or mirrored",
                subject=self.name,
                expected="orientation 1",
                found=turn,
                hint="save it upright",
            )
        wanted, size = self.down * self.across * self.planes, self.file.size
        if len(page.dataoffsets) < wanted or len(page.databytecounts) < wanted:
            raise unreadable(self.name, f"{len(page.dataoffsets)} of {wanted} tiles or strips")
        end = max(start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False))
        if end > size:
            raise unreadable(self.name, f"{size:,} bytes where its tiles end at {end:,}: it is truncated")


def _converts(mode: str, packing: str, samples: int, channels: int) -> bool:
    """Whether Pillow can convert a window of so many samples in this mode; a palette would be missing.

    Before version 13, Pillow cannot decode YCbCr without compression.
    """
    try:
        pixel = Image.frombytes(mode, (1, 1), bytes(samples), "raw", packing)
        return not mode.startswith("P") and bool(as_channels(pixel, channels).size)
    except ValueError:
        return False


def _overlap(start: int, stop: int, origin: int, length: int) -> tuple[slice, slice]:
    """The overlap of a segment and a window along one axis, in coordinates of the window and of the segment."""
    first, last = max(start, origin), min(stop, origin + length)
    return slice(first - start, last - start), slice(first - origin, last - origin)


@contextmanager
def open_source(source: PathLike | Sliced, channels: int | None = None) -> Iterator[ImageSource]:
    """Open an image for reading windows.

    Args:
        source: A tiled TIFF file, a `.npy` file, or an array (H, W) or (H, W, C) with `shape`, `dtype` and slicing.
        channels: Input channels of the network, to convert the colors of a TIFF file.

    Raises:
        ImageDecodeError: Missing, broken or truncated.
        DataError: Another format; several images; a type or layout that cannot be read in windows.

    Examples:
        >>> with open_source(np.arange(12, dtype=np.uint8).reshape(3, 4)) as image:
        ...     image.shape, image.read(1, 3, 0, 2)[..., 0].tolist()
        ((3, 4, 1), [[4, 5], [8, 9]])
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise DataError(
                "cannot read this kind of file in windows",
                subject=path,
                expected=", ".join(SUFFIXES),
                found=path.suffix or "no suffix",
                hint="save it as a tiled TIFF, or use unetzoo.predict if it fits into memory",
            )
        if not path.is_file():
            raise ImageDecodeError("no such file", subject=path, hint="check the path")
        if kind == "NumPy":
            yield ArraySource(_memory_map(path), path)
        else:
            with _tiff(path, channels) as image:
                yield image
    elif isinstance(source, Tensor) or not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
        raise DataError(
            "not an image source",
            found=type(source).__name__,
            expected="a path, or an array (H, W[, C]) that can be sliced",
            hint="tensors are for unetzoo.predict" if isinstance(source, Tensor) else None,
        )
    else:
        yield ArraySource(source, f"the {type(source).__name__}")


def _memory_map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a broken header raises anything
        raise unreadable(path, error) from error


@contextmanager
def _tiff(path: Path, channels: int | None) -> Iterator[TiffSource]:
    pages = [page for page in read_pages(path, path) if page.is_image]
    if len(pages) != 1:
        raise DataError(
            "several images in one file",
            subject=path,
            expected="one",
            found=f"{len(pages)} pages",
            hint="save each page as a file of its own",
        )
    try:
        file = tifffile.TiffFile(path)
    except Exception as error:
        raise unreadable(path, error) from error
    with file:
        try:
            image = TiffSource(file, pages[0].number, channels, path)
        except DataError:
            raise
        except Exception as error:  # inconsistent tags
            raise unreadable(path, error) from error
        yield image
