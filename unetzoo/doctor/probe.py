"""Read a file once, and keep facts. A broken file is a fact, not an error."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps

from ..borders import renumbered
from ..datasets.color_masks import COLOR_MODES, color_numbers
from ..datasets.files import LOSSY, RAW_MODES, SMALL_GRAYS
from ..datasets.layout import MaskValues
from ..datasets.objects import read_numbers
from ..errors import ImageDecodeError, UnetzooError, UnsupportedImageError
from ..images import decode
from .facts import GRID, DepthFacts, FileFacts, ImageFacts, LabelMap, MaskFacts, Roughness

Kind = Literal["image", "mask", "depth"]
Facts = TypeVar("Facts", bound=FileFacts)

_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM", b"RIFF")
_ORIENTATION = 0x0112
_ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
_MOST_VALUES = 4096
_DEPTH_MODES = {"L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F"}


def digest(*parts: bytes | memoryview) -> bytes:
    """A collision-resistant hash."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.digest()


def open_image(root: Path, facts: FileFacts, kind: Kind) -> tuple[Image.Image, str] | None:
    """Decode a file upright, and fill in the facts of any image.

    Returns:
        The image and its packing; None if decoding failed, with the reason in `facts.fault`.
    """
    try:
        data = (root / facts.file).read_bytes()
    except FileNotFoundError:
        return _failed(facts, "depth-missing" if kind == "depth" else f"missing-{kind}", "a broken link")
    except OSError as error:
        return _failed(facts, "no-permission", error.strerror or str(error))
    if not data:
        return _failed(facts, "empty-file")
    try:
        image, frames = decode.open_image(io.BytesIO(data), facts.file)
        facts.format, facts.mode = image.format or "", image.mode
        if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            return _failed(facts, "pixel-bomb", f"{image.width:,}×{image.height:,}")
        if frames > 1 and not (kind != "mask" and image.format == "MPO"):
            return _failed(facts, f"multi-frame-{'mask' if kind == 'mask' else 'image'}", f"{frames} frames")
        packing, facts.bits = decode.packing_of(image), decode.bits_of(image)
        facts.orientation = int(image.getexif().get(_ORIENTATION, 1))
        image.load()
        upright = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        return _failed(facts, "pixel-bomb", str(error).partition(",")[0])
    except UnsupportedImageError as error:
        return _failed(facts, "unsupported-image", str(error.found))
    except Exception as error:  # decoders raise anything for broken files
        broken = data.startswith(_MAGIC)
        return _failed(facts, f"truncated-{kind}" if broken else "not-an-image", "" if not broken else _short(error))
    facts.size = upright.size
    width, height = upright.size
    facts.stored = (height, width) if facts.orientation in (5, 6, 7, 8) else (width, height)
    return upright, packing


def _failed(facts: FileFacts, fault: str, detail: str = "") -> None:
    facts.fault, facts.detail = fault, detail


def _short(error: Exception) -> str:
    text = str(error.found if isinstance(error, ImageDecodeError) else error)
    text = re.sub(r"<_io\.BytesIO object at 0x[0-9a-f]+>", "the file", text)
    return (text or type(error).__name__)[:80]


def read_image_facts(root: Path, file: str, *, cutout: bool = False) -> ImageFacts:
    """Facts of an image; a `cutout` needs an alpha channel."""
    facts = ImageFacts(file)
    opened = open_image(root, facts, "image")
    if opened is None:
        return facts
    image = opened[0]
    if facts.bits > 8:
        facts.fault, facts.detail = "sixteen-bit-image", f"{facts.bits} bits, mode {image.mode}"
        return facts
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        low, high = (int(value) for value in image.convert("RGBA").getchannel("A").getextrema())  # type: ignore[arg-type]
        facts.alpha = "empty" if high < 128 else "opaque" if low == 255 else "transparent"
    if cutout:
        facts.fault = "" if facts.alpha else "no-alpha"
        if facts.alpha == "empty":
            facts.fault = "empty-cutout"
    image_facts(facts, image if cutout or image.mode in ("L", "RGB") else image.convert("RGB"))
    return facts


