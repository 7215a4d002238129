"""Finding files: folders, stems and pairs, with all faults told together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, PairingError
from .files import PathLike

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"})
SHOWN = 20  # faults listed before only their count is told


def natural_key(name: str) -> tuple[Any, ...]:
    """Sorts 2 before 10.

    Examples:
        >>> sorted(["10", "2", "b1"], key=natural_key)
        ['2', '10', 'b1']
    """
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part
    ), name


def list_images(folder: PathLike, how_to_get: str = "") -> list[Path]:
    """The image files of a folder in natural order; hidden files are passed over.

    Raises:
        DataError: The folder is missing, unreadable or holds no image.
    """
    folder = Path(folder)
    found = sorted(list_folder(folder, how_to_get), key=lambda path: natural_key(path.name))
    images = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()]
    if not images:
        raise DataError(
            "no images in the folder", subject=folder, expected="image files", found=shown(p.name for p in found),
            hint=how_to_get or "check the path",
        )  # fmt: skip
    return images


def list_folder(folder: PathLike, how_to_get: str = "") -> list[Path]:
    """What lies in a folder.

    Raises:
        DataError: It is missing, unreadable or no folder.
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
    """The first names of a folder, or "nothing"."""
    names = list(names)
    return ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "") if names else "nothing"


def pair_by_stem(
    images: PathLike, masks: PathLike, *, mask_suffix: str = "", how_to_get: str = ""
) -> list[tuple[str, Path, Path]]:
    """(stem, image, mask) for every image of two folders, in natural order.

    Args:
        images: The folder of images.
        masks: The folder of masks.
        mask_suffix: What a mask's stem has beyond its image's ("_mask").
        how_to_get: The dataset's hint for missing folders.

    Raises:
        DataError: A missing or empty folder.
        PairingError: Images without masks, masks without images, stems borne twice: all together.
    """
    faults: list[str] = []
    sides: list[dict[str, Path]] = []
    for folder, suffix in ((images, ""), (masks, mask_suffix)):
        by_stem: dict[str, Path] = {}
        for path in list_images(folder, how_to_get):
            if suffix and not path.stem.endswith(suffix):
                faults.append(f"{path} lacks the suffix {suffix!r}")
                continue
            stem = path.stem.removesuffix(suffix)
            if stem in by_stem:
                faults.append(f"{by_stem[stem]} and {path.name} share a stem")
            by_stem.setdefault(stem, path)
        sides.append(by_stem)
    by_stem, labels = sides
    faults += [f"{path} has no mask" for stem, path in by_stem.items() if stem not in labels]
    faults += [f"{path} has no image" for stem, path in labels.items() if stem not in by_stem]
    if faults:
        raise PairingError(
            "images and masks do not pair",
            subject=f"{images} and {masks}",
            expected="one mask of the same stem for each image",
            found=summary(faults),
            hint="add or remove the named files",
        )
    return [(stem, path, labels[stem]) for stem, path in by_stem.items()]


def summary(faults: Sequence[str]) -> str:
    """The first faults, one a line, and how many there are."""
    more = [f"… and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n  ".join([f"{len(faults)} fault{'s' * (len(faults) != 1)}", *faults[:SHOWN], *more])
