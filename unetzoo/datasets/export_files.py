"""Folders, names and manifest of an export of composites."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import DataError

MANIFEST = "composites.json"
FORMAT = 1
COMPOSITE, MASK, DEPTH, SCENE = "fg_bg", "fg_bg_mask", "fg_bg_depth", "bg"
THRESHOLD = "set mask_threshold=128, the minimum gray of the foreground in the JPEG masks of an EVA export"
# fg021flip_bg94_05, or the long form flip_fg_fg021_bg_bg94_05: names contain a digit and no underscore
ORIGINAL = re.compile(r"(?:.*?fg_)?(?P<fg>[^_]*\d[^_]*?)(?:flip)?_(?:bg_)?(?P<bg>[^_]*\d[^_]*)_\d+")
SCENE_IN_STEM = r"(?=_(.+)_\d+$)"  # after each underscore, so that names may contain underscores
LONG_FORM = re.compile(r"(?:.*_)?fg_(?P<fg>.+)_bg")  # the part before the name of the scene


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
    for found in re.finditer(SCENE_IN_STEM, stem):
        if found[1] in scenes:
            long = LONG_FORM.fullmatch(stem[: found.start()])
            return long["fg"] if long else stem[: found.start()].removesuffix("flip"), found[1]
    return None
