"""Find inverted masks and swapped masks by comparing each sample with all others.

Both tests report only clear cases. In data in which the comparison has no power, they report nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .facts import Record
from .findings import Findings

BLOCK = 4000  # samples compared with each other; a block takes 300 MB
_LEAST = 5

# Misalignment: correlations of mask borders with image edges. The gain from swapping two masks is divided by the
# typical loss from swapping correct ones: in six real data sets no two correct masks gained more than 0.22, and swapped
# ones about 1. In a seventh, of car crops, masks hardly correlate with their own images (0.10).
_TYPICAL_LOSS, _TYPICAL_FIT, _GAIN, _SHARE, _SHARE_IF_BEST = 0.15, 0.12, 0.18, 0.6, 0.35
# Inversion: mean squared deviation from the median mask, capped at 6 deviations per feature. In five real data sets,
# correct masks deviate by up to 5.4, and their inverse deviates less by up to 3; one clear feature contributes 9.
_SPREAD, _CAP, _FAVOR, _TYPICAL = 0.08, 6.0, 7.0, 6.0
_WHOLE = 3  # features of the whole mask, of equal weight; all grid cells together weigh as much as one of them


def compare(records: Sequence[Record], found: Findings) -> None:
    """Run both tests on a block of samples, then discard the maps that they need."""
    check_alignment(records, found)
    check_inversion(records, found)
    for record in records:
        for image in (record.image, record.background, *record.images):
            if image is not None:
                image.edges = image.grays = None
        if record.label_map is not None:
            record.label_map.borders = record.label_map.front = None


def check_alignment(records: Sequence[Record], found: Findings) -> None:
    """Find pairs of masks that fit the image of the other far better than their own."""
    usable = [
        record for record in records
        if record.image is not None and record.image.edges is not None and not record.image.blank
        and record.label_map is not None and record.label_map.borders is not None
        and record.label_map.borders.any() and _upright(record)
    ]  # fmt: skip
    if len(usable) < _LEAST:
        return
    edges = _standardized([record.image.edges for record in usable])  # type: ignore[union-attr]
    borders = _standardized([record.label_map.borders for record in usable])  # type: ignore[union-attr]
    for first, second in swapped_pairs(edges @ borders.T):
        for one, other in ((first, second), (second, first)):
            found.add("misaligned-mask", usable[one].label_file, f"fits {usable[other].name} better")


def swapped_pairs(fits: np.ndarray) -> list[tuple[int, int]]:
    """Pairs whose masks are probably swapped.

    Args:
        fits: How well each mask (columns) fits each image (rows).

    Examples:
        >>> fits = np.full((6, 6), 0.1) + 0.5 * np.eye(6)  # each mask fits its own image
        >>> swapped_pairs(fits), swapped_pairs(fits[:, [0, 4, 2, 3, 1, 5]])
        ([], [(1, 4)])
    """
    own = np.diagonal(fits)
    gain = fits + fits.T - own[:, None] - own[None]
    typical = -float(np.median(gain[np.triu_indices(len(fits), 1)]))
    if typical < _TYPICAL_LOSS or float(np.median(own)) < _TYPICAL_FIT:
        return []
    np.fill_diagonal(gain, -np.inf)
    best, best_mask, best_image = gain.argmax(1), fits.argmax(1), fits.argmax(0)
    pairs = []
    for i, j in enumerate(best.tolist()):
        if i < j and best[j] == i:
            mutual = best_mask[i] == j == best_image[i] and best_mask[j] == i == best_image[j]
            if gain[i, j] > max(_GAIN, (_SHARE_IF_BEST if mutual else _SHARE) * typical):
                pairs.append((i, j))
    return pairs


def _standardized(maps: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.stack([values.ravel() for values in maps]).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _upright(record: Record) -> bool:
    """Whether all files of a sample have the same EXIF orientation; if not, there is another finding."""
    return len({facts.orientation for facts in (record.image, *record.masks) if facts is not None}) == 1


def check_inversion(records: Sequence[Record], found: Findings) -> None:
    """Find two-class masks that match the others only after foreground and background are swapped."""
    usable = [
        (record, record.label_map.front) for record in records
        if record.label_map is not None and record.label_map.front is not None
        and 0 < record.label_map.front.mean() < 255
    ]  # fmt: skip
    if len(usable) < _LEAST:
        return
    features = np.stack([_features(record, front / np.float32(255)) for record, front in usable])
    for (record, _), turned in zip(usable, inverted(features), strict=True):
        if turned:
            found.add("inverted-mask", record.label_file)


def inverted(features: np.ndarray) -> np.ndarray:
    """Which rows are typical only after each feature x is replaced by 1 − x.

    Args:
        features: In [0, 1]: three of the whole mask, then those of its grid cells.

    Examples:
        >>> rows = np.full((6, 10), 0.1); rows[4] = 0.9
        >>> inverted(rows).tolist()
        [False, False, False, False, True, False]
    """
    middle = np.median(features, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(features - middle), axis=0), _SPREAD)

    def deviation(rows: np.ndarray) -> np.ndarray:
        squared = np.minimum(np.abs(rows - middle) / spread, _CAP) ** 2
        return np.column_stack([squared[:, :_WHOLE], squared[:, _WHOLE:].mean(axis=1)]).mean(axis=1)

    own, after_swap = deviation(features), deviation(1 - features)
    return (own - after_swap > _FAVOR) & (after_swap < _TYPICAL)


def _features(record: Record, front: np.ndarray) -> np.ndarray:
    """Share of foreground overall and along the image border, its brightness, and its share in 8 × 8 grid cells."""
    rim = np.concatenate([front[0], front[-1], front[:, 0], front[:, -1]]).mean()
    bright = 0.0
    if record.image is not None and record.image.grays is not None and not record.image.blank:
        maps = _standardized([front, record.image.grays])
        bright = float(maps[0] @ maps[1])
    fields = front.reshape(8, len(front) // 8, 8, -1).mean(axis=(1, 3))
    return np.concatenate([[front.mean(), rim, (1 + bright) / 2], fields.ravel()])
