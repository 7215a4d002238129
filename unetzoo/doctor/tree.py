"""Walking a folder once, and sorting its files into samples by a layout's patterns."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..datasets.listing import natural_key

Role = Literal["image", "mask", "depth", "background", "cutout", "scene", "misnamed", "aside"]
Key = tuple[str, ...]
JUNK = re.compile(r"\.|__MACOSX$")  # what file managers leave, passed over by the datasets too


@dataclass(frozen=True)
class Tree:
    """The files under a folder, as POSIX paths relative to it; hidden ones are passed over.

    Args:
        root: The folder.
        files: What lies in it, sorted.
        unreadable: Folders that could not be listed, with the reason.
        whole: Whether these are all files; False where the walk was cut short.
    """

    root: Path
    files: tuple[str, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True

    @classmethod
    def walk(cls, root: Path, *, glance: bool = False) -> Tree:
        """List a folder; links are followed, as the datasets do.

        Args:
            root: The folder.
            glance: Look at the first 1,000 files of each of the first 500 folders alone.
        """
        files: list[str] = []
        unreadable: dict[str, str] = {}
        seen: set[tuple[int, int]] = set()
        waiting, visited, whole = deque([""]), 0, True
        while waiting and not (glance and visited == 500):
            place = waiting.popleft()
            visited += 1
            try:
                status = os.stat(root / place)
                if (status.st_dev, status.st_ino) in seen:  # a link back to where we have been
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(root / place) as entries:
                    listed = sorted((entry.name, entry.is_dir()) for entry in entries if not JUNK.match(entry.name))
            except OSError as error:
                unreadable[place or "."] = error.strerror or str(error)
                continue
            prefix = f"{place}/" if place else ""
            waiting.extend(prefix + name for name, is_folder in listed if is_folder)
            names = [prefix + name for name, is_folder in listed if not is_folder]
            whole = whole and not (glance and len(names) > 1000)
            files += names[:1000] if glance else names
        return cls(root, tuple(sorted(files)), unreadable, whole and not waiting)

    def folders(self) -> set[str]:
        """The names of all folders that hold something."""
        return {part for file in self.files for part in file.split("/")[:-1]}


@dataclass(frozen=True)
class Slot:
    """One kind of file of a layout.

    Args:
        role: What it is to a sample.
        pattern: Matches the whole relative path. Its groups make the sample's key, except `part`; `split` names its
            split.
    """

    role: Role
    pattern: re.Pattern[str]


@dataclass
class Item:
    """The files of one sample, by role; `absent`: those that a manifest names and nobody has."""

    key: Key
    split: str | None = None
    files: dict[Role, list[str]] = field(default_factory=dict)
    absent: dict[Role, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The sample's name, without its split."""
        return self.key[-1]

    def of(self, role: Role) -> list[str]:
        """Its files of one role."""
        return self.files.get(role, [])


@dataclass
class Inventory:
    """The samples of a tree as a layout sees them, and the files that are no part of any."""

    items: list[Item] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    asides: list[str] = field(default_factory=list)


def sort_files(files: Iterable[str], slots: Iterable[Slot]) -> Inventory:
    """Give every file to the first slot whose pattern it matches.

    Examples:
        >>> slots = [Slot("image", re.compile("(?P<name>.+)[.]jpg")), Slot("mask", re.compile("(?P<name>.+)[.]png"))]
        >>> found = sort_files(["a.jpg", "a.png", "notes.txt"], slots)
        >>> found.items[0].files, found.strays
        ({'image': ['a.jpg'], 'mask': ['a.png']}, ['notes.txt'])
    """
    slots = list(slots)
    items: dict[Key, Item] = {}
    found = Inventory()
    for file in files:
        fitting = ((slot, match) for slot in slots if (match := slot.pattern.fullmatch(file)))
        slot, match = next(fitting, (None, None))
        if slot is None or match is None:
            found.strays.append(file)
        elif slot.role == "misnamed":
            found.misnamed.append(file)
        elif slot.role == "aside":
            found.asides.append(file)
        else:
            groups = match.groupdict()
            key = tuple(value for group, value in groups.items() if group != "part" and value is not None)
            items.setdefault(key, Item(key, groups.get("split"))).files.setdefault(slot.role, []).append(file)
    found.items = sorted(items.values(), key=lambda item: [natural_key(part) for part in item.key])
    return found
