"""Sources of composites: numbered drawings, or two folders of image files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError, PairingError, SizeMismatchError
from .blending import Cutout, Scene, beside
from .depth_files import read_depth
from .files import read_image, read_rgba
from .listing import list_images, summary

CUTOUT = 96 / 192  # longer side of a cut-out from a file, as a share of the image
_KEPT = 256  # number of sources in memory; a scene of 192² takes 370 kB


@dataclass
class Sources(ABC):
    """Numbered cut-outs and scenes, created on first use.

    Args:
        size: Side length of the square images.
        copies: How many times the image of a scene repeats its three channels: 1 or 2.
    """

    size: int
    copies: int

    def __post_init__(self) -> None:
        self._cache: dict[tuple[str, int], Any] = {}

    def __getstate__(self) -> dict[str, object]:
        """Each process creates its own sources."""
        return self.__dict__ | {"_cache": {}}

    @property
    @abstractmethod
    def foregrounds(self) -> list[str]:
        """Names of the cut-outs."""

    @property
    @abstractmethod
    def backgrounds(self) -> list[str]:
        """Names of the scenes."""

    @property
    def depth(self) -> str:
        """The source of depth."""
        return "layered"

    def files(self) -> list[Path]:
        """All files that are used."""
        return []

    def cutout(self, number: int, mirrored: bool) -> Cutout:
        """A cut-out, mirrored on request."""
        return self._cached("fg", number, self._make_cutouts)[mirrored]

    def scene(self, number: int) -> Scene:
        """A scene."""
        return self._cached("bg", number, self._make_scene)

    def check(self) -> float:
        """Create every source once, and return the largest depth.

        Raises:
            DataError: All faults of the sources, in one error.
        """
        faults: list[DataError] = []
        farthest = 0.0
        for make, names in ((self._make_cutouts, self.foregrounds), (self._make_scene, self.backgrounds)):
            for number in range(len(names)):
                try:
                    made = make(number)
                except DataError as error:
                    faults.append(error)
                else:
                    farthest = max(farthest, float(made.depth.max())) if isinstance(made, Scene) else farthest
        if len(faults) == 1:
            raise faults[0]
        if faults:
            raise DataError("faulty sources", found=summary([str(fault) for fault in faults]))
        return farthest

    @abstractmethod
    def _make_cutouts(self, number: int) -> tuple[Cutout, Cutout]: ...

    @abstractmethod
    def _make_scene(self, number: int) -> Scene: ...

    def _plane(self, image: np.ndarray, rows: np.ndarray) -> Scene:
        """A scene whose depth decreases from row to row."""
        return Scene(self._copied(image), np.repeat(rows[:, None], self.size, axis=1), rows, None)

    def _copied(self, image: np.ndarray) -> np.ndarray:
        # the scene is repeated here, since copying it later is faster than filling channels 3…5
        return beside([image] * self.copies)

    def _cached(self, kind: str, number: int, make: Callable[[int], Any]) -> Any:
        key = kind, number
        if key not in self._cache:
            value = make(number)
            if len(self._cache) >= _KEPT:
                self._cache.pop(next(iter(self._cache)), None)  # the oldest; another thread may have removed it
            self._cache[key] = value
            return value
        return self._cache[key]


@dataclass
class Drawings(Sources):
    """Drawings, named by number.

    Args:
        size: Side length of the square images.
        copies: How many times the image of a scene repeats its three channels.
        cutouts: Number of cut-outs.
        scenes: Number of scenes.
    """

    cutouts: int
    scenes: int

    @property
    def foregrounds(self) -> list[str]:
        """`fg000`, `fg001`, …"""
        return [f"fg{number:03d}" for number in range(self.cutouts)]

    @property
    def backgrounds(self) -> list[str]:
        """`bg000`, `bg001`, …"""
        return [f"bg{number:03d}" for number in range(self.scenes)]

    def check(self) -> float:
        """The depth of the horizon; drawings have no faults."""
        from .drawing import FAR

        return FAR

    def _make_cutouts(self, number: int) -> tuple[Cutout, Cutout]:
        from .drawing import foreground

        return _both(foreground(number, self.size))

    def _make_scene(self, number: int) -> Scene:
        from .scenery import background

        return self._plane(*background(number, self.size))


@dataclass
class ImageFiles(Sources):
    """Image files, named by stem.

    Args:
        size: Side length of the square images.
        copies: How many times the image of a scene repeats its three channels.
        cutouts: Image files with an alpha channel.
        scenes: Image files of scenes.
        maps: A depth map for each scene, or None.
        scale: Value of one unit of depth maps; see `read_depth`.
        gaps: Whether 0 in a depth map means "not measured".
        rims: Whether cut-outs keep their empty borders.
    """

    cutouts: list[Path]
    scenes: list[Path]
    maps: list[Path] | None = None
    scale: float | None = None
    gaps: bool = False
    rims: bool = False

    @property
    def foregrounds(self) -> list[str]:
        """Stems of the cut-outs."""
        return [path.stem for path in self.cutouts]

    @property
    def backgrounds(self) -> list[str]:
        """Stems of the scenes."""
        return [path.stem for path in self.scenes]

    @property
    def depth(self) -> str:
        """The source of depth."""
        return "layered" if self.maps is None else "layered over maps"

    def files(self) -> list[Path]:
        """Cut-outs, scenes, maps."""
        return [*self.cutouts, *self.scenes, *(self.maps or ())]

    def _make_cutouts(self, number: int) -> tuple[Cutout, Cutout]:
        rgba = _fit(read_rgba(self.cutouts[number]), self.size, self.cutouts[number])
        return _both(rgba if self.rims else _without_rim(rgba))

    def _make_scene(self, number: int) -> Scene:
        from .scenery import ramp

        original = read_image(self.scenes[number])
        resized = Image.fromarray(original).resize((self.size, self.size), Image.Resampling.BICUBIC)
        image = np.asarray(resized)
        if self.maps is None:
            return self._plane(image, ramp(self.size))
        depth = read_depth(self.maps[number], self.scale)
        _check_proportions(original, depth, self.scenes[number], self.maps[number])
        return Scene(self._copied(image), *self._measured(depth, self.maps[number]))

    def _measured(self, depth: np.ndarray, path: Path) -> tuple[np.ndarray, None, np.ndarray]:
        """The resized map, and its valid pixels."""
        from .geometry import resize

        valid = np.isfinite(depth) & (depth > 0 if self.gaps else depth >= 0)
        # `resize` reads the size of `image`
        planes = resize({"image": valid[..., None], "depth": depth, "valid": valid}, self.size, self.size)
        if not planes["valid"].any():
            raise DataError("empty depth map", subject=path, expected="finite values ≥ 0",
                            found=f"{valid.sum():,} of {valid.size:,} pixels",
                            hint="correct it, or remove it and its scene")  # fmt: skip
        return np.where(planes["valid"], planes["depth"], np.float32(0)), None, planes["valid"]


def find_maps(scenes: Sequence[Path], folder: Path) -> list[Path]:
    """Find the depth map of each scene by stem.

    Raises:
        DataError: The folder is missing or empty.
        PairingError: Scenes without a map, or with several; all in one error.
    """
    found: dict[str, list[Path]] = {}
    for path in list_images(folder, "depth is a folder of depth maps with the stems of the scenes"):
        found.setdefault(path.stem, []).append(path)
    counts = [(scene, len(found.get(scene.stem, ()))) for scene in scenes]
    faults = [f"{scene} has {count or 'no'} depth map{'s' * (count > 1)}" for scene, count in counts if count != 1]
    if faults:
        raise PairingError("scenes and depth maps do not match", subject=folder, expected="one map per scene",
                           found=summary(faults), hint="add or remove the named files")  # fmt: skip
    return [found[scene.stem][0] for scene in scenes]


def division(count: int, split: str, subject: str) -> list[int]:
    """The numbers of a split, by position in groups of ten, so that no seed or count moves one to another split.

    Raises:
        ConfigError: The split is empty.

    Examples:
        >>> division(20, "val", "cut-outs"), division(20, "test", "cut-outs")
        ([8, 18], [9, 19])
    """
    places = {"train": range(8), "val": (8,), "test": (9,), "all": range(10)}[split]
    chosen = [i for i in range(count) if i % 10 in places]
    if not chosen:
        raise ConfigError(
            f"no {subject} for split {split!r}",
            expected="at least 10",
            found=count,
            hint='use at least 10, or split="all"',
        )
    return chosen


def _both(rgba: np.ndarray) -> tuple[Cutout, Cutout]:
    straight = Cutout.from_rgba(rgba)
    return straight, straight.mirrored()


def _check_proportions(image: np.ndarray, depth: np.ndarray, scene: Path, path: Path) -> None:
    (height, width), (map_height, map_width) = image.shape[:2], depth.shape
    if abs(height * map_width - width * map_height) > 0.02 * max(height * map_width, width * map_height):
        raise SizeMismatchError(
            "depth map and scene differ in aspect ratio", subject=path, expected=f"that of {scene} ({width}×{height})",
            found=f"{map_width}×{map_height}",
            hint="the map belongs to another image, or one of them was cropped or rotated",
        )  # fmt: skip


def _fit(rgba: np.ndarray, size: int, path: Path) -> np.ndarray:
    """Scale the longer side of a cut-out to half the image."""
    scale = CUTOUT * size / max(rgba.shape[:2])
    width, height = (max(1, round(n * scale)) for n in (rgba.shape[1], rgba.shape[0]))
    # Pillow resizes RGBA with premultiplied colors, so colors under alpha 0 do not bleed in
    scaled = np.asarray(Image.fromarray(rgba).resize((width, height), Image.Resampling.BICUBIC))
    if scaled[..., 3].max() < 128:
        raise DataError("empty cut-out", subject=path, expected="opaque pixels", found="none", hint="remove the file")
    return scaled


def _without_rim(rgba: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((rgba[..., 3] > 0).any(axis)) for axis in (1, 0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
