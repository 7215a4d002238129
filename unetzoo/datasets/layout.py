"""How a data set lies on disk, declared once.

A dataset declares its layouts as `FileLayout`s. Loading, recognizing a folder, `unetzoo doctor`, `unetzoo twin` and the
docs page of the dataset all read this one declaration.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..labels import LabelSpec
from .files import map_labels, read_image, read_mask
from .listing import IMAGE_SUFFIXES

_ANY_IMAGE = r"\.(?i:" + "|".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES)) + ")"
_FIELD = re.compile(r"\{(\w+)(?::0\d+d)?\}")


@dataclass(frozen=True)
class MaskValues:
    """What the values in a label file mean.

    Args:
        labels: The file values of the classes; None where the user declares them.
        how: "numbers": the stored numbers, raw. "shown": the gray that a viewer shows, whatever a palette numbers it.
            "thresholded": gray of at least `threshold` is class 1; lossy files are accepted.
        otherwise: Values that a file may hold throughout instead of those of `labels`.
        threshold: The least gray of class 1, where masks are thresholded.
    """

    labels: LabelSpec | None
    how: Literal["numbers", "shown", "thresholded"] = "numbers"
    otherwise: LabelSpec | None = None
    threshold: int = 128

    def of(self, values: Iterable[int]) -> MaskValues:
        """The meaning of the values in a file that holds these."""
        if self.otherwise is None or not set(values) <= set(self.otherwise.ids):
            return self
        return replace(self, labels=self.otherwise, otherwise=None)

    def read(self, path: Path) -> np.ndarray:
        """Decode a label file to class indices.

        Raises:
            ImageDecodeError: Broken, missing, or a file that cannot hold class numbers.
            LabelRangeError: Values that are not declared.
        """
        if self.labels is not None and self.how == "numbers":
            return read_mask(path, self.labels)
        gray = read_image(path, channels=1)[..., 0]
        if self.how == "thresholded":
            return (gray >= self.threshold).astype(np.uint8)
        labels = self.of(np.unique(gray).tolist()).labels
        assert labels is not None
        return map_labels(gray, labels, path)


@dataclass(frozen=True)
class FilePattern:
    """One kind of file of a layout.

    Args:
        role: What it is to a sample: "image", "mask", "depth", or another name (such as "valid").
        path: Its path below the root, with fields in braces: `"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png"`.
            `{name:05d}` is a number, with zeros in front. The ending is the official one; any image suffix is read.
        values: What label files hold; by default the label set of the dataset, as numbers.
        fallback: Read only where a sample has no other file of the role.
        suffixes: The endings that are read, where not every image format is.
    """

    role: str
    path: str
    values: MaskValues | None = None
    fallback: bool = False
    suffixes: tuple[str, ...] = ()

    @property
    def fields(self) -> list[str]:
        """The fields of its path, in order, each once."""
        return list(dict.fromkeys(_FIELD.findall(self.path)))

    def fill(self, **fields: str) -> str:
        """The path with its fields filled in.

        Examples:
            >>> FilePattern("mask", "masks/{name:05d}_{part}.png").fill(name="7", part="hair")
            'masks/00007_hair.png'
        """
        numbers = set(re.findall(r"\{(\w+):0\d+d\}", self.path))
        return self.path.format(**{key: int(text) if key in numbers else text for key, text in fields.items()})


@dataclass(frozen=True, eq=False)
class FileLayout:
    """A layout of a data set on disk.

    Args:
        name: Its name, unique among all layouts; `unetzoo twin NAME` writes it in miniature.
        about: The layout in a line.
        files: Its kinds of files. The fields of the first one tell samples apart.
        labels: The label set of samples; None where the user declares it.
        needs: The roles that every sample has.
        parts: The folders that `{split}` stands for, each with the splits that are read from it. Empty: the folders are
            called as the splits are.
        lists: Text files that name the samples of the splits given, a sample a line.
        list_line: A line of these, e.g. `"{name} 1 1 1"`; other words than the name are numbers.
        fields: What a field may be, as regular expressions; by default any text without a slash.
        aside: Regular expressions of paths that belong to the data and are not read.
        strict: Whether an image in these folders whose name fits no pattern is a fault.
        sample_names: Names of samples as the twin calls them: a format of a number, e.g. `"ISIC_{:07d}"`.
        options: Arguments of the dataset that mean this layout.
        joined: Where several label files, one for each `{part}`, make one label map: the class of each part, in the
            order of painting. Parts that are not named are not painted.
        gray: Whether images have one channel.
        stacked: Whether all samples are in one file of images and one of labels.
        table: The CSV file that lists the files of samples; they may then be anywhere, `files` is how a twin has them.
        withheld: Splits whose labels are not published.
        certainty: How sure the layout is when every file fits, in [0, 1].
        telltale: Names of samples that settle it where the folders do not, as a regular expression.
        told: How sure it is if all names are such.
    """

    name: str
    about: str
    files: tuple[FilePattern, ...]
    labels: LabelSpec | None = None
    needs: tuple[str, ...] = ("image", "mask")
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    list_line: str = "{name}"
    fields: Mapping[str, str] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    strict: bool = True
    sample_names: str = "sample_{:03d}"
    options: Mapping[str, Any] = field(default_factory=dict)
    joined: Mapping[str, int] = field(default_factory=dict)
    gray: bool = False
    stacked: bool = False
    table: str = ""
    withheld: tuple[str, ...] = ()
    certainty: float = 1.0
    telltale: str = ""
    told: float = 0.95

    def of(self, role: str) -> list[FilePattern]:
        """The patterns of a role, those that are read first before their fallbacks."""
        return sorted((file for file in self.files if file.role == role), key=lambda file: file.fallback)

    @cached_property
    def patterns(self) -> list[tuple[FilePattern, re.Pattern[str]]]:
        """The kinds of files with the regular expressions of their paths."""
        return [(file, re.compile(self._expression(file.path, file.suffixes))) for file in self.files]

    @cached_property
    def asides(self) -> re.Pattern[str] | None:
        """Matches what is passed over."""
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.aside)) if self.aside else None

    @cached_property
    def _folders(self) -> re.Pattern[str]:
        folders = (posixpath.dirname(file.path) for file in self.files)
        return re.compile("|".join(f"(?:{self._expression(folder, ('',), named=False)})" for folder in folders))

    def is_misnamed(self, path: str) -> bool:
        """Whether an image lies where samples do and fits no pattern."""
        folder, file = posixpath.split(path)
        image = os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES
        return self.strict and image and bool(self._folders.fullmatch(folder))

    def pattern_for(self, path: str) -> str:
        """How a misnamed image should be called."""
        folder = posixpath.dirname(path)
        for file in self.files:
            if re.fullmatch(self._expression(posixpath.dirname(file.path), ("",), named=False), folder):
                return file.path
        return self.files[0].path

    def _expression(self, path: str, suffixes: tuple[str, ...], *, named: bool = True) -> str:
        """The regular expression of a path; without suffixes its ending is that of any image."""
        if not suffixes:
            path = posixpath.splitext(path)[0]
        text, place, seen = "", 0, set()
        for found in _FIELD.finditer(path):
            name = found[1]
            text += re.escape(path[place : found.start()])
            place = found.end()
            if name in seen and named:
                text += f"(?P={name})"
                continue
            seen.add(name)
            folders = "|".join(map(re.escape, self.parts)) if name == "split" else ""
            inner = self.fields.get(name) or folders or r"[^/]+"
            number = "0*" if found[0] != f"{{{name}}}" else ""
            text += number + (f"(?P<{name}>{inner})" if named else f"(?:{inner})")
        text += re.escape(path[place:])
        if suffixes and not named:
            return text
        if suffixes:
            return text.removesuffix(re.escape(posixpath.splitext(path)[1])) + "(?i:" + "|".join(
                map(re.escape, suffixes)) + ")"  # fmt: skip
        return text + _ANY_IMAGE

    def part_in(self, path: str) -> str:
        """The `{part}` that a label file holds."""
        matches = (expression.fullmatch(path) for file, expression in self.patterns if file.role == "mask")
        return next((match["part"] for match in matches if match), "")

    def values_of(self, path: str) -> MaskValues | None:
        """What the label file at a path holds; None where the user declares it."""
        if self.stacked or self.joined:
            return self.of("mask")[0].values
        fitting = (file for file, expression in self.patterns if file.role == "mask" and expression.fullmatch(path))
        own = next((file.values for file in fitting if file.values), None)
        return own or (MaskValues(self.labels) if self.labels else None)

    def read_first(self, masks: Sequence[str]) -> list[str]:
        """The label files of a sample that are read: one if all is well, or all its parts."""
        read = [path for path in masks if not self._is_fallback(path)]
        return read or list(masks)

    def _is_fallback(self, path: str) -> bool:
        matching = (file for file, expression in self.patterns if expression.fullmatch(path))
        file = next(matching, None)
        return file is not None and file.fallback

    def part_of(self, split: str | None) -> str | None:
        """The folder that `{split}` stands for when a split is read."""
        return next((part for part, splits in self.parts.items() if split in splits), split)

    def splits_of(self, folder: str | None) -> tuple[str, ...]:
        """The splits that are read from a folder of `{split}`."""
        return self.parts.get(folder or "", (folder,) if folder else ())

    def folders(self, split: str | None) -> list[str]:
        """The folders that must be there when a split is read, as far as they are known without looking."""
        part, found = self.part_of(split), []
        for role in self.needs:
            for file in self.of(role)[:1]:
                path = file.path.replace("{split}", part) if part else file.path
                found.append(
                    posixpath.dirname(path.partition("{")[0] + "x") if "{" in path else posixpath.dirname(path)
                )
        return list(dict.fromkeys(found))

    def fits(self, root: Path, split: str | None) -> bool:
        """Whether the folders that a split needs are there."""
        if self.stacked:
            return all((root / file.fill(**self.fields)).is_file() for file in self.files)
        return all((root / folder).is_dir() for folder in self.folders(split))

    def expected(self, split: str | None) -> str:
        """What a split needs, in words."""
        if self.stacked:
            return " and ".join(file.fill(**self.fields) for file in self.files)
        return " and ".join(f"{folder}/" for folder in self.folders(split) if folder) or self.about
