"""The layouts that can be written: those that registered datasets declare, including plugins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..datasets import Folder
from ..datasets.file_dataset import FileDataset
from ..datasets.layout import FileLayout, MaskValues
from ..datasets.objects import OBJECTS
from ..errors import DataError, UnetzooError
from ..labels import LabelSpec
from ..registry import DATASETS
from .base import TwinLayout
from .composite_twins import COMPOSITE_TWINS
from .drawings import DRAWINGS, Nuclei
from .writing import Drawing, read_layout, write_layout

SHAPES = LabelSpec(("background", "disc", "square", "triangle"), ignore_ids=(255,), ignore_index=255,
                   palette=((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)))  # fmt: skip
COLORS = LabelSpec.from_colors(dict(zip(SHAPES.names, SHAPES.palette, strict=True)))
TWO = LabelSpec(("background", "object"), ids=(0, 255))


def twin_layout(
    dataset: str, target: type[FileDataset], layout: FileLayout, drawing: Drawing, declared: MaskValues | None = None
) -> TwinLayout:
    """A layout declared by a dataset as a `TwinLayout`."""
    options = dict(layout.options)
    if declared is not None:
        options |= _declaration(declared)
    known = target.splits or ("train", "val")
    splits = tuple(split for split in ("train", "val", "test") if split in known and split not in layout.withheld)
    masks = layout.of("mask")
    values = declared or masks[0].values or MaskValues(layout.labels)
    return TwinLayout(
        dataset, layout, partial(write_layout, layout, values, drawing), partial(read_layout, layout, target, splits),
        splits, options, declared, drawing.palette, drawing.count,
        drawing.least or _least(target, layout, drawing, splits), drawing.size,
    )  # fmt: skip


def _declaration(values: MaskValues) -> dict[str, Any]:
    """The arguments of `folder` that declare mask values."""
    labels = values.labels
    assert labels is not None
    if values.numbered:
        return {"instances": True}
    if values.how == "colors":
        return {"colors": dict(zip(labels.names, labels.palette, strict=True))}
    ignored = {"ignore_ids": labels.ignore_ids, "ignore_index": labels.ignore_index}
    return {"names": labels.names, "ids": labels.ids, **(ignored if labels.ignore_ids else {})}


def _least(target: type[FileDataset], layout: FileLayout, drawing: Drawing, splits: tuple[str, ...]) -> int:
    """The smallest number of samples with two in train and one in every other split."""
    folders = layout.lists or layout.parts
    for count in range(5, 100):
        samples = drawing.samples(layout, count, 0)
        try:
            sizes = {
                split: len(target.divide([fields["name"] for fields in samples if not folders
                                          or split in folders[fields["split"]]], split, Path()))
                for split in splits
            }  # fmt: skip
        except DataError:
            continue
        if all(size >= 1 + (split == "train") for split, size in sizes.items()):
            return count
    return 100


def _declaring() -> tuple[tuple[str, type[FileDataset]], ...]:
    """Name and class of the datasets that declare a layout, except `folder`, whose labels the user declares."""
    found: list[tuple[str, type[FileDataset]]] = []
    for dataset in DATASETS.names():
        try:
            target = DATASETS.get(dataset)
        except UnetzooError:  # a broken plugin must not affect others
            continue
        if isinstance(target, type) and issubclass(target, FileDataset) and target is not Folder:
            found.append((dataset, target))
    return tuple(found)


@cache
def _known(declaring: tuple[tuple[str, type[FileDataset]], ...]) -> dict[str, TwinLayout]:
    found: dict[str, TwinLayout] = {}
    for dataset, target in declaring:
        drawing = DRAWINGS.get(dataset, Drawing())
        layouts = (replace(layout, labels=layout.labels or drawing.labels) for layout in target.layouts_for()
                   if layout.name and layout.name not in COMPOSITE_TWINS)  # fmt: skip
        found |= {layout.name: twin_layout(dataset, target, layout, drawing) for layout in layouts}
    for name, about, values in (
        ("folder", "palette masks with unlabeled outlines", MaskValues(SHAPES)),
        ("folder-binary", "masks of 0 and 255", MaskValues(TWO)),
        ("folder-colors", "masks of colors", MaskValues(COLORS, "colors")),
        ("folder-objects", "label images of one number per object", MaskValues(OBJECTS, "objects")),
    ):
        flat = replace(Folder.layouts_for()[-1], name=name, about=f"your own: images/ and masks/ by stem; {about}")
        drawing = Nuclei() if values.numbered else Drawing(palette=values.labels is SHAPES)
        found[name] = twin_layout("folder", Folder, flat, drawing, values)
    return found | COMPOSITE_TWINS


class _Layouts(Mapping[str, TwinLayout]):
    """The layouts by name, as the datasets that are registered at the moment declare them."""

    def __getitem__(self, name: str) -> TwinLayout:
        return _known(_declaring())[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_known(_declaring()))

    def __len__(self) -> int:
        return len(_known(_declaring()))


LAYOUTS: Mapping[str, TwinLayout] = _Layouts()
