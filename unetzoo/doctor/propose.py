"""Propose labels for undeclared masks from the values found."""

from __future__ import annotations

import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..datasets.declared import declared_labels
from ..errors import ConfigError, UnetzooError
from ..labels import LabelSpec
from ..registry import keywords
from ..wording import inline
from .facts import MaskFacts
from .mask_value_checks import ramped

_MOST_CLASSES = 256


def proposal(masks: Sequence[MaskFacts]) -> dict[str, Any] | None:
    """Arguments of `folder` or `csv` that declare the values found; None if these cannot be classes.

    Values that occur in only one of many files are left out if the others are 0, 1, 2, …

    Examples:
        >>> proposal([MaskFacts("a.png", counts={0: 9, 255: 1}), MaskFacts("b.png", counts={0: 10})])
        {'names': ['background', 'foreground'], 'ids': [0, 255]}
        >>> proposal([MaskFacts("a.png", counts={0: 9, 1: 3, 2: 5, 255: 1})])
        {'classes': 3, 'ignore_ids': [255], 'ignore_index': 255}
    """
    sound = [mask for mask in masks if mask.counts and not _smeared(mask)]
    files = Counter(value for mask in sound for value in mask.counts)
    values = sorted(files)
    if len(sound) >= 8:
        common = [value for value in values if files[value] > 1]
        if common and common == list(range(len(common))):
            values = common
    if not values or len(values) > _MOST_CLASSES or max(values) > 65535:
        return None
    if values == [0, 255]:
        return {"names": ["background", "foreground"], "ids": [0, 255]}
    classes = [value for value in values if value != 255]
    if len(classes) < 2:
        return None
    ignored = {"ignore_ids": [255], "ignore_index": 255} if 255 in values else {}
    if max(classes) + 1 <= 2 * len(classes):  # gaps are classes that do not occur in these masks
        return {"classes": max(classes) + 1, **ignored}
    return {"classes": len(classes), "ids": classes, **ignored}


def _smeared(mask: MaskFacts) -> bool:
    """Whether interpolation or JPEG has scattered values over the mask."""
    return mask.lossy or ramped(mask.roughness)


def declaration(options: Mapping[str, Any]) -> LabelSpec | None:
    """The label set declared by arguments of `folder` or `csv`; None if they declare none.

    Raises:
        ConfigError: They contradict each other.
    """
    given = {name: options[name] for name in keywords(declared_labels) if name in options and name != "subject"}
    if given.get("names") is None and given.get("classes") is None:
        return None
    try:
        return declared_labels("the labels", **given)
    except UnetzooError:
        raise
    except (TypeError, ValueError) as error:
        hint = """e.g. --set 'names=["background", "cell"]' --set 'ids=[0, 255]'"""
        raise ConfigError("wrong declaration of labels", found=str(error), hint=hint) from error


def as_options(arguments: Mapping[str, Any], section: str = "") -> str:
    """Arguments as command-line options; with `section="data."`, for a command that takes a recipe.

    Examples:
        >>> print(as_options({"names": ["background", "cell"], "classes": 2}))
        --set 'names=["background", "cell"]' --set classes=2
        >>> print(as_options({"classes": 2}, "data."))
        --set data.classes=2
    """
    return " ".join(f"--set {shlex.quote(f'{section}{name}={_toml(value)}')}" for name, value in arguments.items())


def _toml(value: Any) -> str:
    """A value as `--set` reads it: strings without quotes, unless they would be read as something else."""
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{", '"', "'")):
        try:
            tomllib.loads(f"value = {value}")
        except tomllib.TOMLDecodeError:
            return value
    return inline(value)
