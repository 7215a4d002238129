"""Windows of images too large for memory: TIFF and `.npy` files and anything that can be sliced.

A window of a TIFF file has the pixels that `read_image` gives for the same file: structure and color model are read
from the same tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import ConfigError, DataError, ImageDecodeError
from .array_source import ArraySource, ImageSource, Sliced, unreadable
from .decode import PathLike
from .percentiles import percentiles
from .pixels import FULL_SCALE, Pairs, Pixels, scaled
from .tiff_source import open_tiff

SUFFIXES = {".npy": "NumPy", ".tif": "TIFF", ".tiff": "TIFF"}


class ScaledSource(ImageSource):
    """An image whose values are mapped to 0…1.

    Args:
        stored: The image.
        limits: The values that become 0 and 1.
    """

    def __init__(self, stored: ImageSource, limits: Pairs) -> None:
        super().__init__(stored.name, stored.shape, np.float32)
        self.stored, self.limits = stored, limits
        self.cache, self.cache_bytes = stored.cache, stored.cache_bytes

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """See `ImageSource.read`."""
        values = self.stored.read(top, bottom, left, right)
        image, missing = scaled(values, self.limits), self.stored.missing(values, top, left)
        if missing is not None:
            image[missing] = 0
        return image

    def parts(self) -> Iterator[tuple[int, int, int, int]]:
        """See `ImageSource.parts`."""
        return self.stored.parts()

    @property
    def has_gaps(self) -> bool:
        """See `ImageSource.has_gaps`."""
        return self.stored.has_gaps

    def missing(self, values: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray | None:
        """See `ImageSource.missing`."""
        height, width = values.shape[:2]
        return self.stored.missing(self.stored.read(top, top + height, left, left + width), top, left)


@contextmanager
def open_source(source: PathLike | Sliced, channels: int | Pixels | None = None) -> Iterator[ImageSource]:
    """Open an image for reading windows.

    Args:
        source: A tiled TIFF file, a `.npy` file, or an array (H, W) or (H, W, C) with `shape`, `dtype` and slicing.
        channels: A `Pixels`, to read the declared channels and map their range to 0…1; or the input channels of the
            network, to convert the colors of a TIFF file.

    Raises:
        ImageDecodeError: Missing, broken or truncated.
        DataError: Another format; several images; other channels; a type or layout that cannot be read in windows.

    Examples:
        >>> with open_source(np.arange(12, dtype=np.uint8).reshape(3, 4)) as image:
        ...     image.shape, image.read(1, 3, 0, 2)[..., 0].tolist()
        ((3, 4, 1), [[4, 5], [8, 9]])
        >>> with open_source(np.array([[0, 2048, 4095]], np.uint16), Pixels(1, range=[0, 4096])) as image:
        ...     image.dtype, image.read(0, 1, 1, 2).item()
        (dtype('float32'), 0.5)
    """
    pixels = channels if isinstance(channels, Pixels | None) else Pixels(channels)
    if pixels is not None and pixels.files:
        raise ConfigError(
            "channels in separate files cannot be read in windows",
            subject=source,
            hint="save the channels as one TIFF file, or use unetzoo.predict if the image fits into memory",
        )
    with _opened(source, pixels, selects=isinstance(channels, Pixels)) as image:
        if pixels is None or pixels.range is None:
            if image.dtype.kind != "f" and image.dtype.name not in FULL_SCALE:
                raise DataError(
                    "integers of unknown full scale",
                    subject=image.name,
                    expected="uint8, uint16, bool or floats",
                    found=image.dtype,
                    hint="declare the range of values in training, e.g. range=[0, 4095]",
                )
            yield image
        else:
            if pixels.range == "image":
                limits = percentiles(lambda: image.blocks(with_data=True))
            else:
                limits = pixels.limits(image.dtype, image.bits, image.name)
            yield ScaledSource(image, limits)


@contextmanager
def _opened(source: PathLike | Sliced, pixels: Pixels | None, *, selects: bool) -> Iterator[ImageSource]:
    """Open an image whose values are as stored; `selects`: whether `pixels` also applies to arrays."""
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
            yield ArraySource(_memory_map(path), path, pixels if selects else None)
        else:
            with open_tiff(path, pixels) as image:
                image.check_windows()
                yield image
    elif isinstance(source, Tensor) or not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
        raise DataError(
            "not an image source",
            found=type(source).__name__,
            expected="a path, or an array (H, W[, C]) that can be sliced",
            hint="tensors are for unetzoo.predict" if isinstance(source, Tensor) else None,
        )
    else:
        yield ArraySource(source, f"the {type(source).__name__}", pixels if selects else None)


def _memory_map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a broken header raises anything
        raise unreadable(path, error) from error
