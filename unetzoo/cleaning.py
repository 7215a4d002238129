"""Cleanup of predicted masks: remove small regions and fill holes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, UnknownNameError, did_you_mean
from .labels import LabelSpec, Mode

ALL = "all"
EIGHT = np.ones((3, 3), bool)  # regions are 8-connected, holes therefore 4-connected


@dataclass(frozen=True)
class Cleaning:
    """Cleanup of predicted regions: removes small regions and fills holes. Does nothing by default.

    Regions are 8-connected. Removed pixels take the class of the nearest remaining pixel. A hole is a region of the
    first class (the background) enclosed by a single class.

    Args:
        largest_component: Classes reduced to their largest region; "all" means every class except the first.
        min_area: Minimum number of pixels per region, for every class except the first or by class name.
        fill_holes: Classes whose holes are filled, or "all".

    Examples:
        >>> mask = np.array([[1, 1, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0]], np.uint8)
        >>> spec = LabelSpec(("background", "cell"))
        >>> Cleaning(min_area=2, fill_holes="all").apply(mask, spec)
        array([[1, 1, 1, 0, 0],
               [1, 1, 1, 0, 0],
               [1, 1, 1, 0, 0]], dtype=uint8)
    """

    largest_component: str | Sequence[str] = ()
    min_area: int | Mapping[str, int] = 0
    fill_holes: str | Sequence[str] = ()

    def apply(self, classes: np.ndarray, labels: LabelSpec, mode: Mode | None = None) -> np.ndarray:
        """Clean classes (H, W) or planes (K, H, W).

        Raises:
            UnknownNameError: Unknown class.
            ConfigError: `min_area` is not a number of pixels.
        """
        largest, areas, filled = self.resolved(labels, mode)
        if not largest and not areas and not filled:
            return classes
        if mode == "multilabel":
            planes = [
                _cleaned(plane, {1} if i in largest else set(), {1: areas.get(i, 0)}, {1} if i in filled else set())
                for i, plane in enumerate(classes)
            ]
            return np.stack(planes)
        return _cleaned(classes, largest, areas, filled)

    def resolved(self, labels: LabelSpec, mode: Mode | None = None) -> tuple[set[int], dict[int, int], set[int]]:
        """Return class indices: reduced to the largest region, minimum areas, and with holes to be filled."""
        everything = set(range(0 if mode == "multilabel" else 1, labels.classes))

        def chosen(names: str | Sequence[str]) -> set[int]:
            listed = [names] if isinstance(names, str) else list(names)
            return everything if ALL in listed else {place_of(name, labels) for name in listed}

        if isinstance(self.min_area, Mapping):
            areas = {place_of(name, labels): least for name, least in self.min_area.items()}
        else:
            areas = dict.fromkeys(everything, self.min_area)
        for least in areas.values():
            if not isinstance(least, int) or least < 0:
                raise ConfigError("wrong min_area", expected="a number of pixels", found=repr(least))
        areas = {index: least for index, least in areas.items() if least > 1}
        return chosen(self.largest_component), areas, chosen(self.fill_holes)

    def to_dict(self) -> dict[str, Any]:
        """Return the options that are set, in JSON-serializable form."""
        options = {
            "largest_component": self.largest_component,
            "min_area": self.min_area,
            "fill_holes": self.fill_holes,
        }
        return {key: dict(v) if isinstance(v, Mapping) else v for key, v in options.items() if v}


CANDIDATES = (
    Cleaning(), Cleaning(min_area=64), Cleaning(min_area=256), Cleaning(largest_component=ALL),
    Cleaning(fill_holes=ALL), Cleaning(min_area=64, fill_holes=ALL),
)  # fmt: skip


def candidate_counts(
    predicted: NDArray[Any], truth: NDArray[Any], counted: NDArray[np.bool_], labels: LabelSpec
) -> NDArray[np.int64]:
    """Count right, wrongly added and missed pixels of each class after each of `CANDIDATES`.

    The first class, the background, is left out unless a pixel may have several labels.

    Args:
        predicted: Predicted classes, or planes of 0 and 1.
        truth: True classes, or planes.
        counted: Which pixels count.
        labels: The classes.

    Shape:
        - predicted, truth: (H, W) or (K, H, W)
        - counted: (H, W) or (K, H, W)
        - Output: (candidates, classes, 3)
    """
    mode: Mode | None = "multilabel" if predicted.ndim == 3 else None

    def planes(classes: NDArray[Any]) -> NDArray[np.bool_]:
        return classes > 0 if mode else classes == np.arange(1, labels.classes)[:, None, None]

    true, rows = planes(truth) & counted, []
    for candidate in CANDIDATES:
        found = planes(candidate.apply(predicted, labels, mode)) & counted
        rows.append([(found & true).sum((1, 2)), (found & ~true).sum((1, 2)), (true & ~found).sum((1, 2))])
    return np.array(rows, np.int64).transpose(0, 2, 1)


def best_candidate(counts: NDArray[np.int64]) -> Cleaning | None:
    """Return the candidate with the highest mean F1 of the classes, or None if none is better than no cleanup.

    Args:
        counts: As `candidate_counts` returns, summed over images.
    """
    right, added, missed = np.moveaxis(counts, -1, 0)
    total = 2 * right + added + missed
    occurring = (total > 0).any(0)
    if not occurring.any():
        return None
    scores = np.divide(2 * right, total, out=np.zeros(total.shape), where=total > 0)[:, occurring].mean(1)
    best = int(scores.argmax())
    return CANDIDATES[best] if scores[best] > scores[0] else None


def place_of(name: str, labels: LabelSpec) -> int:
    """Return the index of a class.

    Raises:
        UnknownNameError: Unknown class; the error suggests the nearest name.
    """
    if name not in labels.names:
        raise UnknownNameError(f"unknown class {name!r}", hint=did_you_mean(name, labels.names, "class"))
    return labels.names.index(name)


def _cleaned(classes: np.ndarray, largest: set[int], areas: Mapping[int, int], filled: set[int]) -> np.ndarray:
    from scipy import ndimage

    lost = np.zeros(classes.shape, bool)
    for index in sorted(largest | set(areas)):
        region = classes == index
        found: Any = ndimage.label(region, EIGHT)
        pieces, count = found
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        sizes[0] = 0
        goes = sizes < areas.get(index, 0)
        if index in largest:
            goes |= np.arange(count + 1) != sizes.argmax()
        lost |= region & goes[pieces]
    cleaned = classes.copy()
    if lost.all():
        cleaned[:] = 0
    elif lost.any():
        nearest: Any = ndimage.distance_transform_edt(lost, return_distances=False, return_indices=True)
        cleaned = classes[tuple(nearest)]
    for index in sorted(filled):
        cleaned[ndimage.binary_fill_holes(cleaned == index) & (cleaned == 0)] = index
    return cleaned
