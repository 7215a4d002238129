"""Find images of other splits that look like training images: near-duplicates, and neighbors in a video or volume."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from .facts import Record
from .findings import Findings

# Correlation of thumbnails after the mean image is subtracted. In seven real data sets, images saved again as JPEG,
# resized or brightened reach 0.98, and distinct ones 0.89; only frames of a standing camera are as similar (0.978).
_SAME = 0.98
# Names that differ only in their last number form a series. It is a sequence if neighbors are more alike than other
# pairs: their mean rank among all images is 0.5 ± 1/√(12 n) by chance. Real sequences have 0.71 (7.7 deviations) or
# more, other real series 0.57 (2.0 deviations) or less.
_LEAST_RANK, _LEAST_DEVIATION, _REFERENCES = 0.65, 5.0, 500
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)")
_BLOCK = 1024


def check_similar(records: Sequence[Record], splits: Mapping[str, str], found: Findings) -> None:
    """Find images of other splits that are almost equal to a training image, or its neighbor in a sequence.

    A sequence that is cut once, such that all of its training images are on one side, is not reported.

    Args:
        records: All samples.
        splits: The split of each image file, if known.
        found: Collects the findings.
    """
    usable = [(record, image) for record in records
              if (image := record.image) is not None and image.thumbnail is not None and not image.blank]  # fmt: skip
    sides = np.array([splits.get(image.file, "") for _, image in usable])
    training = np.flatnonzero(sides == "train")
    others = np.flatnonzero((sides != "train") & (sides != ""))
    if not len(training) or not len(others):
        return
    maps = _standardized(np.stack([image.thumbnail for _, image in usable]))  # type: ignore[misc]
    reported: set[int] = set()
    for other, train in _neighbors([record for record, _ in usable], sides, maps):
        reported.add(other)
        detail = f"{sides[other]}; next to {usable[train][1].file}, train"
        found.add("neighbors-in-two-splits", usable[other][1].file, detail)
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        alike = maps[block] @ maps[training].T
        for other, nearest, value in zip(block, training[alike.argmax(1)], alike.max(1), strict=True):
            image, twin = usable[other][1], usable[nearest][1]
            if value >= _SAME and other not in reported and image.digest != twin.digest:
                found.add("near-duplicate", image.file, f"{sides[other]}; almost the same as {twin.file}, train")


def _standardized(thumbnails: np.ndarray) -> np.ndarray:
    """Rows of unit length, without what all images have in common."""
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    for axis in (1, 0):  # subtract the brightness of each image, then the mean image
        rows -= rows.mean(axis=axis, keepdims=True)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


def _neighbors(records: Sequence[Record], sides: np.ndarray, maps: np.ndarray) -> Iterator[tuple[int, int]]:
    """Images of other splits, each with a neighboring training image of the same sequence."""
    series = list(_series(records))
    pairs = [pair for members in series for pair in itertools.pairwise(members)]
    if not pairs:
        return
    references = maps[np.linspace(0, len(maps) - 1, min(len(maps), _REFERENCES)).astype(int)]
    first, second = (maps[list(side)] for side in zip(*pairs, strict=True))
    alike = (first * second).sum(1)
    ranks = dict(zip(pairs, (first @ references.T < alike[:, None]).mean(1), strict=True))
    rank = float(np.mean(list(ranks.values())))
    if rank < _LEAST_RANK or (rank - 0.5) * (12 * len(pairs)) ** 0.5 < _LEAST_DEVIATION:
        return
    for members in series:
        for split in sorted({str(sides[member]) for member in members} - {"train", ""}):
            both = [member for member in members if sides[member] in ("train", split)]
            cuts = [pair for pair in itertools.pairwise(both) if sides[pair[0]] != sides[pair[1]]]
            near = {(one if sides[one] == split else two): (two if sides[one] == split else one)
                    for one, two in cuts if ranks.get((one, two), 0) >= _LEAST_RANK}  # fmt: skip
            yield from near.items() if len(cuts) > 1 else ()


def _series(records: Sequence[Record]) -> Iterator[list[int]]:
    """Samples whose names differ only in the last number, in its order."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for index, record in enumerate(records):
        if match := _LAST_NUMBER.fullmatch(PurePosixPath(record.id or record.key[-1]).name):
            found[match[1], match[3]].append((int(match[2][-18:]), index))
    return ([index for _, index in sorted(members)] for members in found.values())
