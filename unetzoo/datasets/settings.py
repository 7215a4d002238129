"""Validation of the settings of a `Transform`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..images.normalize import Normalize

# Settings that are numbers from 0 to the largest that makes sense.
LARGEST = {
    "hflip": 1, "vflip": 1, "rotate": 180, "elastic": 1e4, "brightness": 1, "contrast": 1, "saturation": 1, "hue": 180,
}  # fmt: skip

MOST_PIXELS = 2**28  # of a resized or cropped image: far above any use, and below what exhausts memory at once


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings out of range.

    Raises:
        ConfigError: With the range.
    """
    for name, top in LARGEST.items():
        if not isinstance(settings[name], int | float) or not 0 <= settings[name] <= top:
            raise wrong(name, settings[name], f"a number in 0…{top:g}")
    for name in ("rot90", "train"):
        if not isinstance(settings[name], bool):
            raise wrong(name, settings[name], "true or false")
    if not isinstance(settings["mirror"], int) or settings["mirror"] < 0:
        raise wrong("mirror", settings["mirror"], "a whole number ≥ 0")
    if settings["on"] not in ("loader", "device"):
        raise wrong("on", settings["on"], '"loader" or "device"')


def pair(name: str, value: int | Sequence[int] | None, subject: str = "Transform") -> tuple[int, int] | None:
    """A side, or (height, width), as the latter.

    Raises:
        ConfigError: Not such a size, or more pixels than images may have.
    """
    if value is None:
        return None
    if isinstance(value, int):
        sides: tuple[object, ...] = value, value
    else:
        sides = tuple(value) if isinstance(value, Sequence) else (value,)
    match sides:
        case (int(height), int(width)) if min(height, width) > 0:
            if height * width <= MOST_PIXELS:
                return height, width
            expected = f"at most {MOST_PIXELS:,} pixels"
            raise ConfigError(f"wrong {name}", subject=subject, expected=expected, found=f"{height:,}×{width:,}",
                              hint="sizes are in pixels, e.g. 256")  # fmt: skip
    raise wrong(name, value, "a side ≥ 1, or (height, width)", subject)


def span(name: str, value: Sequence[float] | None) -> tuple[float, float] | None:
    """(smallest, largest) factor."""
    match value:
        case None:
            return None
        case [int() | float() as low, int() | float() as high] if 0 < low <= high <= 100:
            return float(low), float(high)
    raise wrong(name, value, "(smallest, largest), above 0")


def statistics(value: Normalize) -> Normalize:
    """The setting `normalize` in one form."""
    if value in ("unit", "minmax", "standard"):
        return value
    if isinstance(value, Mapping) and set(value) == {"mean", "std"}:
        try:
            stats = {key: tuple(map(float, np.atleast_1d(value[key]))) for key in ("mean", "std")}
        except (TypeError, ValueError):
            stats = {"mean": (), "std": ()}
        if len(stats["mean"]) == len(stats["std"]) and min(stats["std"], default=0) > 0:
            return stats
    raise wrong("normalize", value, '"unit", "minmax", "standard" or {"mean": […], "std": […]} with std > 0')


def wrong(name: str, found: object, expected: str, subject: str = "Transform") -> ConfigError:
    """The error for an invalid setting."""
    return ConfigError(f"wrong {name}", subject=subject, expected=expected, found=repr(found), hint=f"give {expected}")
