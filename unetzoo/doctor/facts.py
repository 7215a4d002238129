"""Facts that are kept of each file; never its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..datasets.tree import Key
from ..labels import LabelSpec

GRID = 64  # side of the maps that compare masks with images


class Roughness(NamedTuple):
    """Statistics of neighboring values along rows and columns, which reveal lossy or resized labels.

    Args:
        changes: Pairs of neighbors that differ.
        between: Single pixels with a value strictly between those of their two neighbors: steps of a ramp.
        astray: Single pixels with a value outside the range of their two neighbors.
    """

    changes: int = 0
    between: int = 0
    astray: int = 0


@dataclass
class FileFacts:
    """Facts of any image file.

    Args:
        file: Path relative to the root of the data.
        fault: Kind of finding if the dataset cannot read it; otherwise "".
        detail: Detail of the fault.
        format: "PNG", "JPEG", …
        mode: Pillow's image mode.
        bits: Stored bits per channel.
        size: (width, height), upright.
        stored: (width, height) as stored.
        orientation: EXIF orientation, 1…8.
        digest: Hash of the decoded pixels.
    """

    file: str
    fault: str = ""
    detail: str = ""
    format: str = ""
    mode: str = ""
    bits: int = 8
    size: tuple[int, int] = (0, 0)
    stored: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""

    @property
    def readable(self) -> bool:
        """Whether the dataset can read it."""
        return not self.fault


@dataclass
class ImageFacts(FileFacts):
    """Facts of an image.

    Args:
        blank: Whether all pixels have the same color.
        alpha: "" without alpha channel, "opaque", "transparent" (some pixels are), "empty" (all are).
        edges: Strength of edges, uint8 (GRID, GRID).
        grays: Brightness, uint8 (GRID, GRID).
        thumbnail: Brightness, uint8 (GRID / 2, GRID / 2); unlike the other maps, it is kept.
        kind: Type of the stored values, if channels or a range are declared.
        clipped: Share of values outside the declared range, in the channel with most of them.
    """

    blank: bool = False
    alpha: str = ""
    edges: np.ndarray | None = None
    grays: np.ndarray | None = None
    thumbnail: np.ndarray | None = None
    kind: str = ""
    clipped: float = 0.0


@dataclass
class MaskFacts(FileFacts):
    """Facts of a mask file.

    Args:
        counts: Number of pixels of each stored value.
        roughness: Statistics of neighboring values.
        lossy: Whether the file format is lossy.
        objects: Number of objects, if the mask has a number per object.
        pieces: Number of connected pieces of equal numbers > 0, if they were counted.
        covered: Pixels of objects in other files that this one covers.
    """

    counts: dict[int, int] = field(default_factory=dict)
    roughness: Roughness = field(default_factory=Roughness)
    lossy: bool = False
    objects: int = 0
    pieces: int = 0
    covered: int = 0


@dataclass
class LabelMap:
    """Facts of the labels of a sample, combined from its mask files.

    Args:
        counts: Number of pixels of each value.
        labels: The meaning of the values; None if it is not declared.
        digest: Hash of the values.
        borders: Share of border pixels, uint8 (GRID, GRID).
        front: Share of foreground if there are two classes, uint8 (GRID, GRID).
    """

    counts: dict[int, int]
    labels: LabelSpec | None
    digest: bytes
    borders: np.ndarray | None = None
    front: np.ndarray | None = None


@dataclass
class DepthFacts(FileFacts):
    """Facts of a depth file; `constant`: all values are equal."""

    constant: bool = False


@dataclass
class Record:
    """Everything known about a sample after its files were read."""

    key: Key
    split: str | None = None
    image: ImageFacts | None = None
    masks: list[MaskFacts] = field(default_factory=list)
    label_map: LabelMap | None = None
    depth: DepthFacts | None = None
    background: ImageFacts | None = None
    images: list[ImageFacts] = field(default_factory=list)  # cutouts and scenes
    id: str = ""  # the id of a sample without files
    elsewhere: str = ""  # how the ground that image and mask cover differs
    disagreeing: tuple[str, int, float] | None = None  # a second label file, number and share of differing pixels

    @property
    def name(self) -> str:
        """Name of the sample."""
        return "/".join(self.key)

    @property
    def is_sample(self) -> bool:
        """Whether it is a sample, not a background shared by several composites."""
        return self.image is not None or bool(self.masks or self.images)

    @property
    def files(self) -> list[str]:
        """All files that were read, the image first."""
        everything = (self.image, *self.masks, self.depth, self.background, *self.images)
        return [facts.file for facts in everything if facts is not None]

    @property
    def image_file(self) -> str:
        """The file of the image, or another one if there is none."""
        return next(iter(self.files), self.name)

    @property
    def label_file(self) -> str:
        """The file to name in findings about labels."""
        return self.masks[0].file if self.masks else self.image_file
