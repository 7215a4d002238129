"""The base of datasets that lie on disk: it finds, checks and reads the files that a `FileLayout` declares."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import DataError, ImageDecodeError, LayoutError, PairingError
from ..labels import LabelSpec
from .archive import data_root
from .base import Sample, SampleTransform, SegmentationDataset, check_split
from .files import PathLike, check_same_size, read_image, read_mask
from .layout import FileLayout
from .listing import list_folder, shown, summary
from .tree import Item, list_files, sort_files


class FileSample(NamedTuple):
    """The files of a sample: its id, and the path of each role."""

    name: str
    files: dict[str, Path]

    @property
    def image(self) -> Path:
        """Its image."""
        return self.files["image"]

    @property
    def mask(self) -> Path:
        """The label file that is read."""
        return self.files["mask"]


class FileDataset(SegmentationDataset):
    """Base of datasets of image and label files: a subclass declares how they lie, and gets the rest.

    That is: loading, with all faults of a folder in one error; `unetzoo doctor`, which recognizes such a folder and
    says what is wrong with it; `unetzoo twin`, which writes one in miniature.

    Args:
        root: The folder that holds the data, or an archive of it (.zip, .tar, .tar.gz, …).
        split: One of `splits`.
        labels: The label set, where the layout leaves it to the user.
        transform: `transform(sample, rng) -> sample`, or None.
        options: Arguments of the subclass that `layouts_for` and `divide` take.

    Raises:
        ConfigError: Unknown split.
        LayoutError: Other things lie in the folder than the layouts say.
        PairingError: Files that do not belong together one to one; all in one error.

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
        labels: LabelSpec | None = None,
        transform: SampleTransform | None = None,
        **options: Any,
    ) -> None:
        if self.splits:
            check_split(split, self.splits, type(self).__name__)
        self.root, self.split = data_root(root), split
        self.layout = self._choose(self.layouts_for(**options), split)
        labels = labels or self.layout.labels
        assert labels is not None, "a layout without labels needs a subclass that declares them"
        super().__init__(labels=labels, split=split, transform=transform)
        self.files = self._find(split, options)

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """The layouts under these arguments of the dataset; a subclass whose arguments matter overrides it."""
        return cls.layouts

    @classmethod
    def divide(cls, names: Sequence[str], split: str, root: Path, **options: Any) -> Collection[str]:
        """Which of the samples in a folder belong to a split; all of them, unless a subclass divides them itself.

        Args:
            names: The samples of the folder (or list) that the split is read from, in order.
            split: The split.
            root: The data's folder.
            options: Arguments of the dataset that matter.
        """
        return names

    def __len__(self) -> int:
        return len(self.files)

    def sources(self) -> list[Path]:
        """All files of its samples."""
        return [path for sample in self.files for path in sample.files.values()]

    def read_labels(self, path: Path) -> np.ndarray:
        """Decode a label file to class indices."""
        values = self.layout.values_of(path.relative_to(self.root).as_posix())
        return read_mask(path, self.labels) if values is None else values.read(path)

    def load(self, index: int) -> Sample:
        """Decode one sample."""
        sample = self.files[index]
        image = read_image(sample.image, 1 if self.layout.gray else 3)
        mask = self.read_labels(sample.mask)
        check_same_size(image, mask, sample.image, sample.mask)
        return {"image": image, "mask": mask, "id": sample.name}

    def _choose(self, layouts: Sequence[FileLayout], split: str | None) -> FileLayout:
        """The first layout whose folders are there.

        Raises:
            LayoutError: None.
        """
        list_folder(self.root, self.how_to_get)  # a missing folder raises its own error
        for layout in layouts:
            if layout.fits(self.root, split):
                return layout
        raise self._wrong_layout(self.root, ", or ".join(dict.fromkeys(one.expected(split) for one in layouts)))

    def _wrong_layout(self, folder: Path, expected: str, hint: str = "") -> LayoutError:
        """The error for a folder in which other things lie than should."""
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
        if faults:
            raise PairingError(
                "images and labels do not pair", subject=self.root, expected="one label file for each image",
                found=summary(faults), hint="add, remove or rename the named files",
            )  # fmt: skip
        chosen = set(self._part([item.name for item in items], split, options))
        first = self.layout.read_first
        self._refuse_lossy([path for item in items for path in first(item.files["mask"])])
        return [FileSample(item.name, {role: self.root / first(paths)[0] for role, paths in item.files.items()})
                for item in items if item.name in chosen]  # fmt: skip

    def _refuse_lossy(self, masks: Iterable[str]) -> None:
        """Refuse class numbers in JPEG files before any is read."""
        lossy = [str(self.root / path) for path in masks if path.lower().endswith((".jpg", ".jpeg"))
                 and ((values := self.layout.values_of(path)) is None or values.how == "numbers")]  # fmt: skip
        if lossy:
            raise ImageDecodeError(
                "labels in JPEG files, which are lossy", subject=self.root, expected="PNG", found=summary(lossy),
                hint="fetch or export the labels as PNG: those in a JPEG are damaged beyond repair",
            )  # fmt: skip

    def _part(self, names: Sequence[str], split: str | None, options: dict[str, Any]) -> Collection[str]:
        """Which samples of the folder that a split is read from belong to it."""
        return self.divide(names, str(split), self.root, **options)

    def _faults_of(self, items: Sequence[Item]) -> list[str]:
        """What a subclass finds wrong with samples beyond their pairing."""
        return []


