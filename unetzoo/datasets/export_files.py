"""Files of an export of composites: folders, names and manifest."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, LayoutError, PairingError
from .listing import IMAGE_SUFFIXES, list_folder, natural_key, shown, summary

MANIFEST = "composites.json"
FORMAT = 1
COMPOSITE, MASK, DEPTH, SCENE = "fg_bg", "fg_bg_mask", "fg_bg_depth", "bg"
THRESHOLD = "set mask_threshold=128, the minimum gray of the foreground in the JPEG masks of an EVA export"
# fg021flip_bg94_05, or the long form flip_fg_fg021_bg_bg94_05: names contain a digit and no underscore
ORIGINAL = re.compile(r"(?:.*?fg_)?(?P<fg>[^_]*\d[^_]*?)(?:flip)?_(?:bg_)?(?P<bg>[^_]*\d[^_]*)_\d+")
LONG_FORM = re.compile(r"(?:.*_)?fg_(?P<fg>.+)_bg")  # the part before the name of the scene


class Files(NamedTuple):
    """Images of a folder by stem; only suffixes that differ from the most common one are stored."""

    folder: Path
    stems: list[str]
    ending: str
    others: dict[str, str]

    def path(self, stem: str) -> Path:
        """Return the file with this stem."""
        return self.folder / (stem + self.others.get(stem, self.ending))

    def refuse_lossy(self) -> None:
        """Reject lossy masks.

        Raises:
            DataError: Some masks are JPEG files.
        """
        lossy = [stem for stem in self.stems if self.path(stem).suffix.lower() in (".jpg", ".jpeg")]
        if lossy:
            raise DataError("lossy masks", subject=self.folder, expected="0 and 255, as PNG",
                            found=f"{len(lossy):,} JPEG files", hint=THRESHOLD)  # fmt: skip


class Export(NamedTuple):
    """Contents of an export.

    Args:
        kinds: Files by folder.
        stems: Stems of the composites, in natural order.
        scenes: Names of scenes that occur in stems; empty if there are none.
        by_stem: Whether every composite has a scene file with the same stem.
        manifest: The manifest of `unetzoo compose`; empty for other exports.
    """

    kinds: dict[str, Files]
    stems: list[str]
    scenes: frozenset[str]
    by_stem: bool
    manifest: dict[str, Any]

    def paths(self, stem: str) -> dict[str, Path]:
        """Return the files of a composite by folder."""
        scene = stem
        if not self.by_stem and (names := identities(stem, self.scenes)):
            scene = names[1]
        return {kind: files.path(scene if kind == SCENE else stem) for kind, files in self.kinds.items()}


def find_export(root: Path, *, scenes: bool, how_to_get: str) -> Export:
    """List the files of an export.

    Args:
        root: Folder of the export.
        scenes: Whether scene files are required.
        how_to_get: Hint in errors.

    Raises:
        DataError: Wrong layout, or an unfinished export.
        PairingError: Missing files, all reported in one error.
    """
    present = {path.name for path in list_folder(root, how_to_get) if path.is_dir()}
    needed = {COMPOSITE, MASK, *([SCENE] if scenes else [])}
    if needed - present:
        raise LayoutError(
            "not an export of composites", subject=root, expected=", ".join(f"{name}/" for name in sorted(needed)),
            found=shown(sorted(path.name + "/" * path.is_dir() for path in list_folder(root))), hint=how_to_get,
        )  # fmt: skip
    manifest = read_manifest(root)
    faults: list[str] = []
    kinds = {kind: _files(root / kind, how_to_get, faults) for kind in sorted(needed | (present & {DEPTH}))}
    stems = sorted(kinds[COMPOSITE].stems, key=natural_key)
    if len(stems) < manifest.get("count", 0):
        raise DataError(
            "unfinished export", subject=root, expected=f"{manifest['count']:,} composites", found=f"{len(stems):,}",
            hint="run `unetzoo compose` with the same options again; it continues the export",
        )  # fmt: skip
    scene_stems = frozenset(kinds[SCENE].stems) if scenes else frozenset()
    by_stem = scenes and scene_stems.issuperset(stems)
    names = frozenset(manifest.get("backgrounds") or (() if by_stem else scene_stems))
    layout = Export(kinds, stems, names, by_stem, manifest)
    faults += _unpaired(layout)
    if faults:
        raise PairingError("missing files in an export", subject=root,
                           expected="one file per stem in each folder", found=summary(faults),
                           hint="add or remove the named files")  # fmt: skip
    return layout


def read_manifest(root: Path) -> dict[str, Any]:
    """Read the manifest written by `unetzoo compose`; empty if there is none.

    Raises:
        DataError: The manifest is unreadable.
    """
    path = root / MANIFEST
    try:
        if not path.exists():
            return {}
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ValueError(f"not format {FORMAT}")
        if not {"count", "split", "foregrounds", "backgrounds", "depth"} <= set(manifest):
            raise ValueError("incomplete")
        return manifest
    except (OSError, ValueError) as error:
        raise DataError("unreadable manifest", subject=path, found=str(error),
                        hint="download it again, or remove it to read only the files") from error  # fmt: skip


def identities(stem: str, scenes: Collection[str] = ()) -> tuple[str, str] | None:
    """Return the names of the cut-out and the scene in the stem of a composite, or None.

    Args:
        stem: The stem.
        scenes: Names of scenes, if known; otherwise names must not contain underscores.

    Examples:
        >>> identities("fg021flip_bg94_05"), identities("flip_fg_fg021_bg_bg94_05")
        (('fg021', 'bg94'), ('fg021', 'bg94'))
        >>> identities("my_dog_the_sea_05", {"the_sea"}), identities("flip_fg_fg021_bg_bg94_05", {"bg94"})
        (('my_dog', 'the_sea'), ('fg021', 'bg94'))
        >>> identities("img_0050")
    """
    if not scenes:
        found = ORIGINAL.fullmatch(stem)
        return found and (found["fg"], found["bg"])
    names, _, number = stem.rpartition("_")
    for cut in (i for i, letter in enumerate(names) if letter == "_" and number.isdecimal()):
        if names[cut + 1 :] in scenes:
            long = LONG_FORM.fullmatch(names[:cut])
            return long["fg"] if long else names[:cut].removesuffix("flip"), names[cut + 1 :]
    return None


def _files(folder: Path, how_to_get: str, faults: list[str]) -> Files:
    names = _names(folder, how_to_get)
    endings: dict[str, str] = {}
    for stem, ending in map(os.path.splitext, names):
        if ending.lower() not in IMAGE_SUFFIXES or stem.startswith("."):
            continue
        if stem in endings:
            faults.append(f"{folder / (stem + ending)} and {stem}{endings[stem]} share a stem")
        endings[stem] = ending
    if not endings:
        raise DataError("no images in the folder", subject=folder, expected="image files", found=shown(names),
                        hint=how_to_get)  # fmt: skip
    usual = Counter(endings.values()).most_common(1)[0][0]
    return Files(folder, list(endings), usual, {stem: ending for stem, ending in endings.items() if ending != usual})


def _names(folder: Path, how_to_get: str) -> list[str]:
    """List file names as strings, since a million `Path` objects would take seconds and a gigabyte."""
    try:
        return os.listdir(folder)
    except OSError:
        return [path.name for path in list_folder(folder, how_to_get)]  # raises a DataError


def _unpaired(layout: Export) -> list[str]:
    composites = layout.kinds[COMPOSITE]
    faults = []
    for kind in {MASK, DEPTH} & set(layout.kinds):
        there = set(layout.kinds[kind].stems)
        faults += [f"{composites.path(stem)} has no file in {kind}/" for stem in layout.stems if stem not in there]
        extra = there.difference(layout.stems)
        faults += [f"{layout.kinds[kind].path(stem)} has no composite" for stem in sorted(extra, key=natural_key)]
    if SCENE in layout.kinds and not layout.by_stem:
        there = set(layout.kinds[SCENE].stems)
        for stem in layout.stems:
            names = identities(stem, layout.scenes)
            if names is None or names[1] not in there:
                faults.append(f"{composites.path(stem)} has no scene in {SCENE}/")
    return faults
