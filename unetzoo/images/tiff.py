"""Checks of the structure of a TIFF file before it is decoded.

Pages form a linked list in the file, and their tags contain offsets and sizes. Decoders follow both, so a few bytes can
make them loop or allocate without limit. `read_pages` follows each once, within the size of the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from ..errors import ImageDecodeError

CLASSIC, BIG = 42, 43
# struct formats of the number of tags, of a tag without its value, and of an offset
FORMS = {CLASSIC: ("H", "HHI", "I"), BIG: ("Q", "HHQ", "Q")}
MAX_PAGES = 100_000
MAX_TAGS = 4096  # per page, as in tifffile
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: a smaller version of another page, a transparency mask
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# NewSubfileType, BitsPerSample, Compression, PhotometricInterpretation, SamplesPerPixel, ExtraSamples, SampleFormat
_READ = (254, 258, 259, 262, 277, 338, 339)
_NODATA = 42113  # of GDAL, as text
_GEOREFERENCES = (33922, 34264)  # ModelTiepoint, ModelTransformation
_COMPRESSIONS = {
    1: "uncompressed", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "deflate", 32773: "PackBits", 32946: "deflate",
    33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip


class TiffPage(NamedTuple):
    """Tags of a page in a TIFF file.

    Args:
        number: Index of the page in the file, from 0.
        tags: Values of the tags that describe the pixels.
        nodata: The value of pixels without data, if GDAL wrote one.
        is_georeferenced: Whether the position of the image on Earth is given.
    """

    number: int
    tags: dict[int, tuple[int, ...]]
    nodata: float | None = None
    is_georeferenced: bool = False

    @property
    def is_image(self) -> bool:
        """Whether the page is an image, not a smaller version or mask of another page."""
        return not self.tags.get(254, (0,))[0] & (_REDUCED | _MASK)

    @property
    def is_mask(self) -> bool:
        """Whether the page is the mask of an image in full size: its pixels of 0 have no data."""
        return self.tags.get(254, (0,))[0] & (_REDUCED | _MASK) == _MASK

    @property
    def bits(self) -> int:
        """Maximum number of bits per sample."""
        return max(self.tags.get(258, (1,)))

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return self.tags.get(277, (1,))[0]

    @property
    def is_float(self) -> bool:
        """Whether samples are floats."""
        return self.tags.get(339, (1,))[0] == 3

    @property
    def alpha(self) -> tuple[int, ...]:
        """Indices of the samples that hold transparency."""
        extra = self.tags.get(338, ())
        return tuple(self.samples - len(extra) + index for index, kind in enumerate(extra) if kind in (1, 2))

    @property
    def is_gray(self) -> bool:
        """Whether the first sample is gray, and 0 is black."""
        return self.tags.get(262, (0,))[0] == 1

    @property
    def is_palette(self) -> bool:
        """Whether samples are indices of colors."""
        return self.tags.get(262, (0,))[0] == 3

    @property
    def compression(self) -> str:
        """Name of the compression, or its number if the name is unknown."""
        number = self.tags.get(259, (1,))[0]
        return _COMPRESSIONS.get(number, f"compression {number}")


def is_tiff(file: BinaryIO) -> bool:
    """Whether a file starts with a TIFF signature. The file is rewound."""
    start = file.read(4)
    file.seek(0)
    return start[:2] in (b"II", b"MM") and start[2:] in (b"*\0", b"\0*", b"+\0", b"\0+")


def read_pages(source: str | os.PathLike[str] | BinaryIO, subject: object = "the file") -> list[TiffPage]:
    """Read the pages of a TIFF file without decoding; all pages and tags are within the file, and no page is repeated.

    Args:
        source: The file; an open file is rewound.
        subject: Name of the file in errors.

    Raises:
        ImageDecodeError: Not a TIFF file, pages linked in a cycle, tags beyond the end of the file, or too many pages.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return read_pages(file, subject)
    try:
        pages = list(_pages(source, subject))
    except struct.error as error:
        raise _broken(subject, f"a page table ends beyond the file: {error}") from error
    source.seek(0)
    if not pages:
        raise _broken(subject, "no pages")
    return pages


def _pages(file: BinaryIO, subject: object) -> Iterator[TiffPage]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order = ">" if head[:2] == b"MM" else "<"
    (version,) = struct.unpack_from(order + "H", head, 2)
    if head[:2] not in (b"II", b"MM") or version not in (CLASSIC, BIG):
        raise _broken(subject, "no TIFF header")
    count, entry, pointer = (struct.Struct(order + form) for form in FORMS[version])
    (offset,) = pointer.unpack_from(head, pointer.size)
    seen: set[int] = set()
    while offset:
        index = len(seen)
        if offset in seen:
            raise _broken(subject, f"page {index} leads back to an earlier page")
        if offset >= size or index >= MAX_PAGES:
            raise _broken(subject, f"page {index} lies beyond the end" if offset >= size else f"{index:,} pages")
        seen.add(offset)
        file.seek(offset)
        (tags,) = count.unpack(file.read(count.size))
        if tags > MAX_TAGS:
            raise _broken(subject, f"{tags:,} tags in page {index}")
        width = entry.size + pointer.size
        table = file.read(tags * width + pointer.size)
        values, nodata, georeferenced = {}, None, False
        for start in range(0, tags * width, width):
            code, kind, number = entry.unpack_from(table, start)
            length = number * _SIZES.get(kind, 1)
            data = table[start + entry.size : start + width]
            if length > pointer.size:
                (where,) = pointer.unpack(data)
                if where + length > size:
                    raise _broken(subject, f"tag {code} of page {index} ends beyond the file")
                if code in _READ or code == _NODATA:
                    file.seek(where)
                    data = file.read(min(length, 1024))
            if code in _READ and kind in _INTEGERS:
                one = struct.calcsize("=" + _INTEGERS[kind])
                values[code] = struct.unpack_from(f"{order}{min(number, len(data) // one)}{_INTEGERS[kind]}", data)
            if code == _NODATA:
                nodata = _number(data[:length])
            georeferenced |= code in _GEOREFERENCES
        yield TiffPage(index, {code: found for code, found in values.items() if found}, nodata, georeferenced)
        (offset,) = pointer.unpack_from(table, tags * width)


def mask_of(pages: Sequence[TiffPage]) -> int | None:
    """The number of the page that masks the only image of a file, as GDAL writes it; None without one."""
    masks = [page.number for page in pages if page.is_mask]
    return masks[0] if len(masks) == sum(page.is_image for page in pages) == 1 else None


def _number(text: bytes) -> float | None:
    try:
        return float(text.strip(b"\0 "))
    except ValueError:
        return None


def _broken(subject: object, found: str) -> ImageDecodeError:
    return ImageDecodeError(
        "broken TIFF file", subject=subject, found=found, hint="the file is damaged; download or save it again"
    )
