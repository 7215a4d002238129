"""Images that are read in windows: the interface, and memory maps and other arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from ..errors import ImageDecodeError, InputShapeError
from .pixels import Pixels

BLOCK = 2**24  # values that are read at once from an array for statistics


class Sliced(Protocol):
    """An array that can be sliced, such as a memory map or an array of zarr or h5py."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C)."""
        ...

    @property
    def dtype(self) -> Any:
        """Data type."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """A slice."""
        ...


class ImageSource:
    """An image (H, W, C) that is read in windows.

    Args:
        name: Its name in errors.
        shape: (H, W) or (H, W, C).
        dtype: Data type.

    Raises:
        InputShapeError: Wrong number of dimensions, or an empty image.
    """

    def __init__(self, name: object, shape: tuple[int, ...], dtype: Any) -> None:
        if len(shape) not in (2, 3):
            raise InputShapeError("not a single image", subject=name, expected="(H, W) or (H, W, C)", found=shape)
        self.name, self.dtype = name, np.dtype(dtype)
        self.bits = self.dtype.itemsize * 8  # per channel
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]) if len(shape) == 3 else 1)
        if min(self.shape) < 1:
            raise InputShapeError("an empty image", subject=name, found=shape, hint="save it again")

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """A window (h, w, C).

        Raises:
            ImageDecodeError: It cannot be read.
        """
        raise NotImplementedError

    @property
    def has_gaps(self) -> bool:
        """Whether the file declares a value or a mask for missing data."""
        return False

    def missing(self, values: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray | None:
        """Find out where a window that was read has no data.

        Args:
            values: The window.
            top: Its first row.
            left: Its first column.

        Shape:
            Returns bool (h, w); None if the file does not declare a value or mask for missing data.
        """
        return None

    def parts(self) -> Iterator[tuple[int, int, int, int]]:
        """Iterate over windows (top, bottom, left, right) that divide the image, so that each is decoded once."""
        raise NotImplementedError

    def blocks(self, *, with_data: bool = False) -> Iterator[np.ndarray]:
        """Iterate over the whole image, decoding each part once.

        Args:
            with_data: Yield only pixels that have data, as (N, C).
        """
        for top, bottom, left, right in self.parts():
            values = self.read(top, bottom, left, right)
            missing = self.missing(values, top, left) if with_data else None
            yield values if missing is None else values[~missing]

    def cache_bytes(self, rows: int) -> int:
        """Memory used by the cache while a row of windows of this height is read."""
        return 0

    def cache(self, rows: int) -> None:
        """Cache what neighboring windows of this height share."""


class ArraySource(ImageSource):
    """An image in an array.

    Args:
        values: The image.
        name: Its name in errors.
        pixels: The channels that are read; all by default.

    Raises:
        UnsupportedImageError: Other channels.
    """

    def __init__(self, values: Sliced, name: object, pixels: Pixels | None = None) -> None:
        super().__init__(name, tuple(values.shape), values.dtype)
        self.values, self.kept = values, None
        if pixels is not None:
            self.kept = pixels.kept(self.shape[2], (), self.bits, name)
            self.shape = (*self.shape[:2], pixels.channels)

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """See `ImageSource.read`."""
        try:
            part = np.asarray(self.values[top:bottom, left:right])
        except Exception as error:  # of any library
            raise unreadable(self.name, error) from error
        part = part if part.ndim == 3 else part[..., None]
        return part if self.kept is None else part[..., self.kept]

    def parts(self) -> Iterator[tuple[int, int, int, int]]:
        """See `ImageSource.parts`."""
        height, width, channels = self.shape
        tall, wide = _chunk(self.values)  # whole chunks, so that each is decoded once
        columns = max(BLOCK // (tall * channels) // wide, 1) * wide
        rows = max(BLOCK // (min(columns, width) * channels) // tall, 1) * tall
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                yield top, min(top + rows, height), left, min(left + columns, width)


def _chunk(values: Sliced) -> tuple[int, int]:
    """Height and width of the chunks of an array of zarr or h5py; 1 for other arrays."""
    match getattr(values, "chunks", None):
        case (int(tall), int(wide), *_) if tall > 0 and wide > 0:
            return tall, wide
    return 1, 1


def unreadable(name: object, error: object) -> ImageDecodeError:
    """The error for an image that cannot be decoded."""
    found = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
    hint = "the file is damaged; download or save it again"
    if "imagecodecs" in str(error):
        hint = "install the package imagecodecs, which decodes this compression: pip install 'unetzoo[tiff]'"
    return ImageDecodeError("unreadable image", subject=name, found=found, hint=hint)
