"""Reading stored depth values from image files."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from ..errors import ConfigError, ImageDecodeError
from ..images.decode import PathLike, check_bits, opened

_GRAYS = {"L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
_SHOWN_AS_COLORS = {"RGB", "P", "1"}


def read_depth(path: PathLike, scale: float | None = None) -> np.ndarray:
    """Decode a depth file, upright by its EXIF orientation.

    Args:
        path: A gray PNG, TIFF, JPEG, BMP, GIF or WebP of 8 or 16 bits, a TIFF of float32 or int32, or a gray image
            saved as RGB with three equal channels. The caller decides which values mean "not measured".
        scale: Value of one unit of the file, e.g. 0.001 to convert millimeters to meters. By default 8 bits are divided
            by 255, 16 bits by 65,535, and float values are unchanged.

    Shape:
        Returns float32 (H, W).

    Raises:
        ConfigError: A scale that is not a positive number.
        ImageDecodeError: Broken, missing, several frames, colors or transparency; int32 values without a scale.
        ImageTooLargeError: More pixels than Pillow's limit against decompression bombs.

    Examples:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/depth.png"
        >>> Image.fromarray(np.array([[0, 1500]], np.uint16)).save(path)
        >>> read_depth(path, scale=0.001).tolist()
        [[0.0, 1.5]]
    """
    check_scale(scale)
    with opened(path, first_frame=True) as found:
        if found.image.mode not in _GRAYS:
            check_bits(found, os.fspath(path))  # Pillow drops the low bytes of 16-bit colors
        values = _numbers(found.image, os.fspath(path))
    if scale is None:
        scale = {"u1": 1 / 255, "u2": 1 / 65535, "f4": 1.0}.get(values.dtype.str[1:])
        if scale is None:
            raise ImageDecodeError("depth of unknown scale", subject=os.fspath(path), expected="8 or 16 bits, or float",
                                   found="32 bit integers", hint="set scale to the value of one unit")  # fmt: skip
    return (values * scale).astype(np.float32)


def check_scale(scale: float | None) -> None:
    """Check the value of a unit.

    Raises:
        ConfigError: Not a positive number.
    """
    if scale is not None and not 0 < scale < np.inf:
        raise ConfigError("wrong scale of depth", expected="a positive number", found=scale, hint="try 0.001")


def _numbers(image: Image.Image, subject: str) -> np.ndarray:
    """The stored values (H, W) of a gray image in any mode."""
    found = f"mode {image.mode}"
    if image.mode in _GRAYS:
        return np.asarray(image)
    if image.mode in _SHOWN_AS_COLORS and "transparency" not in image.info:
        channels = np.asarray(image.convert("RGB"))
        if (channels == channels[..., :1]).all():
            return channels[..., 0]
        found = "colors"
    raise ImageDecodeError("not a depth file", subject=subject, expected="one value per pixel (gray or equal channels)",
                           found=found, hint="save depth as gray PNG of 8 or 16 bits, or as float TIFF")  # fmt: skip
