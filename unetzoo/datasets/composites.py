"""Composites: cut-outs put into scenes as they are asked for, with masks and depth that are exact by construction.

The EVA mask + depth task (100 scenes of 192², 100 cut-outs of 96 px, 20 places, flipped or not: 400,000 pictures)
without its 1.2 million files. Sources are drawn, or read from two folders.
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError
from ..labels import LabelSpec
from .base import Sample, SampleTransform, SegmentationDataset, check_split
from .files import PathLike, read_image, read_rgba
from .listing import list_images

SPLITS = ("train", "val", "test", "all")
GRID = 28 / 192  # the original's step, as a share of the picture; 5 places across and 4 down
CUTOUT = 96 / 192  # longer side of a cut-out from a file, as a share of the picture
NEARER = 0.75  # a cut-out's depth over the depth of the scene where it stands
_KEPT = 256  # sources kept in memory; a scene of 192² takes 370 kB


class _Foreground(NamedTuple):
    """A cut-out made ready for integer blending: out = (premultiplied + scene · (255 − alpha)) / 255."""

    premultiplied: np.ndarray  # uint16 (h, w, 3): colour · alpha + 128, the half that rounds
    inverse: np.ndarray  # uint16 (h, w, 3): 255 − alpha
    mask: np.ndarray  # bool (h, w)

    @classmethod
    def from_rgba(cls, rgba: np.ndarray) -> _Foreground:
        alpha = np.repeat(rgba[..., 3:].astype(np.uint16), 3, axis=2)
        return cls(rgba[..., :3] * alpha + np.uint16(128), 255 - alpha, rgba[..., 3] >= 128)

    def mirrored(self) -> _Foreground:
        return _Foreground(*(np.ascontiguousarray(plane[:, ::-1]) for plane in self))


class Composites(SegmentationDataset):
    """Cut-outs in scenes, with exact masks and layered depth: the library's built-in data, nothing to download.

    - **Picture**: the composite and the bare scene, 6 channels; `channels=3` gives the composite alone.
    - **Mask**: 1 where the cut-out's alpha is ≥ 0.5 (≥ 128 of 255).
    - **Depth**: in [0, 1], *larger is farther*, as in EVA's files (dark = near). A scene falls evenly from 1.0 at its
      horizon (drawn scenes) or its top row (scenes from files) to 0.4 at its bottom row. A cut-out is a flat layer at
      0.75 times the scene's depth at the cut-out's lowest row: always nearer than what it hides, never below 0.3.
    - **Splits** divide the cut-outs *and* the scenes: of every ten in order, the ninth belongs to val, the tenth to
      test, so a picture of one split shares neither with another, whatever `seed` and `length` are.

    Sample `i` depends on (seed, split, i) alone. `|composite − scene|` nearly gives the mask away; `jitter=True`
    changes brightness and contrast (±15 %), position (±1 px) and JPEG quality (60…95) of the two independently; mask
    and depth follow the composite's shift.

    Args:
        split: "train", "val", "test" or "all".
        size: Side of the square pictures.
        length: Number of samples; as many as you like.
        seed: Seed of the combinations (never of the division into splits).
        channels: 6, or 3 for composites without the scene.
        positions: "random", or "grid": the original's 5 × 4 places of step 28 at size 192, where what would stand out
            of the picture is cut off.
        flip: Mirror half of the cut-outs.
        jitter: Disturb composite and scene independently.
        foregrounds: How many cut-outs to draw.
        backgrounds: How many scenes to draw.
        root: A folder with cut-outs (RGBA) and scenes, used in place of drawings.
        fg: Name of its folder of cut-outs.
        bg: Name of its folder of scenes.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (size, size, channels), `mask` uint8 (size, size), `depth` float32 (size, size).

    Raises:
        ConfigError: Arguments out of range.
        DataError: Missing folders or broken files.

    Examples:
        >>> sample = Composites(split="val", size=48)[7]
        >>> sample["image"].shape, sorted(set(sample["mask"].ravel().tolist()))
        ((48, 48, 6), [0, 1])
    """

    how_to_get: ClassVar[str] = (
        "leave root out and the pictures are drawn; or put RGBA cut-outs into fg/, scenes into bg/"
    )

    def __init__(
        self,
        split: Literal["train", "val", "test", "all"] = "train",
        size: int = 192,
        length: int = 1000,
        seed: int = 0,
        *,
        channels: Literal[3, 6] = 6,
        positions: Literal["random", "grid"] = "random",
        flip: bool = True,
        jitter: bool = False,
        foregrounds: int = 100,
        backgrounds: int = 100,
        root: PathLike | None = None,
        fg: str = "fg",
        bg: str = "bg",
        transform: SampleTransform | None = None,
    ) -> None:
        check_split(split, SPLITS, "Composites")
        _require(isinstance(size, int) and size >= 16, "size", size, "a whole number ≥ 16")
        _require(isinstance(length, int) and length >= 0, "length", length, "a whole number ≥ 0")
        _require(isinstance(seed, int) and seed >= 0, "seed", seed, "a whole number ≥ 0")
        _require(channels in (3, 6), "channels", channels, "3 or 6")
        _require(positions in ("random", "grid"), "positions", positions, '"random" or "grid"')
        super().__init__(labels=LabelSpec(("background", "foreground")), split=split, transform=transform)
        self.size, self.length, self.seed, self.channels = size, length, seed, channels
        self.positions: Literal["random", "grid"] = positions
        self.flip, self.jitter = flip, jitter
        self.root = None if root is None else Path(root)
        if self.root is None:
            self._fg_files = self._bg_files = None
            counts = foregrounds, backgrounds
        else:
            self._fg_files = list_images(self.root / fg, self.how_to_get)
            self._bg_files = list_images(self.root / bg, self.how_to_get)
            counts = len(self._fg_files), len(self._bg_files)
        self._counts, self._fg, self._bg = counts, fg, bg
        self._threshold: int | None = None
        self.foregrounds = _identities(counts[0], split, "foregrounds")
        self.backgrounds = _identities(counts[1], split, "backgrounds")
        self._cache: dict[tuple[str, int], tuple] = {}

    def __len__(self) -> int:
        return self.length

    def __getstate__(self) -> dict[str, object]:
        """Each process makes its own sources."""
        return self.__dict__ | {"_cache": {}}

    def load(self, index: int) -> Sample:
        """Compose one sample."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, SPLITS.index(str(self.split)), index]))
        draw = rng.random(5)
        fg = self.foregrounds[int(draw[0] * len(self.foregrounds))]
        bg = self.backgrounds[int(draw[1] * len(self.backgrounds))]
        cutout = self._foreground(fg)[int(self.flip and draw[2] < 0.5)]
        both, depth_rows, depth = self._background(bg)
        top, left = self._place(cutout.mask.shape, draw[3], draw[4])

        # only the cut-out's rectangle is worked on; the rest is copied
        bottom, right = min(top + cutout.mask.shape[0], self.size), min(left + cutout.mask.shape[1], self.size)
        rows, columns = slice(top, bottom), slice(left, right)
        inner = slice(0, bottom - top), slice(0, right - left)
        image, depth = both.copy(), depth.copy()
        mask = np.zeros((self.size, self.size), np.uint8)
        blend = image[rows, columns, :3] * cutout.inverse[inner]
        blend += cutout.premultiplied[inner]
        blend += blend >> 8  # with the half added before: exactly rounded division by 255
        blend >>= 8
        image[rows, columns, :3] = blend
        shape = cutout.mask[inner]
        mask[rows, columns] = shape
        np.copyto(depth[rows, columns], np.float32(NEARER) * depth_rows[bottom - 1], where=shape)
        if self.jitter:
            image, mask, depth = self._jitter(rng, image, mask, depth)
        return {"image": image, "mask": mask, "depth": depth, "id": f"{index:06d}-fg{fg:03d}-bg{bg:03d}"}

    def baseline(self, sample: Sample) -> np.ndarray | None:
        """What a network must beat: the plain difference |composite − scene| above a threshold.

        The threshold is the best one (by IoU) on the first training pictures of the same settings.

        Args:
            sample: A sample before transforms.

        Returns:
            A mask (size, size), or None where the picture has no scene beside it (`channels=3`).
        """
        if self.channels == 3:
            return None
        if self._threshold is None:
            self._threshold = self._best_threshold()
        return (difference(sample["image"]) > self._threshold).astype(np.uint8)

    def _best_threshold(self, pictures: int = 32) -> int:
        train = Composites(
            "train", self.size, pictures, self.seed, positions=self.positions, flip=self.flip, jitter=self.jitter,
            foregrounds=self._counts[0], backgrounds=self._counts[1], root=self.root, fg=self._fg, bg=self._bg,
        )  # fmt: skip
        samples = [train[index] for index in range(pictures)]
        gaps = np.stack([difference(sample["image"]) for sample in samples])
        truth = np.stack([sample["mask"] for sample in samples]) > 0
        thresholds = range(0, 255, 2)
        scores = [np.sum((gaps > t) & truth) / np.sum((gaps > t) | truth) for t in thresholds]
        return thresholds[int(np.argmax(scores))]

    def _place(self, shape: tuple[int, ...], u: float, v: float) -> tuple[int, int]:
        """Top and left edge of the cut-out."""
        if self.positions == "grid":
            step = GRID * self.size
            return round(step * int(4 * u)), round(step * int(5 * v))
        return int(u * (self.size - shape[0] + 1)), int(v * (self.size - shape[1] + 1))

    def _jitter(
        self, rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, depth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = []
        for start in range(0, self.channels, 3):
            dy, dx = rng.integers(-1, 2, 2).tolist()
            contrast, brightness = rng.uniform(0.85, 1.15), rng.uniform(-0.15, 0.15) * 255
            table = np.clip(np.rint((np.arange(256) - 127.5) * contrast + 127.5 + brightness), 0, 255).astype(np.uint8)
            part = table[shift(image[..., start : start + 3], dy, dx)]
            file = io.BytesIO()
            Image.fromarray(part).save(file, "JPEG", quality=int(rng.integers(60, 96)))
            parts.append(np.asarray(Image.open(file)))
            if start == 0:
                mask, depth = shift(mask, dy, dx), shift(depth, dy, dx)
        return np.concatenate(parts, axis=2), mask, depth

    def _cached(self, key: tuple[str, int], make: partial) -> tuple:
        if key not in self._cache:
            value = make()
            if len(self._cache) >= _KEPT:
                self._cache.pop(next(iter(self._cache)), None)  # the oldest; threads may race for it
            self._cache[key] = value
            return value
        return self._cache[key]

    def _foreground(self, identity: int) -> tuple[_Foreground, _Foreground]:
        return self._cached(("fg", identity), partial(self._make_foreground, identity))

    def _make_foreground(self, identity: int) -> tuple[_Foreground, _Foreground]:
        if self._fg_files is None:
            from .drawing import foreground

            rgba = foreground(identity, self.size)
        else:
            rgba = _fit(read_rgba(self._fg_files[identity]), self.size, self._fg_files[identity])
        straight = _Foreground.from_rgba(rgba)
        return straight, straight.mirrored()

    def _background(self, identity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._cached(("bg", identity), partial(self._make_background, identity))

    def _make_background(self, identity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from .scenery import background, ramp

        if self._bg_files is None:
            scene, depth_rows = background(identity, self.size)
        else:
            picture = Image.fromarray(read_image(self._bg_files[identity]))
            scene = np.asarray(picture.resize((self.size, self.size), Image.Resampling.BICUBIC))
            depth_rows = ramp(self.size)
        depth = np.repeat(depth_rows[:, None], self.size, axis=1)
        # the scene twice: copying this is faster than filling channels 3…5 apart
        return np.concatenate([scene] * (self.channels // 3), axis=2), depth_rows, depth


def difference(image: np.ndarray) -> np.ndarray:
    """Largest difference over the colours between the two halves of a 6-channel picture.

    Examples:
        >>> difference(np.array([[[10, 10, 10, 12, 7, 10]]], np.uint8)).tolist()
        [[3]]
    """
    composite, scene = image[..., :3].astype(np.int16), image[..., 3:].astype(np.int16)
    return np.abs(composite - scene).max(axis=2)


def shift(array: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Move a picture down and right; the edge is repeated where nothing was.

    Examples:
        >>> shift(np.array([[1, 2, 3]]), 0, 1).tolist()
        [[1, 1, 2]]
    """
    rows = np.clip(np.arange(array.shape[0]) - dy, 0, array.shape[0] - 1)
    columns = np.clip(np.arange(array.shape[1]) - dx, 0, array.shape[1] - 1)
    return array[rows[:, None], columns]


def _identities(count: int, split: str, subject: str) -> list[int]:
    """Those of a split. By position in ten, not by shuffling: no seed or count can carry one across."""
    places = {"train": range(8), "val": (8,), "test": (9,), "all": range(10)}[split]
    chosen = [i for i in range(count) if i % 10 in places]
    if not chosen:
        raise ConfigError(
            f"no {subject} for split {split!r}",
            expected="at least 10 to divide",
            found=count,
            hint='give at least 10, or use split="all"',
        )
    return chosen


def _require(good: bool, what: str, found: object, expected: str) -> None:
    if not good:
        raise ConfigError(
            f"wrong {what}", subject="Composites", expected=expected, found=repr(found), hint=f"give {expected}"
        )


def _fit(rgba: np.ndarray, size: int, path: Path) -> np.ndarray:
    """A cut-out from a file, its longer side scaled to half the picture, its empty rim cut away."""
    scale = CUTOUT * size / max(rgba.shape[:2])
    width, height = (max(1, round(n * scale)) for n in (rgba.shape[1], rgba.shape[0]))
    # Pillow resizes RGBA with premultiplied colours: what hides under alpha 0 does not bleed in
    scaled = np.asarray(Image.fromarray(rgba).resize((width, height), Image.Resampling.BICUBIC))
    solid = scaled[..., 3] >= 128
    if not solid.any():
        raise DataError("empty cut-out", subject=path, expected="opaque pixels", found="none", hint="remove the file")
    rows, columns = np.flatnonzero((scaled[..., 3] > 0).any(1)), np.flatnonzero((scaled[..., 3] > 0).any(0))
    return scaled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
