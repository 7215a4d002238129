"""Survey of a training set: sizes, classes, objects, and kinds of images. Every sample is read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..datasets.kinds import appearance, kinds_of
from ..datasets.parallel import pieces, spread
from ..datasets.tally import Tally
from ..errors import DataError
from ..labels import LabelSpec

MOST_SAMPLES = 500  # evenly spread; more change no decision
FEW_SAMPLES = 64
PIECE = 8
GRID = 8  # cells per side of the maps of where classes are
MOST_MEASURED = 1024  # longer sides are thinned out before objects are measured


@dataclass(frozen=True)
class Objects:
    """Objects of a class: connected regions.

    Args:
        share: Share of the labeled pixels.
        images: Share of the images that contain the class.
        extent: 90th percentile of the longer side of an object's bounding box, in pixels.
        thickness: Mean thickness in pixels: the width of lines, and half the diameter of disks.
    """

    share: float
    images: float
    extent: int
    thickness: float


@dataclass(frozen=True)
class Survey:
    """Facts of a training set.

    Args:
        samples: Number of samples.
        channels: Channels of images.
        smallest: Smallest height and width.
        median: Median height and width.
        same_size: Whether all images have one size.
        mean: Mean of every channel, as scaled to 0…1.
        std: Standard deviation of every channel.
        objects: Objects of each class, by name.
        kinds: Share of each kind of image with a color of its own, the most common first.
        upright: How much top and bottom differ, in 0…1: 0 if classes and brightness are distributed alike.
        has_depth: Whether samples have depth.
    """

    samples: int
    channels: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    same_size: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    objects: dict[str, Objects]
    kinds: tuple[float, ...]
    upright: float
    has_depth: bool

    @property
    def background(self) -> str:
        """The class with most pixels."""
        return max(self.objects, key=lambda name: self.objects[name].share)

    @property
    def foreground(self) -> dict[str, Objects]:
        """All classes that occur, except the background."""
        return {name: found for name, found in self.objects.items() if name != self.background and found.share}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


@dataclass
class _Facts:
    """Facts of some samples, which can be joined."""

    tally: Tally
    sizes: list[tuple[int, int]]
    colors: list[np.ndarray]  # appearance of each image
    maps: np.ndarray  # (classes + 1, GRID, GRID): pixels of each class, and brightness
    present: np.ndarray  # images with each class
    extents: list[list[int]]  # of the objects of each class
    boundary: np.ndarray  # boundary pixels of each class
    area: np.ndarray  # pixels of each class, as measured
    depth: bool = False

    @classmethod
    def none(cls, classes: int) -> _Facts:
        zeros = np.zeros(classes, np.int64)
        maps = np.zeros((classes + 1, GRID, GRID))
        return cls(Tally(), [], [], maps, zeros.copy(), [[] for _ in range(classes)], zeros.copy(), zeros.copy())

    def join(self, other: _Facts) -> None:
        self.tally.merge(other.tally)
        self.sizes += other.sizes
        self.colors += other.colors
        self.maps += other.maps
        self.present += other.present
        self.boundary += other.boundary
        self.area += other.area
        self.depth |= other.depth
        for mine, theirs in zip(self.extents, other.extents, strict=True):
            mine += theirs


def survey(dataset: Any, *, workers: int | None = None, tell: Callable[[int], None] = lambda count: None) -> Survey:
    """Read a dataset and summarize what decides how to train on it.

    Args:
        dataset: The training set, without a transform.
        workers: Number of worker processes; 0 for none, None for one per CPU, or none for a few samples.
        tell: Called with the number of samples read since the last call.

    Raises:
        DataError: No samples, or samples without a mask; and the errors of the dataset.

    Examples:
        >>> from unetzoo.datasets import Composites
        >>> found = survey(Composites(length=8, size=64), workers=0)
        >>> found.median, found.background, found.has_depth
        ((64, 64), 'background', True)
    """
    count = len(dataset)
    if not count:
        raise DataError("no samples", subject=type(dataset).__name__, found="0", hint="check split and length")
    if workers is None and count < FEW_SAMPLES:
        workers = 0  # starting processes would take longer
    chosen = range(count) if count <= MOST_SAMPLES else [count * i // MOST_SAMPLES for i in range(MOST_SAMPLES)]
    labels: LabelSpec = dataset.labels
    facts = _Facts.none(labels.classes)
    for some in spread(_Reading(dataset), pieces(chosen, PIECE), workers):
        facts.join(some)
        tell(some.tally.samples)
    sizes = np.array(facts.sizes)
    channels = facts.tally.image([str(i) for i in range(facts.tally.width)])
    return Survey(
        samples=count,
        channels=facts.tally.width,
        smallest=_pair(sizes.min(0)),
        median=_pair(np.median(sizes, axis=0)),
        same_size=len({*facts.sizes}) == 1,
        mean=tuple(round(channel.mean, 4) for channel in channels),
        std=tuple(round(channel.std, 4) or 1.0 for channel in channels),
        objects=_objects(facts, labels),
        kinds=_kinds(np.array(facts.colors)),
        upright=_upright(facts.maps),
        has_depth=facts.depth,
    )


class _Reading:
    """Reads a group of samples."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, piece: Sequence[int]) -> _Facts:
        labels: LabelSpec = self.dataset.labels
        facts = _Facts.none(labels.classes)
        for index in piece:
            sample = self.dataset[index]
            if sample.get("mask") is None:
                raise DataError("a sample without a mask", subject=sample.get("id", index),
                                hint="choose a split with published labels")  # fmt: skip
            facts.join(_facts_of(sample, labels.classes))
        return facts


