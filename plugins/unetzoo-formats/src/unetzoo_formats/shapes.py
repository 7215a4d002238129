"""Shapes of annotated objects and the rules by which they are painted.

All polygons follow one rule, that of pycocotools: coordinates are those of pixel corners, so that (0, 0) is the upper
left corner of the image, and a pixel belongs to a polygon if its center is inside. Vertices are rounded to a fifth of a
pixel. Inside is by the even-odd rule: what a self-crossing polygon encloses twice is outside. The part beyond the image
is cut off.

Runs of pixels go down the columns of an image, as in COCO and on Kaggle. They are kept as the indices where they begin
and end, so that a size declared in a file never decides how much memory is used.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from unetzoo.errors import DataError, SizeMismatchError

FARTHEST = 1e7  # a coordinate beyond it is a fault of the file


class Canvas:
    """The numbers of the objects that are visible at each pixel of an image, 0 where there are none.

    Args:
        height: Height of the image.
        width: Width of the image.
        numbers: Highest number that will be painted.
    """

    def __init__(self, height: int, width: int, numbers: int) -> None:
        self.height, self.width = height, width
        self.columns = np.zeros((width, height), np.uint8 if numbers < 256 else np.int32)
        self._flat = self.columns.reshape(-1)

    def paint_runs(self, edges: np.ndarray, number: int) -> None:
        """Paint the runs between the first and second, third and fourth, … of these indices down the columns."""
        flat, borders = self._flat, edges.tolist()
        for start, end in zip(borders[::2], borders[1::2], strict=False):
            flat[start:end] = number

    def paint_patch(self, patch: np.ndarray, top: int, left: int, number: int) -> None:
        """Paint the true pixels of a mask (h, w) that is somewhere in the image."""
        height, width = patch.shape
        self.check_box(top, left, height, width)
        self.columns[left : left + width, top : top + height][patch.T] = number

    def check_box(self, top: int, left: int, height: int, width: int) -> None:
        """Check that a box is inside the image.

        Raises:
            SizeMismatchError: It is not.
        """
        if top < 0 or left < 0 or top + height > self.height or left + width > self.width:
            raise SizeMismatchError(
                "a mask reaches beyond the image", expected=f"within {self.width}×{self.height}",
                found=f"{width}×{height} at {left}, {top}",
            )  # fmt: skip


class Shape(ABC):
    """The region of one object."""

    @abstractmethod
    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint the region.

        Raises:
            DataError: The region does not fit the image.
        """

    @abstractmethod
    def area(self, height: int, width: int) -> float:
        """Return its area in pixels, in an image of this size."""


@dataclass(frozen=True)
class Polygons(Shape):
    """The union of polygons.

    Args:
        points: Vertices (x, y) of each polygon, float64 (n, 2).
        relative: Whether 1 is the width and the height of the image, instead of a pixel.
    """

    points: tuple[np.ndarray, ...]
    relative: bool = False

    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint the pixels whose centers are inside."""
        height, width = canvas.height, canvas.width
        for points in self.points:
            if self.relative:
                points = points * (width, height)
            low, high = points.min(0), points.max(0)
            if min(low[0] + width, low[1] + height, 2 * width - high[0], 2 * height - high[1]) < 0:
                points = clipped(points, height, width)
            if len(points) > 2:
                (runs,) = coco_mask.frPyObjects([points.ravel()], height, width)
                canvas.paint_runs(np.cumsum(decode_counts(runs["counts"])), number)

    def area(self, height: int, width: int) -> float:
        """Return the sum of the areas of the polygons."""
        sums = (float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) for x, y in (p.T for p in self.points))
        return sum(map(abs, sums)) / 2 * (height * width if self.relative else 1)


@dataclass(frozen=True)
class Runs(Shape):
    """Runs of pixels down the columns of an image.

    Args:
        edges: Indices where runs begin and end, in turn.
        size: Height and width of the image, if the file declares them; otherwise runs must end within the image.
        by_rows: The runs go along the rows instead.
    """

    edges: np.ndarray
    size: tuple[int, int] | None = None
    by_rows: bool = False

    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint the runs."""
        height, width = canvas.height, canvas.width
        if self.size not in (None, (height, width)):
            raise SizeMismatchError("run lengths of another size", expected=f"{width}×{height}, as the image",
                                    found=f"{self.size[1]}×{self.size[0]}")  # fmt: skip
        if len(self.edges) and self.edges.max() > height * width:
            raise SizeMismatchError("run lengths beyond the image", expected=f"{height * width} pixels",
                                    found=int(self.edges.max()))  # fmt: skip
        if self.by_rows:
            canvas.paint_patch(filled(self.edges, height, width), 0, 0, number)
        else:
            canvas.paint_runs(self.edges, number)

    def area(self, height: int, width: int) -> float:
        """Return the number of pixels."""
        ends = self.edges[1::2]
        return float((ends - self.edges[::2][: len(ends)]).sum())


