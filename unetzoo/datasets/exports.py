"""Composites read from files: the original export, or one written by `unetzoo compose`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..errors import ConfigError, DataError, LabelRangeError
from ..labels import LabelSpec
from .archive import data_root
from .base import Sample, SampleTransform, SegmentationDataset, check_split
from .blending import beside
from .depth_files import read_depth
from .export_files import COMPOSITE, DEPTH, MANIFEST, MASK, SCENE, THRESHOLD, find_export, identities
from .file_dataset import divided
from .files import PathLike, check_same_size, read_image, read_mask
from .layout import FileLayout, FilePattern, MaskValues
from .listing import natural_key, shown
from .sources import division

SPLITS = ("train", "val", "test", "all")
LABELS = LabelSpec(("background", "foreground"), ids=(0, 255))


class CompositesExport(SegmentationDataset):
    """Composites from the folders `fg_bg/`, `fg_bg_mask/`, `bg/` and `fg_bg_depth/`, matched by stem.

    - **Scene**: the file in `bg/` with the stem of the composite, or with the name of the scene in that stem (`bg94` in
      `fg021flip_bg94_05`), so that each scene needs to be stored only once.
    - **Mask**: 1 where the file is 255. JPEG masks contain other grays and are rejected unless `mask_threshold=128`
      sets the minimum gray of the foreground.
    - **Depth**: as stored; *larger is farther* in EVA's files. Values of 8 and 16 bits are scaled to 0…1; an export by
      `unetzoo compose` records its scale. Without `fg_bg_depth/`, samples have no depth. `depth_source` is the kind of
      depth.
    - **Splits** divide cut-outs *and* scenes as in `Composites` if the stems contain both names; composites that mix
      two splits are in neither. Otherwise only scenes are divided (8 : 1 : 1, by a seeded shuffle; identical files
      count as one scene), and splits may share cut-outs.

    Args:
        root: The folder of the export, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val", "test" or "all".
        channels: 6, or 3 for composites without the scene.
        mask_threshold: Minimum gray of the foreground, 1…255. None if masks contain only 0 and 255.
        depth_scale: Depth of one unit in the files; by default the scale recorded in the export.
        depth_gaps: Whether 0 in a depth file means "not measured"; by default as recorded in the export, or False.
        split_seed: Seed of the division of scenes, used if stems do not contain names.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, channels), `mask` uint8 (H, W), `depth` float32 (H, W), `valid` bool (H, W) if depth has
            gaps.

    Raises:
        ConfigError: Invalid arguments; too few cut-outs or scenes to divide.
        DataError: Wrong layout, an unfinished export, or lossy masks; `PairingError` for missing files. On access
            also `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile
        >>> from unetzoo.datasets import Composites, write_export
        >>> folder = tempfile.mkdtemp()
        >>> write_export(Composites("all", size=32, length=3, foregrounds=10, backgrounds=10), folder)
        3
        >>> read = CompositesExport(folder, "all")
        >>> read[0]["image"].shape, read[0]["id"]
        ((32, 32, 6), 'fg000flip_bg008_000001')
    """

    how_to_get: ClassVar[str] = (
        "write one with `unetzoo compose`, or unpack an EVA export so that root holds fg_bg/, fg_bg_mask/ and bg/"
    )

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "test", "all"] = "train",
        *,
        channels: Literal[3, 6] = 6,
        mask_threshold: int | None = None,
        depth_scale: float | None = None,
        depth_gaps: bool | None = None,
        split_seed: int = 0,
        transform: SampleTransform | None = None,
    ) -> None:
        check_split(split, SPLITS, "CompositesExport")
        for name, value, good, expected in (
            ("channels", channels, channels in (3, 6), "3 or 6"),
            ("mask_threshold", mask_threshold, mask_threshold in (None, *range(1, 256)), "1…255, or None"),
            ("split_seed", split_seed, isinstance(split_seed, int) and split_seed >= 0, "an integer ≥ 0"),
        ):
            if not good:
                raise ConfigError(f"wrong {name}", subject="CompositesExport", expected=expected, found=repr(value),
                                  hint=f"use {expected}")  # fmt: skip
        super().__init__(labels=LABELS, split=split, transform=transform)
        self.root, self.channels, self.mask_threshold = data_root(root), channels, mask_threshold
        self.layout = find_export(self.root, scenes=channels == 6, how_to_get=self.how_to_get)
        if mask_threshold is None:
            self.layout.kinds[MASK].refuse_lossy()
        recorded = self.layout.manifest.get("depth", {})
        self.depth_scale = depth_scale if depth_scale is not None else recorded.get("unit")
        self.depth_gaps = bool(recorded.get("gaps")) if depth_gaps is None else depth_gaps
        self.stems = self.layout.stems if split == "all" else self._part(split, split_seed)

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """Return the layout of an export; with `mask_threshold`, masks are gray images."""
        threshold, scenes = options.get("mask_threshold"), options.get("channels", 6) == 6
        values = MaskValues(LABELS, "numbers" if threshold is None else "thresholded", threshold=threshold or 128)
        return (
            FileLayout(
                "eva", f"{COMPOSITE}/, {MASK}/ and {SCENE}/ by stem, optionally {DEPTH}/",
                (
                    FilePattern("image", f"{COMPOSITE}/{{name}}.jpg"),
                    FilePattern("mask", f"{MASK}/{{name}}.jpg", values),
                    FilePattern("depth", f"{DEPTH}/{{name}}.jpg"),
                    FilePattern("background", f"{SCENE}/{{name}}.jpg"),
                ),
                LABELS, needs=("image", "mask", "background") if scenes else ("image", "mask"),
                aside=(re.escape(MANIFEST),), options={} if threshold is None else {"mask_threshold": threshold},
            ),
        )  # fmt: skip

    @property
    def depth_source(self) -> str:
        """The kind of depth recorded in the export, "files" if none is recorded, or "none" without depth."""
        if DEPTH not in self.layout.kinds:
            return "none"
        return self.layout.manifest.get("depth", {}).get("source", "files")

    @property
    def image_kinds(self) -> dict[str, int]:
        """The images that are concatenated in `image`, with their numbers of channels."""
        return {COMPOSITE: 3, SCENE: 3} if self.channels == 6 else {COMPOSITE: 3}

    def __len__(self) -> int:
        return len(self.stems)

    def __repr__(self) -> str:
        return f"CompositesExport(split={self.split!r}, samples={len(self)}, depth={self.depth_source!r})"

    def sources(self) -> Iterable[Path]:
        """Return the files of all samples."""
        return sorted({path for stem in self.stems for path in self.layout.paths(stem).values()})

    def load(self, index: int) -> Sample:
        """Decode one sample."""
        stem = self.stems[index]
        paths = self.layout.paths(stem)
        planes = {kind: read_image(paths[kind]) for kind in self.image_kinds}
        planes[MASK] = self._mask(paths[MASK])
        if DEPTH in paths:
            planes[DEPTH] = read_depth(paths[DEPTH], self.depth_scale)
        for kind, plane in planes.items():
            check_same_size(planes[COMPOSITE], plane, paths[COMPOSITE], paths[kind], kind)
        sample: Sample = {"image": beside([planes[kind] for kind in self.image_kinds]), "mask": planes[MASK]}
        if DEPTH in planes:
            sample["depth"] = planes[DEPTH]
            if self.depth_gaps:
                sample["valid"] = np.isfinite(planes[DEPTH]) & (planes[DEPTH] > 0)
        return {**sample, "id": stem}

    def _mask(self, path: Path) -> np.ndarray:
        if self.mask_threshold is not None:
            return (read_image(path, channels=1)[..., 0] >= self.mask_threshold).astype(np.uint8)
        try:
            return read_mask(path, self.labels)
        except LabelRangeError as error:
            raise LabelRangeError("grays in a mask", subject=path, expected=error.expected, found=error.found,
                                  hint=f"{THRESHOLD}, or correct the file") from error  # fmt: skip

    def _part(self, split: str, seed: int) -> list[str]:
        """Return the stems of a split."""
        stems, manifest = self.layout.stems, self.layout.manifest
        pairs = [pair for stem in stems if (pair := identities(stem, self.layout.scenes))]
        if len(pairs) < len(stems):
            return self._part_by_content(split, seed)
        chosen = []
        for kind, found in zip(("foregrounds", "backgrounds"), zip(*pairs, strict=True), strict=True):
            names = manifest.get(kind) or sorted(set(found), key=natural_key)
            chosen.append({names[i] for i in division(len(names), split, kind)})
        part = [stem for stem, (fg, bg) in zip(stems, pairs, strict=True) if fg in chosen[0] and bg in chosen[1]]
        if not part:
            found = f"an export of split {manifest['split']!r}" if manifest else "composites that mix splits"
            raise DataError(f"no composites of split {split!r}", subject=self.root, found=found,
                            hint='choose another split, or "all"')  # fmt: skip
        return part

    def _part_by_content(self, split: str, seed: int) -> list[str]:
        if SCENE not in self.layout.kinds:
            raise DataError("unknown split", subject=self.root, expected="stems with the names of scenes",
                            found=shown(self.layout.stems), hint='use split="all", or channels=6')  # fmt: skip
        scenes = {stem: _digest(self.layout.paths(stem)[SCENE]) for stem in self.layout.stems}
        chosen = divided(set(scenes.values()), split, seed, val=0.1, test=0.1, subject=self.root)
        return [stem for stem in self.layout.stems if scenes[stem] in chosen]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError("unreadable file", subject=path, found=error.strerror, hint="check its permissions") from error