def _facts_of(sample: dict[str, Any], classes: int) -> _Facts:
    facts = _Facts.none(classes)
    facts.tally.add(sample)
    image, mask = np.asarray(sample["image"]), np.asarray(sample["mask"])
    height, width = image.shape[:2]
    facts.sizes = [(height, width)]
    full = 255.0 if image.dtype == np.uint8 else 1.0
    facts.colors = [appearance(image)]
    facts.depth = sample.get("depth") is not None
    step = max(1, -(-max(height, width) // MOST_MEASURED))
    small = mask[::step, ::step]
    facts.maps[-1] += _on_grid(image[::step, ::step].mean(-1) / full, mean=True)
    for number in range(classes):
        plane = small[..., number] > 0 if small.ndim == 3 else small == number
        area = int(plane.sum())
        if not area:
            continue
        inner = ndimage.binary_erosion(plane, border_value=1)
        facts.present[number], facts.area[number] = 1, area * step
        facts.boundary[number] = area - int(inner.sum())
        facts.maps[number] += _on_grid(plane, mean=False)
        regions, _ = ndimage.label(plane)  # pyright: ignore[reportGeneralTypeIssues]
        facts.extents[number] = [
            step * max(rows.stop - rows.start, columns.stop - columns.start)
            for rows, columns in ndimage.find_objects(regions)
        ]
    return facts


def _on_grid(plane: np.ndarray, *, mean: bool) -> np.ndarray:
    """Sum or mean over GRID × GRID cells."""
    cells = [np.array_split(rows, GRID, axis=1) for rows in np.array_split(plane, GRID)]
    return np.array([[cell.sum() / (max(cell.size, 1) if mean else 1) for cell in row] for row in cells])


def _objects(facts: _Facts, labels: LabelSpec) -> dict[str, Objects]:
    counts = [facts.tally.classes.get(number, 0) for number in range(labels.classes)]
    labeled = max(sum(counts), 1)
    found = {}
    for number, name in enumerate(labels.names):
        extents = facts.extents[number]
        found[name] = Objects(
            share=counts[number] / labeled,
            images=round(float(facts.present[number]) / len(facts.sizes), 4),
            extent=int(np.percentile(extents, 90)) if extents else 0,
            thickness=round(2 * float(facts.area[number]) / max(float(facts.boundary[number]), 1), 1),
        )
    return found


def _kinds(appearances: np.ndarray) -> tuple[float, ...]:
    """Share of each kind of image."""
    kinds = kinds_of(appearances)
    return tuple(round(count / len(kinds), 3) for count in np.bincount(kinds[kinds >= 0]).tolist()) or (1.0,)


def _upright(maps: np.ndarray) -> float:
    """The largest difference between top and bottom: of the place of each class, and of brightness."""
    *classes, light = maps
    total = max(sum(plane.sum() for plane in classes), 1)
    moved = sum(float(np.abs(plane.sum(1) - plane.sum(1)[::-1]).sum()) / 2 for plane in classes) / total
    rows = light.mean(1)
    return round(max(moved, float(np.abs(rows - rows[::-1]).max()) / max(float(rows.max()), 1e-6)), 3)


def _pair(values: np.ndarray) -> tuple[int, int]:
    return int(values[0]), int(values[1])
