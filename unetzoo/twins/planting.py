"""The table of faults, and a written twin with methods that change its files."""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from .base import Pair, TwinLayout, pixels, rng_of, save, save_indexed
from .layouts import LAYOUTS
from .writing import BLACK_WHITE


@dataclass
class PlantedTwin:
    """A written twin that a fault is planted into.

    Args:
        root: Its folder.
        layout: Its layout.
        code: Name of the fault.
        seed: Seed of the choice of samples, together with the name.
    """

    root: Path
    layout: TwinLayout
    code: str
    seed: int
    touched: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pairs = self.layout.reader(self.root)
        self.rng = rng_of(self.seed, zlib.crc32(self.code.encode()))

    def of(self, split: str) -> list[Pair]:
        """The samples of a split that have all their files."""
        labeled = self.layout.masks is not None
        return [pair for pair in self.pairs if pair.split == split and _complete(pair) and bool(pair.masks) == labeled]

    def pick(self) -> Pair:
        """A sample of train."""
        train = self.of("train")
        return train[int(self.rng.integers(len(train)))]

    def pick_two(self, second: str = "train") -> tuple[Pair, Pair]:
        """A sample of train and another one of a split, in the same file format."""
        first = self.pick()
        others = [p for p in self.of(second) if p.name != first.name and p.image.suffix == first.image.suffix]
        return first, others[int(self.rng.integers(len(others)))]

    def note(self, *paths: Path) -> None:
        """Record that files were changed."""
        self.touched += [path for path in paths if path not in self.touched]

    def write(self, path: Path, data: bytes) -> None:
        """Write the bytes of a file."""
        path.write_bytes(data)
        self.note(path)

    def save(self, path: Path, array: np.ndarray, **options: Any) -> None:
        """Write an image file."""
        save(path, array, **options)
        self.note(path)

    def read_image(self, pair: Pair) -> np.ndarray:
        """The image of a sample."""
        return pixels(pair.image) if pair.page is None else self._page(pair.image, pair.page)

    def write_image(self, pair: Pair, array: np.ndarray) -> None:
        """Write the image of a sample in its file format."""
        if pair.page is not None:
            self._set_page(pair.image, pair.page, array)
        else:
            self.save(pair.image, array)

    def values(self, pair: Pair, path: Path | None = None) -> np.ndarray:
        """The values of a mask file; of binary masks the gray values, of colors (H, W, 3)."""
        path = path or pair.masks[0]
        if pair.page is not None:
            return self._page(path, pair.page)
        return pixels(path, None if indexed(self.layout) or self.layout.masks in ("colors", "objects") else "L")

    def set_values(self, pair: Pair, values: np.ndarray, path: Path | None = None) -> None:
        """Write a mask file in its encoding."""
        path = path or pair.masks[0]
        values = values.astype(np.uint16 if self.layout.masks == "objects" else np.uint8)
        if pair.page is not None:
            self._set_page(path, pair.page, values)
        elif self.layout.masks == "palette":
            with Image.open(path) as image:
                colors = image.getpalette() or []
            save_indexed(path, values, dict(enumerate(zip(colors[::3], colors[1::3], colors[2::3], strict=False))))
        elif path.suffix == ".gif" and set(np.unique(values)) <= {0, 255}:
            save_indexed(path, values // 255, BLACK_WHITE)
        else:
            save(path, np.stack([values] * 3, 2) if self.layout.masks == "parts" else values)
        self.note(path)

    def all_masks(self) -> Iterator[tuple[Pair, Path]]:
        """Every mask file that is read; several per sample if it consists of parts."""
        for pair in self.pairs:
            for path in pair.masks if self.layout.layout.several else pair.masks[:1]:
                yield pair, path

    def copy(self, source: Pair, target: Pair, *, labels: bool = True) -> None:
        """Replace the image of a sample by that of another, and its labels and depth."""
        if source.page is not None:
            self.write_image(target, self.read_image(source))
        else:
            self._copy_file(source.image, target.image)
        if labels and source.masks:
            self.set_labels(target, self.labels(source))
        if labels and source.depth and target.depth:
            self._copy_file(source.depth, target.depth)

    def labels(self, pair: Pair) -> dict[str, bytes] | np.ndarray:
        """All labels of a sample: contents of its files by the rest of their names, or its slice."""
        if pair.page is not None:
            return self.values(pair)
        return {path.name.removeprefix(_prefix(pair)): path.read_bytes() for path in pair.masks}

    def set_labels(self, pair: Pair, labels: dict[str, bytes] | np.ndarray) -> None:
        """Replace the labels of a sample by the `labels` of another."""
        if isinstance(labels, np.ndarray):
            self.set_values(pair, labels)
            return
        for path in pair.masks:
            self.remove(path)
        for end, content in labels.items():
            self.write(pair.masks[0].with_name(_prefix(pair) + end), content)

    def _copy_file(self, source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        self.note(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()
        self.note(path)

    def renamed(self, path: Path, suffix: str) -> Path:
        """Remove a file to replace it by one of another format; updates the manifest."""
        new = path.with_suffix(suffix)
        if new != path:
            self.remove(path)
            self.edit_manifest(lambda text: text.replace(path.relative_to(self.root).as_posix(),
                                                         new.relative_to(self.root).as_posix()))  # fmt: skip
        self.note(new)
        return new

    def edit_manifest(self, edit: Callable[[str], str]) -> None:
        """Change the text of the manifest, if there is one."""
        table = self.layout.layout.table
        if table:
            path = self.root / table
            path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
            self.note(path)

    def stack(self, path: Path, edit: Callable[[np.ndarray], np.ndarray]) -> None:
        """Change a stack."""
        tifffile.imwrite(path, edit(tifffile.imread(path)), photometric="minisblack", software=False)
        self.note(path)

    def _page(self, path: Path, page: int) -> np.ndarray:
        return tifffile.imread(path, key=page)

    def _set_page(self, path: Path, page: int, array: np.ndarray) -> None:
        def put(stack: np.ndarray) -> np.ndarray:
            stack[page] = array
            return stack

        self.stack(path, put)


def _complete(pair: Pair) -> bool:
    depth = () if pair.depth is None else (pair.depth,)
    return all(path.exists() for path in (pair.image, *pair.masks, *depth))


def _prefix(pair: Pair) -> str:
    """The start of the names of the mask files of a sample: its id, with or without leading zeros."""
    found = re.match(f"0*{re.escape(pair.name)}", pair.masks[0].name)
    return found[0] if found else ""


Where = Callable[[TwinLayout], bool]


@dataclass(frozen=True)
class Fault:
    """A fault of a data set.

    Args:
        about: Description in one line.
        where: Whether a layout can have it.
        planter: `planter(root, layout, seed)` plants it and returns the files that it changed.
    """

    about: str
    where: Where
    planter: Callable[[Path, TwinLayout, int], list[Path]]

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts that can have it."""
        return tuple(name for name, layout in LAYOUTS.items() if self.where(layout))


FAULTS: dict[str, Fault] = {}


def fault(code: str, about: str, where: Where) -> Callable:
    """Decorator: add a function of a `PlantedTwin` to `FAULTS`.

    Args:
        code: Name of the fault.
        about: Description in one line.
        where: Whether a layout can have it.
    """

    def add(plant: Callable[[PlantedTwin], None]) -> Callable[[PlantedTwin], None]:
        def planter(root: Path, layout: TwinLayout, seed: int) -> list[Path]:
            twin = PlantedTwin(root, layout, code, seed)
            plant(twin)
            return twin.touched

        FAULTS[code] = Fault(about, where, planter)
        return plant

    return add


def stacked(layout: TwinLayout) -> bool:
    """All samples are in one file."""
    return layout.layout.stacked


def anywhere(layout: TwinLayout) -> bool:
    """Every layout."""
    return True


def has_masks(layout: TwinLayout) -> bool:
    """Images have masks."""
    return layout.masks is not None


def has_depth(layout: TwinLayout) -> bool:
    """Samples have a depth file."""
    return layout.has_depth


def single_files(layout: TwinLayout) -> bool:
    """Every image is a file."""
    return not stacked(layout)


def files(layout: TwinLayout) -> bool:
    """Every image and every mask is a file."""
    return has_masks(layout) and not stacked(layout)


def raw(layout: TwinLayout) -> bool:
    """Mask files are read as stored values."""
    return files(layout) and layout.values is not None and (layout.values.how == "numbers" or numbered(layout))


def numbered(layout: TwinLayout) -> bool:
    """Each object has a number or a file."""
    return layout.masks in ("objects", "object")


def colored(layout: TwinLayout) -> bool:
    """Images are files of three channels."""
    return files(layout) and not layout.gray


def declared_values(layout: TwinLayout) -> list[int]:
    """The values that mask files may contain, sorted."""
    labels = layout.values.labels if layout.values else None
    return sorted(value for value in labels.lookup() if value >= 0) if labels else []


def indexed(layout: TwinLayout) -> bool:
    """Mask files contain class numbers."""
    return layout.masks in ("index", "palette")
