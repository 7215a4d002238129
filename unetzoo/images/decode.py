"""Decoding of image files with Pillow, with all failures converted to errors of this library.

Pillow silently reduces 16-bit colors to their high bytes, so the bit depth is read from the file, not from
`Image.mode`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from ..errors import ImageDecodeError, ImageTooLargeError, UnetzooError, UnsupportedImageError
from .tiff import is_tiff, read_pages

PathLike = str | os.PathLike[str]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".nii", ".nii.gz", ".npy", ".npz", ".png", ".tif", ".tiff", ".webp")
ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
# Signatures of files that Pillow cannot read, and their formats.
_OTHER_IMAGES = (
    (rb".{4}ftyp(?:hei|hev|mif|avi)", "HEIC or AVIF"), (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"), (rb".{128}DICM", "DICOM"), (rb".{344}n[i+]1\0", "NIfTI"),
)  # fmt: skip
_NO_IMAGES = (
    (rb"\s*<", "HTML, XML or SVG"), (rb"version https://git-lfs", "a Git LFS pointer (run `git lfs pull`)"),
    (rb"\x89HDF", "HDF5"), (rb"\x93NUMPY", "a NumPy array"), (rb"%PDF", "PDF"), (rb"PK\x03\x04", "a zip archive"),
    (rb"", "another format, or a damaged header"),  # any content
)  # fmt: skip


class Opened(NamedTuple):
    """A decoded image, rotated upright by its EXIF orientation.

    Args:
        image: The image.
        format: The file format, as named by Pillow.
        packing: How the file packs its pixels ("L;2": gray of 2 bits).
        bits: Bits per channel in the file.
    """

    image: Image.Image
    format: str
    packing: str
    bits: int


@contextmanager
def our_errors(subject: str) -> Iterator[None]:
    """Convert all exceptions of decoders to errors of this library."""
    try:
        yield
    except UnetzooError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise too_large(subject, str(error).partition(",")[0]) from error
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
    except EOFError as error:
        raise ImageDecodeError(
            "unreadable image",
            subject=subject,
            found="the file ends early",
            hint="the file is truncated; download or save it again",
        ) from error
    except Exception as error:  # on broken files, decoders raise exceptions of any type
        raise ImageDecodeError(
            "unreadable image",
            subject=subject,
            found=str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}",
            hint="the file is damaged or not an image; download or save it again",
        ) from error


def split_name(path: PathLike) -> tuple[str, str]:
    """Split the name of a file into its stem and its suffix, which may be `.nii.gz`, or begin with `.ome`.

    Examples:
        >>> split_name("scans/case_07.nii.gz"), split_name("a.b.png"), split_name("a.ome.tif")
        (('case_07', '.nii.gz'), ('a.b', '.png'), ('a', '.ome.tif'))
    """
    name = os.path.basename(path)
    stem = os.path.splitext(name)[0]
    if name.lower().endswith(".nii.gz") or stem.lower().endswith(".ome"):
        stem = os.path.splitext(stem)[0]
    return stem, name[len(stem) :]


def has_image_suffix(path: PathLike) -> bool:
    """Whether the name of a file ends like that of an image, in any case.

    Examples:
        >>> [has_image_suffix(name) for name in ("a.PNG", "a.nii.gz", "a.ome.tif", "a.txt", ".png")]
        [True, True, True, False, False]
    """
    name = os.path.basename(path).lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def empty_file(subject: str) -> ImageDecodeError:
    """Return the error for a file of 0 bytes."""
    return ImageDecodeError(
        "a file without content", subject=subject, found="0 bytes", hint="download or save the file again"
    )


def too_large(subject: str, found: str) -> ImageTooLargeError:
    """Return the error for an image with more pixels than Pillow's limit."""
    return ImageTooLargeError(
        "image too large",
        subject=subject,
        found=found,
        hint="cut it into tiles; to predict on it, save it as a tiled TIFF and run `unetzoo stream`",
    )


@contextmanager
def opened(path: PathLike, *, first_frame: bool = False, packing: str = "") -> Iterator[Opened]:
    """Open and decode an image file.

    Args:
        path: The file. Smaller versions and masks of the image in a TIFF file (its "internal" overviews and mask) are
            skipped.
        first_frame: Whether to accept an MPO file, a JPEG from a camera with previews appended, and read its first
            image.
        packing: How to unpack the pixels, instead of as the file declares.

    Raises:
        ImageDecodeError: The file is damaged, missing or contains several images.
        ImageTooLargeError: The image has more pixels than Pillow's decompression bomb limit.
    """
    subject = os.fspath(path)
    with our_errors(subject), warnings.catch_warnings():
        # Pillow warns above its limit and fails at twice that; one limit is clearer. Its other warnings (invalid
        # EXIF, palettes with transparency) do not affect pixels.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # a file object, not a name: with memory mapping, Pillow corrupts TIFFs rotated by 90° (seen in 13.0)
        with open(path, "rb") as file:
            image, frames = open_image(file, subject)
            with image:
                if frames != 1 and not (first_frame and image.format == "MPO"):
                    raise ImageDecodeError(
                        "several images in one file",
                        subject=subject,
                        expected="one",
                        found=f"{frames} frames",
                        hint="save each frame as a separate file",
                    )
                kind, stored, bits = image.format or "", packing_of(image), bits_of(image)
                if packing:
                    image.tile = [tile._replace(args=packing) for tile in image.tile]  # pyright: ignore
                image.load()
                yield Opened(ImageOps.exif_transpose(image), kind, stored, bits)


