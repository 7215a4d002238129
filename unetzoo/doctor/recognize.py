"""Recognize the dataset of a folder by its file names, from the layouts that datasets declare."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..datasets import ANNOTATION_LAYOUTS, Folder, with_split
from ..datasets.files import PathLike
from ..datasets.layout import FileLayout
from ..datasets.tree import Inventory, Tree, sort_files
from ..images.decode import has_image_suffix
from ..registry import DATASETS
from .findings import fitting
from .manifest import manifests

EXPORT = "composites-export"
USUAL = {"images": "images", "masks": "masks", "mask_suffix": ""}  # the defaults of `folder`
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "gt", "ground_truth", "segmentation", "targets",
                "instances", "objects", "SegmentationClass", "SegmentationObject")  # fmt: skip
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "JPEGImages")
MASK_SUFFIXES = ("", "_mask", "_label", "_labels", "_gt", "_seg", "_segmentation", "-mask", "_m")
CHANNEL_FILE, MOST_CHANNELS = re.compile(r"(.+)_(\d{4})"), 64
LEAST, MARGIN = 0.3, 0.15  # the least confidence of a recognized layout, and its least lead over the second
_LEAST_SHOWN = 0.05


@dataclass(frozen=True)
class Candidate:
    """A possible layout of a folder.

    Args:
        dataset: Registry name of the dataset.
        layout: The layout.
        confidence: For comparison with other candidates, in [0, 1]: common names count less than those of one dataset.
        fits: Share of the images that the layout explains.
    """

    dataset: str
    layout: FileLayout
    confidence: float
    fits: float = 1.0

    def __str__(self) -> str:
        return f"{self.dataset!r} ({fitting(self.fits)})"


def recognize(root: PathLike) -> list[tuple[str, float]]:
    """The datasets that a folder may contain, each with a confidence in [0, 1], the most likely first.

    Only file names are read, and of a large folder only some. The result for an unreadable folder is empty.

    Args:
        root: The folder.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for part in ("train", "train_masks"):
        ...     (root / part).mkdir()
        >>> Image.new("RGB", (4, 4)).save(root / "train" / "0cdf5b5d0ce1_01.jpg")
        >>> Image.new("L", (4, 4)).save(root / "train_masks" / "0cdf5b5d0ce1_01_mask.gif")
        >>> recognize(root)
        [('carvana', 1.0)]
    """
    return [(found.dataset, round(found.confidence, 2)) for found in candidates(Tree.walk(Path(root), glance=True))]


def looks_like(root: PathLike) -> str:
    """The dataset that a folder, its parent or subfolders may contain, for error messages; "" if none is recognized.

    Examples:
        >>> import tempfile
        >>> looks_like(tempfile.mkdtemp())
        ''
    """
    folder = Path(root)

    def best(found: list[Candidate]) -> str:
        return next((str(one) for one in found if one.confidence >= LEAST), "")

    if name := best(candidates(Tree.walk(folder, glance=True))):
        return f"it looks like {name}"
    if name := best(_around(folder)):
        return f"the folder around it looks like {name}"
    below = [f"{name}/ looks like {dataset!r}" for name, dataset in _below(folder)]
    return ", ".join(below[:4])


def declared_layouts(dataset: str, options: Mapping[str, Any]) -> tuple[FileLayout, ...]:
    """The layouts that a dataset declares for these arguments; empty if it declares none.

    Raises:
        UnknownNameError: Unknown dataset.
        PluginLoadError: It cannot be imported.
    """
    layouts_for = getattr(DATASETS.get(dataset), "layouts_for", None)
    return layouts_for(**options) if layouts_for is not None else ()


def all_layouts() -> Iterator[tuple[str, FileLayout]]:
    """The name and layouts of every dataset that can be imported, except `folder`, and of all annotation formats."""
    names = DATASETS.names()
    yield from ((name, layout) for name, layout in ANNOTATION_LAYOUTS.items() if name not in names)
    for dataset in names:
        try:
            layouts = declared_layouts(dataset, {}) if dataset != "folder" else ()
        except KeyboardInterrupt:
            raise
        except BaseException:  # a broken plugin must not affect other data; `unetzoo doctor` without a path reports it
            continue
        yield from ((dataset, layout) for layout in layouts)


def candidates(tree: Tree) -> list[Candidate]:
    """The most likely layout of each dataset, best first."""
    best: dict[str, Candidate] = {}
    for found in _rated(tree):
        before = best.get(found.dataset)
        if found.confidence > (before.confidence if before else _LEAST_SHOWN):
            best[found.dataset] = found
    return sorted(best.values(), key=lambda found: -found.confidence)


def layout_of(tree: Tree, dataset: str, options: dict[str, Any]) -> FileLayout:
    """The layout of a dataset with these arguments that matches a folder best."""
    return max(declared_layouts(dataset, options), key=lambda layout: _rate(tree, dataset, layout).confidence)


def likely_folder(tree: Tree) -> FileLayout | None:
    """The layout of `folder` with the names of image and mask folders that a tree has; None if it has none."""
    return max(_folder_layouts(tree), key=lambda layout: _rate(tree, "folder", layout).confidence, default=None)


def _folder_layouts(tree: Tree) -> Iterator[FileLayout]:
    """`folder` with each pair of usual folder names in the tree, and the most frequent ending of mask names.

    If no folder has a usual name of masks, the only other one is taken for it. Images that are numbered like channels
    are also tried as one file per channel.
    """
    names = tree.folders()
    for images in (name for name in IMAGE_FOLDERS if name in names):
        others = [name for name in names if name not in IMAGE_FOLDERS]
        usual = [name for name in MASK_FOLDERS if name in names]
        for masks in usual or (others if len(others) == 1 else ()):
            endings: Counter[str] = Counter()
            channels = 1
            for plain in Folder.layouts_for(images=images, masks=masks):
                items = sort_files(tree.files, plain).items
                stems = {item.key for item in items if item.of("image")}
                numbered = [(key, found) for key in stems if (found := CHANNEL_FILE.fullmatch(key[-1]))]
                channels = max([channels, *(int(found[2]) + 1 for _, found in numbered)])
                stems |= {(*key[:-1], found[1]) for key, found in numbered}
                masked = [item.key for item in items if item.of("mask")]
                endings.update(
                    ending for key in masked for ending in MASK_SUFFIXES
                    if key[-1].endswith(ending) and (*key[:-1], key[-1].removesuffix(ending)) in stems
                )  # fmt: skip
            ending = endings.most_common(1)[0][0] if endings else ""
            yield from Folder.layouts_for(images=images, masks=masks, mask_suffix=ending)
            if 1 < channels <= MOST_CHANNELS:
                yield from Folder.layouts_for(
                    images=images, masks=masks, mask_suffix=ending, channels=channels, channel_files="_{:04d}"
                )


def _around(folder: Path) -> list[Candidate]:
    """Candidates of the parent that use files of this folder."""
    tree = Tree.walk(folder.parent, glance=True)
    return [
        found for found in candidates(tree)
        if any(file.startswith(f"{folder.name}/") for item in sort_files(tree.files, found.layout).items
               for files in item.files.values() for file in files)
    ]  # fmt: skip


def _below(root: Path) -> list[tuple[str, str]]:
    """Name and dataset of the subfolders that are recognized."""
    try:
        below = sorted(path for path in root.iterdir() if path.is_dir())[:20]
    except OSError:
        return []
    likely = ((path.name, candidates(Tree.walk(path, glance=True))) for path in below)
    return [(name, found[0].dataset) for name, found in likely if found and found[0].confidence >= 0.5]


def _rated(tree: Tree) -> Iterator[Candidate]:
    for dataset, layout in (*all_layouts(), *(("folder", layout) for layout in _folder_layouts(tree))):
        if layout.annotations is not None:
            if files := layout.annotations.among(tree.root, tree.files):
                option = layout.annotations.option
                path = files[0] if len(files) == 1 else with_split(files)
                options = {option: path} if option and path else {}
                yield Candidate(dataset, replace(layout, options=options), layout.certainty)
            continue
        if not layout.table:
            yield _rate(tree, dataset, layout)
            continue
        for manifest in manifests(tree):
            yield Candidate(dataset, replace(layout, table=manifest), layout.certainty)


def _rate(tree: Tree, dataset: str, layout: FileLayout) -> Candidate:
    """Compare a folder with a layout; the confidence is the share that fits, times how distinctive the layout is."""
    images = sum(has_image_suffix(file) for file in tree.files)
    if not images:
        return Candidate(dataset, layout, 0.0, 0.0)
    found = sort_files(tree.files, layout)
    claimed = max(1 - sum(has_image_suffix(file) for file in (*found.strays, *found.misnamed)) / images, 0.0)
    roles = {role for item in found.items for role in item.files}
    if not roles >= set(layout.needs):
        return Candidate(dataset, layout, 0.1 * bool(roles) * claimed, 0.0)
    complete = _complete(found, layout) if tree.whole else 1.0
    confidence = claimed * (0.5 + 0.5 * complete) * _distinctive(found, layout)
    return Candidate(dataset, layout, confidence, claimed * complete)


def _distinctive(found: Inventory, layout: FileLayout) -> float:
    if not layout.telltale:
        return layout.certainty
    telltale = re.compile(layout.telltale)
    told = sum(bool(telltale.fullmatch(item.name)) for item in found.items) / max(len(found.items), 1)
    return layout.certainty + max(layout.told - layout.certainty, 0) * told


def _complete(found: Inventory, layout: FileLayout) -> float:
    """The share of samples with image and mask; 1 for sources of composites, which are not pairs."""
    pairs = [bool(item.of("image")) + bool(item.of("mask")) for item in found.items]
    if "image" not in layout.needs or not any(pairs):
        return 1.0
    return sum(count == 2 for count in pairs) / sum(count > 0 for count in pairs)
