"""Label images with one number per object, and objects in one file each."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..borders import renumbered
from ..errors import ImageDecodeError, LabelRangeError, SizeMismatchError
from ..images.decode import PathLike, our_errors
from ..images.pixels import Pixels
from ..images.reading import read_stored
from ..images.tiff import is_tiff, read_pages
from ..labels import LabelSpec
from .base import MOST_OBJECTS
from .files import read_values
from .listing import natural_key

OBJECTS = LabelSpec(("background", "object"))
_SAMPLE_FORMAT = 339  # the tag; 1 are unsigned integers
_ANY_DEPTH = Pixels(channels=1, range="dtype")


def read_numbers(path: PathLike) -> np.ndarray:
    """Decode a label image with one number per object.

    Args:
        path: A gray or palette image of 1, 8 or 16 bits, a TIFF of up to 64 bits, or an array in a `.npy` or `.npz`
            file.

    Shape:
        Returns integers (H, W), as stored.

    Raises:
        ImageDecodeError: Broken, missing, or a file that cannot contain numbers of objects.
        ImageTooLargeError: More pixels than Pillow's limit against decompression bombs.
        LabelRangeError: Negative numbers.
    """
    subject = os.fspath(path)
    with our_errors(subject), open(path, "rb") as file:
        array = file.read(6) == b"\x93NUMPY" or subject.lower().endswith(".npz")
        file.seek(0)
        pages = read_pages(file, subject) if not array and is_tiff(file) else []
    if not array and all(page.bits <= 16 and page.tags.get(_SAMPLE_FORMAT, (1,)) == (1,) for page in pages):
        return read_values(path)
    values = read_stored(path, _ANY_DEPTH).values[..., 0]
    if values.dtype.kind not in "iu":
        raise ImageDecodeError("not numbers of objects", subject=subject, expected="integers", found=values.dtype,
                               hint="save the numbers as integers, e.g. as 16-bit PNG or 32-bit TIFF")  # fmt: skip
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise LabelRangeError("negative numbers of objects", subject=subject, expected="0 for the background, 1, 2, …",
                              found=f"{values.min()}", hint="correct the file")  # fmt: skip
    return values


def merge_objects(paths: Sequence[PathLike]) -> tuple[np.ndarray, int]:
    """Number objects that are in one file each, from 1 in natural order of the file names.

    Every pixel that is not 0 belongs to the object of the file. Where objects overlap, the later one covers the earlier
    ones.

    Args:
        paths: The files of an image; a file without a pixel of its object counts, too.

    Returns:
        The numbers, int32 (H, W), and the number of covered pixels.

    Raises:
        ImageDecodeError: As in `read_numbers`.
        ImageTooLargeError: As in `read_numbers`.
        SizeMismatchError: Files of different sizes.
    """
    ordered = sorted(paths, key=lambda path: natural_key(os.path.basename(path)))
    merged: np.ndarray = np.zeros((0, 0), np.int32)
    covered = 0
    for number, path in enumerate(ordered, 1):
        present = read_numbers(path) != 0
        if number == 1:
            merged = np.zeros(present.shape, np.int32)
        if present.shape != merged.shape:
            raise SizeMismatchError(
                "files of one image differ in size", subject=path, expected=f"{merged.shape[1]}×{merged.shape[0]}, as "
                f"{ordered[0]}", found=f"{present.shape[1]}×{present.shape[0]}", hint="correct the files of this image",
            )  # fmt: skip
        covered += int(np.count_nonzero(merged[present]))
        merged[present] = number
    return merged, covered


def mask_and_instances(numbers: np.ndarray, labels: LabelSpec) -> dict[str, np.ndarray]:
    """The planes `mask` and `instances` of numbers of objects.

    Numbers are kept, gaps included, unless one is 2²⁴ or more: then the objects are numbered 1, 2, 3, … in the order of
    their numbers. All pixels of a number are one object, even in several pieces.

    Args:
        numbers: Integers ≥ 0 (H, W).
        labels: Background and object; `ignore_ids` are numbers of unlabeled pixels.

    Examples:
        >>> planes = mask_and_instances(np.array([[0, 7, 7, 9]]), OBJECTS)
        >>> planes["mask"].tolist(), planes["instances"].tolist()
        ([[0, 1, 1, 1]], [[0, 7, 7, 9]])
    """
    ignored = np.isin(numbers, labels.ignore_ids) if labels.ignore_ids else None
    if ignored is not None:
        numbers = np.where(ignored, 0, numbers)
    if numbers.size and numbers.max() >= MOST_OBJECTS:
        numbers = renumbered(numbers)
    instances = numbers.astype(np.int64)
    ignore_index = labels.ignore_index or 0
    mask = (instances > 0).astype(np.uint8 if 0 <= ignore_index <= 255 else np.int32)
    if ignored is not None:
        mask[ignored] = ignore_index
    return {"mask": mask, "instances": instances}
