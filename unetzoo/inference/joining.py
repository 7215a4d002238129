"""The objects of an image that is read in parts: the same as those of the whole image.

Connected pieces are numbered in strips of rows and joined where strips meet. Pixels between the seeds of a piece are
then assigned in blocks with a margin: a seed within the margin is nearer than anything beyond it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..instances import ObjectRule, nearest_seeds
from .objects import ObjectTable, as_csv
from .resumable_writer import reserve

STRIP, ROWS = 2**19, 16  # pixels of a strip, and its least height
BLOCK, MARGIN = 512, 64  # pixels
PIXEL = 120  # bytes per pixel of a block and its margin

Read = Callable[[str, int, int], np.ndarray]  # rows of "classes" or "instances", as written by `Outputs`
Numbered = tuple[np.ndarray, np.ndarray]  # a provisional number per pixel, and the number of the object of each


@dataclass(frozen=True)
class ObjectJoiner:
    """How the objects of an image are found.

    Args:
        names: Names of the classes.
        rule: How objects are separated, as for `objects_of`.
        memory: Bytes for a block and its margin.
    """

    names: tuple[str, ...]
    rule: ObjectRule | None
    memory: int

    def join(self, read: Read, size: tuple[int, int], stack: ExitStack, folder: Path) -> JoinedObjects:
        """Find the objects of an image.

        Args:
            read: Returns the rows of an output of the network from one row to another.
            size: Height and width.
            stack: Removes the temporary files.
            folder: Where temporary files are written: 4 bytes per pixel, or 8 with a border class.

        Raises:
            ConfigError: A pixel is too far from the seed of its object for the memory.
            OSError: The disk is full.
        """

        def plane() -> np.ndarray:
            return _on_disk(size, stack, folder)

        by_seeds = self.rule is not None and self.rule.border
        numbers, roots = self._by_seeds(read, size, plane) if by_seeds else _pieces_of_classes(read, plane())
        table = ObjectTable(int(roots.max(initial=0)))
        classes = np.ones(table.count + 1, np.uint8)
        for start, stop in strips(*size):
            found = roots[numbers[start:stop]]
            table.add(found, np.abs(read("instances", start, stop)), top=start)
            if not by_seeds:
                classes[found] = read("classes", start, stop)
        kept = np.append(False, table.areas >= max(1 if self.rule is None else self.rule.min_size, 1))
        final = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
        rows = table.rows([self.names[index] for index in classes[kept]], kept=kept[1:])
        return JoinedObjects(numbers, final[roots], as_csv(rows))

    def _by_seeds(self, read: Read, size: tuple[int, int], plane: Callable[[], np.ndarray]) -> Numbered:
        """Assign the pixels of each piece to its nearest seed."""
        pieces, seeds, owners = Pieces(), Pieces(), [np.zeros(1, np.int32)]
        marked, numbers = plane(), plane()  # a seed's number, or the negative number of a piece
        for start, stop in strips(*size):
            evidence = read("instances", start, stop)
            first = seeds.count
            piece, seed = pieces.add(evidence != 0), seeds.add(evidence > 0)
            owner = np.zeros(seeds.count - first, np.int32)
            owner[seed[seed > 0] - first - 1] = piece[seed > 0]
            owners.append(owner)
            marked[start:stop] = np.where(seed > 0, seed, -piece)
        piece_roots, seed_roots = pieces.roots(), seeds.roots()
        owner = piece_roots[np.concatenate(owners)]
        with_seed = np.zeros(piece_roots.max(initial=0) + 1, bool)
        with_seed[owner[1:]] = True
        piece_roots[~with_seed[piece_roots]] = 0

        def pixels(window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
            found = np.asarray(marked[window])
            seed = np.maximum(found, 0)
            return np.where(found > 0, owner[seed], piece_roots[np.maximum(-found, 0)]), seed_roots[seed]

        widest = math.isqrt(self.memory // PIXEL)
        for block in _blocks(size, min(BLOCK, max(widest // 2, 1))):
            numbers[block] = _assigned(pixels, block, size, widest)
        return numbers, np.arange(seed_roots.max(initial=0) + 1)


@dataclass(frozen=True)
class JoinedObjects:
    """The objects of an image.

    Args:
        provisional: A number per pixel, on disk.
        final: The number of the object for each provisional number.
        table: The objects as CSV.
    """

    provisional: np.ndarray
    final: np.ndarray
    table: str

    def numbers(self, start: int, stop: int) -> np.ndarray:
        """Return the numbers of objects, uint32 (stop - start, W)."""
        return self.final[self.provisional[start:stop]]


class Pieces:
    """Numbers connected pieces of equal values in strips from the top, and joins them across strips."""

    def __init__(self) -> None:
        self.count = 0
        self._touching = [np.zeros((0, 2), np.int32)]
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, values: np.ndarray) -> np.ndarray:
        """Return provisional numbers of the next strip (h, W), int32; 0 where the value is 0."""
        from scipy import ndimage

        numbers = np.zeros(values.shape, np.int32)
        for value in np.unique(values[values > 0]):
            own = values == value
            found, count = ndimage.label(own)  # pyright: ignore
            numbers[own] = found[own] + self.count
            self.count += count
        if self._last is not None:
            above, number = self._last
            same = (values[0] == above) & (above > 0)
            self._touching.append(np.unique(np.stack([number[same], numbers[0][same]], 1), axis=0))
        self._last = values[-1], numbers[-1]
        return numbers

    def roots(self) -> np.ndarray:
        """Return the number of the whole piece for each provisional number: 1, 2, 3, …, and 0 for 0."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        upper, lower = np.concatenate(self._touching).T
        edges = coo_array((np.ones(len(upper), bool), (upper, lower)), shape=(self.count + 1, self.count + 1))
        return connected_components(edges, directed=False)[1]


