"""The layout of a dataset on disk, declared once.

A dataset declares its layouts as `FileLayout`s. Loading, recognizing a folder, `unetzoo doctor`, `unetzoo twin` and the
docs page of the dataset all use this declaration.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..images import Pixels
from ..images.decode import IMAGE_SUFFIXES, has_image_suffix, split_name
from ..labels import LabelSpec
from .annotations import AnnotationFiles
from .color_masks import read_color_mask
from .files import map_labels, read_image, read_mask
from .objects import OBJECTS, mask_and_instances, merge_objects, read_numbers

_ANY_IMAGE = r"(?i:(?<!\.ome)(?:\.ome)?\.(?:" + "|".join(re.escape(end[1:]) for end in IMAGE_SUFFIXES) + "))"
_FIELD = re.compile(r"\{(\w+)(?::0\d+d)?\}")


@dataclass(frozen=True)
class MaskValues:
    """The meaning of the values in a label file.

    Args:
        labels: The file values of the classes; None if the user declares them.
        how: "numbers": the stored values. "colors": the displayed colors; see `LabelSpec.from_colors`. "shown": the
            displayed gray, independent of palette indices. "thresholded": gray of at least `threshold` is class 1;
            lossy files are accepted.
            "objects": label images of 0 or the number of an object. "object": several files per sample, each with the
            pixels of one object. Objects are class 1, and samples have `instances`.
        otherwise: Alternative values, if they are the only ones in a file.
        threshold: Least gray of class 1, for thresholded masks.
        ignore_unknown: Whether undeclared colors are ignored pixels, instead of an error.
    """

    labels: LabelSpec | None
    how: Literal["numbers", "colors", "shown", "thresholded", "objects", "object"] = "numbers"
    otherwise: LabelSpec | None = None
    threshold: int = 128
    ignore_unknown: bool = False

    @property
    def lossless(self) -> bool:
        """Whether lossy files are refused by their name."""
        return self.how in ("numbers", "colors", "objects", "object")

    @property
    def numbered(self) -> bool:
        """Whether samples have `instances`."""
        return self.how in ("objects", "object")

    def of(self, values: Iterable[int]) -> MaskValues:
        """The meaning for a file with these values."""
        if self.otherwise is None or not set(values) <= set(self.otherwise.ids):
            return self
        return replace(self, labels=self.otherwise, otherwise=None)

    def read(self, path: Path) -> np.ndarray:
        """Decode a label file to class indices.

        Raises:
            ImageDecodeError: Broken, missing, or a file that cannot contain class indices.
            LabelRangeError: Undeclared values.
        """
        if self.labels is not None and self.how == "numbers":
            return read_mask(path, self.labels)
        if self.numbered:
            return self.planes(path)["mask"]
        if self.labels is not None and self.how == "colors":
            return read_color_mask(path, self.labels, ignore_unknown=self.ignore_unknown)
        gray = read_image(path, channels=1)[..., 0]
        if self.how == "thresholded":
            return (gray >= self.threshold).astype(np.uint8)
        labels = self.of(np.unique(gray).tolist()).labels
        assert labels is not None
        return map_labels(gray, labels, path)

    def planes(self, *paths: Path) -> dict[str, np.ndarray]:
        """Decode the label file of a sample, or the files of its objects: `mask`, and `instances` if there are objects.

        Raises:
            ImageDecodeError: As in `read`.
            LabelRangeError: As in `read`.
            SizeMismatchError: Files of objects that differ in size.
        """
        if not self.numbered:
            return {"mask": self.read(paths[0])}
        numbers = merge_objects(paths)[0] if self.how == "object" else read_numbers(paths[0])
        return mask_and_instances(numbers, self.labels or OBJECTS)


@dataclass(frozen=True)
class FilePattern:
    """The path pattern of one kind of file.

    Args:
        role: Role in a sample: "image", "mask", "depth", or another name (such as "valid").
        path: Path relative to the root, with fields in braces: `"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png"`.
            `{name:05d}` is a number with leading zeros. The suffix is the official one; any image suffix is read.
        values: Values of label files; by default the stored values of the label set of the dataset.
        fallback: Read only if a sample has no other file of the role.
        suffixes: Suffixes that are read, if not those of all image formats.
    """

    role: str
    path: str
    values: MaskValues | None = None
    fallback: bool = False
    suffixes: tuple[str, ...] = ()

    @property
    def fields(self) -> list[str]:
        """The distinct fields of the path, in order."""
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
    """A layout of a dataset on disk.

    Args:
        name: Its name, unique among all layouts; `unetzoo twin NAME` writes it in miniature.
        about: The layout in one line.
        files: Kinds of files. The fields of the first one identify samples.
        labels: The label set of samples; None if the user declares it.
        needs: Roles that every sample has.
        parts: The folders for `{split}`, each with the splits that are read from it. Empty if the folders have the
            names of the splits.
        lists: Text files that list the samples of the given splits, one sample per line.
        list_line: Format of a line, e.g. `"{name} 1 1 1"`; words other than the name are numbers.
        fields: Regular expressions of fields; by default any text without a slash.
        aside: Regular expressions of paths that belong to the data but are not read.
        strict: Whether an image in these folders that fits no pattern is a fault.
        sample_names: Format of the names of samples in the twin, e.g. `"ISIC_{:07d}"`.
        options: Arguments of the dataset that select this layout.
        joined: The class of each `{part}`, in painting order, if several label files form one label map. Other parts
            are not painted.
        shared: Roles whose files may belong to several samples, with a regular expression whose first group finds the
            name of such a file in the name of a sample that has no file of its own.
        gray: Whether images have one channel.
        pixels: The channels and the range of values of images, if they are not gray or RGB images of 8 bits.
        stacked: Whether all samples are in one file of images and one of labels.
        table: The CSV file that lists the files of samples; they may then be anywhere, `files` is how a twin has them.
        annotations: The annotation files that label the images, instead of label files.
        withheld: Splits whose labels are not published.
        certainty: Confidence in the layout if every file fits, in [0, 1].
        telltale: Regular expression of names of samples that are typical of the layout.
        told: Confidence if all names are typical.
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
    shared: Mapping[str, str] = field(default_factory=dict)
    gray: bool = False
    pixels: Pixels | None = None
    stacked: bool = False
    table: str = ""
    annotations: AnnotationFiles | None = None
    withheld: tuple[str, ...] = ()
    certainty: float = 1.0
    telltale: str = ""
    told: float = 0.95

    def of(self, role: str) -> list[FilePattern]:
        """The patterns of a role, fallbacks last."""
        return sorted((file for file in self.files if file.role == role), key=lambda file: file.fallback)

    @cached_property
    def patterns(self) -> list[tuple[FilePattern, re.Pattern[str]]]:
        """The kinds of files, with regular expressions of their paths."""
        return [(file, re.compile(self._expression(file.path, file.suffixes))) for file in self.files]

    @cached_property
    def asides(self) -> re.Pattern[str] | None:
        """A regular expression of paths that are ignored."""
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.aside)) if self.aside else None

    @cached_property
    def _folders(self) -> re.Pattern[str]:
        folders = (posixpath.dirname(file.path) for file in self.files)
        return re.compile("|".join(f"(?:{self._expression(folder, ('',), named=False)})" for folder in folders))

    def is_misnamed(self, path: str) -> bool:
        """Whether an image is in a folder of samples but fits no pattern."""
        folder, file = posixpath.split(path)
        return self.strict and has_image_suffix(file) and bool(self._folders.fullmatch(folder))

    def pattern_for(self, path: str) -> str:
        """The pattern that the name of a misnamed image should fit."""
        folder = posixpath.dirname(path)
        for file in self.files:
            if re.fullmatch(self._expression(posixpath.dirname(file.path), ("",), named=False), folder):
                return file.path
        return self.files[0].path

    def _expression(self, path: str, suffixes: tuple[str, ...], *, named: bool = True) -> str:
        """The regular expression of a path; without suffixes, any image suffix matches."""
        if not suffixes:
            path = path.removesuffix(split_name(path)[1])
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
            return text.removesuffix(re.escape(split_name(path)[1])) + "(?i:" + "|".join(
                map(re.escape, suffixes)) + ")"  # fmt: skip
        return text + _ANY_IMAGE

    def part_in(self, path: str) -> str:
        """The `{part}` in a label file."""
        matches = (expression.fullmatch(path) for file, expression in self.patterns if file.role == "mask")
        return next((match["part"] for match in matches if match), "")

    def values_of(self, path: str) -> MaskValues | None:
        """The meaning of the values in a label file; None if the user declares it."""
        if self.stacked or self.several or self.table:
            own = self.of("mask")[0].values
        else:
            fitting = (file for file, expression in self.patterns if file.role == "mask" and expression.fullmatch(path))
            own = next((file.values for file in fitting if file.values), None)
        return own or (MaskValues(self.labels) if self.labels else None)

    @property
    def merges_objects(self) -> bool:
        """Whether each object of a sample has a label file of its own."""
        return any(file.values is not None and file.values.how == "object" for file in self.of("mask"))

    @property
    def several(self) -> bool:
        """Whether several label files form one label map."""
        return bool(self.joined) or self.merges_objects

    def with_values(self, values: MaskValues) -> FileLayout:
        """The layout with label files of these values, as declared by the user."""
        files = (replace(file, values=values) if file.role == "mask" else file for file in self.files)
        return replace(self, files=tuple(files))

    def read_first(self, masks: Sequence[str]) -> list[str]:
        """The label files of a sample that are read: one, or one per part; more are a fault."""
        read = [path for path in masks if len(masks) == 1 or not self._is_fallback(path)]
        return read or list(masks)

    def _is_fallback(self, path: str) -> bool:
        matching = (file for file, expression in self.patterns if expression.fullmatch(path))
        file = next(matching, None)
        return file is not None and file.fallback

    def shared_name(self, role: str, name: str, names: Collection[str]) -> str | None:
        """The name of the shared file that belongs to a sample, among the names of all files of its role."""
        found = re.finditer(self.shared[role], name) if role in self.shared else ()
        return next((match[1] for match in found if match[1] in names), None)

    def part_of(self, split: str | None) -> str | None:
        """The folder `{split}` of a split."""
        return next((part for part, splits in self.parts.items() if split in splits), split)

    def splits_of(self, folder: str | None) -> tuple[str, ...]:
        """The splits that are read from a folder `{split}`."""
        return self.parts.get(folder or "", (folder,) if folder else ())

    def folders(self, split: str | None) -> list[str]:
        """The folders that a split requires, as far as they follow from the patterns."""
        part, found = self.part_of(split), []
        for role in self.needs:
            for file in self.of(role)[:1]:
                path = file.path.replace("{split}", part) if part else file.path
                found.append(
                    posixpath.dirname(path.partition("{")[0] + "x") if "{" in path else posixpath.dirname(path)
                )
        return list(dict.fromkeys(found))

    def fits(self, root: Path, split: str | None) -> bool:
        """Whether the folders that a split requires exist."""
        if self.stacked:
            return all((root / file.fill(**self.fields)).is_file() for file in self.files)
        return all((root / folder).is_dir() for folder in self.folders(split))

    def expected(self, split: str | None) -> str:
        """The folders or files that a split requires, as text."""
        if self.stacked:
            return " and ".join(file.fill(**self.fields) for file in self.files)
        return " and ".join(f"{folder}/" for folder in self.folders(split) if folder) or self.about
