"""Twins: miniatures of the official layouts, drawn, to try a recipe without its data and to test what reads them.

`write` writes one; `plant` plants a named fault into it. The same arguments give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from ..datasets.files import PathLike
from ..errors import ConfigError, DataError, did_you_mean
from .base import Pair, TwinLayout
from .faults import FAULTS, Fault
from .layouts import LAYOUTS

_LEAST_SIZE = 32

__all__ = ["FAULTS", "LAYOUTS", "Fault", "Pair", "TwinLayout", "plant", "write"]


def write(name: str, root: PathLike, *, count: int | None = None, size: int | None = None, seed: int = 0) -> Path:
    """Write the miniature of a layout.

    Args:
        name: One of `LAYOUTS`.
        root: A new or empty folder.
        count: How many samples in all splits together (of composites: cut-outs, and as many scenes; of carvana:
            rounded up so that every car has as many views). At least 5, or 10 for composites and eva.
        size: Height of the label maps in pixels, at least 32; the layout's own by default.
        seed: Seed of the drawings, ≥ 0.

    Returns:
        `root`, which `DATASETS.build(LAYOUTS[name].dataset, root=root, **LAYOUTS[name].options)` reads.

    Raises:
        ConfigError: Unknown layout, or a number out of range.
        DataError: `root` is not empty.

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
            raise ConfigError(f"wrong {what} of a twin", expected=f"a whole number ≥ {least}", found=repr(value),
                              hint=f"give {what}={least} or more")  # fmt: skip
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError("not an empty folder", subject=root, hint="name a new folder for the twin")
    layout.writer(root, count, size, seed)
    return root


def plant(root: PathLike, layout: str, fault: str, seed: int = 0) -> list[Path]:
    """Plant a fault into a twin.

    Args:
        root: A folder that `write` has written.
        layout: The name of its layout.
        fault: One of `FAULTS`, which must make sense for the layout.
        seed: Decides, with the fault, which sample is hit.

    Returns:
        The files that were changed, added or removed.

    Raises:
        ConfigError: Unknown layout or fault, or a fault that the layout cannot have.
        DataError: No twin of that layout lies there, or it has been damaged too much.

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
    except Exception as error:  # whatever a folder that is no sound twin may cause
        raise DataError("no fault can be planted", subject=root, expected=f"a twin of {layout!r}",
                        found=f"{type(error).__name__}: {error}", hint="write a new one") from error  # fmt: skip


def _named(name: str) -> TwinLayout:
    if name not in LAYOUTS:
        raise ConfigError("unknown layout", found=repr(name), hint=did_you_mean(name, LAYOUTS, "layout"))
    return LAYOUTS[name]
