"""Facts of samples stored in stacks, one of images and one of labels; and of arrays, which have no files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..datasets.files import our_errors, read_stack
from ..datasets.layout import FileLayout, MaskValues
from ..datasets.tree import Item
from ..errors import ImageDecodeError, UnetzooError
from ..labels import LabelSpec
from .facts import FileFacts, ImageFacts, LabelMap, MaskFacts, Record
from .probe import count_numbers, digest, image_facts, label_map, roughness

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def examine_stacks(root: Path, item: Item, layout: FileLayout) -> list[Record]:
    """Read both stacks into one record per slice; faults of a whole stack go into the first record."""
    image = next((ImageFacts(file) for file in item.of("image")), None)
    mask = next((MaskFacts(file) for file in item.of("mask")), None)
    images = _pages(root, image, "image") if image is not None else []
    masks = _pages(root, mask, "mask") if mask is not None else []
    records = [Record((f"{number:02d}",)) for number in range(max(len(images), len(masks), 1))]
    for record, page, number in zip(records, images, range(len(images)), strict=False):
        record.image = image_of_array(f"{item.of('image')[0]}, slice {number}", page)
    for record, page, number in zip(records, masks, range(len(masks)), strict=False):
        file = f"{item.of('mask')[0]}, slice {number}"
        record.masks, record.label_map = [mask_of_array(file, page)], label_map(page, MaskValues(layout.labels))
    if image is not None and image.fault:
        records[0].image = image
    if mask is not None and mask.fault:
        records[0].masks = [mask]
    return records


def _pages(root: Path, facts: FileFacts, kind: Literal["image", "mask"]) -> list[np.ndarray]:
    """The slices of a stack; empty if it is broken, with the reason in `facts.fault`."""
    path = root / facts.file
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        if start in _TIFF:
            with silent():
                return list(read_stack(path))
        facts.fault = "not-an-image" if start else "empty-file"
    except OSError as error:
        facts.fault, facts.detail = "no-permission", error.strerror or str(error)
    except UnetzooError as error:
        facts.fault, facts.detail = _fault_of_stack(path, kind), str(error.found or error.what)[:80]
    return []


@contextmanager
def silent() -> Iterator[None]:
    """Suppress tifffile's log messages for each broken page; there is a finding instead."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _fault_of_stack(path: Path, kind: str) -> str:
    """Why a TIFF file is not a stack of 8-bit gray images."""
    import tifffile

    try:
        with silent(), our_errors(os.fspath(path)), tifffile.TiffFile(path) as file:
            depth = file.series[0].dtype
    except ImageDecodeError:
        return f"truncated-{kind}"
    if depth is not None and depth.itemsize > 1:
        return "float-mask" if depth.kind == "f" and kind == "mask" else f"sixteen-bit-{kind}"
    return f"truncated-{kind}"


def image_of_array(name: str, array: np.ndarray) -> ImageFacts:
    """Facts of a decoded image, uint8 (H, W) or (H, W, C)."""
    facts = ImageFacts(name, format="array", size=(array.shape[1], array.shape[0]))
    facts.stored = facts.size
    planes = array if array.ndim == 2 or array.shape[2] == 3 else array.mean(axis=2).astype(np.uint8)
    image_facts(facts, Image.fromarray(np.ascontiguousarray(planes)))
    if planes is not array:  # more channels than can be shown, all of which identify the image
        facts.digest = digest(repr(array.shape).encode(), np.ascontiguousarray(array).data)
    return facts


def mask_of_array(name: str, numbers: np.ndarray) -> MaskFacts:
    """Facts of decoded labels (H, W)."""
    facts = MaskFacts(name, format="array", size=(numbers.shape[1], numbers.shape[0]))
    facts.stored = facts.size
    facts.counts, facts.roughness = count_numbers(numbers), roughness(numbers)
    return facts


def label_map_of(numbers: np.ndarray, labels: LabelSpec) -> LabelMap:
    """The label map of a sample whose values are class indices."""
    plain = LabelSpec.indexed(labels.classes)
    ignored = () if labels.ignore_index is None else (labels.ignore_index,)
    spec = LabelSpec(labels.names, plain.ids, ignored, labels.ignore_index, labels.palette)
    return label_map(numbers, MaskValues(spec))
