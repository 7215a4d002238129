"""Faults of masks: wrong encodings and wrong values."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from .base import TwinLayout, pixels
from .planting import PlantedTwin, declared_values, fault, files, has_masks, indexed, numbered, raw, stacked

Where = Callable[[TwinLayout], bool]
Change = Callable[[TwinLayout, np.ndarray], np.ndarray]


def _numbers(at: TwinLayout) -> bool:
    return raw(at) or stacked(at)


def _several_values(at: TwinLayout) -> bool:
    values = declared_values(at)
    return at.masks not in (None, "jpeg") and values[-1] - values[0] > 2  # closer values show no trace


def _colors(at: TwinLayout, values: np.ndarray) -> np.ndarray:
    """Values in the colors of their classes (H, W, 3); others in white."""
    table = np.full((256, 3), 255, np.uint8)
    if at.labels is not None:
        table[list(at.labels.ids)] = at.labels.palette
    return table[values]


def _through_jpeg(at: TwinLayout, values: np.ndarray) -> np.ndarray:
    file, values = io.BytesIO(), values.astype(np.uint8)
    Image.fromarray(values).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def _resized(at: TwinLayout, values: np.ndarray) -> np.ndarray:
    image = Image.fromarray(values.astype(np.uint8))
    small = image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(image.size, Image.Resampling.BILINEAR))


# code, description, where, what is saved instead of the values, suffix of the new file
ENCODINGS: tuple[tuple[str, str, Where, Change, str | None], ...] = (
    ("jpeg-mask", "a mask saved as JPEG", lambda at: files(at) and at.masks not in ("jpeg", "parts"),
     lambda at, values: values.astype(np.uint8), ".jpg"),
    ("rgb-mask", "a mask of colors instead of class numbers", raw, _colors, None),
    ("alpha-mask", "a mask with an alpha channel", raw,
     lambda at, values: np.dstack([*[values] * 3, np.full_like(values, 255)]).astype(np.uint8), None),
    ("sixteen-bit-mask", "a 16-bit mask: values × 257", lambda at: (_numbers(at) or at.masks == "parts")
     and not numbered(at), lambda at, values: values.astype(np.uint16) * 257, None),
    ("float-mask", "a float32 TIFF as mask", _numbers, lambda at, values: values.astype(np.float32), ".tif"),
)  # fmt: skip
# code, description, where, what becomes of the values of all masks
VALUES: tuple[tuple[str, str, Where, Change], ...] = (
    ("jpeg-values", "masks that were once JPEGs: values close to the original ones", _several_values, _through_jpeg),
    ("interpolated-ids", "masks resized bilinearly: values between the original ones",
     lambda at: _several_values(at) or at.masks == "objects", _resized),
    ("zero-one", "0 and 1 instead of 0 and 255",
     lambda at: at.masks in ("binary", "parts") and at.values is not None and at.values.otherwise is None,
     lambda at, values: values // 255),
    ("zero-255", "0 and 255 instead of class numbers", lambda at: at.masks == "index",
     lambda at, values: (values > declared_values(at)[0]) * np.uint8(255)),
    ("shifted-ids", "all class numbers too high by one", indexed,
     lambda at, values: np.where(values < 255, values + 1, values)),
)  # fmt: skip


def _encode(twin: PlantedTwin, change: Change, suffix: str | None) -> None:
    pair = twin.pick()
    if stacked(twin.layout):
        twin.stack(pair.masks[0], partial(change, twin.layout))
        return
    values = change(twin.layout, twin.values(pair))
    twin.save(pair.masks[0] if suffix is None else twin.renamed(pair.masks[0], suffix), values)


def _change_all(twin: PlantedTwin, change: Change) -> None:
    if stacked(twin.layout):
        twin.stack(twin.pairs[0].masks[0], lambda stack: np.stack([change(twin.layout, page) for page in stack]))
        return
    for pair, path in twin.all_masks():
        try:
            values = twin.values(pair, path)
        except OSError:  # broken by another fault
            continue
        twin.set_values(pair, change(twin.layout, values), path)


for _code, _about, _where, _change, _suffix in ENCODINGS:
    fault(_code, _about, _where)(partial(_encode, change=_change, suffix=_suffix))
for _code, _about, _where, _change in VALUES:
    fault(_code, _about, _where)(partial(_change_all, change=_change))


@fault("multi-frame-mask", "several images in one mask file", lambda at: files(at) and at.masks != "jpeg")
def _multi_frame(twin: PlantedTwin) -> None:
    path = twin.pick().masks[0]
    with Image.open(path) as file:
        image = file.copy()
    other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(path, save_all=True, append_images=[other], duration=100)
    twin.note(path)


@fault("palette-to-gray", "palette masks converted to the brightness of their colors", lambda at: at.masks == "palette")
def _palette_to_gray(twin: PlantedTwin) -> None:
    for pair in twin.pairs:
        twin.save(pair.masks[0], pixels(pair.masks[0], "L"))


def _strange_value(twin: PlantedTwin) -> None:
    pair = twin.pick()
    values = twin.values(pair).copy()
    row, column = (int(twin.rng.integers(n - 3)) for n in values.shape[:2])
    values[row : row + 2, column : column + 3] = 200 if indexed(twin.layout) else 127
    twin.set_values(pair, values)


fault("out-of-range-id", "a few pixels of an undeclared value",
      lambda at: has_masks(at) and at.masks not in ("jpeg", "colors") and not numbered(at))(_strange_value)  # fmt: skip
fault("unknown-color", "a few pixels of an undeclared color", lambda at: at.masks == "colors")(_strange_value)


@fault("all-ignored", "a mask without a labeled pixel", lambda at: bool(
    at.labels and max(at.labels.ignore_ids, default=-1) >= 0))  # fmt: skip
def _all_ignored(twin: PlantedTwin) -> None:
    pair = twin.pick()
    labels = twin.layout.labels
    assert labels is not None  # as `where` requires
    value = min(i for i in labels.ignore_ids if i >= 0)
    twin.set_values(pair, np.full_like(twin.values(pair), value))


def _class_values(twin: PlantedTwin) -> tuple[int, ...]:
    labels = twin.layout.values.labels if twin.layout.values else None
    return labels.ids if labels else ()


@fault("empty-mask", "a mask of a single class", has_masks)
def _empty_mask(twin: PlantedTwin) -> None:
    pair = twin.pick()
    for path in pair.masks if twin.layout.layout.several else pair.masks[:1]:
        values = twin.values(pair, path)
        if numbered(twin.layout):
            twin.set_values(pair, np.zeros_like(values), path)
            continue
        if twin.layout.masks == "colors":
            twin.set_values(pair, np.full_like(values, values[0, 0]), path)
            continue
        counts = {value: np.count_nonzero(values == value) for value in _class_values(twin)}
        most = 0 if twin.layout.masks in ("parts", "jpeg") else max(counts, key=counts.__getitem__)
        twin.set_values(pair, np.full_like(values, most), path)


@fault("inverted-mask", "a mask with foreground and background swapped",
       lambda at: at.labels is not None and at.labels.classes == 2 and at.masks not in (None, "parts")
       and not numbered(at))  # fmt: skip
def _inverted(twin: PlantedTwin) -> None:
    pair = twin.pick()
    values, labels = twin.values(pair), twin.layout.labels
    assert labels is not None  # as `where` requires
    if twin.layout.masks == "jpeg":
        twin.set_values(pair, 255 - values)
        return
    first, second = labels.ids
    twin.set_values(pair, np.where(values == first, second, np.where(values == second, first, values)))


@fault("overlapping-objects", "an object that covers a part of another one", lambda at: at.masks == "object")
def _overlapping(twin: PlantedTwin) -> None:
    pair = twin.pick()
    first, last = pair.masks[0], pair.masks[-1]
    twin.set_values(pair, np.maximum(twin.values(pair, first), twin.values(pair, last)), last)


@fault("single-number", "class masks instead of numbers of objects", lambda at: at.masks == "objects")
def _single_number(twin: PlantedTwin) -> None:
    for pair, path in twin.all_masks():
        twin.set_values(pair, (twin.values(pair, path) > 0).astype(np.uint16), path)


def _many_classes(at: TwinLayout) -> bool:
    return at.labels is not None and at.labels.classes > 2 and (indexed(at) or at.masks == "parts")


@fault("absent-class", "a declared class that no mask contains", _many_classes)
def _absent_class(twin: PlantedTwin) -> None:
    if twin.layout.masks == "parts":
        gone = list(twin.layout.layout.joined)[1]
        for pair in twin.pairs:
            for path in pair.masks:
                if path.stem.endswith(f"_{gone}"):
                    twin.remove(path)
        return
    labels = twin.layout.labels
    assert labels is not None  # as `where` requires
    gone = labels.ids[-1]
    other = labels.ignore_ids[-1] if labels.ignore_ids else labels.ids[0]
    for pair, path in twin.all_masks():
        values = twin.values(pair, path)
        if (values == gone).any():
            twin.set_values(pair, np.where(values == gone, other, values), path)
