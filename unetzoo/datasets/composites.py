"""Composites: cut-outs pasted into scenes on access, with masks and depth that are exact by construction.

The EVA mask + depth task (100 scenes of 192², 100 cut-outs of 96 px, 20 positions, flipped or not: 400,000 images)
without its 1.2 million files. Sources are drawn, or read from two folders.
"""

from __future__ import annotations

import copy
import operator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from ..errors import ConfigError
from ..labels import LabelSpec
from .archive import data_root
from .base import Sample, SampleTransform, SegmentationDataset, check_split, sample_rng
from .blending import difference, disturb, paste
from .files import PathLike
from .layout import FileLayout, FilePattern
from .listing import list_images
from .sources import Drawings, ImageFiles, Sources, division, find_maps

SPLITS = ("train", "val", "test", "all")
LABELS = LabelSpec(("background", "foreground"))
GRID = 28 / 192  # the original's step, as a share of the image
MOST_SIZE = 4096  # drawing a scene of this side takes gigabytes
PLACES = tuple((row, column) for row in (4, 3, 2, 1) for column in range(5))  # in the order of the original, in steps


class Combination(NamedTuple):
    """A cut-out, a scene, and the upper left corner of the cut-out in it."""

    foreground: int
    background: int
    mirrored: bool
    top: int
    left: int