def find_items(layout: FileLayout, root: Path, split: str | None, how_to_get: str = "") -> tuple[list[Item], list[str]]:
    """The samples that lie in the folders of a split, and what is wrong with their names.

    Raises:
        DataError: A folder is missing or unreadable; a list is broken.
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
            list_folder(root / folder, how_to_get)  # which raises ours
            raise
    found = sort_files(dict.fromkeys(paths), layout)
    items = [item for item in found.items if part is None or not layout.files[0].path.count("{split}")
             or part in item.key]  # fmt: skip
    faults = [f"{root / path} is not named like {layout.pattern_for(path)}" for path in found.misnamed]
    if layout.lists:
        items, missing = _listed(items, layout, root, split, how_to_get)
        faults += missing
    return items, faults


def pairing_faults(items: Iterable[Item], layout: FileLayout, root: Path) -> list[str]:
    """Files that are missing, and files that claim one sample."""
    faults = []
    for item in items:
        for role, paths in item.files.items():
            claim = layout.read_first(paths) if role == "mask" else paths
            if not (role == "mask" and layout.joined):
                faults += [f"{root / claim[0]} and {other} share a name" for other in claim[1:]]
        for role in layout.needs:
            if role not in item.files:
                there = next(iter(item.files.values()))[0]
                faults.append(f"{root / there} has no {'labels' if role == 'mask' else role}")
    return faults


def _listed(
    items: Sequence[Item], layout: FileLayout, root: Path, split: str | None, how_to_get: str
) -> tuple[list[Item], list[str]]:
    """The items that the list of a split names, in its order, and the names that have no files."""
    file = next(file for file, splits in layout.lists.items() if split in splits)
    by_name = {item.name: item for item in items}
    names = read_list(root / file, layout.list_line, how_to_get)
    return [by_name[name] for name in names if name in by_name], [
        f"{name} is listed in {file} and not there" for name in names if name not in by_name
    ]


def read_list(path: Path, line: str, how_to_get: str = "") -> list[str]:
    """The names that a text file lists; a # begins a remark.

    Raises:
        DataError: It cannot be read, is empty, names a sample twice, or holds other lines.
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
            "a broken list of a split", subject=path, expected=f"lines such as {line.format(name='NAME')!r}",
            found="; ".join(wrong[:5]) or "no names", hint=how_to_get or "fetch the list again",
        )  # fmt: skip
    return names


def divided(names: Iterable[str], split: str, seed: int, *, val: float, test: float, subject: object) -> set[str]:
    """The names of `"train"`, `"val"` or `"test"`, by a seeded shuffle of the sorted names; no part is empty.

    Args:
        names: All names.
        split: The part.
        seed: Seed of the shuffle.
        val: Share of val.
        test: Share of test.
        subject: Where they lie, for the error.

    Raises:
        DataError: Fewer than three names.

    Examples:
        >>> parts = [divided("abcdefghij", part, 0, val=0.1, test=0.2, subject="") for part in ("train", "val", "test")]
        >>> [len(part) for part in parts], len(set.union(*parts))
        ([7, 1, 2], 10)
    """
    ordered = sorted(names)
    if len(ordered) < 3:
        raise DataError("too few to divide", subject=subject, expected="3 or more", found=", ".join(ordered) or "none",
                        hint='use split="all", or add data')  # fmt: skip
    order = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(ordered))
    tests = max(1, round(len(ordered) * test))
    vals = tests + max(1, round(len(ordered) * val))
    part = {"test": order[:tests], "val": order[tests:vals], "train": order[vals:]}[split]
    return {ordered[i] for i in part}
