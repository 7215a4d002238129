"""Listing of folders, with errors converted to `DataError`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, UnsupportedImageError
from ..images import Pixels
from ..images.decode import has_image_suffix
from ..images.inspection import faults_of
from .files import PathLike

SHOWN = 20  # maximum number of faults listed in an error


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key that orders 2 before 10.

    Examples:
        >>> sorted(["10", "2", "b1"], key=natural_key)
        ['2', '10', 'b1']
    """
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part
    ), name


def list_images(folder: PathLike, how_to_get: str = "") -> list[Path]:
    """Return the image files of a folder in natural order, without hidden files.

    Raises:
        DataError: The folder is missing, unreadable or contains no images.
    """
    folder = Path(folder)
    found = sorted(list_folder(folder, how_to_get), key=lambda path: natural_key(path.name))
    images = [path for path in found if has_image_suffix(path) and path.is_file()]
    if not images:
        raise DataError(
            "no images in the folder", subject=folder, expected="image files", found=shown(p.name for p in found),
            hint=how_to_get or "check the path",
        )  # fmt: skip
    return images


def check_pixels(paths: Sequence[PathLike], pixels: Pixels, subject: object) -> None:
    """Check the headers of images against the declared channels and range.

    Raises:
        UnsupportedImageError: Files with other channels, or of mixed data types, all in one error.
    """
    faults = faults_of(paths, pixels)
    if faults:
        expected = f"{pixels.channels} channel{'s' * (pixels.channels != 1)}" + (
            " of 8 bits" if pixels.range is None else " of one data type"
        )
        raise UnsupportedImageError(
            "images that differ in channels or data type", subject=subject, expected=expected, found=summary(faults),
            hint="declare channels, bands and range of the images, or convert the named files",
        )  # fmt: skip


def list_folder(folder: PathLike, how_to_get: str = "") -> list[Path]:
    """Return the contents of a folder.

    Raises:
        DataError: The folder is missing, unreadable or not a folder.
    """
    folder = Path(folder)
    hint = how_to_get or "check the path"
    try:
        return list(folder.iterdir())
    except FileNotFoundError as error:
        raise DataError("no such folder", subject=folder, hint=hint) from error
    except NotADirectoryError as error:
        raise DataError("not a folder", subject=folder, hint=hint) from error
    except OSError as error:
        raise DataError(
            "unreadable folder", subject=folder, found=error.strerror, hint="change its permissions"
        ) from error


def shown(names: Iterable[str]) -> str:
    """Join the first names as text, or return "nothing"."""
    names = list(names)
    return ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "") if names else "nothing"


def summary(faults: Sequence[str]) -> str:
    """Format the number of faults and the first ones, one per line."""
    more = [f"… and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n  ".join([f"{len(faults)} fault{'s' * (len(faults) != 1)}", *faults[:SHOWN], *more])