def open_image(file: BinaryIO, subject: str) -> tuple[Image.Image, int]:
    """Return the image of an open file, not yet decoded, and the number of images in the file.

    Raises:
        ImageDecodeError: The file is empty or not an image, or the pages of a TIFF file are damaged.
        UnsupportedImageError: Pillow cannot decode this kind of file.
    """
    if not is_tiff(file):
        try:
            image = Image.open(file)
        except UnidentifiedImageError:
            file.seek(0)
            start = file.read(512)
            if not start:
                raise empty_file(subject) from None
            error, name = next(
                (error, name)
                for kinds, error in ((_OTHER_IMAGES, UnsupportedImageError), (_NO_IMAGES, ImageDecodeError))
                for signature, name in kinds
                if re.match(signature, start, re.DOTALL)
            )
            raise error(
                "not an image of a supported format",
                subject=subject,
                expected="PNG, JPEG, TIFF, BMP, GIF or WebP",
                found=name,
                hint="convert the file to one of these, or download it again",
            ) from None
        return image, getattr(image, "n_frames", 1)
    pages = read_pages(file, subject)
    images = [page for page in pages if page.is_image] or pages
    try:
        image = Image.open(file)
        image.seek(images[0].number)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise
    except Exception as error:  # Pillow reports an unknown kind as not an image
        page = images[0]
        raise UnsupportedImageError(
            "unsupported kind of TIFF",
            subject=subject,
            expected="gray, RGB or palette, 8 bits per channel",
            found=f"{page.samples} channel{'s' * (page.samples != 1)} of {page.bits} bits, {page.compression}"
            + ", palette" * page.is_palette,
            hint="convert the image to 8-bit gray or RGB",
        ) from error
    return image, len(images)


def packing_of(image: Image.Image) -> str:
    """Return how the file packs its pixels ("L;2": gray of 2 bits); not available after loading."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def bits_of(image: Image.Image) -> int:
    """Return the bits per channel in the file, for an image that is not yet loaded.

    Examples:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.fromarray(np.zeros((2, 2), np.uint16)).save(file, "PNG")
        >>> bits_of(Image.open(file))
        16
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(cast(tuple[int, ...], image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ()
    if image.format == "PPM" and isinstance(args, tuple) and args and isinstance(args[-1], int):
        return args[-1].bit_length()  # the largest value
    packed = re.fullmatch(r"(?!BGR).*;(\d+)\D*", packing_of(image))  # for BGR, this is the number of bits per pixel
    if packed:
        return int(packed[1])
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def check_bits(found: Opened, subject: str) -> None:
    """Reject an image of more than 8 bits per channel: its range is unknown, and Pillow would drop the low bits.

    Raises:
        UnsupportedImageError: The image has more than 8 bits per channel.
    """
    if found.bits > 8:
        raise UnsupportedImageError(
            "more than 8 bits per channel",
            subject=subject,
            expected="8 bits",
            found=f"{found.bits} bits",
            hint="scale it to 0…255 first, since its range is not stored in the file",
        )


def deep_colors(path: PathLike, found: Opened) -> np.ndarray:
    """The stored values (H, W, C) of an image of 16 bits per channel.

    Of colors in PNG files, Pillow decodes only the high bytes; as little-endian values, they are the low bytes.

    Raises:
        UnsupportedImageError: A file whose values Pillow cannot read completely.
    """
    if found.image.mode.startswith("I;16") or (found.image.mode == "I" and found.bits == 16):
        return np.asarray(found.image).astype(np.uint16)[..., None]
    if found.format == "PNG" and found.packing in ("RGB;16B", "RGBA;16B"):
        with opened(path, packing=found.packing.replace("16B", "16L")) as low:
            return np.asarray(found.image).astype(np.uint16) << 8 | np.asarray(low.image)
    raise UnsupportedImageError(
        "values that cannot be read completely",
        subject=os.fspath(path),
        expected="PNG of 16 bits in gray, RGB or RGBA, or TIFF",
        found=f"{found.format}, {found.packing or found.image.mode}",
        hint="save the image as TIFF",
    )


def as_channels(image: Image.Image, channels: int) -> np.ndarray:
    """Return the pixels as uint8 (H, W, channels): RGB if `channels` is 3, luminance if it is 1."""
    if image.mode == "La":  # premultiplied gray, which Pillow converts only to LA
        image = image.convert("LA")
    array = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return array if channels == 3 else array[..., None]


def read_rgba(path: PathLike) -> np.ndarray:
    """Decode a cut-out with transparency as uint8 (H, W, 4).

    Raises:
        ImageDecodeError: As in `read_image`, or the file has no transparency.
        ImageTooLargeError: As in `read_image`.
    """
    with opened(path) as found:
        check_bits(found, os.fspath(path))
        image = found.image
        if image.mode not in ALPHA_MODES and "transparency" not in image.info:
            raise ImageDecodeError(
                "no transparency in a cut-out",
                subject=os.fspath(path),
                expected="an alpha channel (RGBA)",
                found=f"mode {image.mode}",
                hint="save foregrounds as PNG with alpha",
            )
        return np.asarray(image.convert("RGBA"))
