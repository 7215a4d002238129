"""What users declare about their own data: classes, channels and the share of the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..errors import ConfigError
from ..labels import LabelSpec


def declared_labels(
    subject: str,
    *,
    names: Sequence[str] | None = None,
    classes: int | None = None,
    ids: Sequence[int] | None = None,
    ignore_ids: Sequence[int] = (),
    ignore_index: int | None = None,
    swap_pairs: Sequence[tuple[int, int]] = (),
    side: Literal["viewer", "subject"] | None = None,
) -> LabelSpec:
    """Create the label set of a user's own data.

    Args:
        subject: Name of the dataset in errors.
        names: Class names; alternatively `classes`.
        classes: Number of classes without names.
        ids: The value of each class in mask files, e.g. (0, 255).
        ignore_ids: File values of unlabeled pixels.
        ignore_index: The value of these pixels in loaded masks, e.g. 255.
        swap_pairs: Pairs of classes that are exchanged when an image is mirrored.
        side: Whether left and right are the viewer's or the subject's.

    Raises:
        ConfigError: Missing or inconsistent arguments.

    Examples:
        >>> declared_labels("Folder", classes=2, ids=(0, 255)).lookup()
        {0: 0, 255: 1}
    """
    if isinstance(names, str):
        raise ConfigError(
            "names are not a list", subject=subject, expected='["background", "cell"]', found=repr(names),
            hint="""on the command line quote the whole argument: --set 'data.names=["background", "cell"]'""",
        )  # fmt: skip
    if names is None and classes is None:
        raise ConfigError("classes are not declared", subject=subject, hint='set names=["background", …] or classes=2')
    if names is not None and classes is not None and len(names) != classes:
        raise ConfigError(
            "names and classes differ", expected=f"{classes} names", found=len(names), hint="set only one"
        )
    return LabelSpec(
        names=tuple(names) if names is not None else tuple(map(str, range(classes or 0))),
        ids=tuple(ids or ()),
        ignore_ids=tuple(ignore_ids),
        ignore_index=ignore_index,
        swap_pairs=tuple(swap_pairs),
        side=side,
    )


def check_reading(subject: str, channels: int, val_fraction: float) -> None:
    """Check the number of channels and the share of the validation split.

    Raises:
        ConfigError: Values out of range.
    """
    if channels not in (1, 3):
        raise ConfigError(
            "wrong channels", subject=subject, expected="1 or 3", found=channels, hint="1 is gray, 3 is RGB"
        )
    if not 0 < val_fraction < 1:
        raise ConfigError("wrong val_fraction", expected="between 0 and 1", found=val_fraction, hint="try 0.2")
