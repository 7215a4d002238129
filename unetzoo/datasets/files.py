"""Reading image files safely: shared by all datasets that stand on files.

Masks are numbers, not images: they are decoded raw, so a palette keeps its indices and 16 bits stay 16 bits, and a
file that cannot hold class numbers (JPEG, RGB, alpha, several frames) is refused. Every fault is one of our errors.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from ..errors import (
    ImageDecodeError,
    ImageTooLargeError,
    LabelRangeError,
    SizeMismatchError,
    UnetzooError,
)
from ..labels import LabelSpec

PathLike = str | os.PathLike[str]

LOSSY = {"JPEG", "MPO", "JPEG2000"}
RAW_MODES = {"P", "L", "1", "I;16", "I;16L", "I;16B"}
SMALL_GRAYS = {"L;1": 255, "L;2": 85, "L;4": 17}
DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


@contextmanager
def our_errors(subject: str) -> Iterator[None]:
    """Turn whatever decoders raise into our errors."""
    try:
        yield
    except UnetzooError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(subject, str(error).partition(",")[0]) from error
    except MemoryError as error:
        raise ImageTooLargeError(
            "not enough memory for an image", subject=subject, hint="cut it into tiles, or close other programs"
        ) from error
    except FileNotFoundError as error:
        raise ImageDecodeError("no such file", subject=subject, hint="check the path") from error
    except PermissionError as error:
        raise ImageDecodeError(
            "no permission to read", subject=subject, hint="change the file's permissions"
        ) from error
    except Exception as error:  # decoders raise whatever they please on broken files
        raise ImageDecodeError(
            "unreadable image",
            subject=subject,
            found=f"{type(error).__name__}: {error}",
            hint="the file is broken or no image; fetch or save it again",
        ) from error


def _too_large(subject: str, found: str) -> ImageTooLargeError:
    return ImageTooLargeError(
        "image too large",
        subject=subject,
        expected=f"at most {Image.MAX_IMAGE_PIXELS or 0:,} pixels",
        found=found,
        hint="cut it into tiles, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file",
    )


@contextmanager
def opened(path: PathLike, *, first_frame: bool = False) -> Iterator[tuple[Image.Image, str, str]]:
    """The decoded image, upright (EXIF), its format and packing, with every failure turned into ours."""
    subject = os.fspath(path)
    with our_errors(subject), warnings.catch_warnings():
        # Pillow warns above its limit and fails at twice that: one clear limit is kinder. What else it may
        # complain of (odd EXIF, palettes with transparency) leaves the pixels alone.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # by file object, not by name: Pillow's memory-mapped path scrambles TIFFs turned by 90° (seen in 13.0)
        with open(path, "rb") as file, Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            # an MPO is a camera's JPEG with a preview behind it
            if frames > 1 and not (first_frame and image.format == "MPO"):
                raise ImageDecodeError(
                    "several images in one file",
                    subject=subject,
                    expected="one",
                    found=f"{frames} frames",
                    hint="save each frame as a file of its own",
                )
            kind, packing = image.format, packing_of(image)
            image.load()
            yield ImageOps.exif_transpose(image), kind or "", packing


def packing_of(image: Image.Image) -> str:
    """How the file packs its pixels ("L;2": gray of 2 bits); loading forgets it."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def read_image(path: PathLike, channels: int = 3) -> np.ndarray:
    """Decode an image, upright by its EXIF orientation; transparency is dropped.

    Args:
        path: A PNG, JPEG, TIFF, BMP, GIF or WebP file.
        channels: 3 for RGB (gray is repeated), 1 for gray (RGB becomes its luminance).

    Shape:
        Returns uint8 (H, W, channels).

    Raises:
        ImageDecodeError: Broken, missing, several frames, or more than 8 bits a channel.
        ImageTooLargeError: More pixels than Pillow's limit against decompression bombs.
    """
    with opened(path, first_frame=True) as (image, _, _):
        if image.mode in DEEP_MODES:
            raise ImageDecodeError(
                "more than 8 bits a channel",
                subject=os.fspath(path),
                expected="8 bits",
                found=f"mode {image.mode}",
                hint="scale it to 0…255 yourself: only you know its range",
            )
        array = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return array if channels == 3 else array[..., None]


def read_rgba(path: PathLike) -> np.ndarray:
    """Decode a cut-out with transparency as uint8 (H, W, 4).

    Raises:
        ImageDecodeError: As `read_image`, or a file without transparency.
        ImageTooLargeError: As `read_image`.
    """
    with opened(path) as (image, _, _):
        if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
            raise ImageDecodeError(
                "no transparency in a cut-out",
                subject=os.fspath(path),
                expected="an alpha channel (RGBA)",
                found=f"mode {image.mode}",
                hint="save foregrounds as PNG with alpha",
            )
        return np.asarray(image.convert("RGBA"))


