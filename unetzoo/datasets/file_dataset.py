"""The base class of datasets on disk: finds, checks and reads the files declared by a `FileLayout`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError, ImageDecodeError, LayoutError, PairingError, SizeMismatchError
from ..images import Pixels, Stored, channel_files, decode_image, read_stored
from ..images.volumes import volume_shape
from .archive import data_root
from .base import Sample, SampleTransform, SegmentationDataset, check_split, groups_of
from .files import PathLike, check_same_size, read_mask_slice, without_missing
from .layout import FileLayout, MaskValues
from .listing import check_pixels, list_folder, shown, summary
from .tree import Item, list_files, share_files, sort_files


class FileSample(NamedTuple):
    """A sample on disk.

    Args:
        name: Its id.
        files: The path of each role.
        objects: All label files if each object has its own.
        slice: The number of the slice if the files are volumes.
    """

    name: str
    files: dict[str, Path]
    objects: tuple[Path, ...] = ()
    slice: int | None = None

    @property
    def image(self) -> Path:
        """The image file."""
        return self.files["image"]

    @property
    def mask(self) -> Path:
        """The label file that is read."""
        return self.files["mask"]


class FileDataset(SegmentationDataset):
    """Base class of datasets of image and label files; a subclass declares its layouts.

    From these follow loading, with all faults of a folder in one error; `unetzoo doctor`, which recognizes such folders
    and finds their faults; and `unetzoo twin`, which writes one in miniature.

    Args:
        root: The folder of the data, or an archive (.zip, .tar, .tar.gz, …).
        split: One of `splits`.
        values: The values of label files, if the user declares them.
        transform: `transform(sample, rng) -> sample`, or None.
        pixels: The channels and the range of values of images, or the arguments of `unetzoo.images.Pixels`, e.g.
            {"channels": 5, "range": [0, 4095]}; by default those of the layout. With an axis, files are volumes whose
            slices are the samples; all slices of a volume are in the same split.
        options: Arguments of the subclass for `layouts_for` and `divide`.

    Raises:
        ConfigError: Unknown split.
        LayoutError: The folder fits none of the layouts.
        PairingError: Missing or duplicate files of samples; all in one error.

    Examples:
        >>> import tempfile; from PIL import Image; from unetzoo import LabelSpec
        >>> from unetzoo.datasets import FilePattern, MaskValues
        >>> LABELS = LabelSpec(("soil", "leaf"), ids=(0, 255))
        >>> class Leaves(FileDataset):
        ...     layouts = (FileLayout("leaves", "photos/ and outlines/", labels=LABELS, files=(
        ...         FilePattern("image", "photos/{name}.jpg"),
        ...         FilePattern("mask", "outlines/{name}_leaf.png", MaskValues(LABELS)))),)
        ...     splits = ("all",)
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "photos").mkdir(), (root / "outlines").mkdir()
        (None, None)
        >>> Image.new("RGB", (8, 6)).save(root / "photos" / "1.jpg")
        >>> Image.new("L", (8, 6), 255).save(root / "outlines" / "1_leaf.png")
        >>> data = Leaves(root, "all")
        >>> data[0]["id"], int(data[0]["mask"].max())
        ('1', 1)
    """

    layouts: ClassVar[tuple[FileLayout, ...]] = ()
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self,
        root: PathLike,
        split: str | None = "train",
        *,
        values: MaskValues | None = None,
        transform: SampleTransform | None = None,
        pixels: Pixels | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if self.splits:
            check_split(split, self.splits, type(self).__name__)
        self.root, self.split = data_root(root), split
        self.layout = self._choose(self.layouts_in(self.root, **options), split)
        declared = Pixels.from_dict(pixels) if isinstance(pixels, Mapping) else pixels
        self.pixels: Pixels = declared or self.layout.pixels or Pixels(1 if self.layout.gray else 3)
        if values is not None:
            self.layout = self.layout.with_values(values)
        labels = values.labels if values is not None else self.layout.labels
        assert labels is not None, "a layout without labels needs a subclass that declares them"
        super().__init__(labels=labels, split=split, transform=transform)
        self.files = self._find(split, options)
        self._group: str | None = options.get("group")

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """The layouts for these arguments; overridden by subclasses with arguments that change them."""
        return cls.layouts

    @classmethod
    def layouts_in(cls, root: Path, **options: Any) -> tuple[FileLayout, ...]:
        """The layouts for these arguments and this folder; overridden by subclasses that read it from a file there."""
        return cls.layouts_for(**options)

    @classmethod
    def divide(cls, names: Sequence[str], split: str, root: Path, **options: Any) -> Collection[str]:
        """Select the samples of a split; all of them, unless a subclass divides a folder into splits.

        Args:
            names: The samples in the folder or list of the split, in order.
            split: The split.
            root: The folder of the data.
            options: Arguments of the dataset.
        """
        return names

    def __len__(self) -> int:
        return len(self.files)

    def groups(self) -> Mapping[str, str]:
        """The group of each sample by its id; empty if none are declared. Slices of a volume are a group."""
        if self._group is None and self.pixels.axis is None:
            return {}
        names = {file.name: file.name if file.slice is None else file.name.rpartition("_")[0] for file in self.files}
        group = groups_of(list(dict.fromkeys(names.values())), self._group, self.root)
        return {name: group[volume] for name, volume in names.items()}

    def sources(self) -> list[Path]:
        """All files of its samples."""
        named = (path for sample in self.files for path in (*sample.files.values(), *sample.objects))
        others = (path for sample in self.files for path in channel_files(sample.image, self.pixels)[1:])
        return list(dict.fromkeys((*named, *others)))

    def read_labels(self, path: Path) -> np.ndarray:
        """Decode a label file to class indices."""
        values = self.layout.values_of(path.relative_to(self.root).as_posix())
        return (values or MaskValues(self.labels)).read(path)

    def load(self, index: int) -> Sample:
        """Decode one sample."""
        sample = self.files[index]
        image, missing = decode_image(sample.image, self.pixels, sample.slice)
        values = self.layout.values_of(sample.mask.relative_to(self.root).as_posix())
        if sample.slice is not None:
            planes = {"mask": read_mask_slice(sample.mask, self.labels, sample.slice, self.pixels.axis)}
        elif values is not None and values.numbered:
            planes = values.planes(*(sample.objects or (sample.mask,)))
        else:
            planes = {"mask": self.read_labels(sample.mask)}
        check_same_size(image, planes["mask"], sample.image, sample.mask)
        planes["mask"] = without_missing(planes["mask"], missing, self.labels)
        return {"image": image, **planes, "id": sample.name}

    def read_stored(self, index: int) -> Stored:
        """Read the image of a sample without mapping its range."""
        sample = self.files[index]
        return read_stored(sample.image, self.pixels, sample.slice)

    def _choose(self, layouts: Sequence[FileLayout], split: str | None) -> FileLayout:
        """The first layout whose folders exist.

        Raises:
            LayoutError: There is none.
        """
        list_folder(self.root, self.how_to_get)  # raises if the folder is missing
        for layout in layouts:
            if layout.fits(self.root, split):
                return layout
        raise self._wrong_layout(self.root, ", or ".join(dict.fromkeys(one.expected(split) for one in layouts)))

    def _wrong_layout(self, folder: Path, expected: str, hint: str = "") -> LayoutError:
        """The error for a folder with another layout."""
        there = shown(sorted(path.name + "/" * path.is_dir() for path in list_folder(folder, self.how_to_get)))
        split = f", split {self.split!r}" if self.split else ""
        what = f"not the layout of {type(self).__name__}{split}"
        return LayoutError(what, subject=folder, expected=expected, found=there, hint=hint or self.how_to_get)

    def _find(self, split: str | None, options: dict[str, Any]) -> list[FileSample]:
        """The samples of a split."""
        items, faults = find_items(self.layout, self.root, split, self.how_to_get)
        if not items and not faults:
            folders = self.layout.folders(split)
            raise self._wrong_layout(self.root / folders[0], f"files such as {self.layout.files[0].path}")
        faults += self._faults_of(items) + pairing_faults(items, self.layout, self.root)
        firsts = [self.root / paths[0] for item in items for paths in [item.files.get("image", [])] if paths]
        others = (path for first in firsts for path in channel_files(first, self.pixels)[1:])
        faults += [f"{path} does not exist" for path in others if not path.is_file()]
        if faults:
            raise PairingError(
                "images and labels do not match", subject=self.root, expected="one label file per image",
                found=summary(faults), hint="add, remove or rename the named files",
            )  # fmt: skip
        chosen = set(self._part(items, split, options))
        first = self.layout.read_first
        self._refuse_lossy([path for item in items for path in first(item.files["mask"])])
        merges = self.layout.merges_objects
        samples = [FileSample(item.name, {role: self.root / first(paths)[0] for role, paths in item.files.items()},
                              tuple(self.root / path for path in item.files["mask"]) if merges else ())
                   for item in items if item.name in chosen]  # fmt: skip
        check_pixels([sample.image for sample in samples], self.pixels, self.root)
        return samples if self.pixels.axis is None else self._cut(samples)

    def _cut(self, volumes: Sequence[FileSample]) -> list[FileSample]:
        """The slices of volumes.

        Raises:
            ConfigError: Labels that are colors or numbers of objects.
            SizeMismatchError: Images and labels differ in shape.
            DataError: A volume cannot be read.
        """
        values = self.layout.of("mask")[0].values
        if values is not None and values.how != "numbers":
            raise ConfigError("volumes whose labels are not class numbers", subject=type(self).__name__,
                              expected="labels 0, 1, 2, … or ids", found=values.how,
                              hint="leave colors and instances out, or save each slice as an image")  # fmt: skip
        faults, slices = [], []
        for name, files, *_ in volumes:
            shapes = [volume_shape(path, self.pixels.axis) for path in (files["image"], files["mask"])]
            if shapes[0] != shapes[1]:
                faults.append(f"{files['mask']}: {shapes[1]}, the image {shapes[0]}")
            slices += [FileSample(f"{name}_{index:03d}", files, slice=index) for index in range(shapes[0][0])]
        if faults:
            raise SizeMismatchError(
                "volumes and their labels differ in shape", subject=self.root, expected="(slices, height, width)",
                found=summary(faults), hint="find the labels of each volume; none may be resized or cut",
            )  # fmt: skip
        return slices

    def _refuse_lossy(self, masks: Iterable[str]) -> None:
        """Refuse class indices in JPEG files before any is read."""
        lossy = [str(self.root / path) for path in masks if path.lower().endswith((".jpg", ".jpeg"))
                 and ((values := self.layout.values_of(path)) is None or values.lossless)]  # fmt: skip
        if lossy:
            raise ImageDecodeError(
                "labels in JPEG files, which are lossy", subject=self.root, expected="PNG", found=summary(lossy),
                hint="download or export the labels as PNG; those in a JPEG cannot be recovered",
            )  # fmt: skip

    def _part(self, items: Sequence[Item], split: str | None, options: dict[str, Any]) -> Collection[str]:
        """Select the samples of a split."""
        return self.divide([item.name for item in items], str(split), self.root, **options)

    def _faults_of(self, items: Sequence[Item]) -> list[str]:
        """Further faults of samples, found by a subclass."""
        return []


def find_items(layout: FileLayout, root: Path, split: str | None, how_to_get: str = "") -> tuple[list[Item], list[str]]:
    """Find the samples in the folders of a split, and faults of their names.

    Raises:
        DataError: Missing or unreadable folder; invalid list.
    """
    part = layout.part_of(split)
    folders: dict[str, int] = {}
    for file in layout.files:
        path = file.path.replace("{split}", part) if part else file.path
        prefix = path.partition("{")[0].rpartition("/")[0]
        depth = path.count("/") - (prefix.count("/") + 1 if prefix else 0)
        if (root / prefix).is_dir() or (file.role in layout.needs and not file.fallback):
            folders[prefix] = max(depth, folders.get(prefix, 0))
    paths: list[str] = []
    for folder, depth in folders.items():
        try:
            paths += list_files(root, folder, depth)
        except OSError:
            list_folder(root / folder, how_to_get)  # raises our error
            raise
    found = sort_files(dict.fromkeys(paths), layout)
    items = [item for item in share_files(found.items, layout)
             if part is None or not layout.files[0].path.count("{split}") or part in item.key]  # fmt: skip
    faults = [f"{root / path} is not named like {layout.pattern_for(path)}" for path in found.misnamed]
    if layout.lists:
        items, missing = _listed(items, layout, root, split, how_to_get)
        faults += missing
    return items, faults


def pairing_faults(items: Iterable[Item], layout: FileLayout, root: Path) -> list[str]:
    """Missing files, and several files for the same role of a sample."""
    faults = []
    for item in items:
        for role, paths in item.files.items():
            claim = layout.read_first(paths) if role == "mask" else paths
            if not (role == "mask" and layout.several):
                faults += [f"{root / claim[0]} and {other} have the same name" for other in claim[1:]]
        for role in layout.needs:
            if role not in item.files:
                there = next(iter(item.files.values()))[0]
                faults.append(f"{root / there} has no {'labels' if role == 'mask' else role}")
    return faults


def _listed(
    items: Sequence[Item], layout: FileLayout, root: Path, split: str | None, how_to_get: str
) -> tuple[list[Item], list[str]]:
    """The items in the list of a split, in its order, and the listed names without files."""
    file = next(file for file, splits in layout.lists.items() if split in splits)
    by_name = {item.name: item for item in items}
    names = read_list(root / file, layout.list_line, how_to_get)
    return [by_name[name] for name in names if name in by_name], [
        f"{name} is listed in {file} but does not exist" for name in names if name not in by_name
    ]


def read_list(path: Path, line: str, how_to_get: str = "") -> list[str]:
    """Read the names in a text file; lines with # are comments.

    Raises:
        DataError: Unreadable or empty file, duplicate names, or other lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read the list of a split", subject=path, found=str(error), hint=how_to_get) from error
    words = [r"(?P<name>\S+)" if word == "{name}" else r"\d+" for word in line.split()]
    expression = re.compile(r"\s+".join(words))
    rows = [(number, text.strip()) for number, text in enumerate(lines, 1) if text.strip() and text[0] != "#"]
    names = [match["name"] for _, text in rows if (match := expression.fullmatch(text))]
    wrong = [f"line {number}: {text[:60]!r}" for number, text in rows if not expression.fullmatch(text)]
    if len(set(names)) < len(names):
        wrong += [f"{name} twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if wrong or not names:
        raise DataError(
            "invalid list of a split", subject=path, expected=f"lines such as {line.format(name='NAME')!r}",
            found="; ".join(wrong[:5]) or "no names", hint=how_to_get or "download the list again",
        )  # fmt: skip
    return names
