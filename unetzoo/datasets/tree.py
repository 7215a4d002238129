"""Listing the files of a folder, and sorting them into samples by the patterns of a layout."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .layout import FileLayout
from .listing import natural_key

Key = tuple[str, ...]
JUNK = re.compile(r"\.|__MACOSX$")  # files of file managers and operating systems


@dataclass(frozen=True)
class Tree:
    """The files below a folder, as relative POSIX paths, without hidden ones.

    Args:
        root: The folder.
        files: Its files, sorted.
        unreadable: Folders that could not be listed, with the reason.
        whole: Whether these are all files; False if the walk was limited.
    """

    root: Path
    files: tuple[str, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True

    @classmethod
    def walk(cls, root: Path, *, glance: bool = False) -> Tree:
        """List a folder; links are followed, as by the datasets.

        Args:
            root: The folder.
            glance: List only the first 1,000 files of each of the first 500 folders.
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
                if (status.st_dev, status.st_ino) in seen:  # a link to a visited folder
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
        """The names of all folders that are not empty."""
        return {part for file in self.files for part in file.split("/")[:-1]}


@dataclass
class Item:
    """The files of one sample by role; `absent`: files in a manifest that do not exist."""

    key: Key
    split: str | None = None
    files: dict[str, list[str]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the sample, without its split."""
        return self.key[-1]

    def of(self, role: str) -> list[str]:
        """The files of a role."""
        return self.files.get(role, [])


@dataclass
class Inventory:
    """The samples of a tree for a layout, and the files that belong to none."""

    items: list[Item] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    asides: list[str] = field(default_factory=list)


def list_files(root: Path, folder: str, depth: int) -> list[str]:
    """List a folder and its subfolders down to `depth`, as sorted POSIX paths relative to the root.

    Only names are read, since a stat call for each of 390,000 files takes long.

    Raises:
        OSError: The folder is missing or unreadable.
    """
    with os.scandir(root / folder) as entries:
        listed = sorted((entry.name, entry.is_dir()) for entry in entries if not JUNK.match(entry.name))
    prefix = f"{folder}/" if folder else ""
    files = [prefix + name for name, is_folder in listed if not is_folder]
    for name, is_folder in listed:
        if is_folder and depth:
            files += list_files(root, prefix + name, depth - 1)
    return files


def share_files(items: Sequence[Item], layout: FileLayout) -> list[Item]:
    """Add the files that samples share to each of them, and drop items of which no other file exists."""
    for role in layout.shared:
        there = {item.name: item.files[role] for item in items if role in item.files}
        items = [item for item in items if set(item.files) != {role}]
        for item in items:
            if role not in item.files and (name := layout.shared_name(role, item.name, there)):
                item.files[role] = there[name]
    return list(items)


def sort_files(files: Iterable[str], layout: FileLayout) -> Inventory:
    """Assign every file to the first pattern of a layout that it matches; samples are in natural order.

    Examples:
        >>> from unetzoo.datasets import FileLayout, FilePattern
        >>> kinds = FilePattern("image", "{name}.jpg"), FilePattern("mask", "{name}_mask.png")
        >>> found = sort_files(["a_mask.png", "a.jpg", "notes.txt"], FileLayout("", "", kinds[::-1]))
        >>> found.items[0].files, found.strays
        ({'mask': ['a_mask.png'], 'image': ['a.jpg']}, ['notes.txt'])
    """
    key_fields = layout.files[0].fields
    items: dict[Key, Item] = {}
    found = Inventory()
    for path in files:
        for file, expression in layout.patterns:
            if match := expression.fullmatch(path):
                groups = match.groupdict()
                key = tuple(groups[name] for name in key_fields if name in groups)
                if key not in items:
                    items[key] = Item(key, next(iter(layout.splits_of(groups.get("split"))), None))
                items[key].files.setdefault(file.role, []).append(path)
                break
        else:
            if layout.asides is not None and layout.asides.fullmatch(path):
                found.asides.append(path)
            elif layout.is_misnamed(path):
                found.misnamed.append(path)
            else:
                found.strays.append(path)
    found.items = sorted(items.values(), key=lambda item: [natural_key(part) for part in item.key])
    return found
