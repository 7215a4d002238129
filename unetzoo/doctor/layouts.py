"""The layouts that the doctor knows: those that the registered datasets declare, and the usual names of two folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..datasets import Folder
from ..datasets.layout import FileLayout
from ..datasets.tree import Tree, sort_files
from ..registry import DATASETS

EXPORT = "composites-export"
USUAL = {"images": "images", "masks": "masks", "mask_suffix": ""}  # the names that `folder` takes by default
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "gt", "ground_truth", "segmentation", "targets")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos")
MASK_SUFFIXES = ("", "_mask", "_label", "_labels", "_gt", "_seg", "_segmentation", "-mask", "_m")


def declared_layouts(dataset: str, options: Mapping[str, Any]) -> tuple[FileLayout, ...]:
    """The layouts that a dataset declares under these arguments; none where it declares none.

    Raises:
        UnknownNameError: No such dataset.
        PluginLoadError: It cannot be imported.
    """
    layouts_for = getattr(DATASETS.get(dataset), "layouts_for", None)
    return layouts_for(**options) if layouts_for is not None else ()


def all_layouts() -> Iterator[tuple[str, FileLayout]]:
    """The layouts of every dataset that can be imported, each with the dataset's name; without `folder`'s."""
    for dataset in DATASETS.names():
        try:
            layouts = declared_layouts(dataset, {}) if dataset != "folder" else ()
        except KeyboardInterrupt:
            raise
        except BaseException:  # a broken plugin must not affect other data; `unetzoo doctor` without a path reports it
            continue
        yield from ((dataset, layout) for layout in layouts)


def likely_folders(tree: Tree) -> Iterator[FileLayout]:
    """`folder` with the names of folders and the ending of masks that are there."""
    names = tree.folders()
    for images in (name for name in IMAGE_FOLDERS if name in names):
        for masks in (name for name in MASK_FOLDERS if name in names):
            endings: Counter[str] = Counter()
            for plain in Folder.layouts_for(images=images, masks=masks):
                items = sort_files(tree.files, plain).items
                stems = {item.key for item in items if item.of("image")}
                masked = [item.key for item in items if item.of("mask")]
                endings.update(
                    ending for key in masked for ending in MASK_SUFFIXES
                    if key[-1].endswith(ending) and (*key[:-1], key[-1].removesuffix(ending)) in stems
                )  # fmt: skip
            ending = endings.most_common(1)[0][0] if endings else ""
            yield from Folder.layouts_for(images=images, masks=masks, mask_suffix=ending)
