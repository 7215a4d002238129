"""Crops that contain a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, did_you_mean
from ..labels import LabelSpec
from .settings import wrong


@dataclass(frozen=True)
class Focus:
    """Choice of a pixel on which a crop is centered.

    Args:
        classes: Indices of the classes, or names without a label set; empty for all classes except the ignored one.
        shares: The probability of each class.
        ignored: Value of unlabeled pixels.
    """

    classes: tuple[int | str, ...] = ()
    shares: tuple[float, ...] = ()
    ignored: int | None = None

    @classmethod
    def of(cls, focus: Any, labels: LabelSpec | None) -> Focus | None:
        """Check the setting `focus` of a transform.

        Raises:
            ConfigError: Unknown class, or probabilities that are not in 0…1 or add up to more than 1.
        """
        if focus is None or focus == {}:
            return None
        ignored = labels.ignore_index if labels else None
        if focus == "balanced":
            return cls(ignored=ignored)
        if not isinstance(focus, Mapping):
            raise wrong("focus", focus, 'a table such as {crack = 0.33}, or "balanced"')
        shares = tuple(focus.values())
        if not all(isinstance(share, int | float) and 0 < share <= 1 for share in shares) or sum(shares) > 1:
            raise wrong("focus", focus, "probabilities above 0 with a sum of at most 1")
        return cls(tuple(class_index(name, labels, "focus") for name in focus), tuple(map(float, shares)), ignored)

    def draw(self, mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float] | None:
        """Draw a pixel of a class from a mask, (H, W) or multilabel (H, W, K).

        Returns:
            Its center, relative to height and width, or None for a crop at random.

        Raises:
            ConfigError: Names of classes without a label set.
        """
        if self.classes:
            place = int(np.searchsorted(np.cumsum(self.shares), rng.random(), side="right"))
            number = self.classes[place] if place < len(self.classes) else None
        else:
            present = _classes_in(mask, self.ignored)
            number = present[int(rng.integers(len(present)))] if present else None
        if number is None:
            return None
        if isinstance(number, str):
            raise wrong("focus", number, "an index of a class, or labels beside the names")
        found = np.flatnonzero(mask[..., number] if mask.ndim == 3 else mask == number)
        if not found.size:
            return None
        row, column = divmod(int(found[rng.integers(found.size)]), mask.shape[1])
        return (row + 0.5) / mask.shape[0], (column + 0.5) / mask.shape[1]


def _classes_in(mask: np.ndarray, ignored: int | None) -> list[int]:
    if mask.ndim == 3:
        return np.flatnonzero(mask.any((0, 1))).tolist()
    values = np.flatnonzero(np.bincount(mask.ravel())) if mask.dtype == np.uint8 else np.unique(mask)
    return [value for value in values.tolist() if value != ignored]


def class_index(name: str | int, labels: LabelSpec | None, setting: str) -> str | int:
    """Return the index of a class; names are kept if there are no labels yet, as when a recipe is checked.

    Args:
        name: Name or index of the class.
        labels: The label set.
        setting: Name of the setting, for errors.

    Raises:
        ConfigError: Unknown class.
    """
    if labels is None:
        return name
    if isinstance(name, str) and name in labels.names:
        return labels.names.index(name)
    try:
        index = int(name)
    except ValueError:
        hint = did_you_mean(str(name), labels.names, "class")
        raise ConfigError(f"unknown class {name!r}", subject=f"Transform({setting}=…)", hint=hint) from None
    if not 0 <= index < labels.classes:
        raise wrong(setting, index, f"a class index in 0…{labels.classes - 1}")
    return index
