"""What image files hold, from their headers; many files are checked at once, before any is decoded."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ImageDecodeError, UnsupportedImageError
from .decode import PathLike, bits_of, open_image, our_errors
from .pixels import Pixels
from .reading import array_kind, channel_files
from .tiff import is_tiff, read_pages
from .volumes import is_nifti, nifti_header


class Kind(NamedTuple):
    """Number and type of the channels of a file.

    Args:
        channels: Number of stored channels, or of pages with one channel each.
        bits: Bits per channel.
        floats: Whether they are floats.
        alpha: Indices of channels that hold transparency.
    """

    channels: int
    bits: int
    floats: bool = False
    alpha: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.channels} channel{'s' * (self.channels != 1)} of {self.type}"

    @property
    def type(self) -> str:
        """The type of the values, without the number of channels."""
        return f"float{self.bits}" if self.floats else f"{max(self.bits, 8)} bits"


def kind_of(path: PathLike, *, volume: bool = False) -> Kind:
    """Read the header of an image file.

    Args:
        path: The file.
        volume: Whether the pages of a TIFF file are slices.

    Raises:
        ImageDecodeError: Missing or damaged.
    """
    subject = os.fspath(path)
    if is_nifti(path):
        found = nifti_header(path)
        return Kind(found.shape[3], found.dtype.itemsize * 8, found.dtype.kind == "f")
    with our_errors(subject), open(path, "rb") as file:
        array = array_kind(file, subject)
        if array is not None:
            shape, dtype = array
            return Kind(1 if len(shape) == 2 else shape[2], dtype.itemsize * 8, dtype.kind == "f")
        if is_tiff(file):
            pages = [page for page in read_pages(file, subject) if page.is_image]
            page = pages[0]
            channels = page.samples if len(pages) == 1 or volume else len(pages)
            if channels < 1:
                raise ValueError("an image without channels")
            return Kind(channels, page.bits, page.is_float, page.alpha)
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded here
            image, _ = open_image(file, subject)
        channels = {"P": 3, "1": 1}.get(image.mode, len(image.getbands()))
        return Kind(channels, bits_of(image), image.mode == "F", (channels - 1,) if channels in (2, 4) else ())


def faults_of(paths: Sequence[PathLike], pixels: Pixels) -> list[str]:
    """Files that do not have the declared channels, or another data type than most of the others.

    Images of 8 bits that are converted to gray or RGB are not checked.
    """
    if pixels.converts_colors and pixels.range is None:
        return []
    kinds: dict[str, Kind] = {}
    faults: dict[str, str] = {}
    for path in (os.fspath(file) for first in paths for file in channel_files(first, pixels)):
        try:
            kind = kinds[path] = kind_of(path, volume=pixels.axis is not None)
            if not (pixels.converts_colors and kind.bits <= 8):
                pixels.kept(kind.channels, kind.alpha, kind.bits, path)
            if pixels.range is None and (kind.bits > 8 or kind.floats):
                faults[path] = f"{path}: {kind}, and no range is declared"
        except UnsupportedImageError as error:
            faults[path] = f"{path}: expected {error.expected}, found {error.found}"
        except ImageDecodeError as error:
            faults[path] = f"{path}: {error.what}"
    usual = Counter(kind.type for kind in kinds.values()).most_common(1)
    for path, kind in kinds.items():
        if kind.type != usual[0][0]:
            faults.setdefault(path, f"{path}: {kind.type}, others have {usual[0][0]}")
    return list(faults.values())
