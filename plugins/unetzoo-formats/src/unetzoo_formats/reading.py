"""Records of annotated images, functions that read annotation files, and a list of their faults."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from unetzoo.errors import DataError

from .shapes import Shape

SHOWN = 20  # faults that an error lists
T = TypeVar("T")


class Faults:
    """Faults of annotation files: the first ones and their number."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, fault: str) -> None:
        """Note a fault."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(fault)

    def summary(self) -> str:
        """Format the number of faults and the first ones, one per line."""
        more = [f"… and {self.count - SHOWN} more"] if self.count > SHOWN else []
        return "\n  ".join([f"{self.count} fault{'s' * (self.count != 1)}", *self.first, *more])


@dataclass(frozen=True)
class Region:
    """An annotated object.

    Args:
        category: Its category; None for regions that are ignored whatever the classes.
        shapes: Its parts.
        ignored: Whether its pixels are ignored where no other object covers them.
        depth: Objects of a higher depth are painted later.
    """

    category: str | None
    shapes: tuple[Shape, ...]
    ignored: bool = False
    depth: int = 0


@dataclass
class Entry:
    """An annotated image.

    Args:
        name: Its path, relative to the folder of images or, if `placed`, to the root.
        regions: Its objects, in the order of the file.
        size: Height and width in the annotation file, if it declares them.
        split: The split in the annotation file, if it declares one.
        placed: Whether `name` is relative to the root.
        other_names: Further names under which the image may exist.
    """

    name: str
    regions: list[Region] = field(default_factory=list)
    size: tuple[int, int] | None = None
    split: str | None = None
    placed: bool = False
    other_names: tuple[str, ...] = ()


@dataclass
class Annotations:
    """The contents of annotation files.

    Args:
        files: The files.
        divided: Whether they hold only the images of the selected split.
        entries: The images.
        categories: The names of the categories, in order.
        faults: The faults of the files.
    """

    files: list[Path]
    divided: bool = False
    entries: list[Entry] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)


def read_bytes(path: Path) -> bytes:
    """Read an annotation file.

    Raises:
        DataError: It is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError("cannot read the annotations", subject=path, found=error.strerror or str(error),
                        hint="check the path and its permissions") from error  # fmt: skip


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It is missing or damaged.
    """
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, f"JSON ({error})") from error


def unreadable(path: Path, found: object, expected: str = "") -> DataError:
    """Return the error for an annotation file that is damaged or of another kind."""
    return DataError("not an annotation file that can be read", subject=path, expected=expected or None,
                     found=f"damaged {found}" if not expected else found,
                     hint="export the annotations again")  # fmt: skip


def part(table: Any, key: str, kind: type[T], default: T | None = None) -> T:
    """Return a value of a JSON object.

    Raises:
        ValueError: It is missing or of another type; the message is the reason.
    """
    if not isinstance(table, dict):
        raise ValueError("not an object")
    value = table.get(key, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"no {key}" if value is None else f"{key} is {short(value)}")
    return value


def size_of(table: Any, height: str, width: str) -> tuple[int, int] | None:
    """Return the height and width in a JSON object; None if it has none.

    Raises:
        ValueError: They are no positive whole numbers; the message is the reason.
    """
    found = table.get(height), table.get(width)
    if found == (None, None):
        return None
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in found):
        raise ValueError(f"{width} {short(found[1])} and {height} {short(found[0])}")
    return found  # pyright: ignore[reportReturnType]


def short(value: object) -> str:
    """Format a value for an error."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply, or an integer of thousands of digits
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "…"


def inside(folder: str, name: str) -> str:
    r"""Return the path of a named file relative to the root, with `/`.

    Args:
        folder: The folder of the name, relative to the root.
        name: The name in an annotation file; it may contain `..`, and the `\` of Windows.

    Raises:
        ValueError: The path leaves the root; the message is the reason.

    Examples:
        >>> inside("labels", "..\\images\\a.jpg")
        'images/a.jpg'
    """
    path = PurePosixPath(name.replace("\\", "/"))
    parts: list[str] = []
    for word in (PurePosixPath(folder) / path).parts:
        if word == ".." and parts:
            parts.pop()
        elif word == ".." or word == "/" or "\0" in word or word.endswith(":"):
            raise ValueError(f"{short(name)} is outside the folder")
        elif word != ".":
            parts.append(word)
    if not parts:
        raise ValueError("no file name")
    return "/".join(parts)
