"""Which channels of image files are read, and which range of their values is mapped to 0…1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError, UnsupportedImageError, did_you_mean

Pairs = tuple[tuple[float, float], ...]
Range = Literal["dtype", "percentile", "image"] | Pairs
FULL_SCALE = {"bool": 1.0, "uint8": 255.0, "uint16": 65535.0}  # of images in arrays, without a declared range
AXES = ("x", "y", "z")
NAMED_RANGES = ("dtype", "percentile", "image")


@dataclass(frozen=True)
class Pixels:
    """The channels and the range of values of image files, as declared by the user.

    The default reads 8-bit images as RGB. 3 channels are RGB (gray is repeated) and 1 channel is gray (RGB becomes its
    luminance) for files of 8 bits per channel. In all other cases the stored channels are read without conversion, and
    their number must match.

    Args:
        channels: Number of channels; by default that of `bands` or `files`, or 3.
        bands: The channels of the file that are read, in this order, counted from 1 as in GDAL and rasterio. A channel
            may be repeated: `[1, 1, 1]` makes three channels of a gray image.
        range: The values that become 0 and 1; values outside are clipped. Required for files of more than 8 bits.
            [low, high], or one pair per channel; "dtype": the smallest and largest value of the file's data type (0 and
            1 for floats); "image": the 0.1 and 99.9 percentiles of each channel of each image; "percentile": the same
            percentiles of all images of a dataset, which `unetzoo stats` computes. If None, images have 8 bits.
        files: If each channel is in a file of its own: the ending of the stem of each file, e.g. `["_red", "_nir"]`, or
            a format of the number of the channel from 0, e.g. `"_{:04d}"`.
        axis: If files are volumes (NIfTI, or TIFF whose pages are slices): the axis along which they are cut into
            images, "x", "y" or "z". TIFF files can only be cut along "z".

    Raises:
        ConfigError: Invalid or inconsistent values.

    Examples:
        >>> Pixels(bands=[3, 2, 1, 7], range=[0, 4095])
        Pixels(channels=4, bands=(3, 2, 1, 7), range=((0.0, 4095.0),), files=(), axis=None)
        >>> Pixels(2, files="_{:04d}").files
        ('_0000', '_0001')
    """

    channels: Any = None  # an integer once it is built
    bands: Sequence[int] | None = None
    range: Any = None
    files: Sequence[str] = ()
    axis: str | None = None

    def __post_init__(self) -> None:
        bands = None if self.bands is None else _bands(self.bands)
        files = _files(self.files, self.channels)
        counts = {len(given) for given in (bands, files) if given} or {3 if self.channels is None else self.channels}
        channels = next(iter(counts)) if self.channels is None else self.channels
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise _wrong("channels", channels, "a whole number ≥ 1")
        if counts != {channels}:
            raise _wrong("channels", channels, f"{counts.pop()}, the number of {'bands' if bands else 'files'}")
        if bands and files:
            raise _wrong("bands", list(bands), "no bands if each channel is in a file of its own")
        if self.axis is not None:
            check_axis(self.axis)
        for name, value in {"channels": channels, "bands": bands, "files": files}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "range", None if self.range is None else _range(self.range, channels))

    @property
    def converts_colors(self) -> bool:
        """Whether 8-bit images are converted to gray or RGB."""
        return self.channels in (1, 3) and not self.bands and not self.files

    @property
    def per_file(self) -> int:
        """Number of channels in each file."""
        return 1 if self.files else self.channels

    def kept(self, stored: int, alpha: Sequence[int] = (), bits: int = 8, subject: object = None) -> list[int] | None:
        """Indices of the declared channels among those of a file; None for all.

        Args:
            stored: Number of channels of the file.
            alpha: Those that hold transparency; they are dropped if the others are the declared number.
            bits: Bits per channel, for errors.
            subject: Name of the file, for errors.

        Raises:
            UnsupportedImageError: The file has another number of channels.
        """
        visible = [index for index in np.arange(stored).tolist() if index not in alpha]
        if self.bands:
            if max(self.bands) <= stored:
                return [band - 1 for band in self.bands]
            expected, hint = f"bands {', '.join(map(str, self.bands))}", "bands are counted from 1"
        elif self.per_file in (stored, len(visible)):
            return None if self.per_file == stored else visible
        else:
            expected = f"{self.per_file} channel{'s' * (self.per_file != 1)}"
            bands = [1] * self.per_file if stored == 1 else list(np.arange(1, min(stored, self.per_file) + 1).tolist())
            hint = f"declare channels={stored}, or the channels to read, e.g. bands={bands}"
        found = f"{stored} channel{'s' * (stored != 1)} of {bits} bits"
        raise UnsupportedImageError(
            "the image has other channels", subject=subject, expected=expected, found=found, hint=hint
        )

    def limits(self, dtype: np.dtype, bits: int, subject: object = None) -> Pairs:
        """The values that become 0 and 1, for a declared range or that of a data type.

        Args:
            dtype: The data type of the file.
            bits: Bits per channel in the file.
            subject: Name of the file, for errors.

        Raises:
            ConfigError: The range depends on the images.
            UnsupportedImageError: A file of 8 bits, and the range is that of more.
        """
        if isinstance(self.range, tuple):
            highest = max(high for _, high in self.range)
            if dtype == np.uint8 and highest > 255:
                raise UnsupportedImageError(
                    "the range is that of images with more bits", subject=subject, expected=f"values up to {highest:g}",
                    found="8 bits", hint="convert the image to the type of the others, or declare its own range",
                )  # fmt: skip
            return self.range
        if self.range != "dtype":
            raise ConfigError(
                "the range of the dataset has not been computed", subject="range", expected="[low, high]",
                found=repr(self.range), hint="run `unetzoo stats` with the same options, and use the range it prints",
            )  # fmt: skip
        if dtype.kind == "f":
            return ((0.0, 1.0),)
        low = -(2.0 ** (bits - 1)) if dtype.kind == "i" else 0.0
        return ((low, low + 2.0**bits - 1),)

    def to_dict(self) -> dict[str, Any]:
        """The declaration as a JSON-serializable dict."""
        pairs = self.range
        return {
            "channels": self.channels,
            "bands": list(self.bands) if self.bands else None,
            "range": [list(pair) for pair in pairs] if isinstance(pairs, tuple) else pairs,
            "files": list(self.files),
            "axis": self.axis,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pixels:
        """Create an instance from the output of `to_dict`, or from a part of it.

        Raises:
            ConfigError: Unknown keys, or as for the class.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown key {key!r}", subject="pixels", hint=did_you_mean(key, known, "key"))
        return cls(**values)


