"""What users declare about their own data: classes and the share of the validation split."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from ..labels import LabelSpec
from .color_masks import read_colors
from .files import PathLike
from .layout import MaskValues
from .objects import OBJECTS


def declared_masks(
    subject: str,
    root: PathLike = "",
    *,
    names: Sequence[str] | None = None,
    classes: int | None = None,
    ids: Sequence[int] | None = None,
    ignore_ids: Sequence[int] = (),
    ignore_index: int | None = None,
    swap_pairs: Sequence[tuple[int, int]] = (),
    side: Literal["viewer", "subject"] | None = None,
    colors: Mapping[str, Sequence[int]] | PathLike | None = None,
    ignore_colors: Sequence[Sequence[int]] = (),
    unknown_color: Literal["error", "ignore"] = "error",
    instances: bool = False,
) -> MaskValues:
    """Declare the classes of a user's own data, and their values in mask files.

    Args:
        subject: Name of the dataset in errors.
        root: Folder of the data.
        names: Class names; alternatively `classes` or `colors`.
        classes: Number of classes without names.
        ids: The value of each class in mask files, e.g. (0, 255).
        ignore_ids: File values of unlabeled pixels.
        ignore_index: The value of these pixels in loaded masks, e.g. 255.
        swap_pairs: Pairs of classes that are exchanged when an image is mirrored.
        side: Whether left and right are the viewer's or the subject's.
        colors: For masks of colors, class name → color, or a file of these relative to `root`; see `read_colors`.
        ignore_colors: Colors of unlabeled pixels.
        unknown_color: Whether undeclared colors are an "error", or "ignore": unlabeled.
        instances: Whether masks contain one number per object, which is of class 1.

    Raises:
        ConfigError: Missing or inconsistent arguments.
        DataError: A file of colors that cannot be used.

    Examples:
        >>> declared_masks("Folder", classes=2, ids=(0, 255)).labels.lookup()
        {0: 0, 255: 1}
        >>> declared_masks("Folder", colors={"cell": (0, 0, 0), "wall": (0, 255, 0)}).how
        'colors'
    """
    if isinstance(names, str):
        raise ConfigError(
            "names are not a list", subject=subject, expected='["background", "cell"]', found=repr(names),
            hint="""on the command line quote the whole argument: --set 'data.names=["background", "cell"]'""",
        )  # fmt: skip
    number: Any = classes
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        hint = f"names = {[*map(str, number)]}" if isinstance(number, list | tuple) else "for example classes = 2"
        raise ConfigError("classes is a number", subject=subject, found=repr(number), hint=hint)
    if unknown_color not in ("error", "ignore"):
        raise ConfigError("wrong unknown_color", subject=subject, expected="error | ignore", found=repr(unknown_color),
                          hint="set it to one of these")  # fmt: skip
    ignores = unknown_color == "ignore"
    if not isinstance(instances, bool):
        raise ConfigError("wrong instances", subject=subject, expected="true | false", found=repr(instances),
                          hint="set it to one of these")  # fmt: skip
    if instances:
        given = {"ids": ids, "colors": colors, "ignore_colors": ignore_colors or None}
        if others := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                "instances with values of classes", subject=subject, found=", ".join(others),
                hint="with instances, every number > 0 is an object of class 1",
            )  # fmt: skip
        names = names or (OBJECTS.names if classes is None else None)
        if len(names or range(classes or 0)) != 2:
            raise ConfigError(
                "instances of several classes", subject=subject, expected='two classes, e.g. ["background", "cell"]',
                found=names or classes, hint="objects are class 1; for several classes use masks without instances",
            )  # fmt: skip
    if colors is not None:
        given = {"names": names, "classes": classes, "ids": ids, "ignore_ids": ignore_ids or None}
        if others := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                "masks of colors with other declarations", subject=subject, expected="only colors",
                found=", ".join(others), hint="colors gives the names, in the order of the classes",
            )  # fmt: skip
        if isinstance(colors, str | os.PathLike):
            colors = read_colors(Path(root, colors))
        if ignore_index is None and (ignores or ignore_colors):
            ignore_index = 255
        labels = LabelSpec.from_colors(colors, ignore_colors, ignore_index, swap_pairs=tuple(swap_pairs), side=side)
        return MaskValues(labels, "colors", ignore_unknown=ignores)
    if ignores or ignore_colors:
        raise ConfigError("ignored colors without colors", subject=subject, expected="colors={name: [r, g, b], …}",
                          hint="declare colors, or use ignore_ids for masks of numbers")  # fmt: skip
    if names is None and classes is None:
        raise ConfigError(
            "classes are not declared", subject=subject,
            hint='set names=["background", …] or classes=2, or colors={…} for masks of colors',
        )  # fmt: skip
    if names is not None and classes is not None and len(names) != classes:
        raise ConfigError(
            "names and classes differ", expected=f"{classes} names", found=len(names), hint="set only one"
        )
    labels = LabelSpec(
        names=tuple(names) if names is not None else tuple(map(str, range(classes or 0))),
        ids=tuple(ids or ()),
        ignore_ids=tuple(ignore_ids),
        ignore_index=ignore_index,
        swap_pairs=tuple(swap_pairs),
        side=side,
    )
    return MaskValues(labels, "objects" if instances else "numbers")


def check_reading(val_fraction: float) -> None:
    """Check the share of the validation split.

    Raises:
        ConfigError: A value out of range.
    """
    if not 0 < val_fraction < 1:
        raise ConfigError("wrong val_fraction", expected="between 0 and 1", found=val_fraction, hint="try 0.2")
