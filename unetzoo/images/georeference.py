"""Georeferences of GeoTIFF files: the position of an image on Earth, which is kept in predictions.

Source:
    OGC 19-008r4, "OGC GeoTIFF Standard", sections 7.1 and B.6; the value of missing data is GDAL's tag 42113.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .decode import PathLike, our_errors
from .tiff import is_tiff, read_pages

_SCALE, _TIEPOINTS, _TRANSFORMATION, _KEYS = 33550, 33922, 34264, 34735
TAGS = (_SCALE, _TIEPOINTS, _TRANSFORMATION, _KEYS, 34736, 34737)  # the last two hold numbers and texts of keys
NODATA = 42113
_PROJECTED, _GEOGRAPHIC, _USER_DEFINED = 3072, 2048, 32767  # keys with an EPSG code, and the code of none
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2

Tag = tuple[int, int, int, Any]


@dataclass(frozen=True)
class Georeference:
    """The tags that describe the coordinate system and position of an image.

    Args:
        tags: Code, data type, count and value of each tag.
        size: Height and width of the image.
    """

    tags: tuple[Tag, ...]
    size: tuple[int, int]

    @classmethod
    def of(cls, path: PathLike) -> Georeference | None:
        """Read the georeference of a file; None if it has none or is no TIFF file.

        Raises:
            ImageDecodeError: Missing or damaged.
        """
        subject = os.fspath(path)
        with our_errors(subject), open(path, "rb") as file:
            if not is_tiff(file):
                return None
            image = next((page for page in read_pages(file, subject) if page.is_image), None)
            if image is None or not image.is_georeferenced:
                return None
            import tifffile

            page: Any = tifffile.TiffFile(file, _multifile=False).pages[image.number]
            found = (page.tags.get(code) for code in TAGS)
            tags = tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in found if tag is not None)
            place = cls(tags, (int(page.imagelength), int(page.imagewidth)))
            place.difference(place)  # fails if values are not numbers
            return place

    def to_write(self, nodata: float | None = None) -> list[tuple[int, int, int, Any, bool]]:
        """Argument `extratags` of tifffile, for an image of the same size.

        Args:
            nodata: The value of pixels without data, if there are any.
        """
        tags = [(*tag, True) for tag in self.tags]
        return tags if nodata is None else [*tags, nodata_tag(nodata)]

    @property
    def system(self) -> str:
        """The coordinate system: its EPSG code, or its description."""
        keys = self._value(_KEYS) or ()
        entries = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
        codes = [
            entries[code] for code in (_PROJECTED, _GEOGRAPHIC) if entries.get(code, _USER_DEFINED) != _USER_DEFINED
        ]
        text = str(self._value(34737) or "").split("|")[0]
        return f"EPSG:{codes[0]}" if codes else text or "unknown"

    @property
    def matrix(self) -> np.ndarray | None:
        """Matrix (2, 3) from (column, row, 1) of a corner of a pixel to x and y; None if it is unknown."""
        whole, scale, ties = (self._value(code) for code in (_TRANSFORMATION, _SCALE, _TIEPOINTS))
        if whole is not None and len(whole) == 16:
            found = np.array([[whole[0], whole[1], whole[3]], [whole[4], whole[5], whole[7]]], np.float64)
        elif scale is not None and ties is not None and len(scale) >= 2 and len(ties) >= 6:
            column, row, _, x, y, _ = ties[:6]
            found = np.array([[scale[0], 0, x - column * scale[0]], [0, -scale[1], y + row * scale[1]]], np.float64)
        else:
            return None
        keys = self._value(_KEYS) or ()
        if any(keys[i] == _RASTER_TYPE and keys[i + 3] == _PIXEL_IS_POINT for i in range(4, len(keys) - 3, 4)):
            found[:, 2] -= found[:, :2].sum(1) / 2
        return found if np.isfinite(found).all() else None

    def difference(self, other: Georeference) -> str:
        """How the ground that two images cover differs; "" if it is the same to half a pixel."""
        if self.system != other.system:
            return f"coordinate systems {self.system} and {other.system}"
        first, second = self.matrix, other.matrix
        if first is None or second is None:
            return ""
        corners = [
            np.outer(across, (0, width, 0, width)) + np.outer(down, (0, 0, height, height)) + start[:, None]
            for (across, down, start), (height, width) in ((first.T, self.size), (second.T, other.size))
        ]
        pixel = abs(first[0, 0] * first[1, 1] - first[0, 1] * first[1, 0]) ** 0.5 or 1.0
        apart = float(np.abs(corners[0] - corners[1]).max()) / pixel
        return "" if apart < 0.5 else f"corners up to {apart:,.1f} pixels apart"

    def _value(self, code: int) -> Any:
        return next((tag[3] for tag in self.tags if tag[0] == code), None)


def nodata_tag(value: float) -> tuple[int, int, int, Any, bool]:
    """GDAL's tag of the value of pixels without data, for `extratags` of tifffile."""
    return NODATA, 2, 0, f"{value:g}", True