def _pieces_of_classes(read: Read, numbers: np.ndarray) -> Numbered:
    pieces = Pieces()
    for start, stop in strips(*numbers.shape):
        numbers[start:stop] = pieces.add(np.where(read("instances", start, stop) != 0, read("classes", start, stop), 0))
    return numbers, pieces.roots()


def _assigned(
    pixels: Callable[[tuple[slice, slice]], tuple[np.ndarray, np.ndarray]],
    block: tuple[slice, slice],
    size: tuple[int, int],
    widest: int,
) -> np.ndarray:
    """Return the number of the nearest seed of the same piece, for the pixels of a block."""
    side, margin = max(axis.stop - axis.start for axis in block), min(MARGIN, max(widest // 4, 1))
    while True:
        top, left = (max(axis.start - margin, 0) for axis in block)
        bottom, right = (min(axis.stop + margin, n) for axis, n in zip(block, size, strict=True))
        foreground, seeds = pixels((slice(top, bottom), slice(left, right)))
        inner = slice(block[0].start - top, block[0].stop - top), slice(block[1].start - left, block[1].stop - left)
        objects = seeds[inner].copy()
        row, column = np.nonzero((foreground[inner] > 0) & (objects == 0))
        if not len(row):
            return objects
        farthest = math.inf
        if seeds.any():
            rows, columns = (places[inner][row, column] for places in nearest_seeds(_compact(foreground), seeds))
            if (foreground[rows, columns] == foreground[inner][row, column]).all():
                objects[row, column] = seeds[rows, columns]
                farthest = np.hypot(rows - row - inner[0].start, columns - column - inner[1].start).max()
        if farthest <= margin or foreground.shape == size:
            return objects
        margin = math.ceil(farthest) if farthest < math.inf else 2 * margin
        if math.prod(min(side + 2 * margin, n) for n in size) > widest**2:
            raise ConfigError(
                "objects are too large for the memory",
                expected=f"at most {(widest - side) // 2} pixels from the inside of an object to its edge",
                found=f"more at row {block[0].start}, column {block[1].start}",
                hint="continue with more memory (unetzoo stream --resume --memory)",
            )


def _compact(numbers: np.ndarray) -> np.ndarray:
    """Number 1, 2, 3, …, in the same order."""
    present = np.zeros(numbers.max() + 1, bool)
    present[numbers] = True
    present[0] = False
    return np.cumsum(present, dtype=np.int32)[numbers]


def strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of strips; their height depends only on the width."""
    rows = max(STRIP // width, ROWS)
    return ((start, min(start + rows, height)) for start in range(0, height, rows))


def _blocks(size: tuple[int, int], side: int) -> Iterator[tuple[slice, slice]]:
    height, width = size
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _on_disk(size: tuple[int, int], stack: ExitStack, folder: Path) -> np.ndarray:
    """Create an array (H, W) of int32 in a temporary file; its space is reserved, since a memory map cannot fail."""
    file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
    os.truncate(file.fileno(), 4 * math.prod(size))
    reserve(file.fileno())
    return np.memmap(file, np.int32, "r+", shape=size)
