"""Reading image and label files, with our errors.

Masks are decoded to stored values, so palettes keep their indices and 16 bits remain 16 bits. Files that cannot contain
class indices (JPEG, RGB, alpha, several frames) are refused.
"""

from __future__ import annotations

import math
import os

import numpy as np
from PIL import Image

from ..errors import ImageDecodeError, LabelRangeError, SizeMismatchError
from ..images.decode import PathLike, opened, our_errors, read_rgba, too_large
from ..images.pixels import Pixels
from ..images.reading import read_image, read_stored
from ..images.tiff import read_pages
from ..labels import LabelSpec

__all__ = ["PathLike", "check_same_size", "map_labels", "read_image", "read_mask", "read_mask_slice", "read_rgba", 
           "read_stack", "stack_shape"]  # fmt: skip

LOSSY = {"JPEG", "MPO", "JPEG2000"}
RAW_MODES = {"P", "L", "1", "I;16", "I;16L", "I;16B"}
LARGEST = 2**24  # number of label values in a table
SMALL_GRAYS = {"L;1": 255, "L;2": 85, "L;4": 17}


def read_mask(path: PathLike, labels: LabelSpec) -> np.ndarray:
    """Decode the stored values of a label file, and map them to class indices with `labels.lookup()`.

    Args:
        path: A PNG, TIFF, BMP or GIF of mode P (palette indices), L, 1 or I;16.
        labels: Declares the file value of each class.

    Shape:
        Returns (H, W), uint8 if the classes and the ignored value fit, else int32.

    Raises:
        ImageDecodeError: Broken, missing, or a file that cannot contain class indices.
        ImageTooLargeError: More pixels than Pillow's limit against decompression bombs.
        LabelRangeError: Undeclared values, with their counts.
    """
    return map_labels(read_values(path), labels, os.fspath(path))


def read_values(path: PathLike) -> np.ndarray:
    """Decode the stored values of a label file, (H, W).

    Raises:
        ImageDecodeError: As in `read_mask`.
        ImageTooLargeError: As in `read_mask`.
    """
    with opened(path) as (image, kind, packing, _):
        refused = None
        if kind in LOSSY:
            refused = f"{kind}, which is lossy", "export the labels as PNG; those in a JPEG cannot be recovered"
        elif image.mode in ("RGB", "RGBA"):
            refused = f"mode {image.mode}", "declare the color of each class in colors; `unetzoo doctor` lists them"
        elif image.mode not in RAW_MODES:
            refused = f"mode {image.mode}", "save class indices as an 8 or 16 bit gray or palette PNG"
        if refused:
            raise ImageDecodeError(
                "not a label file",
                subject=os.fspath(path),
                expected="one class index per pixel (mode P, L, 1 or I;16)",
                found=refused[0],
                hint=refused[1],
            )
        if image.mode == "1":  # asarray returns bools with bytes of 255
            image, packing = image.convert("L"), "L;1"
        array = np.asarray(image)
        # Pillow scales 1, 2 and 4 bits to 0…255
        return array // SMALL_GRAYS[packing] if packing in SMALL_GRAYS else array


def read_mask_slice(path: PathLike, labels: LabelSpec, index: int, axis: str | None) -> np.ndarray:
    """Decode a slice of a volume of labels, and map its values to class indices.

    Args:
        path: A NIfTI file, or a TIFF file whose pages are slices.
        labels: Declares the value of each class.
        index: Number of the slice, from 0.
        axis: The axis along which the volume is cut.

    Shape:
        Returns (H, W), as `read_mask`.

    Raises:
        ImageDecodeError: Broken, missing, or a file that cannot contain class indices.
        LabelRangeError: Undeclared values, with their counts.
    """
    subject = f"{os.fspath(path)}, slice {index}"
    values = read_stored(path, Pixels(1, range="dtype", axis=axis), index).values[..., 0]
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int64)
        if (whole != values).any():
            raise ImageDecodeError("not class numbers", subject=subject, expected="whole numbers",
                                   found="fractions", hint="save the labels as integers")  # fmt: skip
        values = whole
    return map_labels(values, labels, subject)