class Composites(SegmentationDataset):
    """Cut-outs in scenes, with exact masks and layered depth: built-in data without a download.

    - **Image**: the composite and the scene without the cut-out, 6 channels; only the composite with `channels=3`.
    - **Mask**: 1 where the cut-out's alpha is ≥ 0.5 (≥ 128 of 255).
    - **Depth**: *larger is farther*, as in EVA's files (dark = near). The depth of a scene decreases linearly from 1.0
      at its horizon (drawn scenes) or top row (scenes from files) to 0.4 at its bottom row, unless `depth` gives maps.
      A cut-out is a flat layer at 0.75 times the nearest depth that it hides, or, without a map, the depth of the scene
      at the lowest row of the cut-out; never below 0.3. With maps, samples have `valid`: the valid pixels of the map
      and those of the cut-out. `depth_source` is the kind of depth.
    - **Splits** divide the cut-outs *and* the scenes: of every ten in order, the ninth belongs to val, the tenth to
      test. No two splits share any, for all `seed` and `length`.

    Sample `i` depends only on (seed, split, i). `|composite − scene|` almost equals the mask; `jitter=True` therefore
    changes brightness and contrast (±15%), position (±1 px) and JPEG quality (60…95) of the two independently. Mask and
    depth are shifted with the composite.

    Args:
        split: "train", "val", "test" or "all".
        size: Side length of the square images; scenes from files are scaled to it, cut-outs to half of it.
        length: Number of samples, not limited by the number of sources. "endless": any index ≥ 0 is valid, and `len` is
            the number of pairs of cut-out and scene, for loaders that need a length. "all": every combination of
            cut-out, scene, position and mirroring once, in order; needs `positions="grid"`.
        seed: Seed of the combinations (not of the division into splits).
        channels: 6, or 3 for composites without the scene.
        positions: "random", entirely inside the image; or "grid": the 5 × 4 positions of the original, 28 px apart at
            size 192, in rows 28…112 and columns 0…112. With the grid, cut-outs from files keep their empty borders and
            are clipped at the image border: at the original sizes, 192 and 96, images equal the original.
        flip: Mirror half of the cut-outs.
        jitter: Disturb composite and scene independently.
        foregrounds: Number of cut-outs to draw.
        backgrounds: Number of scenes to draw.
        root: A folder or archive with cut-outs (RGBA) and scenes, used instead of drawings.
        fg: Name of the folder of cut-outs.
        bg: Name of the folder of scenes.
        depth: Name of the folder of depth maps with the stems of the scenes (gray of 8 or 16 bits, float TIFF), or
            None. Invert maps in which near is bright.
        depth_scale: Value of one unit of depth maps, e.g. 0.001 to convert millimeters to meters. By default 8 and 16
            bits become 0…1, and floats are unchanged.
        depth_gaps: Whether 0 in a depth map means "not measured"; NaN, infinity and negative values always do.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (size, size, channels), `mask` uint8 (size, size), `depth` float32 (size, size), `valid` bool
        (size, size) only with depth maps.

    Raises:
        ConfigError: Invalid or inconsistent arguments.
        DataError: Missing folders or broken files; `PairingError` for scenes without a depth map.

    Examples:
        >>> sample = Composites(split="val", size=48)[7]
        >>> sample["image"].shape, sorted(set(sample["mask"].ravel().tolist()))
        ((48, 48, 6), [0, 1])
        >>> len(Composites("all", length="all", positions="grid"))  # as many as in the original
        400000
        >>> endless = Composites(size=32, length="endless")
        >>> len(endless), endless[10**9]["id"]
        (6400, '1000000000-fg053-bg073')
    """

    how_to_get: ClassVar[str] = "omit root to draw the images, or put RGBA cut-outs into fg/ and scenes into bg/"

    def __init__(
        self,
        split: Literal["train", "val", "test", "all"] = "train",
        size: int = 192,
        length: int | Literal["endless", "all"] = 1000,
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
        depth: str | None = None,
        depth_scale: float | None = None,
        depth_gaps: bool = False,
        transform: SampleTransform | None = None,
    ) -> None:
        check_split(split, SPLITS, "Composites")
        _require(_whole(size, 16) and size <= MOST_SIZE, "size", size, f"an integer in 16…{MOST_SIZE}")
        _require(
            length in ("endless", "all") or _whole(length, 0),
            "length",
            length,
            'an integer ≥ 0, "endless" or "all"',
        )
        _require(_whole(seed, 0), "seed", seed, "an integer ≥ 0")
        _require(channels in (3, 6), "channels", channels, "3 or 6")
        _require(positions in ("random", "grid"), "positions", positions, '"random" or "grid"')
        _require(length != "all" or positions == "grid", "positions", positions, '"grid" with length="all"')
        _require(root is not None or depth is None, "depth", depth, "None without root")
        for name, value in (("depth_scale", depth_scale), ("depth_gaps", depth_gaps or None)):
            _require(depth is not None or value is None, name, value, "None without depth")
        super().__init__(labels=LABELS, split=split, transform=transform)
        self.size, self.length, self.seed, self.channels = size, length, seed, channels
        self.positions: Literal["random", "grid"] = positions
        self.flip, self.jitter = flip, jitter
        self._threshold: int | None = None
        self._sources: Sources
        copies = 1 if jitter else channels // 3  # jitter disturbs the two before they are joined
        if root is None:
            self._sources = Drawings(size, copies, foregrounds, backgrounds)
        else:
            folder = data_root(root)
            cutouts, scenes = (list_images(folder / name, self.how_to_get) for name in (fg, bg))
            maps = None if depth is None else find_maps(scenes, folder / depth)
            self._sources = ImageFiles(
                size, copies, cutouts, scenes, maps, depth_scale, depth_gaps, rims=positions == "grid"
            )
        self.foregrounds = division(len(self._sources.foregrounds), split, "foregrounds")
        self.backgrounds = division(len(self._sources.backgrounds), split, "backgrounds")

    @property
    def depth_source(self) -> str:
        """The kind of depth: "layered", or "layered over maps"."""
        return self._sources.depth

    @property
    def image_kinds(self) -> dict[str, int]:
        """The images in the channels of `image`, with their numbers of channels."""
        return {"fg_bg": 3, "bg": 3} if self.channels == 6 else {"fg_bg": 3}

    @property
    def foreground_names(self) -> list[str]:
        """Names of the cut-outs of all splits: stems of files, or `fg000`, …"""
        return self._sources.foregrounds

    @property
    def background_names(self) -> list[str]:
        """Names of the scenes of all splits."""
        return self._sources.backgrounds

    @property
    def endless(self) -> bool:
        """Whether indices beyond `len` are valid, so that training can use new samples in every epoch."""
        return self.length == "endless"

    def __len__(self) -> int:
        pairs = len(self.foregrounds) * len(self.backgrounds)
        if isinstance(self.length, int):
            return self.length
        return pairs if self.endless else pairs * len(PLACES) * (1 + self.flip)

    def __getitem__(self, index: int) -> Sample:
        position = operator.index(index)
        if not self.endless or position < 0:
            return super().__getitem__(position)
        sample = self.load(position)
        return sample if self.transform is None else self.transform(sample, sample_rng(0, 0, position))

    def __repr__(self) -> str:
        length = "endless" if self.endless else len(self)
        return f"Composites(split={self.split!r}, samples={length}, size={self.size}, depth={self.depth_source!r})"

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """The two folders of sources."""
        cutouts, scenes = (str(options.get(kind) or kind) for kind in ("fg", "bg"))
        return (
            FileLayout(
                "composites", f"{cutouts}/ (cut-outs with transparency) and {scenes}/ (scenes)",
                (FilePattern("cutout", f"{cutouts}/{{name}}.png"), FilePattern("scene", f"{scenes}/{{name}}.jpg")),
                LABELS, needs=("cutout", "scene"), strict=False,
            ),
        )  # fmt: skip

    def sources(self) -> list[Path]:
        """All files of cut-outs, scenes and depth maps; empty for drawings."""
        return self._sources.files()

    def load(self, index: int) -> Sample:
        """Compose one sample."""
        rng = self._rng(index)
        which = self._combination(index, rng)
        cutout = self._sources.cutout(which.foreground, which.mirrored)
        scene = self._sources.scene(which.background)
        sample = paste(cutout, scene, which.top, which.left)
        if self.jitter:
            sample = disturb(sample, rng, scene.image if self.channels == 6 else None)
        sample["id"] = f"{index:06d}-fg{which.foreground:03d}-bg{which.background:03d}"
        return sample

    def scene(self, number: int) -> np.ndarray:
        """The image of a scene of `background_names`, uint8 (size, size, 3)."""
        return self._sources.scene(number).image[..., :3]

    def check(self) -> float:
        """Create every cut-out and scene once, and return the largest depth.

        Raises:
            DataError: All faults of the sources, in one error.
        """
        return self._sources.check()

    def combination(self, index: int) -> Combination:
        """The parts of sample `index`."""
        return self._combination(index, self._rng(index))

    def stem(self, index: int) -> str:
        """The file name of sample `index` without suffix, as in the original: `fg021flip_bg94_05`.

        The last number is the position, 1…20, with `length="all"`, else the index.
        """
        which = self.combination(index)
        fg, bg = self.foreground_names[which.foreground], self.background_names[which.background]
        number = f"{index % len(PLACES) + 1:02d}" if self.length == "all" else f"{index:06d}"
        return f"{fg}{'flip' * which.mirrored}_{bg}_{number}"

    def baseline(self, sample: Sample) -> np.ndarray | None:
        """A simple prediction for comparison: the difference |composite − scene| above a threshold.

        The threshold is that of the best IoU on the first training images with the same settings.

        Args:
            sample: A sample before transforms.

        Returns:
            A mask (size, size), or None without the scene (`channels=3`).
        """
        if self.channels == 3:
            return None
        if self._threshold is None:
            self._threshold = self._best_threshold()
        return (difference(sample["image"]) > self._threshold).astype(np.uint8)

    def _best_threshold(self, images: int = 32) -> int:
        train = copy.copy(self)
        train.split, train.length = "train", images
        train.foregrounds = division(len(self._sources.foregrounds), "train", "foregrounds")
        train.backgrounds = division(len(self._sources.backgrounds), "train", "backgrounds")
        samples = [train.load(index) for index in range(images)]
        gaps = np.stack([difference(sample["image"]) for sample in samples])
        truth = np.stack([sample["mask"] for sample in samples]) > 0
        thresholds = range(0, 255, 2)
        scores = [np.sum((gaps > t) & truth) / np.sum((gaps > t) | truth) for t in thresholds]
        return thresholds[int(np.argmax(scores))]

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, SPLITS.index(str(self.split)), index]))

    def _combination(self, index: int, rng: np.random.Generator) -> Combination:
        if self.length == "all":
            pair, place = divmod(index, len(PLACES))
            pair, background = divmod(pair, len(self.backgrounds))
            mirrored, foreground = divmod(pair, len(self.foregrounds))
            fg, bg = self.foregrounds[foreground], self.backgrounds[background]
            return Combination(fg, bg, bool(mirrored), *self._in_grid(*PLACES[place]))
        draw = rng.random(5)
        fg = self.foregrounds[int(draw[0] * len(self.foregrounds))]
        bg = self.backgrounds[int(draw[1] * len(self.backgrounds))]
        mirrored = bool(self.flip and draw[2] < 0.5)
        return Combination(fg, bg, mirrored, *self._place(self._sources.cutout(fg, mirrored).mask.shape, *draw[3:]))

    def _place(self, shape: tuple[int, ...], u: float, v: float) -> tuple[int, int]:
        """Top and left edge of a cut-out."""
        if self.positions == "grid":
            return self._in_grid(1 + int(4 * u), int(5 * v))
        return int(u * (self.size - shape[0] + 1)), int(v * (self.size - shape[1] + 1))

    def _in_grid(self, row: int, column: int) -> tuple[int, int]:
        return round(GRID * self.size * row), round(GRID * self.size * column)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(good: bool, what: str, found: object, expected: str) -> None:
    if not good:
        raise ConfigError(
            f"wrong {what}", subject="Composites", expected=expected, found=repr(found), hint=f"use {expected}"
        )