def check_axis(axis: Any) -> None:
    """Check the name of an axis.

    Raises:
        ConfigError: It is unknown.
    """
    if axis not in AXES:
        raise _wrong("axis", axis, " | ".join(AXES))


def scaled(values: np.ndarray, limits: Pairs) -> np.ndarray:
    """Map values (H, W, C) to float32 in 0…1; values outside the limits are clipped, and NaN becomes 0.

    Examples:
        >>> scaled(np.array([[[0], [1000], [5000]]], np.uint16), ((0, 4000),)).ravel().tolist()
        [0.0, 0.25, 1.0]
    """
    with np.errstate(all="ignore"):  # NaN and infinity in files of floats
        result = values.astype(np.float32, order="C")
        parts = [result] if len(limits) == 1 else [result[..., channel] for channel in np.arange(len(limits))]
        for part, (low, high) in zip(parts, limits, strict=True):  # scalars: broadcasting over few channels is slow
            if low:
                part -= np.float32(low)
            part *= np.float32(1 / (high - low))
        np.clip(result, np.float32(0), np.float32(1), out=result)
    if values.dtype.kind == "f":
        np.nan_to_num(result, copy=False, nan=0.0)
    return result


def clipped_share(values: np.ndarray, limits: Pairs) -> float:
    """The share of values (H, W, C) outside the limits, in the channel with most of them.

    Examples:
        >>> clipped_share(np.array([[[0], [10], [20], [30]]]), ((0, 25),))
        0.25
    """
    low, high = np.array(limits, np.float64).T
    outside = (values < low) | (values > high)
    return float(outside.mean((0, 1)).max())


def _bands(bands: Any) -> tuple[int, ...]:
    whole = isinstance(bands, Sequence) and not isinstance(bands, str) and len(bands) > 0
    if not whole or not all(isinstance(band, int) and not isinstance(band, bool) and band > 0 for band in bands):
        raise _wrong("bands", bands, "a list of numbers of channels, counted from 1")
    return tuple(bands)


def _files(files: Any, channels: int | None) -> tuple[str, ...]:
    if isinstance(files, str):
        try:
            files = [files.format(index) for index in np.arange(channels or 3).tolist()]
        except (ValueError, IndexError, KeyError, AttributeError):
            raise _wrong("files", files, 'a format of the number of a channel, such as "_{:04d}"') from None
    if not isinstance(files, Sequence) or not all(isinstance(ending, str) for ending in files):
        raise _wrong("files", files, "the ending of the stem of each channel's file")
    if len(set(files)) < len(files):
        raise _wrong("files", files, "a different ending for each channel")
    return tuple(files)


def _range(value: Any, channels: int) -> Range:
    if isinstance(value, str):
        if value in NAMED_RANGES:
            return value  # pyright: ignore[reportReturnType]
    elif isinstance(value, Sequence) and value:
        pairs = [value] if isinstance(value[0], int | float) else value
        try:
            found = tuple((float(low), float(high)) for low, high in pairs)
        except (TypeError, ValueError):
            found = ()
        if len(found) in (1, channels) and all(-np.inf < low < high < np.inf for low, high in found):
            return found
    raise _wrong(
        "range", value, f'[low, high], one such pair per channel ({channels}), "dtype", "percentile" or "image"'
    )


def _wrong(name: str, found: object, expected: str) -> ConfigError:
    return ConfigError(f"wrong {name}", expected=expected, found=repr(found), hint=f"give {expected}")
