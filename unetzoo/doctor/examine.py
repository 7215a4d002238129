"""Read all files of a sample, each once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..datasets.layout import FileLayout, MaskValues
from ..datasets.listing import natural_key
from ..datasets.tree import Item
from ..labels import LabelSpec
from .facts import MaskFacts, Record
from .pixel_checks import ground_difference, read_pixel_facts
from .probe import label_map, read_depth_facts, read_image_facts, read_mask_facts


def examine(root: Path, item: Item, layout: FileLayout) -> Record:
    """Read the files of a sample of images and masks.

    Args:
        root: Root of the data.
        item: The files of the sample.
        layout: Its layout, with the mask values that the user declares.
    """
    record = Record(item.key, item.split)
    for file in item.of("image")[:1]:
        pixels = layout.pixels
        record.image = read_image_facts(root, file) if pixels is None else read_pixel_facts(root, file, pixels)
        for mask in item.of("mask")[:1]:
            record.elsewhere = ground_difference(root, file, mask)
    record.images = [read_image_facts(root, file, cutout=True) for file in item.of("cutout")]
    record.images += [read_image_facts(root, file) for file in item.of("scene")]
    for file in item.of("background")[:1]:
        record.background = read_image_facts(root, file)
    for file in item.of("depth")[:1]:
        record.depth = read_depth_facts(root, file)
    record.masks, numbers, reading = read_labels(root, layout.read_first(item.of("mask")), layout)
    if numbers is not None:
        record.label_map = label_map(numbers, reading)
        for file in set(item.of("mask")).difference(layout.read_first(item.of("mask"))):
            record.disagreeing = _compared(root, file, layout, class_indices(numbers, reading.labels))
    return record


def _compared(root: Path, file: str, layout: FileLayout, classes: np.ndarray) -> tuple[str, int, float] | None:
    """A label file that is not read, and the number and share of pixels in which it differs from the one that is."""
    _, numbers, reading = read_labels(root, [file], layout)
    if numbers is None or numbers.shape != classes.shape:
        return None
    different = class_indices(numbers, reading.labels) != classes
    return (file, int(different.sum()), float(different.mean())) if different.any() else None


def class_indices(numbers: np.ndarray, labels: LabelSpec | None) -> np.ndarray:
    """Class indices of mask values; −1 for ignored and undeclared ones."""
    if labels is None:
        return numbers.astype(np.int64)
    found = np.full(numbers.shape, -1, np.int64)
    for value, index in labels.lookup().items():
        if index != labels.ignore_index:
            found[numbers == value] = index
    return found


def read_labels(
    root: Path, files: list[str], layout: FileLayout
) -> tuple[list[MaskFacts], np.ndarray | None, MaskValues]:
    """Facts of the mask files of a sample, its values as the dataset reads them, and their meaning."""
    if layout.joined:
        return _paint_parts(root, files, layout)
    if layout.merges_objects:
        return _merge_objects(root, files, layout)
    reading = (layout.values_of(files[0]) if files else None) or MaskValues(layout.labels)
    if not files:
        return [], None, reading
    facts, numbers = read_mask_facts(root, files[0], reading)
    return [facts], numbers, reading.of(facts.counts)


def _merge_objects(
    root: Path, files: list[str], layout: FileLayout
) -> tuple[list[MaskFacts], np.ndarray | None, MaskValues]:
    """Where the objects of a sample are, from one file per object."""
    reading = MaskValues(layout.labels, "object")
    masks: list[MaskFacts] = []
    merged: np.ndarray | None = None
    for file in sorted(files, key=natural_key):
        facts, present = read_mask_facts(root, file, reading)
        masks.append(facts)
        if present is not None:
            merged = np.zeros(present.shape, np.uint8) if merged is None else merged
            if merged.shape == present.shape:
                facts.covered = int(np.count_nonzero(merged[present > 0]))
                merged[present > 0] = 1
    return masks, merged, MaskValues(layout.labels)


def _paint_parts(
    root: Path, files: list[str], layout: FileLayout
) -> tuple[list[MaskFacts], np.ndarray | None, MaskValues]:
    """The label map of part files, painted in the declared order."""
    order = list(layout.joined)
    masks: list[MaskFacts] = []
    painted: np.ndarray | None = None
    parts = {file: layout.part_in(file) for file in files}
    for file in sorted(files, key=lambda file: order.index(parts[file]) if parts[file] in order else -1):
        facts, numbers = read_mask_facts(root, file, layout.values_of(file) or MaskValues(layout.labels))
        masks.append(facts)
        if numbers is not None:
            painted = np.zeros(numbers.shape, np.uint8) if painted is None else painted
            if painted.shape == numbers.shape and parts[file] in layout.joined:
                painted[numbers > 127] = layout.joined[parts[file]]
    return masks, painted, MaskValues(layout.labels)
