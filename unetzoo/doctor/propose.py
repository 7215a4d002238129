"""Propose labels for undeclared masks from the values found."""

from __future__ import annotations

import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..datasets.color_masks import COLOR_FILES, read_colors
from ..datasets.declared import declared_masks
from ..datasets.files import PathLike
from ..datasets.layout import MaskValues
from ..datasets.tree import Tree
from ..errors import ConfigError, UnetzooError
from ..labels import LabelSpec, color_of
from ..registry import keywords
from ..wording import inline
from .facts import MaskFacts
from .mask_value_checks import ramped

_MOST_CLASSES = 256
_MOST_COLORS = 4096  # more are those of smoothed masks
_EXPLAINED = 0.99  # share of the pixels whose colors a file must list
_SIMILAR, _OUTNUMBERED = 16, 50  # difference per channel to a color that is this many times more frequent
_ONE_PIECE, _LEAST_OBJECTS = 1.25, 5  # most pieces per number of an object, least objects in the mask with most
_ARBITRARY = 1.5  # masks per number, of numbers that are not 1, 2, 3, …
_NOT_RARE = 0.005  # share of the pixels, in smoothed masks


def proposals(masks: Sequence[MaskFacts]) -> list[dict[str, Any]]:
    """Arguments of `folder` or `csv` that declare the values found, the most likely first; two if both are possible.

    Args:
        masks: Facts of masks. Values that are each in one piece may be numbers of objects instead of classes.

    Examples:
        >>> proposals([MaskFacts("a.png", counts={0: 9, 255: 1}), MaskFacts("b.png", counts={0: 10})])
        [{'names': ['background', 'foreground'], 'ids': [0, 255]}]
        >>> proposals([MaskFacts(name, counts={0: 9, 1: 3, 2: 3}, pieces=2) for name in ("a.png", "b.png")])
        [{'classes': 3}, {'instances': True}]
    """
    classes, objects = _as_classes(masks), {"instances": True}
    if not _one_piece_each(masks):
        return [classes] if classes else []
    return [classes, objects] if classes and not _are_objects(masks) else [objects]


def _as_classes(masks: Sequence[MaskFacts]) -> dict[str, Any] | None:
    """Arguments that declare the values as classes; None if they cannot be classes.

    Values that occur in only one of many files are left out if the others are 0, 1, 2, …, unless they continue these.
    """
    sound = [mask for mask in masks if mask.counts and not _smeared(mask)]
    files = Counter(value for mask in sound for value in mask.counts)
    values = sorted(files)
    if len(sound) >= 8 and values != list(range(len(values))):
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


def _one_piece_each(masks: Sequence[MaskFacts]) -> bool:
    """Whether each value of most masks is in one piece, as numbers of objects are."""
    judged = [mask.pieces <= _ONE_PIECE * len(mask.counts.keys() - {0}) for mask in masks if mask.pieces]
    several = any(_not_classes(mask) or len(mask.counts.keys() - {0}) > 1 for mask in masks)
    return several and 2 * len(judged) >= sum(any(mask.counts) for mask in masks) and sum(judged) >= 0.8 * len(judged)


def _are_objects(masks: Sequence[MaskFacts]) -> bool:
    """Whether values in one piece each are certainly numbers of objects.

    They are if the type of the files is not one of classes, if the masks contain 1, 2, 3, … up to different numbers, or
    if most values occur in one mask only.
    """
    shown = [mask.counts.keys() - {0} for mask in masks if any(mask.counts)]
    sizes = [len(values) for values in shown]
    if any(map(_not_classes, masks)):
        return True
    if sum(max(values) <= 1.1 * len(values) + 1 for values in shown) >= 0.8 * len(shown):
        return max(sizes) >= _LEAST_OBJECTS and len(set(sizes)) > min(2, len(shown) - 1)
    return len(shown) > 1 and sum(sizes) <= _ARBITRARY * len(set().union(*shown)) and sum(sizes) > 2 * len(shown)


def _not_classes(mask: MaskFacts) -> bool:
    """Whether the type of a file is one of numbers of objects only: more than 16 bits."""
    return mask.mode == "I"


def as_objects(counts: Mapping[int, int], labels: LabelSpec | None) -> dict[int, int]:
    """Pixels per number of an object as pixels of background and objects; unlabeled values are kept.

    Examples:
        >>> as_objects({0: 10, 1: 3, 7: 4}, None)
        {0: 10, 1: 7}
    """
    kept = {0, *(labels.ignore_ids if labels else ())}
    found = {value: count for value, count in counts.items() if value in kept}
    objects = sum(count for value, count in counts.items() if value not in kept)
    return {**found, 1: objects} if objects else found


def color_proposal(masks: Sequence[MaskFacts], tree: Tree) -> dict[str, Any] | None:
    """Arguments that declare the colors found, by a file of the data that lists them if there is one.

    Left out are colors that hardly differ from a far more frequent one, and in smoothed masks the rare ones.
    """
    pixels = sum((Counter(mask.counts) for mask in masks), Counter())
    total = pixels.total()
    for file in (file for file in COLOR_FILES if file in tree.files):
        try:
            known = LabelSpec.from_colors(read_colors(tree.root / file)).ids
        except UnetzooError:
            continue
        if sum(pixels[color] for color in known) >= _EXPLAINED * total:
            return {"colors": file}
    if len(pixels) > _MOST_COLORS or any(map(_smeared, masks)):
        kept = [color for color, count in pixels.items() if count >= _NOT_RARE * total]
    else:
        kept = _apart(pixels)
    if not 2 <= len(kept) <= _MOST_CLASSES:
        return None
    ordered = sorted(kept, key=lambda color: (color != 0, -pixels[color], color))
    return {"colors": {"background" if color == 0 else f"class_{index}": list(color_of(color))
                       for index, color in enumerate(ordered)}}  # fmt: skip


def _apart(pixels: Counter[int]) -> list[int]:
    """The colors without those that hardly differ from a far more frequent one."""
    frequent = dict(pixels.most_common(_MOST_CLASSES))
    shades, counts = np.array([color_of(color) for color in frequent]), np.array(list(frequent.values()))

    def stray(color: int) -> bool:
        similar = abs(shades - color_of(color)).max(axis=1) <= _SIMILAR
        return bool((similar & (counts >= _OUTNUMBERED * pixels[color])).any())

    return [color for color in pixels if not stray(color)]


def _smeared(mask: MaskFacts) -> bool:
    """Whether interpolation or JPEG has scattered values over the mask."""
    return mask.lossy or ramped(mask.roughness)


def declaration(options: Mapping[str, Any], root: PathLike = "") -> MaskValues | None:
    """The masks declared by arguments of `folder` or `csv`; None if they declare none.

    Raises:
        ConfigError: They contradict each other.
        DataError: A file of colors that cannot be used.
    """
    given = {name: options[name] for name in keywords(declared_masks) if name in options}
    if all(given.get(name) is None for name in ("names", "classes", "colors")) and not given.get("instances"):
        return None
    try:
        return declared_masks("the labels", **{**given, "root": root})
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
