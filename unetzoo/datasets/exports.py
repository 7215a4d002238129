"""Composites read from files: the original export, or one written by `unetzoo compose`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ..errors import ConfigError, DataError, ImageDecodeError, LabelRangeError
from ..labels import LabelSpec
from .base import Sample, SampleTransform, divided
from .blending import beside
from .depth_files import read_depth
from .export_files import (
    COMPOSITE,
    DEPTH,
    MANIFEST,
    MASK,
    SCENE,
    SCENE_IN_STEM,
    THRESHOLD,
    identities,
    read_manifest,
)
from .file_dataset import FileDataset, FileSample
from .files import PathLike, check_same_size, read_image
from .layout import FileLayout, FilePattern, MaskValues
from .listing import natural_key, shown
from .sources import division
from .tree import Item

ROLES = ("image", "mask", "depth", "background")
LABELS = LabelSpec(("background", "foreground"), ids=(0, 255))


class CompositesExport(FileDataset):
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

    splits = ("train", "val", "test", "all")
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
        for name, value, good, expected in (
            ("channels", channels, channels in (3, 6), "3 or 6"),
            ("mask_threshold", mask_threshold, mask_threshold in (None, *range(1, 256)), "1…255, or None"),
            ("split_seed", split_seed, isinstance(split_seed, int) and split_seed >= 0, "an integer ≥ 0"),
        ):
            if not good:
                raise ConfigError(f"wrong {name}", subject="CompositesExport", expected=expected, found=repr(value),
                                  hint=f"use {expected}")  # fmt: skip
        options = {"channels": channels, "mask_threshold": mask_threshold, "split_seed": split_seed}
        super().__init__(root, split, transform=transform, **options)
        self.channels = channels
        roles = self.files[0].files if self.files else ()
        self.roles = [role for role in ROLES if role in roles and not (role == "background" and channels == 3)]
        self.stems = [sample.name for sample in self.files]
        # strings, since a million `Path` objects take a gigabyte and seconds to pickle
        start = len(str(self.root / "x")) - 1
        self.paths = [[str(sample.files[role])[start:] for role in self.roles] for sample in self.files]
        del self.files
        recorded = self.manifest.get("depth", {})
        self.depth_scale = depth_scale if depth_scale is not None else recorded.get("unit")
        self.depth_gaps = bool(recorded.get("gaps")) if depth_gaps is None else depth_gaps

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
                shared={"background": SCENE_IN_STEM}, aside=(re.escape(MANIFEST),),
                options={} if threshold is None else {"mask_threshold": threshold},
            ),
        )  # fmt: skip

    @property
    def depth_source(self) -> str:
        """The kind of depth recorded in the export, "files" if none is recorded, or "none" without depth."""
        return self.manifest.get("depth", {}).get("source", "files") if "depth" in self.roles else "none"

    @property
    def image_kinds(self) -> dict[str, int]:
        """The images that are concatenated in `image`, with their numbers of channels."""
        return {COMPOSITE: 3, SCENE: 3} if self.channels == 6 else {COMPOSITE: 3}

    def __len__(self) -> int:
        return len(self.stems)

    def __repr__(self) -> str:
        return f"CompositesExport(split={self.split!r}, samples={len(self)}, depth={self.depth_source!r})"

    def sources(self) -> list[Path]:
        """Return the files of all samples."""
        return sorted({self.root / file for paths in self.paths for file in paths})

    def load(self, index: int) -> Sample:
        """Decode one sample."""
        files = {role: self.root / file for role, file in zip(self.roles, self.paths[index], strict=True)}
        image, mask = read_image(files["image"]), self.read_labels(files["mask"])
        planes = {"mask": mask}
        if self.channels == 6:
            planes["background"] = read_image(files["background"])
        if "depth" in files:
            planes["depth"] = read_depth(files["depth"], self.depth_scale)
        for role, plane in planes.items():
            check_same_size(image, plane, files["image"], files[role], role)
        if self.channels == 6:
            image = beside([image, planes.pop("background")])
        sample: Sample = {"image": image, **planes}
        if self.depth_gaps and "depth" in planes:
            sample["valid"] = np.isfinite(planes["depth"]) & (planes["depth"] > 0)
        return {**sample, "id": self.stems[index]}

    def read_labels(self, path: Path) -> np.ndarray:
        """Decode a mask."""
        try:
            return super().read_labels(path)
        except LabelRangeError as error:
            raise error.replace(what="grays in a mask", hint=f"{THRESHOLD}, or correct the file") from error

    def _find(self, split: str | None, options: dict[str, Any]) -> list[FileSample]:
        self.manifest = read_manifest(self.root)
        return super()._find(split, options)

    def _faults_of(self, items: Sequence[Item]) -> list[str]:
        """Reject an unfinished export; list composites without depth if others have it."""
        composites = [item for item in items if item.of("image")]
        if len(composites) < self.manifest.get("count", 0):
            raise DataError(
                "unfinished export", subject=self.root, expected=f"{self.manifest['count']:,} composites",
                found=f"{len(composites):,}",
                hint="run `unetzoo compose` with the same options again; it continues the export",
            )  # fmt: skip
        if not any(item.of("depth") for item in items):
            return []
        return [f"{self.root / item.of('image')[0]} has no depth" for item in composites if not item.of("depth")]

    def _refuse_lossy(self, masks: Iterable[str]) -> None:
        try:
            super()._refuse_lossy(masks)
        except ImageDecodeError as error:
            raise error.replace(expected="0 and 255, as PNG", hint=THRESHOLD) from None

    def _part(self, items: Sequence[Item], split: str | None, options: dict[str, Any]) -> Collection[str]:
        """Select the stems of a split: by the names in stems, or else by the content of scenes."""
        if split == "all":
            return [item.name for item in items]
        scenes = {item.name: item.of("background")[0] for item in items if item.of("background")}
        places = {Path(scene).stem for scene in scenes.values()}
        known = self.manifest.get("backgrounds") or (() if places.issuperset(item.name for item in items) else places)
        pairs = {item.name: pair for item in items if (pair := identities(item.name, known))}
        if len(pairs) == len(items):
            return self._part_by_names(pairs, str(split))
        if len(scenes) < len(items):
            raise DataError("unknown split", subject=self.root, expected="stems with the names of scenes",
                            found=shown(item.name for item in items), hint=f'split="all", or add {SCENE}/')  # fmt: skip
        digests = {stem: _digest(self.root / scene) for stem, scene in scenes.items()}
        chosen = divided(set(digests.values()), str(split), options["split_seed"], val=0.1, test=0.1, subject=self.root)
        return [stem for stem, digest in digests.items() if digest in chosen]

    def _part_by_names(self, pairs: Mapping[str, tuple[str, str]], split: str) -> list[str]:
        """Select the stems whose cut-out and scene both belong to a split."""
        chosen = []
        for kind, found in zip(("foregrounds", "backgrounds"), zip(*pairs.values(), strict=True), strict=True):
            names = self.manifest.get(kind) or sorted(set(found), key=natural_key)
            chosen.append({names[i] for i in division(len(names), split, kind)})
        part = [stem for stem, (fg, bg) in pairs.items() if fg in chosen[0] and bg in chosen[1]]
        if not part:
            found = f"an export of split {self.manifest['split']!r}" if self.manifest else "composites that mix splits"
            raise DataError(f"no composites of split {split!r}", subject=self.root, found=found,
                            hint='choose another split, or "all"')  # fmt: skip
        return part


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError("unreadable file", subject=path, found=error.strerror, hint="check its permissions") from error
