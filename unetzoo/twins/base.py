"""What a twin's layout is, and how its files are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..labels import LabelSpec

RNG = np.random.Generator
MaskKind = Literal["index", "palette", "binary", "parts", "jpeg"] | None


@dataclass(frozen=True)
class Pair:
    """The files of one sample.

    Args:
        name: The sample's id.
        split: The split it belongs to.
        image: Its image.
        masks: Its label files; the first is the one that is read.
        depth: Its depth file, where the layout has one.
        page: Its slice, where image and labels are stacks.
    """

    name: str
    split: str
    image: Path
    masks: tuple[Path, ...] = ()
    depth: Path | None = None
    page: int | None = None


Writer = Callable[[Path, int, int, int], None]
Reader = Callable[[Path], list[Pair]]


@dataclass(frozen=True)
class Layout:
    """A data set's layout on disk, in miniature: `DATASETS.build(layout.dataset, root=…, **layout.options)` reads it.

    Args:
        dataset: Registry name of the dataset.
        about: What is written, in a line.
        writer: `writer(root, count, size, seed)`.
        reader: The samples in a written twin, by file names alone (broken files do not matter).
        splits: Splits with labels.
        options: Arguments that the dataset needs besides `root` and `split`.
        recipe: A recipe that trains on it.
        masks: How its label files hold classes: an "index" a pixel as gray, a "palette" index, "binary" 0 and 255,
            "parts" (a file of 0 and 255 for each part), "jpeg" (grays to be thresholded), or None.
        labels: The file values that are declared.
        gray: Images have one channel.
        has_depth: Samples have a depth file.
        count: Samples written by default.
        least: Fewest samples that fill every split.
        size: Height of its label maps in pixels by default.
    """

    dataset: str
    about: str
    writer: Writer
    reader: Reader
    splits: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    masks: MaskKind = "index"
    labels: LabelSpec | None = None
    gray: bool = False
    has_depth: bool = False
    count: int = 20
    least: int = 5
    size: int = 64


def rng_of(seed: int, *key: int) -> RNG:
    """The random numbers of one drawing."""
    return np.random.default_rng(np.random.SeedSequence([seed, *key]))


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    """Write an image; JPEGs at quality 95."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        options.setdefault("quality", 95)
    Image.fromarray(array).save(path, **options)
    return path


def pixels(path: Path, mode: str | None = None) -> np.ndarray:
    """What an image file holds, as it is stored or in another mode."""
    with Image.open(path) as image:
        return np.asarray(image if mode is None else image.convert(mode))


def save_indexed(path: Path, values: np.ndarray, palette: Mapping[int, tuple[int, int, int]]) -> Path:
    """Write palette indices (mode P), each shown in its color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = np.zeros((256, 3), np.uint8)
    for value, color in palette.items():
        flat[value] = color
    image = Image.fromarray(values)
    image.putpalette(flat.tobytes())
    image.save(path, optimize=False)
    return path