@dataclass(frozen=True)
class Patch(Shape):
    """Runs of pixels along the rows of a box.

    Args:
        edges: Indices in the box where runs begin and end, in turn.
        top: First row of the box.
        left: First column of the box.
        height: Height of the box.
        width: Width of the box.
    """

    edges: np.ndarray
    top: int
    left: int
    height: int
    width: int

    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint the runs."""
        canvas.check_box(self.top, self.left, self.height, self.width)
        canvas.paint_patch(filled(self.edges, self.height, self.width), self.top, self.left, number)

    def area(self, height: int, width: int) -> float:
        """Return the number of pixels."""
        ends = self.edges[1::2]
        return float((ends - self.edges[::2][: len(ends)]).sum())


@dataclass(frozen=True)
class MaskFile(Shape):
    """A mask in a PNG file, whose pixels of 0 are outside.

    Args:
        data: The content of the file.
        top: First row of the mask in the image.
        left: First column of the mask in the image.
    """

    data: bytes
    top: int
    left: int

    def paint(self, canvas: Canvas, number: int) -> None:
        """Paint the mask."""
        canvas.paint_patch(self._read(canvas), self.top, self.left, number)

    def area(self, height: int, width: int) -> float:
        """Return the number of pixels."""
        return float(self._read(Canvas(height, width, 1)).sum())

    def _read(self, canvas: Canvas) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(self.data), formats=["PNG"]) as image:
                canvas.check_box(self.top, self.left, image.height, image.width)  # before it is decoded
                return np.asarray(image.convert("L")) > 0
        except DataError:
            raise
        except Exception as error:  # on broken files, decoders raise exceptions of any type
            raise DataError("a mask that cannot be read", found=f"{type(error).__name__}: {error}") from error


def filled(edges: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask (height, width) from the indices along its rows where runs begin and end."""
    flat = np.zeros(height * width, bool)
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=False):
        flat[start:end] = True
    return flat.reshape(height, width)


