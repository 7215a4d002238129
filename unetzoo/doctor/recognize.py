"""Which dataset a folder looks like, by the names in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.files import PathLike
from ..datasets.layout import FileLayout
from ..datasets.listing import IMAGE_SUFFIXES
from ..datasets.tree import Inventory, Tree, sort_files
from .layouts import all_layouts, declared_layouts, likely_folders
from .manifest import manifests

_LEAST_SHOWN = 0.05
LEAST, MARGIN = 0.3, 0.15  # below this a layout is not recognized; so far ahead the first must be of the second


@dataclass(frozen=True)
class Candidate:
    """A layout that a folder may have, and how sure that is."""

    dataset: str
    layout: FileLayout
    confidence: float


def recognize(root: PathLike) -> list[tuple[str, float]]:
    """The datasets that a folder looks like, the likeliest first, each with a confidence in [0, 1].

    Only names are looked at, and in a large folder only some of them. A folder that cannot be read looks like nothing.

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
    """What a folder that a dataset refused looks like instead, in half a sentence; "" where nothing is recognized.

    Examples:
        >>> import tempfile
        >>> looks_like(tempfile.mkdtemp())
        ''
    """
    folder = Path(root)

    def likeliest(found: list[Candidate]) -> str:
        likely = (one for one in found if one.confidence >= LEAST)
        return next((f"{one.dataset!r} ({one.confidence:.0%} sure)" for one in likely), "")

    if name := likeliest(candidates(Tree.walk(folder, glance=True))):
        return f"it looks like {name}"
    if name := likeliest(_around(folder)):
        return f"the folder around it looks like {name}"
    below = [f"{name}/ looks like {dataset!r}" for name, dataset in recognized_below(folder)]
    return ", ".join(below[:4])


def _around(folder: Path) -> list[Candidate]:
    """What the parent looks like, as far as the folder is a part of it."""
    tree = Tree.walk(folder.parent, glance=True)
    return [
        found for found in candidates(tree)
        if any(file.startswith(f"{folder.name}/") for item in sort_files(tree.files, found.layout).items
               for files in item.files.values() for file in files)
    ]  # fmt: skip


def candidates(tree: Tree) -> list[Candidate]:
    """The likeliest layout of each dataset, best first."""
    best: dict[str, Candidate] = {}
    for found in _judged(tree):
        before = best.get(found.dataset)
        if found.confidence > (before.confidence if before else _LEAST_SHOWN):
            best[found.dataset] = found
    return sorted(best.values(), key=lambda found: -found.confidence)


def layout_of(tree: Tree, dataset: str, options: dict[str, Any]) -> FileLayout:
    """The layout of a dataset, under these arguments of it, that fits a folder best."""
    return max(declared_layouts(dataset, options), key=lambda layout: _confidence(tree, layout))


def likely_folder(tree: Tree) -> FileLayout | None:
    """The two folders of images and masks by stem that a tree has, whatever they are called."""
    return max(likely_folders(tree), key=lambda layout: _confidence(tree, layout), default=None)


def _judged(tree: Tree) -> Iterator[Candidate]:
    for dataset, layout in (*all_layouts(), *(("folder", layout) for layout in likely_folders(tree))):
        yield Candidate(dataset, layout, _confidence(tree, layout))
    for manifest in manifests(tree):
        yield Candidate("csv", FileLayout("csv", manifest, ()), 0.9)


def _confidence(tree: Tree, layout: FileLayout) -> float:
    """How much of the folder the layout explains, times how unmistakable it is."""
    images = sum(_is_image(file) for file in tree.files)
    if not images:
        return 0.0
    found = sort_files(tree.files, layout)
    roles = {role for item in found.items for role in item.files}
    if not roles >= set(layout.needs):
        return 0.1 * bool(roles) * (1 - _unclaimed(found) / images)
    claimed = 1 - _unclaimed(found) / images
    whole = _complete(found, layout) if tree.whole else 1.0
    return max(claimed, 0.0) * (0.5 + 0.5 * whole) * _sure(found, layout)


def _sure(found: Inventory, layout: FileLayout) -> float:
    if not layout.telltale:
        return layout.certainty
    telltale = re.compile(layout.telltale)
    told = sum(bool(telltale.fullmatch(item.name)) for item in found.items) / max(len(found.items), 1)
    return layout.certainty + max(layout.told - layout.certainty, 0) * told


def _complete(found: Inventory, layout: FileLayout) -> float:
    """The share of samples that have image and mask; sources of composites come in no pairs."""
    pairs = [bool(item.of("image")) + bool(item.of("mask")) for item in found.items]
    if "image" not in layout.needs or not any(pairs):
        return 1.0
    return sum(count == 2 for count in pairs) / sum(count > 0 for count in pairs)


def _unclaimed(found: Inventory) -> int:
    return sum(_is_image(file) for file in (*found.strays, *found.misnamed))


def _is_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES


def recognized_below(root: Path) -> list[tuple[str, str]]:
    """The folders just below that look like datasets, with their names."""
    try:
        below = sorted(path for path in root.iterdir() if path.is_dir())[:20]
    except OSError:
        return []
    likely = ((path.name, candidates(Tree.walk(path, glance=True))) for path in below)
    return [(name, found[0].dataset) for name, found in likely if found and found[0].confidence >= 0.5]
