"""TIFF files whose channels are read as stored: whole, or in windows, with the same pixels.

Colors of 8 bits are converted to gray or RGB as by Pillow, from the same tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from math import isnan
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from ..errors import DataError, UnsupportedImageError
from .array_source import ImageSource, unreadable
from .decode import PathLike, as_channels, our_errors, too_large
from .pixels import Pixels
from .tiff import TiffPage, mask_of, read_pages

SEGMENT = 256 * 2**20  # maximum bytes of a decoded tile or strip
VALUES = 8  # maximum number of values, relative to the largest number of pixels that Pillow allows
_GRAY, _RGB, _MASK, _CMYK, _YCBCR = 1, 2, 4, 5, 6  # PhotometricInterpretation
_ORIENTATION = 274  # the tag
_JPEG = {6, 7, 33007, 34892}  # compressions that are decoded to RGB
_ALPHA = {1, 2}  # ExtraSamples: associated (premultiplied), unassociated


class TiffSource(ImageSource):
    """The image of a TIFF file; only the tiles or strips of a window are decoded.

    Args:
        file: The open file.
        numbers: Index of the page, or of the pages if each holds one channel.
        pixels: The channels that are read; if None, all that are stored, without alpha.
        name: Its name in errors.
        mask: Index of the page with the mask of the image, if it has one.
        nodata: The value of pixels without data, if there is one.

    Raises:
        DataError: Pixels of a kind that cannot be read.
    """

    def __init__(
        self,
        file: tifffile.TiffFile,
        numbers: list[int],
        pixels: Pixels | None,
        name: object,
        mask: int | None = None,
        nodata: float | None = None,
    ) -> None:
        self.pages: list[Any] = [file.pages[number].aspage() for number in numbers]
        page = self.page = self.pages[0]
        self.file, self.samples = file.filehandle, int(page.samplesperpixel) * len(numbers)
        if page.imagedepth != 1 or page.dtype is None:
            found = f"{page.imagedepth} layers" if page.imagedepth != 1 else f"{page.bitspersample} bits per sample"
            raise DataError("not a single image of whole bytes", subject=name, found=found,
                            hint="save it as an image of 8, 16 or 32 bits per channel")  # fmt: skip
        self._check_pages(name)
        self.mode: tuple[str, str] | None = None  # Pillow's mode and packing, if colors are converted
        self.kept: list[int] | None = None  # the channels that are read, unless these are all
        super().__init__(name, (page.imagelength, page.imagewidth, self._choose(pixels, name)), page.dtype)
        self.bits = int(page.bitspersample)
        separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        self.planes = self.samples if separate or len(numbers) > 1 else 1
        chunks: tuple[int, ...] = page.chunks
        self.tall, self.wide = chunks[1:3] if separate and len(chunks) == 3 else chunks[:2]
        self.down, self.across = -(-self.shape[0] // self.tall), -(-self.shape[1] // self.wide)
        self._check_segments()
        self.segment = lru_cache(self.planes)(self._decode)
        self.nodata = nodata
        self.mask = None if mask is None else TiffSource(file, [mask], None, name)

    def whole(self) -> np.ndarray:
        """The whole image (H, W, C).

        Raises:
            ImageDecodeError: It cannot be read.
            ImageTooLargeError: More values than allowed.
        """
        height, width, _ = self.shape
        most = Image.MAX_IMAGE_PIXELS
        if most and (height * width > most or height * width * self.samples > VALUES * most):
            raise too_large(str(self.name), f"{width}×{height} pixels, {self.samples} channels")
        if self.mode is not None:
            return self.read(0, height, 0, width)
        try:
            planes = [page.asarray() for page in self.pages]
        except Exception as error:  # decoders raise anything for broken files
            raise unreadable(self.name, error) from error
        values = planes[0] if len(planes) == 1 else np.stack(planes)
        values = np.moveaxis(values, 0, 2) if self.planes > 1 else values.reshape(height, width, self.samples)
        return values if self.kept is None else values[..., self.kept]

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
            return part if self.kept is None else part[..., self.kept]
        mode, packing = self.mode
        image = Image.frombytes(mode, (right - left, bottom - top), part.tobytes(), "raw", packing)
        return as_channels(image, self.shape[2])

    @property
    def has_gaps(self) -> bool:
        """See `ImageSource.has_gaps`."""
        return self.mask is not None or (self.nodata is not None and self.mode is None)

    def missing(self, values: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray | None:
        """See `ImageSource.missing`."""
        height, width = values.shape[:2]
        found: np.ndarray | None = None
        if self.mask is not None and self.mask.shape[:2] == self.shape[:2]:
            found = self.mask.read(top, top + height, left, left + width)[..., 0] == 0
        if self.nodata is not None and self.mode is None:
            same: np.ndarray = np.isnan(values) if isnan(self.nodata) else np.equal(values, self.nodata)
            empty = np.asarray(same.all(2))
            found = empty if found is None else found | empty
        return found

    def parts(self) -> Iterator[tuple[int, int, int, int]]:
        """See `ImageSource.parts`."""
        height, width, _ = self.shape
        for top in range(0, height, self.tall):
            for left in range(0, width, self.wide):
                yield top, min(top + self.tall, height), left, min(left + self.wide, width)

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
        index, samples, page = y * self.across + x, self.samples // self.planes, self.page
        if len(self.pages) > 1:
            page = self.pages[plane]
        else:
            index += plane * self.down * self.across
        if not page.databytecounts[index]:
            return np.full((self.tall, self.wide, samples), page.nodata, self.dtype)  # omitted from a sparse file
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

    def _choose(self, pixels: Pixels | None, name: object) -> int:
        """Choose how channels are read, and return their number."""
        page, samples = self.page, self.samples
        extra = tuple(int(kind) for kind in page.extrasamples)
        colors = _RGB if page.photometric == _YCBCR and page.compression in _JPEG else int(page.photometric)
        known, alpha = colors in (_GRAY, _RGB, _MASK, _CMYK), _ALPHA & set(extra)
        all_stored = pixels is None or (pixels.per_file == samples and not pixels.bands)
        if known and not alpha and all_stored:
            return samples
        if page.dtype == np.uint8 and len(self.pages) == 1 and (pixels is None or pixels.converts_colors):
            key = (b"II", colors, (1,), 1, (8,) * samples, extra)
            mode, packing = TiffImagePlugin.OPEN_INFO.get(key, ("", ""))
            wanted = pixels.channels if pixels else 1 if mode in ("L", "La", "LA") else 3
            if mode and not page.is_subsampled and _converts(mode, packing, samples, wanted):
                self.mode = mode, packing
                return wanted
        if known and (1 not in extra or (pixels is not None and (pixels.bands or all_stored))):
            transparent = [samples - len(extra) + index for index, kind in enumerate(extra) if kind in _ALPHA]
            visible = samples - len(transparent)
            self.kept = (pixels or Pixels(visible)).kept(samples, transparent, int(page.bitspersample), name)
            return samples if self.kept is None else len(self.kept)
        raise UnsupportedImageError(
            "unknown colors",
            subject=name,
            expected="gray or RGB",
            found=f"{tifffile.PHOTOMETRIC(page.photometric).name.lower()}, {samples} samples of {page.dtype}",
            hint="convert the image to gray or RGB",
        )

    def _check_pages(self, name: object) -> None:
        if len(self.pages) == 1:
            return
        kinds = {(page.imagelength, page.imagewidth, page.dtype, page.compression, page.tilewidth, page.rowsperstrip)
                 for page in self.pages}  # fmt: skip
        if len(kinds) > 1 or any(page.samplesperpixel != 1 for page in self.pages):
            raise UnsupportedImageError(
                "pages of different kinds",
                subject=name,
                expected="one channel per page, all of one size and type",
                hint="save all channels as one page, e.g. tifffile.imwrite(path, array, photometric='minisblack')",
            )

    def _check_segments(self) -> None:
        turn = self.page.tags.valueof(_ORIENTATION, 1)
        if turn != 1:
            raise DataError(
                "the image is stored rotated or mirrored",
                subject=self.name,
                expected="orientation 1",
                found=turn,
                hint="save it upright",
            )
        wanted, size = self.down * self.across * (self.planes if len(self.pages) == 1 else 1), self.file.size
        for page in self.pages:
            if len(page.dataoffsets) < wanted or len(page.databytecounts) < wanted:
                raise unreadable(self.name, f"{len(page.dataoffsets)} of {wanted} tiles or strips")
            end = max(start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False))
            if end > size:
                raise unreadable(self.name, f"{size:,} bytes where its tiles end at {end:,}: it is truncated")

    def check_windows(self) -> None:
        """Check that windows can be read without decoding the whole image.

        Raises:
            DataError: Large strips or tiles.
        """
        if self._segment_bytes() > SEGMENT:
            raise DataError(
                "the image cannot be read in windows",
                subject=self.name,
                expected=f"tiles or strips of at most {SEGMENT // 2**20} MB",
                found=f"{self.tall}×{self.wide} pixels in one",
                hint="save it in tiles, e.g. tifffile.imwrite(path, data, tile=(512, 512))",
            )


@contextmanager
def open_tiff(
    path: PathLike,
    pixels: Pixels | None,
    page: int | None = None,
    *,
    pages: Sequence[TiffPage] = (),
    file: BinaryIO | None = None,
) -> Iterator[TiffSource]:
    """Open the image of a TIFF file.

    Args:
        path: The file. Several pages are its channels if its metadata (OME, ImageJ) names them so, or if `pixels`
            declares that many channels, other than 1 and 3.
        pixels: The channels that are read; if None, all that are stored.
        page: Index of the page to read, if the file has several images.
        pages: The pages, if `read_pages` has checked the file already.
        file: The open file, which is not closed; by default, `path` is opened.

    Raises:
        ImageDecodeError: Broken or truncated.
        DataError: Several images; pixels of a kind that cannot be read.
    """
    with our_errors(str(path)):
        pages = pages or read_pages(path, path)
        tiff = tifffile.TiffFile(path if file is None else file, _multifile=False)
    with tiff:
        numbers = [page.number for page in pages if page.is_image] or [pages[0].number]
        if page is not None:
            numbers = [page]
        elif len(numbers) > 1 and not _are_channels(tiff, pixels, len(numbers)):
            raise DataError(
                "several images in one file",
                subject=path,
                expected="one",
                found=f"{len(numbers)} pages",
                hint="save each page as a file of its own; if the pages are channels, declare channels=N or bands=[…]",
            )
        mask = mask_of(pages) if page is None else None
        with our_errors(str(path)):
            image = TiffSource(tiff, numbers, pixels, path, mask, pages[numbers[0]].nodata)
        yield image


def read_mask_page(path: PathLike, number: int) -> np.ndarray:
    """Decode a page that masks the image of a TIFF file, as bool (H, W): where the image has data.

    Raises:
        ImageDecodeError: Broken or truncated.
    """
    with our_errors(str(path)), tifffile.TiffFile(path, _multifile=False) as file:
        return TiffSource(file, [number], None, path).whole()[..., 0] != 0


def _are_channels(file: tifffile.TiffFile, pixels: Pixels | None, pages: int) -> bool:
    """Whether the pages of a file are the channels of one image."""
    with suppress(Exception):  # of metadata that other programs wrote
        series = file.series[0]
        others = {axis for axis, length in zip(series.axes, series.shape, strict=True) if length > 1} - set("YX")
        if file.is_ome or file.is_imagej:
            return others == {"C"} and len(series.pages) == pages
    if pixels is None or pixels.files or pixels.converts_colors:
        return False
    return max(pixels.bands) <= pages if pixels.bands else pixels.channels == pages


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