def polygon(values: object) -> np.ndarray:
    """Check the vertices of a polygon: x, y, x, y, … or pairs.

    Raises:
        ValueError: Not the vertices of a polygon; the message is the reason.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise ValueError
        points = array.astype(np.float64).reshape(-1, 2)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("a polygon that is no list of pairs of numbers") from None
    if len(points) < 3:
        raise ValueError(f"a polygon of {len(points)} point{'s' * (len(points) != 1)}")
    if not (np.abs(points) <= FARTHEST).all():  # also NaN
        raise ValueError("a polygon with coordinates that are not finite or far outside any image")
    return points


def rectangle(
    left: float, top: float, right: float, bottom: float, degrees: float = 0.0, about: tuple[float, float] | None = None
) -> np.ndarray:
    """Return the vertices of a rectangle, turned clockwise about a point, by default its center."""
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    x, y = ((left + right) / 2, (top + bottom) / 2) if about is None else about
    return rotated(corners, x, y, degrees)


def ellipse(x: float, y: float, horizontal: float, vertical: float, degrees: float = 0.0) -> np.ndarray:
    """Return the vertices of an ellipse with these radii, turned clockwise: a polygon within a tenth of a pixel."""
    radius = max(abs(horizontal), abs(vertical), 1.0)
    angles = np.linspace(0, 2 * np.pi, int(min(12 + 8 * radius**0.5, 4096)), endpoint=False)
    points = np.stack([x + horizontal * np.cos(angles), y + vertical * np.sin(angles)], 1)
    return rotated(points, x, y, degrees)


def rotated(points: np.ndarray, x: float, y: float, degrees: float) -> np.ndarray:
    """Return points turned clockwise, as seen in the image, about a center."""
    if not degrees:
        return points
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return (points - (x, y)) @ np.array([[cosine, sine], [-sine, cosine]]) + (x, y)


def clipped(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the part of a polygon within one pixel around an image, by Sutherland and Hodgman's method.

    Parts that are connected only outside stay connected along the border, where nothing is painted.
    """
    for axis, limit, sign in ((0, -1, 1), (0, width + 1, -1), (1, -1, 1), (1, height + 1, -1)):
        if not len(points):
            break
        distance = (points[:, axis] - limit) * sign
        after, beyond = np.roll(points, -1, 0), np.roll(distance, -1)
        inside, crosses = distance >= 0, (distance >= 0) != (beyond >= 0)
        share = np.divide(distance, distance - beyond, out=np.zeros(len(points)), where=crosses)
        cuts = points + share[:, None] * (after - points)
        cuts[:, axis] = limit
        kept = np.stack([inside, crosses], 1).ravel()
        points = np.stack([points, cuts], 1).reshape(-1, 2)[kept]
    return points


def decode_counts(text: str | bytes) -> np.ndarray:
    """Decode COCO's compressed run lengths, without trusting them.

    Each count is written in groups of five bits, the lowest first; from the third on, as the difference to the one
    before the last.

    Raises:
        ValueError: Other characters, or an incomplete or negative count.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    bits = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not len(bits):
        return bits
    ends = np.flatnonzero(bits & 32 == 0)
    if bits.min() < 0 or bits.max() > 63 or not len(ends) or ends[-1] != len(bits) - 1:
        raise ValueError("run lengths that are not COCO's compressed form")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends + 1 - starts
    if lengths.max() > 12:
        raise ValueError("run lengths beyond any image")
    places = np.arange(len(bits)) - np.repeat(starts, lengths)
    counts = np.add.reduceat((bits & 31) << (5 * places), starts)
    counts -= np.where(bits[ends] & 16, np.int64(1) << (5 * lengths), 0)
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    if counts.min() < 0:
        raise ValueError("negative run lengths")
    return counts


def edges_of(counts: np.ndarray | Sequence[int], pixels: int) -> np.ndarray:
    """Return the indices where runs begin and end, from counts of background and object in turn.

    Args:
        counts: The counts, the background's first.
        pixels: Their sum.

    Raises:
        ValueError: Counts that are no numbers, negative, or have another sum.
    """
    array = np.asarray(counts)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size) or (array.size and array.min() < 0):
        raise ValueError("run lengths that are not whole numbers from 0")
    # as floats first, since a sum of huge counts could wrap around to the right number
    if not len(array) or array.astype(np.float64).sum() > 2**53 or int(array.sum()) != pixels:
        raise ValueError(f"run lengths that do not cover the {pixels} pixels of their size")
    return np.cumsum(array, dtype=np.int64)


def check_fits(size: tuple[int, int] | None, height: int, width: int, subject: object) -> None:
    """Check that the size in an annotation file is that of the image.

    Raises:
        SizeMismatchError: They differ.
    """
    if size in (None, (height, width)):
        return
    turned = size == (width, height)
    raise SizeMismatchError(
        "image and annotations differ in size", subject=subject, expected=f"{size[1]}×{size[0]}, as annotated",
        found=f"{width}×{height}" + (", upright" if turned else ""),
        hint="EXIF rotates the image, but it was annotated unrotated: apply the rotation to the annotations, or remove "
        "the tag" if turned else "annotate this image, or restore the one that was annotated",
    )  # fmt: skip