def map_labels(array: np.ndarray, labels: LabelSpec, subject: object) -> np.ndarray:
    """Map file values to class indices.

    Raises:
        LabelRangeError: Undeclared values, with their counts.
    """
    low = min(int(array.min(initial=0)), 0)
    table = {raw - low: index for raw, index in labels.lookup().items() if raw >= low}
    length = max(256, int(array.max(initial=0)) + 1 - low, max(table, default=0) + 1)
    known = np.zeros(min(length, LARGEST), bool)
    known[[raw for raw in table if raw < LARGEST]] = True
    shifted = array - low if low else array
    if length > LARGEST or not known[shifted].all():
        raise _unknown_values(array, labels, subject)
    fits = min(table.values()) >= 0 and max(table.values()) <= 255
    values = np.zeros(length, np.uint8 if fits else np.int32)
    values[list(table)] = list(table.values())
    return values[shifted]


def _unknown_values(array: np.ndarray, labels: LabelSpec, subject: object) -> LabelRangeError:
    values, counts = np.unique(array, return_counts=True)
    lookup = labels.lookup()
    strange = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if int(v) not in lookup]
    found = ", ".join(f"{v} ({n:,} px)" for v, n in strange[:10]) + (", …" if len(strange) > 10 else "")
    if set(values.tolist()) <= {0, 255} and labels.classes == 2:
        hint = "declare ids=[0, 255]"
    elif len(strange) == 1 and strange[0][0] == 255:
        hint = "if 255 means unlabeled, set ignore_ids=[255], ignore_index=255; if it is a class, add it to ids"
    elif len(strange) > 10:
        hint = "this looks like an image or interpolated labels; otherwise declare the values in ids"
    else:
        hint = "declare these values in ids or ignore_ids, or correct the file"
    expected = ", ".join(map(str, list(labels.lookup())[:12])) + (", …" if len(labels.lookup()) > 12 else "")
    return LabelRangeError("unknown label values", subject=subject, expected=expected, found=found, hint=hint)


def check_same_size(
    image: np.ndarray, plane: np.ndarray, image_path: object, plane_path: object, role: str = "mask"
) -> None:
    """Check that an image and another plane of its sample have the same size.

    Raises:
        SizeMismatchError: They differ.
    """
    if image.shape[:2] != plane.shape[:2]:
        raise SizeMismatchError(
            f"{role} and image differ in size",
            subject=plane_path,
            expected=f"{image.shape[1]}×{image.shape[0]} as {image_path}",
            found=f"{plane.shape[1]}×{plane.shape[0]}",
            hint="the file belongs to another image, or one of them was resized or rotated",
        )


def without_missing(mask: np.ndarray, missing: np.ndarray | None, labels: LabelSpec) -> np.ndarray:
    """Ignore the pixels of a mask (H, W) where the image has no data, if the labels have a value for ignored pixels."""
    if missing is None or labels.ignore_index is None:
        return mask
    ignored = np.min_scalar_type(labels.ignore_index)
    return np.where(missing, ignored.type(labels.ignore_index), mask).astype(np.promote_types(mask.dtype, ignored))


def stack_shape(path: PathLike) -> tuple[int, int, int]:
    """(slices, H, W) of a TIFF stack of 8-bit gray images, without decoding it.

    Raises:
        ImageDecodeError: Broken, missing, or another kind of TIFF.
        ImageTooLargeError: More pixels than 8 of the largest images allowed.
    """
    return _stack(path, load=False)[0]


def read_stack(path: PathLike) -> np.ndarray:
    """Decode a TIFF stack of 8-bit gray images as uint8 (slices, H, W).

    Raises:
        ImageDecodeError: Broken, missing, or another kind of TIFF.
        ImageTooLargeError: More pixels than 8 of the largest images allowed.
    """
    return _stack(path, load=True)[1]


def _stack(path: PathLike, *, load: bool) -> tuple[tuple[int, int, int], np.ndarray]:
    import tifffile

    subject = os.fspath(path)
    with our_errors(subject):
        read_pages(path, subject)  # refuses page loops and tags beyond the end
    with our_errors(subject), tifffile.TiffFile(path) as file:
        series = file.series[0]
        shape = tuple(int(n) for n in series.shape)
        if len(shape) != 3 or min(shape) < 1 or series.dtype != np.uint8:
            raise ImageDecodeError(
                "not a stack of gray images",
                subject=subject,
                expected="uint8 (slices, H, W)",
                found=f"{series.dtype} {shape}",
                hint="download the original file again",
            )
        if Image.MAX_IMAGE_PIXELS and math.prod(shape) > 8 * Image.MAX_IMAGE_PIXELS:
            raise too_large(subject, f"{shape}")
        return (shape[0], shape[1], shape[2]), series.asarray() if load else np.empty(0, np.uint8)