def read_mask(path: PathLike, labels: LabelSpec) -> np.ndarray:
    """Decode a label file raw and map its values to class indices through `labels.lookup()`.

    Args:
        path: A PNG, TIFF, BMP or GIF of mode P (the palette's indices count), L, 1 or I;16.
        labels: Declares which file value stands for which class.

    Shape:
        Returns (H, W), uint8 where the classes and the ignored value fit, else int32.

    Raises:
        ImageDecodeError: Broken, missing, or a file that cannot hold class numbers.
        ImageTooLargeError: More pixels than Pillow's limit against decompression bombs.
        LabelRangeError: Values that `labels` does not declare, with their counts.
    """
    with opened(path) as (image, kind, packing):
        refused = None
        if kind in LOSSY:
            refused = f"{kind}, which is lossy", "labels as PNG; those in a JPEG are damaged beyond repair"
        elif image.mode not in RAW_MODES:
            refused = f"mode {image.mode}", "save one class number a pixel as an 8 or 16 bit gray or palette PNG"
        if refused:
            raise ImageDecodeError(
                "no label file",
                subject=os.fspath(path),
                expected="one class number a pixel (mode P, L, 1 or I;16)",
                found=refused[0],
                hint=refused[1],
            )
        if image.mode == "1":  # asarray gives bools whose bytes are 255
            image, packing = image.convert("L"), "L;1"
        array = np.asarray(image)
        if packing in SMALL_GRAYS:  # Pillow spreads small grays over 0…255
            array = array // SMALL_GRAYS[packing]
    return map_labels(array, labels, os.fspath(path))


def map_labels(array: np.ndarray, labels: LabelSpec, subject: object) -> np.ndarray:
    """File values → class indices.

    Raises:
        LabelRangeError: Values that `labels` does not declare, with their counts.
    """
    table = {raw: index for raw, index in labels.lookup().items() if raw >= 0}
    length = max(256, int(array.max(initial=0)) + 1, max(table, default=0) + 1)
    known = np.zeros(length, bool)
    known[list(table)] = True
    if not known[array].all():
        raise _unknown_values(array, known, labels, subject)
    fits = min(table.values()) >= 0 and max(table.values()) <= 255
    values = np.zeros(length, np.uint8 if fits else np.int32)
    values[list(table)] = list(table.values())
    return values[array]


def _unknown_values(array: np.ndarray, known: np.ndarray, labels: LabelSpec, subject: object) -> LabelRangeError:
    values, counts = np.unique(array, return_counts=True)
    strange = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if not known[v]]
    found = ", ".join(f"{v} ({n:,} px)" for v, n in strange[:10]) + (", …" if len(strange) > 10 else "")
    if set(values.tolist()) <= {0, 255} and labels.classes == 2:
        hint = "declare ids=[0, 255]"
    elif len(strange) == 1 and strange[0][0] == 255:
        hint = "if 255 means not labeled, declare ignore_ids=[255], ignore_index=255; if it is a class, name it in ids"
    elif len(strange) > 10:
        hint = "this looks like an image, or labels once resized with interpolation; else declare the values in ids"
    else:
        hint = "declare these values in ids or ignore_ids, or correct the file"
    expected = ", ".join(map(str, list(labels.lookup())[:12])) + (", …" if len(labels.lookup()) > 12 else "")
    return LabelRangeError("unknown label values", subject=subject, expected=expected, found=found, hint=hint)


def check_same_size(image: np.ndarray, mask: np.ndarray, image_path: object, mask_path: object) -> None:
    """Image and mask must have one size.

    Raises:
        SizeMismatchError: They do not.
    """
    if image.shape[:2] != mask.shape[:2]:
        raise SizeMismatchError(
            "mask and image differ in size",
            subject=mask_path,
            expected=f"{image.shape[1]}×{image.shape[0]} as {image_path}",
            found=f"{mask.shape[1]}×{mask.shape[0]}",
            hint="the mask belongs to another image, or one of them was resized or turned",
        )


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
    with our_errors(subject), tifffile.TiffFile(path) as file:
        series = file.series[0]
        shape = tuple(int(n) for n in series.shape)
        if len(shape) != 3 or min(shape) < 1 or series.dtype != np.uint8:
            raise ImageDecodeError(
                "not a stack of gray images",
                subject=subject,
                expected="uint8 (slices, H, W)",
                found=f"{series.dtype} {shape}",
                hint="fetch the original file again",
            )
        if Image.MAX_IMAGE_PIXELS and math.prod(shape) > 8 * Image.MAX_IMAGE_PIXELS:
            raise _too_large(subject, f"{shape}")
        return (shape[0], shape[1], shape[2]), series.asarray() if load else np.empty(0, np.uint8)
