"""Which dataset a folder looks like, by the names in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..datasets.files import PathLike
from ..datasets.listing import IMAGE_SUFFIXES
from .layouts import IMAGE_FOLDERS, MASK_FOLDERS, MASK_SUFFIXES, USUAL, Layout, folder_layout, official
from .manifest import manifests
from .tree import Inventory, Tree, sort_files

_LEAST_SHOWN = 0.05
LEAST, MARGIN = 0.3, 0.15  # below this a layout is not recognized; so far ahead the first must be of the second


@dataclass(frozen=True)
class Candidate:
    """A layout that a folder may have, and how sure that is."""

    layout: Layout
    confidence: float

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.layout.dataset


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


def looks_like(root: PathLike, besides: str) -> str:
    """A half sentence for the error of a dataset that does not find its layout; "" where nothing is recognized.

    Args:
        root: The folder.
        besides: The dataset that has just refused it, as it calls itself.

    Examples:
        >>> import tempfile
        >>> looks_like(tempfile.mkdtemp(), "CamVid")
        ''
    """
    folder, refused = Path(root), besides.lower().replace(" ", "")

    def likeliest(found: list[Candidate]) -> str:
        likely = (one for one in found if one.confidence >= LEAST and not refused.startswith(one.dataset))
        return next((f"{one.dataset!r} ({one.confidence:.0%} sure)" for one in likely), "")

    if name := likeliest(candidates(Tree.walk(folder, glance=True))):
        return f"; it looks like {name}"
    if name := likeliest(_around(folder)):
        return f"; the folder around it looks like {name}"
    below = [f"{name}/ looks like {dataset!r}" for name, dataset in recognized_below(folder)]
    return "; " + ", ".join(below[:4]) if below else ""


def _around(folder: Path) -> list[Candidate]:
    """What the parent looks like, as far as the folder is a part of it."""
    tree = Tree.walk(folder.parent, glance=True)
    return [
        found for found in candidates(tree)
        if any(file.startswith(f"{folder.name}/") for item in sort_files(tree.files, found.layout.slots).items
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


def knows(dataset: str) -> bool:
    """Whether the layouts of a dataset are known here; a plugin's are not."""
    return dataset in ("folder", "csv") or bool(official(dataset, {}))


def layout_of(tree: Tree, dataset: str, options: dict[str, Any]) -> Layout:
    """The layout of a known dataset, other than `csv`, that fits a folder best."""
    if dataset == "folder":
        given = {key: options[key] for key in USUAL if key in options}
        return folder_layout(*(str(given.get(key, usual)) for key, usual in USUAL.items()))
    return max(official(dataset, options), key=lambda layout: _confidence(tree, layout))


def likely_folder(tree: Tree) -> Layout | None:
    """The two folders of images and masks by stem that a tree has, whatever they are called."""
    found = [Candidate(layout, _confidence(tree, layout)) for layout in _folders(tree)]
    return max(found, key=lambda candidate: candidate.confidence).layout if found else None


def _judged(tree: Tree) -> Iterator[Candidate]:
    for layout in (*official("", {}), *_folders(tree)):
        yield Candidate(layout, _confidence(tree, layout))
    for manifest in manifests(tree):
        yield Candidate(Layout("csv", manifest, ()), 0.9)


def _confidence(tree: Tree, layout: Layout) -> float:
    """How much of the folder the layout explains, times how unmistakable it is."""
    images = sum(_is_image(file) for file in tree.files)
    if not images:
        return 0.0
    found = sort_files(tree.files, layout.slots)
    roles = {role for item in found.items for role in item.files}
    if not roles >= set(layout.needs):
        return 0.1 * bool(roles) * (1 - _unclaimed(found) / images)
    claimed = 1 - _unclaimed(found) / images
    whole = _complete(found, layout) if tree.whole else 1.0
    return max(claimed, 0.0) * (0.5 + 0.5 * whole) * _sure(found, layout)


def _sure(found: Inventory, layout: Layout) -> float:
    if layout.telling is None:
        return layout.sure
    told = sum(bool(layout.telling.fullmatch(item.name)) for item in found.items) / max(len(found.items), 1)
    return layout.sure + max(layout.told - layout.sure, 0) * told


def _complete(found: Inventory, layout: Layout) -> float:
    """The share of samples that have image and mask; sources of composites come in no pairs."""
    pairs = [bool(item.of("image")) + bool(item.of("mask")) for item in found.items]
    if "image" not in layout.needs or not any(pairs):
        return 1.0
    return sum(count == 2 for count in pairs) / sum(count > 0 for count in pairs)


def _unclaimed(found: Inventory) -> int:
    return sum(_is_image(file) for file in (*found.strays, *found.misnamed))


def _is_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES


def _folders(tree: Tree) -> Iterator[Layout]:
    """`folder` with the names of folders and the ending of masks that are there."""
    names = tree.folders()
    for images in (name for name in IMAGE_FOLDERS if name in names):
        for masks in (name for name in MASK_FOLDERS if name in names):
            plain = folder_layout(images, masks)
            found = sort_files(tree.files, plain.slots)
            stems = {item.key for item in found.items if item.of("image")}
            masked = [item.key for item in found.items if item.of("mask")]
            endings = Counter(
                ending for key in masked for ending in MASK_SUFFIXES
                if key[-1].endswith(ending) and (*key[:-1], key[-1].removesuffix(ending)) in stems
            )  # fmt: skip
            ending = endings.most_common(1)[0][0] if endings else ""
            usual = (images, masks, ending) == ("images", "masks", "")
            yield replace(folder_layout(images, masks, ending), sure=0.6 if usual else 0.5)


def recognized_below(root: Path) -> list[tuple[str, str]]:
    """The folders just below that look like datasets, with their names."""
    try:
        below = sorted(path for path in root.iterdir() if path.is_dir())[:20]
    except OSError:
        return []
    likely = ((path.name, candidates(Tree.walk(path, glance=True))) for path in below)
    return [(name, found[0].dataset) for name, found in likely if found and found[0].confidence >= 0.5]
