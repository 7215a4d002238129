"""Find annotation files and images below a root."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from unetzoo.datasets import ANNOTATION_LAYOUTS, SPLIT_WORDS, with_split
from unetzoo.errors import ConfigError, LayoutError

from .reading import inside

SPLITS = tuple(SPLIT_WORDS)
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".npy", ".npz"})
_MOST_FOLDERS = 500  # folders in which images are looked for
_PROBES = 20  # images that are looked for in each folder


class Places:
    """The folders and files below a root, as POSIX paths relative to it, without hidden ones.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[str] = []
        self._files: dict[str, list[str]] = {}
        self._stems: dict[str, dict[str, str]] = {}
        waiting, seen = deque([""]), set()
        while waiting:
            folder = waiting.popleft()
            try:
                status = os.stat(root / folder)
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:  # else a link to a folder that is already listed
                seen.add((status.st_dev, status.st_ino))
                self.folders.append(folder)
                waiting += self._list(folder)

    def files(self) -> Iterable[str]:
        """All files, the nearest first."""
        for folder in self.folders:
            yield from (under(folder, name) for name in self._files[folder])

    def with_suffix(self, suffixes: Collection[str], folder: str = "") -> list[str]:
        """The files with these suffixes in a folder and the folders in it, sorted."""
        inner = under(folder.strip("/"), "") if folder else ""
        return sorted(file for file in self.files()
                      if file.startswith(inner) and os.path.splitext(file)[1].lower() in suffixes)  # fmt: skip

    def image(self, path: str) -> str | None:
        """The image of this path; if the path has no suffix of an image, of this stem. None if it does not exist."""
        if os.path.isfile(self.root / path):
            return path
        folder, name = os.path.split(path)
        if os.path.splitext(name)[1].lower() in IMAGES:
            return None
        if folder not in self._stems:
            if folder not in self._files:
                self._list(folder)
            self._stems[folder] = {os.path.splitext(file)[0]: file for file in self._files[folder]
                                   if os.path.splitext(file)[1].lower() in IMAGES}  # fmt: skip
        found = self._stems[folder].get(name)
        return None if found is None else under(folder, found)

    def folder_of(self, names: Sequence[Sequence[str]], first: str) -> str:
        """The folder that contains most of the first of these images, each with the names it may have.

        `first` is preferred, and returned if no folder contains any.
        """

        def count(folder: str) -> int:
            return sum(any(self._contains(folder, name) for name in options) for options in names[:_PROBES])

        return max(dict.fromkeys([first, *self.folders[:_MOST_FOLDERS]]), key=count)

    def _contains(self, folder: str, name: str) -> bool:
        try:
            return self.image(inside(folder, name)) is not None
        except ValueError:
            return False

    def of_split(self, pattern: str, split: str | None) -> str:
        """The path of a split: with the first word for the split that exists, otherwise with the name of the split.

        Raises:
            ConfigError: No split is selected.
        """
        if "{split}" not in pattern:
            return pattern
        if split is None:
            raise ConfigError("no split is selected", subject=f"{self.root}/{pattern}", expected=" | ".join(SPLITS),
                              hint='set split="train"')  # fmt: skip
        filled = [pattern.replace("{split}", word) for word in SPLIT_WORDS[split]]
        return next((path for path in filled if (self.root / path).exists()), filled[0])

    def annotation_file(self, format: str, split: str | None, given: str | None, how_to_get: str) -> tuple[str, bool]:
        """The annotation file of a split, and whether it holds only this split.

        Args:
            format: Name of the layout.
            split: The split, or None.
            given: Its path, perhaps with `{split}`; by default the only file of the format, or the one of each split.
            how_to_get: Hint if there is none.

        Raises:
            ConfigError: There is a file for each split, but no split is selected.
            LayoutError: There is no such file, or there are several.
        """
        layout = ANNOTATION_LAYOUTS[format]
        found: list[str] = []
        if given is None:
            assert layout.annotations is not None
            found = layout.annotations.among(self.root, self.files())
            given = found[0] if len(found) == 1 else with_split(found)
        if given is None:
            raise LayoutError(
                f"{'several' if found else 'no'} annotation files", subject=self.root, expected=layout.about,
                found=", ".join(found[:8]) or "none", hint="select one with annotations=" if found else how_to_get,
            )  # fmt: skip
        path, divided = self.of_split(given, split), "{split}" in given
        if divided and not (self.root / path).is_file():
            raise LayoutError(f"no annotation file of split {split!r}", subject=self.root, expected=path,
                              found=", ".join(found[:8]) or "none", hint="choose another split, or add the file"
                              )  # fmt: skip
        return path, divided

    def _list(self, folder: str) -> list[str]:
        """List the files of a folder, and return its folders."""
        self._files[folder] = []
        below = []
        try:
            with os.scandir(self.root / folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if not entry.name.startswith((".", "__MACOSX")):
                        (below if entry.is_dir() else self._files[folder]).append(entry.name)
        except OSError:  # what is missing there is reported when it is needed
            return []
        return [under(folder, name) for name in below]


def under(folder: str, name: str) -> str:
    """Join a folder and a name."""
    return f"{folder}/{name}" if folder else name


def split_in(path: str) -> str | None:
    """The split whose word is in the last folder of a path that has one.

    Examples:
        >>> split_in("images/train2017/a.jpg"), split_in("valid/images/a.jpg"), split_in("restrain/test.jpg")
        ('train', 'val', None)
    """
    for folder in reversed(path.split("/")[:-1]):
        words = set(re.findall("[a-z]+", folder.lower()))
        if found := [split for split, known in SPLIT_WORDS.items() if words.intersection(known)]:
            return found[0]
    return None


def ids_of(images: Sequence[str]) -> list[str]:
    """The paths of images without the folder that contains all of them, and without suffix if that is unambiguous.

    Examples:
        >>> ids_of(["images/a.jpg", "images/b.png"]), ids_of(["a.jpg", "a.png"])
        (['a', 'b'], ['a.jpg', 'a.png'])
    """
    top = os.path.commonpath([os.path.dirname(image) for image in images]) if images else ""
    inner = [image.removeprefix(under(top, "")) if top else image for image in images]
    stems = [str(PurePosixPath(image).with_suffix("")) for image in inner]
    taken = Counter(stems)
    return [stem if taken[stem] == 1 else image for stem, image in zip(stems, inner, strict=True)]
