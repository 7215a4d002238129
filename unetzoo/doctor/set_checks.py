"""Checks across samples: duplicate images, rare or absent classes, different sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ..labels import LabelSpec
from ..wording import pluralize
from .facts import ImageFacts, Record
from .findings import ClassShare, Findings
from .mask_value_checks import class_counts
from .similarity import check_similar

_RARE = 0.01


def check_twice(records: Iterable[Record], splits: Mapping[str, str], found: Findings) -> None:
    """Find images that occur twice: in one split, in two splits, or with different labels.

    Args:
        records: All samples.
        splits: The split of each image file, if known.
        found: Collects the findings.
    """
    places: dict[bytes, list[tuple[ImageFacts, Record]]] = {}
    for record in records:
        for facts in (record.image, *record.images):
            if facts is not None and facts.digest and not facts.blank:
                places.setdefault(facts.digest, []).append((facts, record))
    for twice in places.values():
        first, its_record = twice[0]
        for facts, record in twice[1:]:
            detail = f"the same as {first.file}"
            here, there = splits.get(facts.file), splits.get(first.file)
            maps = record.label_map, its_record.label_map
            same_labels = None in maps or maps[0].digest == maps[1].digest  # type: ignore[union-attr]
            if here != there and None not in (here, there):
                found.add("leakage", facts.file, f"{here}; {detail}, {there}")
            if not same_labels:
                found.add("conflicting-labels", facts.file, detail)
            elif here == there or None in (here, there):
                found.add("duplicate-image", facts.file, detail)


def check_label_maps(
    records: Sequence[Record], declared: LabelSpec | None, withheld: Collection[str], found: Findings
) -> None:
    """Find masks without labels, or with a single class.

    Args:
        records: All samples.
        declared: The label set of label maps without one.
        withheld: Splits whose labels are not public.
        found: Collects the findings.
    """
    for record in records:
        labels = _labels_of(record, declared)
        if record.label_map is None or labels is None:
            continue
        pixels, ignored = class_counts(record.label_map.counts, labels)
        shown = np.flatnonzero(pixels)
        if ignored and ignored == sum(record.label_map.counts.values()):
            public = record.split not in withheld
            found.add("all-ignored", record.label_file, "" if public else "labels of this split are not public",
                      None if public else "note")  # fmt: skip
        elif len(shown) == 1 and labels.classes > 1:
            found.add("empty-mask", record.label_file, labels.names[shown[0]])


def class_shares(records: Iterable[Record], labels: LabelSpec) -> tuple[ClassShare, ...]:
    """Pixels and images per class, over all readable samples."""
    pixels, images = np.zeros(labels.classes, np.int64), np.zeros(labels.classes, np.int64)
    for record in records:
        if record.label_map is not None:
            own, _ = class_counts(record.label_map.counts, record.label_map.labels or labels)
            pixels += own
            images += own > 0
    total = max(int(pixels.sum()), 1)
    rows = zip(labels.names, pixels.tolist(), images.tolist(), strict=True)
    return tuple(ClassShare(name, count, shown, count / total) for name, count, shown in rows)


def check_balance(shares: Sequence[ClassShare], found: Findings, *, doubt: bool) -> None:
    """Find absent and rare classes; absent ones are warnings if `doubt`, i.e. the declaration may be wrong."""
    if not any(share.pixels for share in shares):
        return
    for share in shares:
        if not share.pixels:
            found.add("absent-class", share.name, severity="warning" if doubt else None)
        elif share.share < _RARE:
            shown = pluralize(share.images, "image")
            found.add("imbalance", share.name, f"{share.share:.2%} of the pixels, in {shown}")


def check_sizes(records: Iterable[Record], found: Findings) -> None:
    """Find images of different sizes."""
    sizes = Counter(record.image.size for record in records if record.image is not None and record.image.readable)
    if len(sizes) > 1:
        for (width, height), count in sizes.most_common():
            found.add("mixed-sizes", f"{width}×{height}", pluralize(count, "image"))


def _labels_of(record: Record, declared: LabelSpec | None) -> LabelSpec | None:
    return (record.label_map.labels if record.label_map else None) or declared


def check_set(
    records: Sequence[Record],
    declared: LabelSpec | None,
    splits: Mapping[str, str],
    found: Findings,
    withheld: Collection[str] = (),
) -> None:
    """Run all checks across samples."""
    check_twice(records, splits, found)
    check_similar(records, splits, found)
    check_label_maps(records, declared, withheld, found)
    check_sizes(records, found)


def spread(count: int, limit: int | None) -> list[int]:
    """All indices, or `limit` evenly spaced ones."""
    if limit is None or limit >= count:
        return list(range(count))
    return np.linspace(0, count - 1, max(limit, 1)).round().astype(int).tolist()
