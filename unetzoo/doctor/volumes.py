"""Volumes: their declaration is proposed; they are audited by the slices that the dataset cuts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..datasets.layout import FileLayout
from ..datasets.tree import Tree, sort_files
from ..errors import DataError
from ..images import Pixels, read_stored
from ..images.inspection import kind_of
from ..images.volumes import is_nifti, slice_pages, volume_shape
from .facts import MaskFacts
from .findings import Findings
from .probe import count_numbers
from .propose import proposals
from .set_checks import spread

_READ = 10  # volumes whose labels are read for a proposal
_LABELS = {"names", "classes", "colors"}


def propose_volumes(tree: Tree, layout: FileLayout, options: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Arguments that read the volumes of a folder, as far as they are not declared; empty if it has none.

    Args:
        tree: The files.
        layout: Their layout.
        options: The arguments that are declared.
        found: Gets a finding if the classes are not declared.

    Raises:
        DataError: A volume cannot be read.
    """
    items = sort_files(tree.files, layout).items
    images, masks = ([file for item in items for file in item.of(role)[:1]] for role in ("image", "mask"))
    first = [tree.root / files[0] for files in (images, masks) if files]
    if not images or not (options.get("axis") or is_nifti(images[0]) or all(map(_is_stack, first))):
        return {}
    axis, kind = options.get("axis") or "z", kind_of(tree.root / images[0], volume=True)
    proposed: dict[str, Any] = {} if options.get("axis") else {"axis": axis}
    if not options.keys() & {"channels", "bands", "channel_files"}:
        proposed["channels"] = kind.channels
    if "range" not in options and (kind.bits > 8 or kind.floats):
        proposed["range"] = "image"
    if not options.keys() & _LABELS:
        some = [masks[index] for index in spread(len(masks), _READ)] if masks else []
        facts = [MaskFacts(file, counts=_counts(tree.root / file, axis)) for file in some]
        proposed |= next(iter(proposals(facts)), {})
        values = sorted({value for mask in facts for value in mask.counts})
        found.add("undeclared-labels", "masks", f"values {', '.join(map(str, values[:12]))}")
    return proposed


def _is_stack(path: Path) -> bool:
    """Whether a file is a TIFF file of several pages, which have no other meaning in masks."""
    try:
        return path.name.lower().endswith((".tif", ".tiff")) and len(slice_pages(path)) > 1
    except (DataError, OSError):
        return False


def _counts(path: Path, axis: str) -> dict[int, int]:
    """Number of voxels of each value."""
    pixels, counts = Pixels(1, range="dtype", axis=axis), Counter[int]()
    for index in range(volume_shape(path, axis)[0]):
        counts.update(count_numbers(read_stored(path, pixels, index).values[..., 0]))
    return {int(value): count for value, count in counts.items()}
