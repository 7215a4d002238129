"""Layouts of twins, and functions that write image files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..datasets.layout import FileLayout, MaskValues
from ..labels import LabelSpec

RNG = np.random.Generator
MaskKind = Literal["index", "palette", "colors", "binary", "parts", "jpeg", "objects", "object"] | None


@dataclass(frozen=True)
class Pair:
    """The files of one sample.

    Args:
        name: Id of the sample.
        split: Its split.
        image: Its image.
        masks: Its mask files; the dataset reads the first.
        depth: Its depth file, if the layout has one.
        page: Its slice, if images and masks are stacks.
    """

    name: str
    split: str
    image: Path
    masks: tuple[Path, ...] = ()
    depth: Path | None = None
    page: int | None = None


@dataclass(frozen=True)
class TwinLayout:
    """A layout that can be written in miniature. `DATASETS.build(dataset, root=…, **options)` reads it.

    Args:
        dataset: Registry name of the dataset.
        layout: The layout that the dataset declares.
        writer: `writer(root, count, size, seed)`.
        reader: Returns the samples of a written twin; uses file names only, so that broken files do not matter.
        splits: Splits with labels.
        options: Arguments of the dataset in addition to `root` and `split`.
        declared: The values of mask files, if the user declares them.
        palette: Whether mask files contain palette indices.
        count: Default number of samples.
        least: Smallest number of samples with which no split is empty.
        size: Default height of the masks in pixels.
    """

    dataset: str
    layout: FileLayout
    writer: Callable[[Path, int, int, int], None]
    reader: Callable[[Path], list[Pair]]
    splits: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: MaskValues | None = None
    palette: bool = False
    count: int = 20
    least: int = 5
    size: int = 64

    @property
    def about(self) -> str:
        """Description in one line."""
        return self.layout.about

    @property
    def recipe(self) -> str | None:
        """A recipe that trains on the dataset."""
        return _recipes().get(self.dataset)

    @property
    def values(self) -> MaskValues | None:
        """The values of the mask files that are read; None if there are none."""
        if self.declared is not None:
            return self.declared
        masks = self.layout.of("mask")
        return (masks[0].values or MaskValues(self.layout.labels)) if masks else None

    @property
    def labels(self) -> LabelSpec | None:
        """The declared values of mask files; if masks consist of parts, those of the combined mask."""
        if self.layout.joined:
            return self.layout.labels
        return self.values.labels if self.values else None

    @property
    def masks(self) -> MaskKind:
        """Encoding of classes in mask files.

        "index" (gray values), "palette" (palette indices), "colors" (RGB), "binary" (0 and 255), "parts" (one file of
        0 and 255 per part), "jpeg" (gray values to be thresholded), "objects" (one number per object), "object" (one
        file of 0 and 255 per object), or None without masks.
        """
        values = self.values
        if values is None or values.labels is None:
            return None
        if self.layout.joined:
            return "parts"
        if values.how in ("colors", "objects", "object"):
            return values.how
        if values.how == "thresholded":
            return "jpeg"
        if values.how == "shown" or values.labels.ids == (0, 255):
            return "binary"
        return "palette" if self.palette else "index"

    @property
    def gray(self) -> bool:
        """Images have one channel."""
        return self.layout.gray

    @property
    def has_depth(self) -> bool:
        """Samples have a depth file."""
        return bool(self.layout.of("depth"))


def _recipes() -> dict[str, str]:
    """Dataset → recipe: the one of the same name, otherwise the last by name."""
    import tomllib

    from ..errors import UnetzooError
    from ..registry import RECIPES

    found: dict[str, str] = {}
    for name in RECIPES.names():
        try:
            dataset = tomllib.loads(Path(RECIPES.get(name)).read_text(encoding="utf-8"))["data"]["name"]
        except (UnetzooError, OSError, KeyError, TypeError, ValueError):
            continue
        if found.get(dataset) != dataset:
            found[dataset] = name
    return found


def rng_of(seed: int, *key: int) -> RNG:
    """The random numbers of a drawing."""
    return np.random.default_rng(np.random.SeedSequence([seed, *key]))


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    """Write an image; JPEGs at quality 95."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        options.setdefault("quality", 95)
    Image.fromarray(array).save(path, **options)
    return path


def pixels(path: Path, mode: str | None = None) -> np.ndarray:
    """The pixels of an image file, in its own mode or another one."""
    with Image.open(path) as image:
        return np.asarray(image if mode is None else image.convert(mode))


def save_indexed(path: Path, values: np.ndarray, palette: Mapping[int, tuple[int, int, int]]) -> Path:
    """Write a palette image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = np.zeros((256, 3), np.uint8)
    for value, color in palette.items():
        flat[value] = color
    image = Image.fromarray(values)
    image.putpalette(flat.tobytes())
    image.save(path, optimize=False)
    return path
