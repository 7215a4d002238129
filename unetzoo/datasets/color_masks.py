"""Masks in which each class has a color, and files that declare these colors."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError, ImageDecodeError, LabelRangeError
from ..images.decode import Opened, PathLike, check_bits, opened
from ..labels import Color, LabelSpec, color_of
from .files import LOSSY
from .listing import summary
from .table import read_table

COLOR_FILES = ("labelmap.txt", "classes.csv", "class_dict.csv")
COLOR_MODES = {"RGB", "RGBA", "P", "PA", "L", "LA", "1"}
_LARGEST_FILE = 2**20
_SHOWN = 10


def read_color_mask(path: PathLike, labels: LabelSpec, *, ignore_unknown: bool = False) -> np.ndarray:
    """Decode a mask of colors to class indices.

    The displayed color counts: that of the palette in a palette image, and (v, v, v) for a gray v. Transparency is
    ignored.

    Args:
        path: A lossless file of at most 8 bits per channel.
        labels: The colors of the classes, see `LabelSpec.from_colors`.
        ignore_unknown: Whether pixels of other colors become `labels.ignore_index`.

    Shape:
        Returns (H, W), uint8 if the classes and the ignored value fit, else int32.

    Raises:
        ImageDecodeError: Broken, missing, lossy, or not an image of colors.
        ImageTooLargeError: More pixels than Pillow's limit against decompression bombs.
        LabelRangeError: Undeclared colors, with their counts and the nearest declared ones.
    """
    subject = os.fspath(path)
    with opened(path) as found:
        check_colors(found, subject)
        numbers = _packed(found.image)
    codes, values = _table(labels)
    chosen = codes.take(numbers, mode="clip")
    if not ignore_unknown and not chosen.all():
        raise _unknown_colors(numbers[chosen == 0], labels, subject)
    return values.take(chosen, mode="clip")


def check_colors(found: Opened, subject: str) -> None:
    """Refuse files that cannot contain the colors of classes.

    Raises:
        ImageDecodeError: Lossy, or an image of another kind.
        UnsupportedImageError: More than 8 bits per channel.
    """
    check_bits(found, subject)
    if found.format in LOSSY or found.image.mode not in COLOR_MODES:
        lossy = f"{found.format}, which is lossy" if found.format in LOSSY else f"mode {found.image.mode}"
        raise ImageDecodeError("not a mask of colors", subject=subject, expected="RGB, palette or gray, lossless",
                               found=lossy, hint="export the labels as PNG")  # fmt: skip


def color_numbers(image: Image.Image) -> np.ndarray:
    """The displayed colors as 0xRRGGBB, uint32 (H, W)."""
    return _packed(image).byteswap() >> np.uint32(8)


def _packed(image: Image.Image) -> np.ndarray:
    """The displayed colors as 0xBBGGRR, uint32 (H, W), the order in which Pillow stores them."""
    image = image if image.mode in ("RGB", "RGBA") else image.convert("RGB")
    return np.asarray(image.convert("RGBA")).view("<u4")[..., 0] & np.uint32(0xFFFFFF)


@lru_cache(maxsize=8)
def _table(labels: LabelSpec) -> tuple[np.ndarray, np.ndarray]:
    """Color (0xBBGGRR) → code and code → value; code 0 are undeclared colors.

    The table of all 2²⁴ colors takes little memory: the system allocates only the pages in use.
    """
    lookup = {_reversed(raw): index for raw, index in labels.lookup().items() if 0 <= raw < 2**24}
    codes = np.zeros(2**24, np.uint8 if len(lookup) < 256 else np.uint32)
    codes[list(lookup)] = np.arange(1, len(lookup) + 1)
    values = np.array([0 if labels.ignore_index is None else labels.ignore_index, *lookup.values()])
    return codes, values.astype(np.uint8 if values.min() >= 0 and values.max() <= 255 else np.int32)


def _reversed(number: int) -> int:
    """0xRRGGBB → 0xBBGGRR, and back."""
    return int.from_bytes(number.to_bytes(3, "little"), "big")


def _unknown_colors(numbers: np.ndarray, labels: LabelSpec, subject: str) -> LabelRangeError:
    colors, counts = np.unique(numbers, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SHOWN]
    rgb = [_reversed(int(colors[i])) for i in order]
    lines = [f"{color_of(n)}: {counts[i]:,} px, nearest {nearest(n, labels)}" for n, i in zip(rgb, order, strict=True)]
    if len(colors) > _SHOWN:
        lines.append(f"… {len(colors):,} colors in {int(counts.sum()):,} px")
        hint = "this looks like a smoothed or once lossy mask, or an image; export the labels without smoothing, as PNG"
    else:
        hint = 'add them to colors or ignore_colors, correct the file, or set unknown_color="ignore"'
    declared = [f"{name} {color}" for name, color in zip(labels.names, labels.palette, strict=True)]
    expected = ", ".join(declared[:_SHOWN]) + (f", … ({len(declared)})" if len(declared) > _SHOWN else "")
    return LabelRangeError("undeclared colors", subject=subject, expected=expected, found="; ".join(lines), hint=hint)


def nearest(number: int, labels: LabelSpec) -> str:
    """Name and color of the class whose color is nearest."""
    color = np.array(color_of(number))
    index = int(np.square(np.array(labels.palette) - color).sum(axis=1).argmin())
    return f"{labels.names[index]} {labels.palette[index]}"


def read_colors(path: Path) -> dict[str, Color]:
    r"""Read class names and colors from a file.

    Args:
        path: A `labelmap.txt` as written by CVAT (`name:r,g,b:parts:actions` per line), or a CSV file with the columns
            name, r, g and b.

    Raises:
        DataError: Missing, too large, empty or faulty; all faults in one error, by line.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labelmap.txt"
        >>> _ = path.write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\n")
        >>> read_colors(path)
        {'background': (0, 0, 0), 'road': (128, 64, 128)}
    """
    try:
        if os.path.getsize(path) > _LARGEST_FILE:
            raise DataError("not a list of colors", subject=path, expected="at most 1 MiB",
                            found=f"{os.path.getsize(path):,} bytes", hint="check the path")  # fmt: skip
        text = path.read_text(encoding="utf-8-sig") if path.suffix.lower() not in (".csv", ".tsv") else ""
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise DataError("cannot read the colors", subject=path, found=found,
                        hint="the path is relative to the root of the data") from error  # fmt: skip
    rows, faults = _table_rows(path) if not text else _labelmap_rows(text)
    colors: dict[str, Color] = {}
    for line, name, parts in rows:
        color = tuple(int(part) for part in parts if part.isdecimal() and part.isascii() and len(part) <= 3)
        if not name or len(parts) != 3 or len(color) != 3 or max(color) > 255:
            faults.append(f"line {line}: {name or 'no name'!r} with the color {','.join(parts)[:40]!r}")
        elif name in colors or color in colors.values():
            faults.append(f"line {line}: {name!r} or its color {color} occurs twice")
        else:
            colors[name] = color
    if faults or not colors:
        raise DataError("invalid list of colors", subject=path, found=summary(faults) if faults else "no colors",
                        expected="name:r,g,b:: per line, or a table with name,r,g,b, each color in 0…255",
                        hint="correct the named lines")  # fmt: skip
    return colors


def _labelmap_rows(text: str) -> tuple[list[tuple[int, str, list[str]]], list[str]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, _, rest = line.partition(":")
            rows.append((number, name.strip(), [part.strip() for part in rest.partition(":")[0].split(",")]))
    return rows, []


def _table_rows(path: Path) -> tuple[list[tuple[int, str, list[str]]], list[str]]:
    columns = {role: role for role in ("name", "r", "g", "b")}
    table = read_table(path, columns, frozenset(columns))
    return [(row.line, row.cells["name"], [row.cells[c] for c in "rgb"]) for row in table.rows], list(table.faults)
