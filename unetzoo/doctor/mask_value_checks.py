"""Compare the values of masks with the declared ones, and find out where undeclared values come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..datasets.color_masks import nearest
from ..datasets.layout import MaskValues
from ..labels import LabelSpec, color_of
from ..wording import pluralize
from .facts import MaskFacts, Roughness
from .findings import Findings

# Measured shares of borders with single pixels strictly between their neighbors: original labels reach 0.022 (CamVid,
# Cityscapes, faces, cells), labels resized with interpolation start at 0.39, labels that were once a JPEG at 0.15.
_RAMPED = 0.12
_RAMPED_FOR_SURE = 0.2
_FEW_BORDERS = 40
# Measured ratio of pixels astray to pixels between: interpolation up to 0.42, JPEG from 0.97 (0.4 for small values).
_STREWN = 0.6


def check_values(masks: Sequence[tuple[MaskFacts, MaskValues]], found: Findings) -> None:
    """Compare the values of all masks with the declared ones."""
    judged = [(facts, reading.of(facts.counts)) for facts, reading in masks if facts.counts and reading.labels]
    judged = [(facts, reading) for facts, reading in judged if reading.how != "thresholded"]
    numbers = [(facts, reading) for facts, reading in judged if reading.how != "colors"]
    step, palette = _common_step(numbers), _common_palette(numbers)
    smeared = _pooled(facts.roughness for facts, reading in judged if _strange(facts, reading))
    for facts, reading in judged:
        code = "shifted-ids" if step else _accident(facts, reading, smeared, palette=palette)
        if code:
            # ramps of declared values only may be thin classes, unless other masks show where they come from
            doubtful = not step and not _strange(facts, reading) and not ramped(smeared)
            detail = f"all by {step:+d}" if step else _shown(facts, reading)
            ignored = code == "unknown-color" and reading.ignore_unknown
            found.add(code, facts.file, detail, "note" if ignored else "warning" if doubtful else None)
        elif facts.lossy:
            found.add("jpeg-mask", facts.file, "all its values are declared ones", "warning")


def check_objects(masks: Sequence[tuple[MaskFacts, MaskValues]], found: Findings) -> None:
    """Find masks of classes among masks that should have one number per object."""
    counted = [facts for facts, reading in masks if reading.how == "objects" and facts.objects]
    if counted and all(facts.objects == 1 for facts in counted) and any(facts.pieces > 1 for facts in counted):
        for facts in counted:
            found.add("single-number", facts.file, pluralize(facts.pieces, "piece"))


def check_undeclared(masks: Sequence[MaskFacts], found: Findings) -> None:
    """Check masks for which no declaration can be proposed."""
    for mask in masks:
        if mask.roughness.changes >= _FEW_BORDERS and ramped(mask.roughness):
            values = set(mask.counts)
            detail = f"{len(values)} values, {mask.roughness.between:,} of {mask.roughness.changes:,} borders are ramps"
            found.add(_smeared(mask.roughness, mask.roughness, values, values), mask.file, detail)


def declared(reading: MaskValues) -> set[int]:
    """The values that a file may contain."""
    return {value for value in reading.labels.lookup() if value >= 0} if reading.labels else set()


def _strange(facts: MaskFacts, reading: MaskValues) -> set[int]:
    return set(facts.counts) - declared(reading)


def _accident(facts: MaskFacts, reading: MaskValues, others: Roughness, *, palette: bool) -> str:
    """What happened to a mask, as a kind of finding; "" if nothing did.

    Args:
        facts: The mask.
        reading: How it is read.
        others: Roughness of all masks with undeclared values, this one included.
        palette: Whether the values of all masks look like the grays of a palette.
    """
    assert reading.labels is not None
    values, strange, known, own = set(facts.counts), _strange(facts, reading), declared(reading), facts.roughness
    sure = own.changes >= _FEW_BORDERS and own.between >= _RAMPED_FOR_SURE * own.changes
    if not strange:
        return _smeared(own, others, values, known) if sure else ""
    if facts.lossy:
        return "jpeg-mask"
    if reading.how == "colors":
        return _smeared(own, others, set(), known) if sure else "unknown-color"
    if values <= {0, 255}:
        return "zero-255"
    if values <= {0, 1}:
        return "zero-one"
    if facts.mode.startswith("I;16") and max(values) > 255:
        return "sixteen-bit-mask"
    judge = own if own.changes >= _FEW_BORDERS else others
    if ramped(judge) or (len(strange) > 2 and ramped(others) and own.between + own.astray):
        return _smeared(judge, others, values, known)
    if len(values) > 1 and _step(values, known, reading.labels):
        return "shifted-ids"
    if palette or values <= _grays_of_palettes(reading.labels):
        return "palette-to-gray"
    return "out-of-range-id"


def ramped(rough: Roughness) -> bool:
    """Whether borders are lined by values between those of their neighbors, as in no original labels."""
    return rough.between > 0 and rough.between >= _RAMPED * rough.changes


def _smeared(own: Roughness, others: Roughness, values: set[int], known: set[int]) -> str:
    """JPEG or interpolation; a mask with too few traces follows the others."""
    rough = others if ramped(others) else own
    overshot = max(values, default=0) > max(known)  # which interpolation between declared values never does
    return "jpeg-values" if overshot or rough.astray > _STREWN * rough.between else "interpolated-ids"


def _pooled(parts: Iterable[Roughness]) -> Roughness:
    sums = np.sum([tuple(part) for part in parts] or [(0, 0, 0)], axis=0)
    return Roughness(*sums.tolist())


def _common_step(judged: Sequence[tuple[MaskFacts, MaskValues]]) -> int:
    """The offset of the values of all masks; 0 if there is none."""
    specs = {reading.labels for _, reading in judged}
    if len(specs) != 1 or len(judged) < 2:
        return 0
    reading = judged[0][1]
    values = {value for facts, _ in judged for value in facts.counts}
    strange = values - declared(reading)
    assert reading.labels is not None
    rough = _pooled(facts.roughness for facts, _ in judged)
    if not strange or values <= {0, 255} or rough.between >= _RAMPED * rough.changes:
        return 0
    return _step(values, declared(reading), reading.labels)


def _step(values: set[int], known: set[int], labels: LabelSpec) -> int:
    """1 or −1 if all values are declared ones plus that offset, except ignored values; otherwise 0."""
    moved = values - set(labels.ignore_ids) or values
    for step in (1, -1):
        if len(moved) > 1 and {value - step for value in moved} <= known:
            return step
        if len(values) > 1 and {value - step for value in values} <= known:
            return step
    return 0


def _common_palette(judged: Sequence[tuple[MaskFacts, MaskValues]]) -> bool:
    """Whether the values of all masks look like the grays of an unknown palette."""
    specs = {reading.labels for _, reading in judged}
    values = {value for facts, _ in judged for value in facts.counts}
    if len(specs) != 1 or not judged:
        return False
    labels, strange = judged[0][1].labels, values - declared(judged[0][1])
    rough = _pooled(facts.roughness for facts, _ in judged)
    assert labels is not None
    few = len(values) <= labels.classes + max(len(labels.ignore_ids), 1)
    return few and len(strange) >= 2 and 2 * len(strange) >= len(values) and rough.between < _RAMPED * rough.changes


def _grays_of_palettes(labels: LabelSpec) -> set[int]:
    """The grays that `convert("L")` makes of the usual palettes for these classes."""
    voc = [tuple(_voc_channel(index, shift) for shift in range(3)) for index in range(labels.classes)]
    colors = [*labels.palette, *voc, (224, 224, 192), (255, 255, 255), (0, 0, 0)]
    return {(299 * r + 587 * g + 114 * b + 500) // 1000 for r, g, b in colors} | {
        (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16 for r, g, b in colors
    }


def _voc_channel(index: int, channel: int) -> int:
    """A channel of the PASCAL VOC color of an index, whose bits alternate between red, green and blue."""
    return sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))


def _shown(facts: MaskFacts, reading: MaskValues) -> str:
    strange = Counter({value: facts.counts[value] for value in _strange(facts, reading)})
    if not strange:
        return f"{facts.roughness.between:,} of {facts.roughness.changes:,} borders are ramps"
    if reading.how == "colors" and reading.labels is not None:
        near = (f"{color_of(value)} ({count:,} px, nearest {nearest(value, reading.labels)})"
                for value, count in strange.most_common(5))  # fmt: skip
        return ", ".join(near) + (f", … ({len(strange)} colors)" if len(strange) > 5 else "")
    most = ", ".join(f"{value} ({count:,} px)" for value, count in strange.most_common(5))
    return most + (f", … ({len(strange)} values)" if len(strange) > 5 else "")


def class_counts(counts: Mapping[int, int], labels: LabelSpec) -> tuple[np.ndarray, int]:
    """Pixels per class, and the number of ignored pixels; undeclared values count for neither."""
    table = labels.lookup()
    pixels = np.zeros(labels.classes, np.int64)
    ignored = 0
    for value, count in counts.items():
        index = table.get(value)
        if index is not None and 0 <= index < labels.classes and index != labels.ignore_index:
            pixels[index] += count
        elif index is not None:
            ignored += count
    return pixels, ignored
