"""What is kept of a file once it has been read: small facts, never its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..datasets.tree import Key
from ..labels import LabelSpec

GRID = 64  # side of the maps on which masks are compared with images


class Roughness(NamedTuple):
    """How numbers lie along the rows and columns of a mask: what tells lossy and resized labels from true ones.

    Args:
        changes: Neighbors that differ.
        between: Single pixels whose number lies strictly between their two neighbors' numbers: steps of a ramp.
        astray: Single pixels outside the range of their two neighbors, which differ from each other or not.
    """

    changes: int = 0
    between: int = 0
    astray: int = 0


@dataclass
class FileFacts:
    """An image file as such.

    Args:
        file: Its path, relative to the data's folder.
        fault: Why the dataset cannot read it, as a kind of finding; "" where it can.
        detail: What was met.
        format: "PNG", "JPEG", …
        mode: Pillow's mode of its pixels.
        bits: Per channel, as stored.
        size: (width, height), upright.
        stored: (width, height) as stored.
        orientation: Its EXIF orientation, 1…8.
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
    """An image.

    Args:
        blank: All pixels are of one color.
        alpha: "" for none, "opaque", "transparent" where some pixels are, "empty" where all are.
        edges: Where it has edges, uint8 (GRID, GRID).
        grays: How bright it is, uint8 (GRID, GRID).
    """

    blank: bool = False
    alpha: str = ""
    edges: np.ndarray | None = None
    grays: np.ndarray | None = None


@dataclass
class MaskFacts(FileFacts):
    """A mask file.

    Args:
        counts: Pixels of each stored number.
        roughness: How the numbers lie.
        lossy: Stored by a lossy format.
    """

    counts: dict[int, int] = field(default_factory=dict)
    roughness: Roughness = field(default_factory=Roughness)
    lossy: bool = False


@dataclass
class LabelMap:
    """The labels of a sample, put together from its mask files.

    Args:
        counts: Pixels of each number.
        labels: What the numbers mean; None where that is yet to be declared.
        digest: Hash of the numbers.
        borders: Where neighbors differ, uint8 (GRID, GRID).
        front: The share of foreground where there are two classes, uint8 (GRID, GRID).
    """

    counts: dict[int, int]
    labels: LabelSpec | None
    digest: bytes
    borders: np.ndarray | None = None
    front: np.ndarray | None = None


@dataclass
class DepthFacts(FileFacts):
    """A depth file; `constant`: all its values are equal."""

    constant: bool = False


@dataclass
class Record:
    """All that is known of a sample once its files have been read."""

    key: Key
    split: str | None = None
    image: ImageFacts | None = None
    masks: list[MaskFacts] = field(default_factory=list)
    label_map: LabelMap | None = None
    depth: DepthFacts | None = None
    background: ImageFacts | None = None
    images: list[ImageFacts] = field(default_factory=list)  # cut-outs and scenes
    disagreeing: tuple[str, int, float] | None = (
        None  # a second label file, and how many pixels differ, also as a share
    )

    @property
    def name(self) -> str:
        """The sample's name."""
        return "/".join(self.key)

    @property
    def is_sample(self) -> bool:
        """Whether it is more than a scene that several composites share."""
        return self.image is not None or bool(self.masks or self.images)

    @property
    def files(self) -> list[str]:
        """All its files that were read, its image first."""
        everything = (self.image, *self.masks, self.depth, self.background, *self.images)
        return [facts.file for facts in everything if facts is not None]

    @property
    def image_file(self) -> str:
        """The file of its image, or of what else there is."""
        return next(iter(self.files), self.name)

    @property
    def label_file(self) -> str:
        """The file to name when its labels are meant."""
        return self.masks[0].file if self.masks else self.image_file
