"""Twins: drawn miniatures of data sets in their official layouts, to try recipes and to test the code that reads them.

`write` writes a twin, `plant` plants a fault into it. The same arguments give the same bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..datasets.files import PathLike
from ..errors import ConfigError, DataError, did_you_mean
from ..io import disk_errors
from ..wording import describe
from . import faults_files, faults_images, faults_masks, faults_sets  # noqa: F401 -- importing them fills FAULTS
from .base import Pair, TwinLayout
from .layouts import LAYOUTS
from .planting import FAULTS, Fault

_LEAST_SIZE = 32

__all__ = ["FAULTS", "LAYOUTS", "Fault", "Pair", "TwinLayout", "plant", "write"]


def write(name: str, root: PathLike, *, count: int | None = None, size: int | None = None, seed: int = 0) -> Path:
    """Write the miniature of a layout.

    Args:
        name: One of `LAYOUTS`.
        root: A new or empty folder.
        count: Number of samples in all splits (for composites: of cut-outs, and of scenes; for carvana: rounded up
            to the same number of views per car). At least 5, or 10 for composites and eva.
        size: Height of the masks in pixels, at least 32; by default that of the layout.
        seed: Seed of the drawings, ≥ 0.

    Returns:
        `root`, which `DATASETS.build(LAYOUTS[name].dataset, root=root, **LAYOUTS[name].options)` reads.

    Raises:
        ConfigError: Unknown layout, or invalid number.
        DataError: `root` is not empty or cannot be written; in that case nothing is left behind.

    Examples:
        >>> import tempfile, numpy as np, unetzoo
        >>> root = write("helen", tempfile.mkdtemp(), count=10)
        >>> sorted(path.name for path in (root / "test").iterdir())[:3]
        ['sample_008_image.jpg', 'sample_008_label.png', 'sample_008_viz.jpg']
        >>> data = unetzoo.DATASETS.build("helen", root=root, split="test")
        >>> mask = data[0]["mask"]
        >>> left, right = (float(np.nonzero(mask == data.labels.names.index(eye))[1].mean()) for eye in ("le", "re"))
        >>> left < mask.shape[1] / 2 < right
        True
    """
    layout = _named(name)
    count, size = layout.count if count is None else count, layout.size if size is None else size
    for what, value, least in (("count", count, layout.least), ("size", size, _LEAST_SIZE), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"wrong {what} of a twin", expected=f"an integer ≥ {least}", found=repr(value),
                              hint=f"use {what}={least} or more")  # fmt: skip
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError("not an empty folder", subject=root, hint="choose a new folder")
    new = not root.exists()
    try:
        with disk_errors(root):
            layout.writer(root, count, size, seed)
    except BaseException:  # nothing half-written stays
        for path in list(root.iterdir()) if root.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if new and root.is_dir():
            root.rmdir()
        raise
    return root


def plant(root: PathLike, layout: str, fault: str, seed: int = 0) -> list[Path]:
    """Plant a fault into a twin.

    Args:
        root: A folder written by `write`.
        layout: Name of its layout.
        fault: One of `FAULTS` that the layout can have.
        seed: Seed of the choice of the sample.

    Returns:
        The files that were changed, added or removed.

    Raises:
        ConfigError: Unknown layout or fault, or a fault that the layout cannot have.
        DataError: The folder does not contain a twin of that layout, or too many faults.

    Examples:
        >>> import tempfile
        >>> root = write("camvid", tempfile.mkdtemp())
        >>> [path.name for path in plant(root, "camvid", "truncated-mask")]
        ['0001TP_000003.png']
    """
    twin = _named(layout)
    if fault not in FAULTS:
        raise ConfigError("unknown fault", found=repr(fault), hint=did_you_mean(fault, FAULTS, "fault"))
    if layout not in FAULTS[fault].layouts:
        fitting = ", ".join(FAULTS[fault].layouts)
        raise ConfigError(f"{layout!r} cannot have the fault {fault!r}", expected=fitting, hint="choose one of these")
    try:
        return FAULTS[fault].planter(Path(root), twin, seed)
    except Exception as error:  # a damaged twin may cause anything
        raise DataError("cannot plant the fault", subject=root, expected=f"a twin of {layout!r}",
                        found=describe(error), hint="write a new one") from error  # fmt: skip


def _named(name: str) -> TwinLayout:
    if name not in LAYOUTS:
        raise ConfigError("unknown layout", found=repr(name), hint=did_you_mean(name, LAYOUTS, "layout"))
    return LAYOUTS[name]