def image_facts(facts: ImageFacts, image: Image.Image) -> None:
    """Fill in the facts of the pixels: hash, blank, edges, brightness."""
    facts.digest = digest(image.mode.encode(), repr(image.size).encode(), image.tobytes())
    extrema = image.getextrema()
    pairs = extrema if isinstance(extrema[0], tuple) else (extrema,)
    facts.blank = all(high - low <= 2 for low, high in pairs)  # type: ignore[operator]
    gray = image.convert("L")
    facts.edges, facts.grays = edge_map(gray), np.asarray(gray.resize((GRID, GRID), Image.Resampling.BOX))
    facts.thumbnail = np.asarray(gray.resize((GRID // 2, GRID // 2), Image.Resampling.BOX))


def edge_map(gray: Image.Image) -> np.ndarray:
    """Strength of edges in the cells of a grid, clipped at the 95th percentile."""
    values = np.asarray(gray.resize((2 * GRID, 2 * GRID), Image.Resampling.BOX), np.float32)
    strength = np.hypot(np.diff(values, axis=0, prepend=values[:1]), np.diff(values, axis=1, prepend=values[:, :1]))
    top = max(float(np.percentile(strength, 95)), 1.0)
    return _gridded((np.minimum(strength, top) * (255 / top)).astype(np.uint8))


def border_map(numbers: np.ndarray, ignored: np.ndarray | None = None) -> np.ndarray:
    """Share of border pixels in the cells of a grid, clipped at one half.

    Args:
        numbers: Labels (H, W).
        ignored: Unlabeled pixels. Thin unlabeled outlines count as borders.
    """
    border = np.zeros(numbers.shape, np.uint8)
    across, down = numbers[:, 1:] != numbers[:, :-1], numbers[1:] != numbers[:-1]
    if ignored is not None:
        across &= ~(ignored[:, 1:] | ignored[:, :-1])
        down &= ~(ignored[1:] | ignored[:-1])
        border[ignored & ~_inside(ignored)] = 255
    for part, change in ((border[:, 1:], across), (border[:, :-1], across), (border[1:], down), (border[:-1], down)):
        part[change] = 255
    return np.minimum(_gridded(border), 127)


def _inside(region: np.ndarray) -> np.ndarray:
    """The pixels of a region that are at least two pixels from its border."""
    inside = region.copy()
    inside[2:] &= region[:-2]
    inside[:-2] &= region[2:]
    inside[:, 2:] &= region[:, :-2]
    inside[:, :-2] &= region[:, 2:]
    return inside


def _gridded(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize((GRID, GRID), Image.Resampling.BOX))


def roughness(numbers: np.ndarray) -> Roughness:
    """Statistics of neighboring values along rows and columns.

    Examples:
        >>> roughness(np.array([[0, 0, 5, 9, 9]]))
        Roughness(changes=2, between=1, astray=0)
        >>> roughness(np.array([[0, 0, 3, 0, 9]]))
        Roughness(changes=3, between=0, astray=2)
    """
    changes = between = astray = 0
    for lines in (numbers, numbers.T):
        different = lines[:, 1:] != lines[:, :-1]
        rises = lines[:, 1:] > lines[:, :-1]
        single = different[:, 1:] & different[:, :-1]
        ramp = single & (rises[:, 1:] == rises[:, :-1])
        changes += int(np.count_nonzero(different))
        between += int(np.count_nonzero(ramp))
        astray += int(np.count_nonzero(single)) - int(np.count_nonzero(ramp))
    return Roughness(changes, between, astray)


def count_numbers(numbers: np.ndarray) -> dict[int, int]:
    """Number of pixels of each value; of more than 4,096 values, the most frequent."""
    if numbers.size and numbers.dtype.kind == "u" and numbers.dtype.itemsize <= 2:
        counts = np.bincount(numbers.ravel())
        values = np.flatnonzero(counts)
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, counts = np.unique(numbers, return_counts=True)
    if len(values) > _MOST_VALUES:
        kept = np.sort(np.argpartition(counts, -_MOST_VALUES)[-_MOST_VALUES:])
        values, counts = values[kept], counts[kept]
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def read_mask_facts(root: Path, file: str, reading: MaskValues) -> tuple[MaskFacts, np.ndarray | None]:
    """Facts of a mask file, and its values as the dataset reads them; None if it cannot."""
    facts = MaskFacts(file)
    opened = open_image(root, facts, "mask")
    facts.lossy = facts.format in LOSSY
    deep = reading.numbered or reading.labels is None
    if opened is None:
        numbers = _deep_numbers(root, facts) if deep else None
    elif reading.how == "colors":
        numbers = _shown_colors(opened[0], facts)
    elif reading.how == "numbers" or reading.numbered:
        numbers = _stored_numbers(*opened, facts, deep=deep)
    else:
        numbers = _shown_numbers(opened[0], facts)
    if numbers is None:
        return facts, None
    grays = numbers if reading.how != "colors" or opened is None else np.asarray(opened[0].convert("L"))
    facts.roughness = roughness(grays)
    if reading.numbered:
        numbers = _objects(numbers, facts, reading)
    facts.counts = count_numbers(numbers)
    if reading.labels is None and reading.how != "colors" and (facts.bits > 8 or len(facts.counts) > 2):
        facts.pieces = count_pieces(numbers, 2 * len(facts.counts))  # tells numbers of objects from those of classes
    facts.digest = digest(repr(numbers.shape).encode(), np.ascontiguousarray(numbers).data)
    if reading.how == "thresholded":
        background, foreground = reading.labels.ids if reading.labels else (0, 1)
        numbers = np.where(numbers >= reading.threshold, foreground, background).astype(np.uint8)
    return facts, numbers


def _deep_numbers(root: Path, facts: MaskFacts) -> np.ndarray | None:
    """The numbers in a file that Pillow cannot decode: an array, or a TIFF of 64 bits."""
    if facts.fault not in ("not-an-image", "unsupported-image"):
        return None
    try:
        numbers = read_numbers(root / facts.file)
    except UnetzooError as error:
        facts.detail = str(error.found or error.what)[:80]
        return None
    facts.fault = facts.detail = ""
    facts.format, facts.mode, facts.bits = "array", "I", numbers.dtype.itemsize * 8
    facts.size = facts.stored = numbers.shape[1], numbers.shape[0]
    return numbers


def _objects(numbers: np.ndarray, facts: MaskFacts, reading: MaskValues) -> np.ndarray:
    """Count the objects, and return their class: 1 on objects; unlabeled pixels keep their value."""
    ignored = np.isin(numbers, reading.labels.ignore_ids) if reading.labels else np.zeros(numbers.shape, bool)
    known = np.unique(numbers[(numbers > 0) & ~ignored])
    facts.objects = len(known)
    if len(known) == 1:
        facts.pieces = count_pieces(numbers)
    present = (numbers > 0).astype(np.uint8)
    return np.where(ignored, numbers, present) if ignored.any() else present


def count_pieces(numbers: np.ndarray, enough: float = float("inf")) -> int:
    """Number of connected pieces of equal numbers > 0.

    Args:
        numbers: Integers ≥ 0 (H, W).
        enough: A number of pieces at which counting stops.

    Examples:
        >>> count_pieces(np.array([[3, 0, 3, 5], [0, 0, 3, 5]]))
        3
    """
    from scipy import ndimage

    if numbers.size and numbers.max() > numbers.size:
        numbers = renumbered(numbers)
    pieces = 0
    for value, box in enumerate(ndimage.find_objects(numbers.astype(np.int64)), 1):
        if box is not None and pieces < enough:
            pieces += ndimage.label(numbers[box] == value, np.ones((3, 3)))[1]  # pyright: ignore
    return pieces


def _stored_numbers(image: Image.Image, packing: str, facts: MaskFacts, *, deep: bool = False) -> np.ndarray | None:
    if facts.lossy:
        return _failed(facts, "jpeg-mask", facts.format)
    if deep and image.mode == "I":  # of more than 16 bits, or signed
        return np.asarray(image)
    if image.mode not in RAW_MODES:
        fault = {"F": "float-mask", "I": "sixteen-bit-mask"}.get(image.mode, "rgb-mask")
        return _failed(facts, "alpha-mask" if image.mode in _ALPHA_MODES else fault, f"mode {image.mode}")
    if image.mode == "1":
        image, packing = image.convert("L"), "L;1"
    numbers = np.asarray(image)
    return numbers // SMALL_GRAYS[packing] if packing in SMALL_GRAYS else numbers


def _shown_colors(image: Image.Image, facts: MaskFacts) -> np.ndarray | None:
    if facts.lossy:
        return _failed(facts, "jpeg-mask", facts.format)
    if facts.bits > 8 or image.mode not in COLOR_MODES:
        fault = {"F": "float-mask"}.get(image.mode, "sixteen-bit-mask" if facts.bits > 8 else "unsupported-image")
        return _failed(facts, fault, f"mode {image.mode}")
    if image.mode in _ALPHA_MODES:
        facts.detail = f"mode {image.mode}"
    return color_numbers(image)


def mode_of(path: Path) -> str:
    """Pillow's mode of a file, from its header; "" if it cannot be read."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            return image.mode
    except Exception:  # a broken file is reported when it is read
        return ""


def _shown_numbers(image: Image.Image, facts: MaskFacts) -> np.ndarray | None:
    if facts.bits > 8:
        return _failed(facts, "float-mask" if image.mode == "F" else "sixteen-bit-mask", f"mode {image.mode}")
    if image.mode in _ALPHA_MODES:
        facts.detail = f"mode {image.mode}"
    return np.asarray(image.convert("L"))


def label_map(numbers: np.ndarray, reading: MaskValues) -> LabelMap:
    """Facts of the combined labels of a sample."""
    labels = reading.labels
    ignored = np.isin(numbers, labels.ignore_ids) if labels is not None and labels.ignore_ids else None
    found = LabelMap(
        count_numbers(numbers), labels,
        digest(repr(numbers.shape).encode(), np.ascontiguousarray(numbers).data), border_map(numbers, ignored),
    )  # fmt: skip
    if labels.classes == 2 if labels is not None else len(found.counts) <= 2:
        front = numbers == labels.ids[1] if labels else numbers != 0
        found.front = _gridded(front.astype(np.uint8) * 255)
    return found


def read_depth_facts(root: Path, file: str) -> DepthFacts:
    """Facts of a depth file."""
    facts = DepthFacts(file)
    opened = open_image(root, facts, "depth")
    if opened is None:
        return facts
    image = opened[0]
    if image.mode not in _DEPTH_MODES:
        channels = np.asarray(image.convert("RGB"))
        if facts.bits > 8 or image.mode in _ALPHA_MODES or not (channels == channels[..., :1]).all():
            facts.fault, facts.detail = "depth-unreadable", f"mode {image.mode}"
            return facts
        image = image.convert("L")
    values = np.asarray(image)
    facts.constant = bool(values.min() == values.max())
    return facts
